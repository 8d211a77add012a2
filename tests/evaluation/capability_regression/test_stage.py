"""The tax as a figure: what the base model did less what the method does, on the same items."""

from __future__ import annotations

from pathlib import Path

import pytest

from fspo.evaluation.capability_regression.answers import Variant
from fspo.evaluation.capability_regression.judging import TaxJudges
from fspo.evaluation.capability_regression.stage import CapabilityRegression, tax_metrics, training_tax
from fspo.evaluation.config import EvaluationConfig, TaxConfig
from fspo.evaluation.context import Evaluation
from fspo.evaluation.scoring.eval_episodes import build_trials
from fspo.evaluation.scoring.weights import Weights
from fspo.evaluation.statistics.intervals import Cell
from fspo.files import read_jsonl
from fspo.judging.verdicts import Preferred
from fspo.preferences.types import User
from fspo.progress import Silent
from tests.evaluation.helpers import small_dataset

Scored = dict[tuple[Variant, Cell], float]


def scored(variant: Variant, value: float, *, users: int = 4, items: int = 12) -> Scored:
    """Users take turns at the items; bare ones have no user."""
    if variant == "bare":
        return {("bare", ("", f"i{n}")): value for n in range(items)}
    return {(variant, (f"u{n % users}", f"i{n}")): value for n in range(items)}


def test_what_is_lost_is_the_tax() -> None:
    base = scored("bare", 1.0)
    own = scored("bare", 1.0) | scored("personal", 0.0) | {("personal", ("u0", "i0")): 1.0}
    found = tax_metrics("general", own, base)
    assert found["tax_general"].value == pytest.approx(11 / 12)
    assert (found["tax_general"].users, found["tax_general"].items) == (4, 12)
    assert found["tax_general/bare"].value == 0.0
    assert found["general_pass/personal"].value == pytest.approx(1 / 12)
    assert found["general_pass/bare"].value == 1.0
    assert found["tax_general"].low is not None and found["tax_general"].low > 0.3


def test_who_answers_better_has_a_tax_below_zero_and_the_base_has_none() -> None:
    base = scored("bare", 0.0)
    assert tax_metrics("refusal", scored("personal", 1.0), base)["tax_refusal"].value == -1.0
    assert set(tax_metrics("refusal", base, base, is_base=True)) == {"refusal_rate/bare"}
    assert tax_metrics("refusal", {}, base) == {}


def test_items_that_the_base_did_not_answer_are_no_comparison() -> None:
    found = tax_metrics("general", scored("personal", 1.0), {})
    assert set(found) == {"general_pass/personal"}


def test_what_training_costs_is_told_apart_from_what_shots_cost() -> None:
    before = scored("personal", 1.0) | scored("bare", 1.0)
    found = training_tax("general", scored("personal", 0.0) | scored("bare", 1.0), before)
    assert set(found) == {"tax_general/training"}
    assert (found["tax_general/training"].value, found["tax_general/training"].items) == (1.0, 12)
    assert training_tax("general", scored("bare", 0.0), before) == {}


def stage(
    tiny_model_path: Path, out: Path, tax: TaxConfig | None, policies: dict[str, Path | None]
) -> CapabilityRegression:
    dataset = small_dataset("test")
    config = EvaluationConfig(shots=2, queries=2, tax=tax)
    weights = Weights(str(tiny_model_path), policies, dtype="float32", max_length=None)
    trials = build_trials(dataset, config)
    return CapabilityRegression(Evaluation(config, dataset, trials, list(policies), weights, out, Silent()))


