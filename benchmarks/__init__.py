"""Side-by-side measurements, each run as `python -m benchmarks.NAME`; the last line printed is its figures as JSON."""
