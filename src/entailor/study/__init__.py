"""The study itself: compare, plan, trials, hyperparameter search, learning curves, estimates."""
