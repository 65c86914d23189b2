"""Where teams look: the trials of a run in TensorBoard, MLflow, Weights & Biases or trackio.

The run goes as without them: they are told of what happens, by the same events as everybody else, and decide nothing.
"""
