"""Synthetic users, responses and labels, stage by stage."""
