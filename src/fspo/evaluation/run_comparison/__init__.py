"""Several evaluated runs compared on the items they share."""
