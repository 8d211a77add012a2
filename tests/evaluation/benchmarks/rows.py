"""Small published datasets, in rows of exactly the columns they were published with."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.preferences.test_published import BENCH, ELIX, REVIEWS, ROLEPLAY, personal, prism

__all__ = ["Row", "bench_rows", "domain_rows", "personal_rows", "prism_rows", "written"]

Row = dict[str, Any]

_USERS: Mapping[str, Sequence[str | int]] = {
    "reviews": ("positive", "positive+concise", "negative+verbose", "negative+concise"),
    "elix": ("child", "pupil", "student", "PhD"),
    "roleplay": (11, 12, 13, 14),
}

_WORDS = ("rain", "stars", "trains", "bread", "music", "tides", "salt", "glass", "wind", "iron", "ink", "maps")


def written(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """The rows as a file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def bench_rows(users: int = 4, shown: int = 5, asked: int = 3) -> list[Row]:
    """PersonalRewardBench: each user has `shown` earlier pairs (train and val) and `asked` test pairs."""
    rows = []
    for user in range(users):
        splits = ["train"] * (shown - 1) + ["val"] + ["test"] * asked
        for number, split in enumerate(splits):
            context = [{"role": "user", "content": f"What about {_WORDS[number]}, person {user}?"}]
            good, bad = _answers(user, number)
            replies = {
                "chosen": {"role": "assistant", "content": good},
                "rejected": {"role": "assistant", "content": bad},
            }
            rows.append(BENCH | {"user_id": f"user{user}", "split": split, "context": context} | replies)
    return rows


def prism_rows(users: int = 4, conversations: int = 6) -> list[Row]:
    """PRISM's utterances: conversations of one turn with three answers each, the first of them chosen."""
    rows = []
    for user in range(users):
        for number in range(conversations):
            answers = [f"{text} Answer {place}." for place, text in enumerate((*_answers(user, number), "No idea."))]
            rows += [
                prism(
                    f"i{user}-{number}",
                    text,
                    place == 0,
                    user_id=f"user{user}",
                    user_prompt=f"What about {_WORDS[number]}, person {user}?",
                )
                for place, text in enumerate(answers)
            ]
    return rows


def personal_rows(prompts: int = 16) -> list[Row]:
    """PersonalLLM: eight responses to each prompt, scored by two reward models."""
    rng = random.Random(0)
    return [personal(f"Tell me of {n}.", *((rng.random(), rng.random()) for _ in range(8))) for n in range(prompts)]


def domain_rows(kind: str, questions: int = 12) -> list[Row]:
    """Rows of Reviews, ELIX or Roleplay, of four users each."""
    users = _USERS[kind]
    rows: list[Row] = []
    for place, user in enumerate(users):
        for number in range(questions):
            good, bad = _answers(place, number)
            prompt = f"What about {_WORDS[number]}?"
            if kind == "roleplay":
                rows.append(ROLEPLAY | {"x": prompt, "yw": good, "yl": bad, "level": user})
                continue
            row = REVIEWS if kind == "reviews" else ELIX
            rows.append(
                row | {"prompt": prompt, "response_x": good, "response_y": bad, "label": 0, "scorer_level": user}
            )
    return rows


def _answers(user: int, number: int) -> tuple[str, str]:
    """What a user prefers, and what not: some like it long, others short."""
    short, long = f"{_WORDS[number].capitalize()}, yes.", f"Of {_WORDS[number]} there is a great deal to say, {user}."
    return (long, short) if user % 2 else (short, long)
