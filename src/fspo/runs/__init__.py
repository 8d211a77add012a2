"""Runs as a library: their configuration, their folder, and the way from synthesis to the report."""
