"""What the stages before labelling leave in a dataset's folder, read again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fspo.files import read_jsonl
from fspo.synthesis.recipe.questions import Question, Questions
from fspo.synthesis.recipe.responses import Response, Responses

__all__ = ["JUDGE", "QUESTIONS", "RESPONSES", "load_questions", "load_responses"]

QUESTIONS, RESPONSES, JUDGE = "questions.jsonl", "responses.jsonl", "judge.json"


def load_questions(out: Path) -> Questions:
    """The questions, and what was not used."""
    header, *rows = read_jsonl(out / QUESTIONS)
    return Questions([Question(**row) for row in rows], Counter(header["rejected"]))


def load_responses(out: Path) -> Responses:
    """The responses, and what was not used."""
    header, *rows = read_jsonl(out / RESPONSES)
    return Responses([Response(**row) for row in rows], header["asked"], Counter(header["rejected"]))
