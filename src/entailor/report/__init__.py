"""How a comparison is shown: as a table in the terminal, as plots, as one self-contained page.

Reads records and JSON only; no figure is computed here that comparison.json does not hold.
"""
