"""The report of a run: one self-contained page to be read in five minutes."""
