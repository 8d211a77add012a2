"""What wrong, external or reordered shots change."""
