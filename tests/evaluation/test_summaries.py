"""Evaluation of a method that reads a summary of its own: written once, kept, and shown in the samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fspo.files import read_json, read_jsonl
from fspo.modeling import descriptions
from tests.evaluation.running import CONFIG, runner

SHORT = CONFIG.model_copy(update={"description_tokens": 6, "corruption": (1.0,)})


@pytest.fixture(scope="module")
def measured(speaking_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    out = tmp_path_factory.mktemp("summaries")
    run = runner(speaking_model_path, {"base": None, "oracle": None, "summary": None}, out)
    run(SHORT)
    return run, out


def test_it_is_measured_like_a_policy_that_sees_shots(measured: tuple[Any, Path]) -> None:
    row = read_json(measured[1] / "metrics.json")["summary"]
    assert {
        "reward_accuracy@1", "reward_accuracy@2", "label_flip_rate", "user_swap_drop", "win_rate/plain",
        "win_rate/guided", "corrupted_accuracy/100%",
    } <= row.keys()  # fmt: skip
    assert "reward_accuracy@0" not in row  # without shots there is no summary, and the model is its own reference


def test_user_mirrored_user_and_other_user_have_other_summaries(measured: tuple[Any, Path]) -> None:
    rows = read_jsonl(measured[1] / "summary" / "descriptions.jsonl")
    assert len({row["key"] for row in rows}) == len(rows) >= 16  # four users, two labels, after one and two shots
    shown = {sample["described"]["summary"] for sample in read_jsonl(measured[1] / "samples.jsonl")}
    assert len(shown) > 1 and shown <= {row["text"] for row in rows}


def test_what_a_user_costs_is_on_record(measured: tuple[Any, Path]) -> None:
    costs = read_json(measured[1] / "details.json")["costs"]["summary"]
    written = {sample["user"]: sample["described"]["summary"] for sample in read_jsonl(measured[1] / "samples.jsonl")}
    assert costs["bytes_per_user"] == sum(len(text.encode()) for text in written.values()) / len(written)
    assert costs["user_seconds"] > 0


def test_a_second_call_writes_nothing(measured: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def written(*_: Any, **__: Any) -> Any:
        raise AssertionError("everything is written")

    run, out = measured
    before = read_json(out / "metrics.json")
    monkeypatch.setattr(descriptions, "write_descriptions", written)
    run(SHORT)
    assert read_json(out / "metrics.json") == before
