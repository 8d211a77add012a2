"""Every configuration with sampled responses, with at most a hundred users, by a model that answers at once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import check_no_leak
from fspo.preferences.splits import Splits
from fspo.runs.config import load_config
from fspo.synthesis.domain import load_domain
from fspo.synthesis.domain_files import production_of
from fspo.synthesis.synthesize import Writers, synthesize
from fspo.synthesis.user_slots import slots_of
from tests.synthesis.helpers import ScriptedModel, TopicalModel

ROOT = Path(__file__).parents[2]
CONFIGS = {path.stem: load_config(path) for path in sorted((ROOT / "configs").glob("*.yaml"))}
SAMPLED = {name: config for name, config in CONFIGS.items() if production_of(config.synthesis.domain) == "sampled"}
BUILTIN = {name: config for name, config in SAMPLED.items() if config.endpoint is None}
USERS = {"elix-easy": 5, "elix-hard": 550, "reviews-paper": 8, "roleplay": 1500}
MOST_USERS = 100
"""Spread evenly over all. A user's pairs are drawn from the user's own questions, however many other users there are.

The least questions of a test user, of eight that are needed: 11 in roleplay (10 among all users), 16 in elix-hard (15).
"""
MOST_TOKENS = 80_000
"""Of all responses: what the built-in model writes in eight minutes on two cores, at a cautious 165 a second."""


def test_each_domain_has_a_configuration_for_the_embedded_model() -> None:
    assert BUILTIN.keys() == USERS.keys()
    assert {config.synthesis.domain for config in BUILTIN.values()} == {
        "elix-easy",
        "elix-hard",
        "reviews",
        "roleplay",
    }


@pytest.mark.parametrize("name", BUILTIN)
def test_those_need_no_network_and_are_small(name: str) -> None:
    config = BUILTIN[name].synthesis
    assert BUILTIN[name].model == "smollm2-135m"
    assert (config.judge, config.augment, config.portraits) == ("measured", False, False)
    assert config.steering != "views"  # which would be asked for beside the responses
    assert config.questions * config.responses * config.max_tokens <= MOST_TOKENS


@pytest.mark.parametrize("name", BUILTIN)
def test_they_make_their_datasets(name: str, tmp_path: Path) -> None:
    domain, config = load_domain(BUILTIN[name].synthesis.domain), BUILTIN[name].synthesis
    assert len(slots_of(config, domain)) == USERS[name]
    users = min(USERS[name], MOST_USERS)
    config = config.model_copy(update={"meaning": False, "users": users})
    model = TopicalModel([word for words in domain.topics.values() for word in words])
    synthesize(config, Writers(model, model), tmp_path)
    dataset, splits = PreferenceDataset.load(tmp_path), Splits.load(tmp_path / "splits.json")
    assert len(dataset.users) == users
    assert len(dataset.questions()) >= 0.9 * config.questions
    train, test = splits.part(dataset, "train"), splits.part(dataset, "test")
    check_no_leak(train, test)
    # Enough for the eight shots and eight queries of an episode.
    for part in (train, test):
        questions: dict[str, set[str]] = {}
        for preference in part:
            questions.setdefault(preference.user, set()).add(preference.question)
        assert min(map(len, questions.values())) >= 8
    checks = json.loads((tmp_path / "checks.json").read_text())
    assert checks["labels"]["per_user"]["least"] >= 16


def test_the_one_for_an_endpoint_has_every_stage(tmp_path: Path) -> None:
    (name,) = SAMPLED.keys() - BUILTIN.keys()
    whole = SAMPLED[name].synthesis
    assert (whole.judge, whole.steering, whole.augment, whole.portraits) == ("llm", "views", True, True)
    assert whole.refinement and whole.disagreement
    small = {"questions": 130, "responses": 4, "pairs": 40, "shared_pairs": 16, "meaning": False}
    model = ScriptedModel()
    synthesize(whole.model_copy(update=small), Writers(model, model), tmp_path)
    checks = json.loads((tmp_path / "checks.json").read_text())
    seeds = len(load_domain(whole.domain).seeds)
    assert checks["counts"]["seeds"] <= seeds < checks["counts"]["questions"]
    assert checks["refinement"]["sentences"] > 0
    assert all(viewpoint.startswith("Think of") for viewpoint in checks["sampling"]["steered"])


def test_its_commented_settings_are_settings(tmp_path: Path) -> None:
    (name,) = SAMPLED.keys() - BUILTIN.keys()
    text = (ROOT / f"configs/{name}.yaml").read_text(encoding="utf-8")
    dollars = "budget: {tokens: 22000000}\n  # budget: {dollars"
    assert dollars in text
    text = text.replace(dollars, "budget: {dollars")
    for commented in ("# key_variable:", "# ensemble:", "#   - {"):
        assert commented in text
        text = text.replace(commented, commented.removeprefix("# ") if commented[2] != " " else commented[1:])
    path = tmp_path / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    config = load_config(path)
    assert config.endpoint is not None and config.endpoint.budget.dollars == 25
    assert config.endpoint.key_variable == "MY_KEY"
    assert [member.weight for member in config.ensemble] == [2, 2, 1]
