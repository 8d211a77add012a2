"""The table of the terminal, and what is read from the files it is made from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fspo.errors import StorageError
from fspo.evaluation.artifacts import AGAIN, Estimates
from fspo.evaluation.metrics.summary import best_values, single_context_reward, summary_table
from fspo.evaluation.statistics.intervals import Estimate
from fspo.files import read_json, write_json
from fspo.records import read_record, write_record
from tests.evaluation.run_folder import write_run_folder


def test_the_table_of_the_terminal(tmp_path: Path) -> None:
    console = Console(width=120, record=True, file=None, no_color=True)
    with console.capture() as capture:
        console.print(
            summary_table(
                read_record(write_run_folder(tmp_path, light=True) / "metrics.json", Estimates, AGAIN) or {},
                title="reviews",
            )
        )
    text = capture.get()
    assert "77.0 (73.0…81.0)" in text
    assert "16 held-out users" in text
    with console.capture() as capture:
        console.print(summary_table({}))
    assert "Nothing was measured." in " ".join(capture.get().split())


def test_the_table_says_where_there_is_no_interval() -> None:
    console = Console(width=100, no_color=True)
    record = Estimate(0.5, None, None, 1, 4)
    with console.capture() as capture:
        console.print(summary_table({"fspo": {"reward_accuracy": record}}))
    assert "50.0 (no interval)" in capture.get()


def test_only_values_that_stand_out_are_best() -> None:
    def row(accuracy: float, flip: float, drop: float) -> dict[str, Estimate]:
        values = {"reward_accuracy": accuracy, "label_flip_rate": flip, "user_swap_drop": drop}
        return {name: Estimate(value, None, None, 3, 9) for name, value in values.items()}

    metrics = {"base": row(0.5, 0.0, 0.0), "ipo": row(0.7, 0.0, -0.1), "fspo": row(0.7, 0.0, -0.2)}
    assert best_values(metrics) == {"reward_accuracy": 0.7}
    assert best_values({"base": row(0.5, 0.1, 0.1)}) == {}


def test_figures_of_another_shape_are_refused_with_the_file(tmp_path: Path) -> None:
    path, good = tmp_path / "metrics.json", Estimate(0.5, None, 0.6, 3, 9, "not written")
    write_record(path, {"a": {"b": good}}, Estimates)
    assert read_json(path) == {"a": {"b": good.to_json()}}
    write_json(path, {"a": {"b": good.to_json() | {"note": "new"}}})
    assert read_record(path, Estimates, AGAIN) == {"a": {"b": replace(good, lacking="")}}
    shapes: list[Any] = [[], 0.5, {"value": 0.5}, good.to_json() | {"value": None}, good.to_json() | {"low": "x"}]
    for bad in shapes:
        write_json(path, {"a": {"b": bad}})
        with pytest.raises(StorageError, match=r"metrics\.json is damaged.*'a\.b.*run `fspo eval` again"):
            read_record(path, Estimates, AGAIN)


def test_the_reward_of_a_single_context_is_the_reference_where_there_is_one() -> None:
    rewards = {"a": ["antisymmetric", "likelihood", "reference"], "b": ["antisymmetric", "likelihood"]}
    rewards["c"] = ["antisymmetric", "score"]
    found = [single_context_reward({"rewards": rewards}, name) for name in ("a", "b", "c", "d")]
    assert found == ["reference", "likelihood", "score", ""]
