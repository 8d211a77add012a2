"""Answers that several systems gave elsewhere, judged like the answers of a run."""
