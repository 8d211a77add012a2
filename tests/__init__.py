"""The tests mirror the rooms of the package; `tests/e2e` runs the real commands."""
