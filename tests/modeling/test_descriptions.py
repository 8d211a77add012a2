from __future__ import annotations

from pathlib import Path

import pytest

from fspo.modeling.descriptions import _line, write_descriptions
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.types import Preference

SHOTS = tuple(Preference("ann", f"Review film {n}.", f"Good {n}!", f"It was bad, number {n}.") for n in range(3))


def test_a_description_goes_by_its_own_shots_alone(tiny_model_path: Path) -> None:
    model, renderer = load_model(tiny_model_path), EpisodeRenderer(load_tokenizer(tiny_model_path), context="none")
    swapped = tuple(shot.swap() for shot in SHOTS)
    wanted = [SHOTS, (), swapped, SHOTS]
    rows = write_descriptions(model, renderer, wanted, seeds=[1, 2, 3, 4], max_new_tokens=8, temperature=1.0)
    assert (rows[1].text, rows[1].tokens, rows[1].read) == ("", 0, 0)
    assert all(0 < row.tokens <= 8 and row.read > 10 for row in (rows[0], rows[2], rows[3]))
    [alone] = write_descriptions(model, renderer, [swapped], seeds=[3], max_new_tokens=8, temperature=1.0)
    assert alone == rows[2]
    assert rows[0].text != rows[3].text
    first, again = (write_descriptions(model, renderer, [SHOTS], max_new_tokens=8) for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("text", "whole", "line"),
    [
        ("Likes it.\n Really ", True, "Likes it. Really"),
        ("Likes it. And th", False, "Likes it."),
        ("Likes th", False, "Likes th"),
    ],
)
def test_what_was_begun_beyond_the_last_sentence_is_dropped(text: str, whole: bool, line: str) -> None:
    assert _line(text, whole=whole) == line
