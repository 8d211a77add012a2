"""Policies with machinery of their own: a file each, whose `ROWS` are rows of the table of methods.

A file is imported with the table, so it imports torch and its like only inside functions.
"""
