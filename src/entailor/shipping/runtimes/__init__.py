"""What answers for an exported folder, one file a format; each needs that format's runtime only.

The same text becomes the folder's `predict.py`, so none of these files imports Entailor but for `tokens`, whose text is
put in front.
"""
