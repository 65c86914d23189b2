"""What records say: metrics of one trial, statistics between trials, and the comparison of all of them.

Reads :class:`~entailor.runs.record.RunRecord` only; knows nothing of models, tokens or texts.
"""
