"""Answers made alike: bare texts, and lengths within a band."""

from __future__ import annotations

from fspo.evaluation.judges.matching import bared, matched_in_length
from fspo.evaluation.judges.win_rates import Answer


def test_pairs_within_the_band_are_kept_whichever_is_longer() -> None:
    def answers(method: str, *lengths: int) -> list[Answer]:
        return [Answer(method, "plain", f"{n}", "u", "p", "x" * length) for n, length in enumerate(lengths)]

    base = {answer.item: answer for answer in answers("base", 100, 100, 100, 100, 0)}
    kept = matched_in_length(answers("fspo", 125, 80, 126, 79, 0), base, 1.25)
    assert [answer.item for answer in kept] == ["0", "1", "4"]
    assert bared(answers("fspo", 3))[0].text == "xxx"
