"""The configurations of written responses, cut down: no model is asked for data, nor to judge rewards and answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, run
from tests.runs.test_training_data import saved

SMALL = (
    "synthesis.users=20",
    "training.all.steps=2",
    "training.all.save_every=2",
    "training.all.shots=2",
    "training.all.queries=2",
    "training.all.lora={r: 4, alpha: 8}",
    "training.pref-ft.steps=2",
    "training.ipo.steps=2",
    "training.fspo.steps=2",
    "training.fspo.shots=2",
    "training.fspo.queries=2",
    "training.fspo.ladder=[1, 2]",
    "training.fspo.responses=3",
    "evaluation.users=3",
    "evaluation.shots=2",
    "evaluation.ladder=[0, 2]",
    "evaluation.queries=2",
    "evaluation.ladder_queries=1",
    "evaluation.robustness={users: 1, queries: 1, wrong_labels: [], orders: 0, single_shots: true}",
    "evaluation.answers=1",
    "evaluation.max_new_tokens=8",
    "evaluation.samplings=[plain]",
    "evaluation.headline_sampling=plain",
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["advice", "elix-written", "reviews-written", "written"])
def test_a_written_domain_goes_from_its_configuration_to_the_report(
    name: str, tiny_model_path: Path, tmp_path: Path
) -> None:
    several = name in ("advice", "written")
    also = saved(tmp_path / "other", "other") if several else ""  # users who weigh an unknown trait
    # The configuration of advice trains and measures the other methods in the same way.
    methods = ["methods=[base, few-shot, fspo]"] if name in ("elix-written", "reviews-written") else []
    settings = (f"model={tiny_model_path}", f"also_train=[{also}]", *SMALL, *methods)
    sets = [word for setting in settings for word in ("--set", setting)]
    arguments = ["run", ROOT / f"configs/{name}.yaml", "--output", tmp_path / "run", *sets]
    said = run(*arguments, undrawn=True).stdout
    assert "Responses that come with the domain; pairs judged by the traits that they declare" in said
    assert not list((tmp_path / "run").glob("answers*"))
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert {"reward_accuracy", "label_flip_rate", "regret", "shot_effect/1", "shot_effect/2"} <= metrics["fspo"].keys()
    left_out = json.loads((tmp_path / "run/evaluation/details.json").read_text())["unjudged_users"]
    assert ("are left out of the win rates" in said) is bool(left_out)
    assert left_out == 0 or name == "reviews-written"
    assert metrics["fspo"].get("win_rate", {"users": 0})["users"] == 3 - left_out
    assert ("answer_utility/plain" in metrics["fspo"]) is (left_out < 3)
    observer = json.loads((tmp_path / "run/evaluation/observer.json").read_text())
    assert observer["reward_accuracy@2"]["value"] > observer["reward_accuracy@0"]["value"] - 0.1
    assert (tmp_path / "run/report.html").stat().st_size > 0
