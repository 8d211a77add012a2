"""Answers and who judges them."""
