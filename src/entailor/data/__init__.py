"""Labelled text in: reading files and data sets, checking them, splitting them, and the bundled data."""
