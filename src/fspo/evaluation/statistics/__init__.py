"""Statistics of evaluations: everything is clustered by user, and too few users give no interval.

`docs/statistics.md` says in plain words which interval is taken, why, and what was measured of it.
"""
