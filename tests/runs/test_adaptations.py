"""Policies that adapt to each user in a run: trained, measured, resumed, and refused in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError, ModelError
from fspo.evaluation.artifacts import read_details
from fspo.methods.adaptation import AdaptationRow
from fspo.methods.policies.ttt import TestTimeTraining
from fspo.modeling.policies import export_policy
from fspo.modeling.policy import Policy
from fspo.runs import pipeline
from fspo.runs.config import load_config
from tests.runs.test_readers import EVALUATED, all_parts, run

# peft finds what is left of a merged adapter.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a .peft_config. attribute")

SHORT = {"steps": 2, "users_per_step": 2, "queries": 2, "warmup": 0, "lora": {"r": 2, "alpha": 4}}

NEURAL = {"shots": 2, "hidden": 8, "heads": 2, "components": 4, "mirror": True}


@pytest.mark.usefixtures("undrawn")
def test_they_stand_beside_the_other_methods(tmp_path: Path, tiny_model_path: Path) -> None:
    values: dict[str, Any] = {
        "methods": ["ipo", "np-dpo", "p-rlhf", "summary", "steering", "ttt", "asls"],
        "readers": {},
        "training": {"all": SHORT, "ipo": {"shots": 0}, "p-rlhf": {"tokens": 2}, "np-dpo": NEURAL},
        "adaptations": {"p-rlhf": {"fit_steps": 1}, "ttt": {"start": "ipo", "steps": 1}, "asls": {"steps": 1}},
        "evaluation": {
            **EVALUATED,
            "robustness": {"users": 0},
            "users": 2,
            "shots": 2,
            "queries": 2,
            "description_tokens": 4,
        },
    }
    folder = run(tmp_path, tiny_model_path, **values)
    metrics = all_parts(folder)
    assert list(metrics) == values["methods"]
    for name in ("np-dpo", "p-rlhf", "summary", "steering", "ttt", "asls"):
        assert {"reward_accuracy@1", "label_flip_rate", "user_swap_drop"} <= metrics[name].keys()
    costs = read_details(folder.evaluation)["costs"]
    assert costs["p-rlhf"]["bytes_per_user"] == 4 * 2 * 32 and costs["p-rlhf"]["parameters"] > 2 * 32
    assert costs["np-dpo"]["bytes_per_user"] == 4 * 8 and costs["steering"]["bytes_per_user"] == 4 * 32
    assert costs["ttt"]["train_seconds"] == 0 and costs["ttt"]["user_seconds"] > 0
    page = pipeline.report(folder).read_text(encoding="utf-8")
    assert "p-rlhf" in page and "asls" in page
    assert pipeline.policies_of(folder)["ttt"] == folder.method("ipo")

    kept = {path: path.read_bytes() for path in folder.evaluation.rglob("margins.jsonl")}
    assert all_parts(run(tmp_path, tiny_model_path, **values)) == metrics
    assert {path: path.read_bytes() for path in folder.evaluation.rglob("margins.jsonl")} == kept
    with pytest.raises(ModelError, match="weights of its method beside the model"):
        Policy.load(folder.method("p-rlhf"))
    with pytest.raises(ModelError, match="weights of its method beside the model"):
        export_policy(folder.method("p-rlhf"), tmp_path / "exported")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("adaptations: {ttt: {step: 3}}", "line 2: there is no setting 'adaptations.ttt.step'; did you mean .*steps"),
        ("adaptations: {ttt: {start: base}}", "line 2.*'ttt' can't start from 'base'.*choose .*fspo"),
        ("adaptations: {ttt: {start: p-rlhf}}", "line 2.*'ttt' can't start from 'p-rlhf'"),
        ("adaptations: {tt: {steps: 3}}", "line 2: there is no method 'tt'; did you mean 'ttt'"),
        ("adaptations: {all: {rak: 3}}", "line 2: no method of this run has a setting 'rak'.*rank"),
        ("adaptations: {steering: {layer: 0}}", "line 2.*adaptations.steering.layer.*greater than or equal to 1"),
        ("adaptations: {summary: {message: hello}}", r"line 2.*adaptations.summary.message.*write \{summary\} once"),
        ("training: {np-dpo: {heads: 3}}", "line 2.*heads: 3 do not divide hidden, which is 64"),
        ("training: {p-rlhf: {mirror: true}}", "line 2.*no labels to swap"),
        ("training: {ttt: {steps: 3}}", "line 2: the method 'ttt' trains nothing"),
        (
            "training: {p-rlhf: {token: 3}}",
            "line 2: there is no setting .*rlhf.token'; did you mean .*tokens",
        ),
    ],
)
def test_wrong_settings_are_refused_with_their_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"methods: [base, ttt, p-rlhf, np-dpo, steering, summary]\n{text}\n")
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_too_few_shots_are_refused() -> None:
    row = AdaptationRow("ttt", TestTimeTraining)
    row.check_shots(1)
    with pytest.raises(ConfigError, match="'ttt' needs at least 1 shot, and the evaluation shows 0"):
        row.check_shots(0)