@pytest.mark.filterwarnings("ignore:Already found a .peft_config. attribute")
def test_methods_of_every_kind_on_a_tiny_model(
    tiny_model_path: Path, policies: dict[str, Path | None], tmp_path: Path
) -> None:
    tax = TaxConfig(users=3, general=2, refusals=1, max_new_tokens=3)
    made = stage(tiny_model_path, tmp_path, tax, policies)
    for name in ("few-shot", "fspo", "ipo", "oracle", "base", "base"):
        made.use_weights(name, None)
    rows = {name: made.estimates(name) for name in ("base", "few-shot", "fspo", "ipo", "oracle", "pref-ft")}
    assert {"general_pass/bare", "refusal_rate/bare", "general_fluency/bare"} == set(rows["base"])
    assert {"tax_general", "tax_refusal", "tax_refusal/injected", "tax_fluency"} <= rows["few-shot"].keys()
    assert "tax_general/bare" not in rows["few-shot"]  # the base model's own answers
    assert {"tax_general", "tax_general/bare", "tax_refusal/bare", "tax_fluency/bare"} <= rows["fspo"].keys()
    assert "tax_general" not in rows["ipo"] and "tax_general/bare" in rows["ipo"]
    assert "tax_refusal/injected" not in rows["oracle"] and "tax_refusal" in rows["oracle"]
    assert rows["pref-ft"] == {}
    assert (rows["fspo"]["tax_general"].users, rows["fspo"]["tax_general"].items) == (3, 6)
    lines = (tmp_path / "fspo" / "tax.jsonl").read_bytes()
    stage(tiny_model_path, tmp_path, tax, policies).use_weights("fspo", None)
    assert (tmp_path / "fspo" / "tax.jsonl").read_bytes() == lines
    assert len(read_jsonl(tmp_path / "base" / "tax.jsonl")) == 9


class Longer:
    """Prefers the longer answer, for whomever."""

    identity = "longer"

    def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
        return "tie" if len(first) == len(second) else "first" if len(first) > len(second) else "second"


def test_open_instructions_cost_what_a_judge_says(
    tiny_model_path: Path, policies: dict[str, Path | None], tmp_path: Path
) -> None:
    entry = {"name": "longer", "endpoint": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}}
    settings = {"users": 3, "general": 0, "open": 3, "refusals": 0, "max_new_tokens": 6}
    tax = TaxConfig.model_validate(settings | {"judges": [entry, entry | {"name": "again"}]})
    made = stage(tiny_model_path, tmp_path, tax, policies)
    made.judges = TaxJudges({"longer": Longer(), "again": Longer()}, tmp_path)
    for name in ("few-shot", "fspo", "ipo", "base"):
        made.use_weights(name, None)
    rows = {name: made.estimates(name) for name in ("base", "few-shot", "fspo", "ipo")}
    assert not any("open" in measure or "win_rate" in measure for measure in rows["base"])
    assert {"tax_open", "general_win_rate/personal", "general_win_rate_by/again/personal"} <= rows["few-shot"].keys()
    assert "tax_open/bare" not in rows["few-shot"] and "tax_open/training" not in rows["few-shot"]
    assert {"tax_open", "tax_open/bare", "tax_open/training"} <= rows["fspo"].keys()
    assert "tax_open" not in rows["ipo"] and "tax_open/bare" in rows["ipo"]
    answers = {
        (row["variant"], row["user"], row["item"]): row["text"] for row in read_jsonl(tmp_path / "fspo/tax.jsonl")
    }
    base = {row["item"]: row["text"] for row in read_jsonl(tmp_path / "base/tax.jsonl")}
    won = [
        0.5 if len(text) == len(base[item]) else float(len(text) > len(base[item]))
        for (variant, _, item), text in answers.items()
        if variant == "personal"
    ]
    assert len(won) == 9
    assert rows["fspo"]["general_win_rate/personal"].value == pytest.approx(sum(won) / 9)
    assert rows["fspo"]["tax_open"].value == pytest.approx(0.5 - sum(won) / 9)
    assert set(made.files({})["judges.json"]["tax"]) == {"longer", "again"}
    assert rows["fspo"]["tax_open"].low is not None and rows["fspo"]["tax_open"].low >= -0.5
    assert rows["fspo"]["tax_open"].high is not None and rows["fspo"]["tax_open"].high <= 0.5


def test_without_the_setting_nothing_is_asked(tiny_model_path: Path, tmp_path: Path) -> None:
    made = stage(tiny_model_path, tmp_path, None, {"base": None})
    made.use_weights("base", None)
    assert made.estimates("base") == {}
    assert not (tmp_path / "base").exists()
