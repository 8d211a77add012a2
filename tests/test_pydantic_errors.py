"""What pydantic finds wrong, in one sentence."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError

from fspo.pydantic_errors import first_fault


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    shots: int = 1
    key: str = ""


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    rows: list[Inner] = []
    size: float | list[int] = 1.0
    endpoint: dict[str, int] = {}
    colour: Literal["red", "dark green"] = "red"


@pytest.mark.parametrize(
    ("values", "key", "sentence"),
    [
        ({}, ("name",), "the setting 'all.name' is missing."),
        ({"nme": "a"}, ("nme",), "there is no setting 'all.nme' (1 more after it); did you mean 'all.name'?"),
        (
            {"name": "a", "rows": [{"shot": 1}]},
            ("rows", "0", "shot"),
            "there is no setting 'all.rows.0.shot'; did you mean 'all.rows.0.shots'?",
        ),
        ({"name": "a", "rows": [{"zzz": 1}]}, ("rows", "0", "zzz"), "; the known ones are shots, key."),
        ({"name": 1}, ("name",), "'all.name': must be text, not 1; write it in quotes."),
        ({"name": "a", "size": "b"}, ("size",), "not 'b' (1 more after it)."),
        (
            {"name": "a", "colour": "blue"},
            ("colour",),
            "'all.colour': input should be 'red' or 'dark green', not 'blue'.",
        ),
        ({"name": "a", "colour": "green"}, ("colour",), ", not 'green'; did you mean 'dark green'?"),
        ({"name": "a", "endpoint": {"n": "hidden"}}, ("endpoint", "n"), "must be a whole number."),
    ],
)
def test_the_first_thing_wrong_is_named_with_its_place(values: Any, key: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(values)
    fault = first_fault(caught.value, Outer, ("all",))
    assert fault.key == ("all", *key)
    assert fault.sentence.endswith(sentence)
