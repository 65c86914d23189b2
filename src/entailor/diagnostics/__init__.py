"""The data doctor: one file a check, found by itself; `base.examine` runs them all over a split."""
