"""The run folder: records, layout, atomic files, integrity, lock, environment."""
