"""Objectives as pure functions, and the trainer."""
