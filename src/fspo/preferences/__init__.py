"""Users, preferences and episodes: the dataset on disk, its splits, and how episodes are drawn from it."""
