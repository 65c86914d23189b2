"""Exact shortcuts on a CPU: each file holds a naive reference and the fast version, and tests hold one to the other."""
