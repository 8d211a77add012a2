"""What the best reader of the same shots reaches, and how far a method stays behind it."""
