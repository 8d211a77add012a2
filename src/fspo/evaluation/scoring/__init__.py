"""How methods and other reward models score held-out preferences."""
