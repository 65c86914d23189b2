"""Finished classifiers behind an HTTP endpoint; needs the extra ``serve``."""
