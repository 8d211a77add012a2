from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fspo.synthesis.restyled.config import RestyledConfig


def test_the_default_is_the_demo() -> None:
    config = RestyledConfig()
    assert config.attributes == ("sentiment", "length", "bullets", "emoji", "exclamation", "first_person")
    assert config.titles * config.questions * config.samples == 400


@pytest.mark.parametrize(
    "settings",
    [
        {"titels": 3},
        {"attributes": ["length"]},
        {"long_words": 50},
        {"held_out": 0.7, "validation": 0.3},
        {"titles": 3, "held_out": 0.5, "validation": 0.4},
        {"titles": 4, "held_out": 0.9, "validation": 0.0},
        {"samples": 0},
        {"domain": "elsewhere"},
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        RestyledConfig(**settings)


def test_a_misspelt_attribute_is_named() -> None:
    with pytest.raises(ValidationError, match="did you mean 'emoji'"):
        RestyledConfig(attributes=("length", "emojy"))
