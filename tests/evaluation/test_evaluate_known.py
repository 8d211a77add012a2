"""What an evaluation knows of training, judge and users, and what it says of what it does not know."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fspo.errors import DataError
from fspo.evaluation.report.page import write_report
from fspo.files import read_json
from fspo.judging.judge import AttributeJudge
from fspo.preferences.dataset import PreferenceDataset
from tests.evaluation.helpers import small_dataset
from tests.evaluation.running import NO_ANSWERS, Run, runner
from tests.progress_lines import Lines

# peft finds what is left of a merged adapter.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a .peft_config. attribute")


@pytest.fixture
def run(tiny_model_path: Path, policies: dict[str, Path | None], tmp_path: Path) -> Run:
    return runner(tiny_model_path, policies, tmp_path / "evaluation")


def test_the_shot_count_of_training_is_measured_and_those_beyond_it_compared(
    run: Run, tmp_path: Path, policies: dict[str, Path | None]
) -> None:
    source = policies["fspo"]
    assert source is not None
    moved = shutil.copytree(source.parent, tmp_path / "methods") / "fspo"
    identity = {"config": {"shots": 2, "objective": "ipo", "beta": 0.1, "reduction": "sum"}}
    (moved / "training.json").write_text(json.dumps({"identity": identity}))
    config = NO_ANSWERS.model_copy(update={"shots": 3, "ladder": ()})
    metrics = run(config, tmp_path / "out", policies={"fspo": moved})
    row = metrics["fspo"]
    gain = row["reward_accuracy@3"]["value"] - row["reward_accuracy@2"]["value"]
    assert row["beyond_training_gain"]["value"] == pytest.approx(gain)
    assert read_json(tmp_path / "out" / "details.json")["training_shots"] == {"fspo": [2]}
    assert read_json(tmp_path / "out" / "calibration.json")["fspo"]["scale"] == 0.1
    identity["dataset"] = "other data"  # type: ignore[assignment]
    (moved / "training.json").write_text(json.dumps({"identity": identity}))
    with pytest.raises(DataError, match="policy of 'fspo' was trained on other data"):
        run(config, tmp_path / "out", policies={"fspo": moved})


@pytest.mark.usefixtures("undrawn")
def test_policies_that_nobody_can_trace_are_told_once(
    run: Run, policies: dict[str, Path | None], tmp_path: Path
) -> None:
    shown = Lines()
    chosen = {"base": None, "ipo": policies["ipo"]}
    run(NO_ANSWERS, tmp_path / "evaluation", policies=chosen, progress=shown)
    assert sum("could not be checked: ipo." in text for text in shown.lines) == 1
    assert read_json(tmp_path / "evaluation" / "details.json")["untraced"] == ["ipo"]
    page = write_report(tmp_path, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "have seen the users and questions that they are evaluated on" in page


@pytest.mark.usefixtures("undrawn")
def test_a_policy_that_was_trained_in_another_layout_is_named_also_in_the_report(
    run: Run, tmp_path: Path, policies: dict[str, Path | None]
) -> None:
    assert policies["ipo"] is not None
    moved = shutil.copytree(policies["ipo"].parent, tmp_path / "methods") / "ipo"
    record = read_json(moved / "policy.json")
    record["details"] = {"context": "shots", "training": {"shots": 2}}  # of a version that had one layout, labelled
    (moved / "policy.json").write_text(json.dumps(record))
    shown = Lines()
    run(NO_ANSWERS, tmp_path / "evaluation", policies={"base": None, "ipo": moved}, progress=shown)
    (note,) = [text for text in shown.lines if "layout" in text]
    assert f"{moved} was trained with shots in the layout 'labelled'" in note
    page = write_report(tmp_path, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "was trained with shots in the layout" in page


def test_too_few_users_for_an_interval_are_told(run: Run, tmp_path: Path) -> None:
    shown = Lines()
    config = NO_ANSWERS.model_copy(update={"users": 2})
    metrics = run(config, tmp_path, policies={"few-shot": None}, progress=shown)
    assert all(record["low"] is record["high"] is None for record in metrics["few-shot"].values())
    assert any("2 users, at least 3 are needed" in text for text in shown.lines)


def test_a_judge_of_utilities_is_noted_where_nothing_is_answered(run: Run, tmp_path: Path) -> None:
    run(NO_ANSWERS, tmp_path, policies={"base": None})
    noted = read_json(tmp_path / "details.json")["judge"]
    assert noted["kind"] == "CountingJudge" and noted["digest"]


def test_users_whom_the_judge_does_not_know_are_not_expected(run: Run, tmp_path: Path) -> None:
    test, train = small_dataset("test"), small_dataset("train")
    judge = AttributeJudge.fit([text for row in test for text in (row.chosen, row.rejected)], ["length", "exclamation"])
    known, *others = train.users.values()
    strange = PreferenceDataset([known, *(replace(user, traits={"rarity": 1.0}) for user in others)], train.preferences)
    run(NO_ANSWERS.model_copy(update={"observer_prior": "trained"}), tmp_path, judge=judge, train=strange,
        policies={"base": None})  # fmt: skip
    assert read_json(tmp_path / "details.json")["observer_prior"] == "trained"
    assert read_json(tmp_path / "observer.json")["reward_accuracy"]["items"] == 8
