"""What is asked for the tax: whose shots, where the harm stands, and that killed runs draw the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fspo.evaluation.capability_regression.answers import TaxAnswer, build_requests, draw_tax_answers, with_harm
from fspo.evaluation.capability_regression.items import tax_items
from fspo.evaluation.config import EvaluationConfig, TaxConfig
from fspo.evaluation.scoring.eval_episodes import build_trials
from fspo.evaluation.scoring.weights import LoadableModel
from tests.evaluation.helpers import small_dataset

TAX = TaxConfig(users=2, general=2, refusals=1, max_new_tokens=4)
PEOPLE = [trial.own for trial in build_trials(small_dataset("test"), EvaluationConfig(shots=3, queries=2))][:2]


@pytest.mark.parametrize(
    ("context", "counts"),
    [
        ("none", {"bare": 6}),
        ("description", {"bare": 6, "personal": 6}),
        ("shots", {"bare": 6, "personal": 6, "injected": 2}),
        ("both", {"bare": 6, "personal": 6, "injected": 2}),
    ],
)
def test_who_is_told_nothing_of_users_is_asked_the_bare_prompts_alone(context: Any, counts: dict[str, int]) -> None:
    asked = build_requests(context, PEOPLE, TAX)
    assert {name: sum(one.variant == name for one in asked) for name in counts} == counts
    assert sum(counts.values()) == len(asked)
    assert all(one.user == "" and one.shots == () for one in asked if one.variant == "bare")
    assert {one.user for one in asked if one.variant != "bare"} <= {person.user for person in PEOPLE}


def test_open_instructions_come_last_and_only_where_somebody_judges_them() -> None:
    endpoint = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
    settings = TAX.model_dump() | {"open": 3, "judges": [{"name": "far", "endpoint": endpoint}]}
    before, asked = (
        build_requests("shots", PEOPLE, TAX),
        build_requests("shots", PEOPLE, TaxConfig.model_validate(settings)),
    )
    assert asked[: len(before)] == before
    more = asked[len(before) :]
    opened = {item.id for item in tax_items().open}
    assert [one.variant for one in more] == ["bare"] * 6 + ["personal"] * 6
    assert {one.item for one in more} <= opened and len({one.item for one in more}) == 6
    assert all(one.variant == "bare" for one in build_requests("none", PEOPLE, TaxConfig.model_validate(settings)))


def test_harm_stands_in_every_second_prompt_the_newest_among_them() -> None:
    shots = PEOPLE[0].shots
    changed = with_harm(shots, "harm")
    assert [shot.prompt == "harm" for shot in changed] == [True, False, True]
    assert [(s.chosen, s.rejected) for s in changed] == [(s.chosen, s.rejected) for s in shots]
    assert [shot.prompt == "harm" for shot in with_harm(shots[:1], "harm")] == [True]
    assert with_harm((), "harm") == ()
    injected = [one for one in build_requests("shots", PEOPLE, TAX) if one.variant == "injected"]
    assert all(one.shots[-1].prompt == one.prompt for one in injected)


def drawn(model_path: Path, path: Path, *, model: Any = "load", fingerprint: str = "w") -> list[TaxAnswer]:
    from fspo.modeling.loading import load_model, load_tokenizer
    from fspo.modeling.rendering import EpisodeRenderer

    load: Any = (lambda: load_model(str(model_path))) if model == "load" else lambda: pytest.fail("loaded")
    return draw_tax_answers(
        LoadableModel(load, EpisodeRenderer(load_tokenizer(str(model_path)), context="shots"), fingerprint),
        build_requests("shots", PEOPLE, TAX),
        max_new_tokens=TAX.max_new_tokens,
        batch=4,
        path=path,
    )


def test_a_killed_run_draws_the_same_and_what_is_known_needs_no_model(tiny_model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "tax.jsonl"
    whole = drawn(tiny_model_path, path)
    assert len(whole) == 14
    assert len({(a.variant, a.user, a.item) for a in whole}) == 14
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:5]) + lines[5][:20], encoding="utf-8")
    assert drawn(tiny_model_path, path) == whole
    assert drawn(tiny_model_path, path, model=None) == whole
    before = len(path.read_text(encoding="utf-8").splitlines())
    drawn(tiny_model_path, path, fingerprint="others")
    assert len(path.read_text(encoding="utf-8").splitlines()) == before + 14
