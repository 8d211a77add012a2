"""Runs are compared item by item, or refused saying what differs."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.errors import DataError
from fspo.evaluation.across import compare_runs
from fspo.evaluation.statistics import compare, holm
from fspo.files import read_json, read_jsonl, write_json, write_text
from tests.evaluation.run_folder import write_kept

METHODS = {"base": 0.5, "few-shot": 0.55, "fspo": 0.8}
DETAILS = {
    "seed": 0, "shots": 8, "queries": 8, "episodes": 1,
    "rewards": {"base": ["likelihood"], "few-shot": ["antisymmetric"], "fspo": ["reference"]},
    "samplings": {"few-shot": "plain", "fspo": "guided"},
}  # fmt: skip


def evaluated(folder: Path, salt: str = "", **details: Any) -> Path:
    write_kept(folder / "evaluation", methods=METHODS, salt=salt)
    write_json(folder / "evaluation" / "details.json", DETAILS | details)
    return folder


def changed(folder: Path, number: int, **fields: Any) -> None:
    path = folder / "evaluation" / "items.jsonl"
    lines = read_jsonl(path)
    lines[number] |= fields
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def test_every_two_methods_are_compared_and_corrected_together(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / "one"), evaluated(tmp_path / "two", salt="x")]
    found = compare_runs(runs)
    names = [entrant.name for entrant in found.entrants]
    assert sorted(names) == sorted(f"{run}: {method}" for run in ("one", "two") for method in METHODS)
    assert [e.estimate.value for e in found.entrants] == sorted(
        (e.estimate.value for e in found.entrants), reverse=True
    )
    assert [(pair.first, pair.second) for pair in found.pairs] == list(combinations(names, 2))
    values = {entrant.name: entrant.values for entrant in found.entrants}
    for pair in found.pairs:
        alone = compare(values[pair.first], values[pair.second], lambda item: item[0])
        assert pair.comparison.difference == alone.difference
        assert pair.comparison.difference.users == 16
    adjusted = holm({(pair.first, pair.second): pair.comparison.p for pair in found.pairs})
    assert [pair.comparison.adjusted for pair in found.pairs] == list(adjusted.values())
    assert all(pair.detectable for pair in found.pairs)


def test_each_method_stands_by_its_own_headline(tmp_path: Path) -> None:
    found = compare_runs([evaluated(tmp_path / "one")], measure="win_rate")
    assert {entrant.name: entrant.variant for entrant in found.entrants} == {
        "few-shot": "win_rate/plain",
        "fspo": "win_rate/guided",
    }
    assert found.left_out == ["base"]


def test_a_method_that_is_the_same_in_all_runs_stands_once(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / "one"), evaluated(tmp_path / "two")]
    changed(runs[1], 0, values=read_jsonl(runs[1] / "evaluation/items.jsonl")[0]["values"] | {
        "fspo": {"reward_accuracy/reference": 0.5}
    })  # fmt: skip
    found = compare_runs(runs)
    assert {entrant.name for entrant in found.entrants} == {"base", "few-shot", "one: fspo", "two: fspo"}
    assert list(found.same) == ["base", "few-shot"]


def test_of_regret_the_least_is_the_best(tmp_path: Path) -> None:
    found = compare_runs([evaluated(tmp_path / "one")], measure="regret")
    values = [entrant.estimate.value for entrant in found.entrants]
    assert values == sorted(values)
    assert not found.percent


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"prompt": "Another?"}, r"1 prompts only in .*two \('Another\?'\)"),
        ({"chosen": "Other."}, "the prompts or pairs of 1 of 128 items"),
        ({"shots": "others"}, "the shots of 1 of 128 items"),
        ({"user": "stranger", "item": "stranger/0/0"}, r"1 users only in .*two \('stranger'\)"),
        ({"item": "user-0/1/0"}, "2 items that only one of them has"),
    ],
)
def test_other_items_are_refused_with_what_differs(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    runs = [evaluated(tmp_path / "one"), evaluated(tmp_path / "two")]
    changed(runs[1], 0, **fields)
    with pytest.raises(DataError, match=f"different items and can't be compared.*{said}"):
        compare_runs(runs)


def test_other_settings_are_named_with_both_values(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / "one"), evaluated(tmp_path / "two", seed=1, shots=4)]
    with pytest.raises(DataError, match="seed: 0 and 1; shots: 8 and 4"):
        compare_runs(runs)


def test_wins_over_another_base_model_are_no_common_measure(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / "one"), evaluated(tmp_path / "two")]
    changed(runs[1], 3, base_answer="another")
    with pytest.raises(DataError, match="base model's answers, which wins are counted over, of 1 of 128 items"):
        compare_runs(runs, measure="win_rate")
    assert compare_runs(runs, measure="reward_accuracy").pairs  # which the base model's answers have no part in


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    one = evaluated(tmp_path / "one")
    with pytest.raises(DataError, match="named twice"):
        compare_runs([one, one])
    with pytest.raises(DataError, match="no finished evaluation"):
        compare_runs([one, tmp_path / "nowhere"])
    with pytest.raises(DataError, match="a method 'fpso'; there are base, few-shot, fspo"):
        compare_runs([one], methods=["fpso"])
    with pytest.raises(DataError, match=r"fewer than two methods.*reward_accuracy"):
        compare_runs([one], measure="beauty")
    (one / "evaluation" / "items.jsonl").unlink()
    with pytest.raises(DataError, match=r"before single items were kept.*fspo eval"):
        compare_runs([one])


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / "a" / "run"), evaluated(tmp_path / "b" / "run", salt="x")]
    for run in runs:
        write_text(run / "config.yaml", "name: same\n")
    assert {entrant.name.partition(":")[0] for entrant in compare_runs(runs).entrants} == {"same (1)", "same (2)"}


def test_few_users_have_neither_interval_nor_p(tmp_path: Path) -> None:
    write_kept(tmp_path / "evaluation", methods=METHODS, users=2)
    write_json(tmp_path / "evaluation" / "details.json", DETAILS)
    for pair in compare_runs([tmp_path]).pairs:
        assert (pair.comparison.p, pair.comparison.adjusted, pair.detectable) == (None, None, None)
        assert pair.comparison.difference.low is None


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    one, two = evaluated(tmp_path / "one"), evaluated(tmp_path / "[two]", salt="x")
    files = ["--json", str(tmp_path / "out.json"), "--html", str(tmp_path / "out.html")]
    done = CliRunner().invoke(app, ["eval", "compare", str(one), str(two), "-m", "fspo", *files])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "one: fspo reference" in text
    assert "[two]: fspo" in text
    assert "16 users" in text
    found = read_json(tmp_path / "out.json")
    assert [method["name"] for method in found["methods"]] == [
        e.name for e in compare_runs([one, two], methods=["fspo"]).entrants
    ]
    assert found["pairs"][0].keys() >= {"first", "second", "value", "low", "high", "p", "adjusted", "detectable"}
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "Every two methods" in page
    assert 'download="pairs.csv"' in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_the_command_refuses_in_one_sentence(tmp_path: Path) -> None:
    runs = [str(evaluated(tmp_path / "one")), str(evaluated(tmp_path / "two", seed=1))]
    done = CliRunner().invoke(app, ["eval", "compare", *runs])
    assert done.exit_code == 1
    assert "seed: 0 and 1" in done.stderr


def test_eval_of_a_run_is_still_eval() -> None:
    done = CliRunner().invoke(app, ["eval", "--help"])
    assert "--on-existing" in done.output
    assert "eval compare" in CliRunner().invoke(app, ["--help"]).output
