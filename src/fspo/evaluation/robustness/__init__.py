"""What wrong, foreign or reordered shots change."""
