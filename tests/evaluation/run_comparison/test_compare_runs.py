"""Runs are compared item by item, or refused saying what differs."""

from __future__ import annotations

import json
import math
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import fspo
from fspo.cli.main import app
from fspo.errors import ConfigError, DataError, StorageError
from fspo.evaluation.artifacts import FORMAT
from fspo.evaluation.run_comparison.compare_runs import compare_runs
from fspo.evaluation.run_comparison.page import write_comparison
from fspo.evaluation.statistics.comparing import compare, holm
from fspo.files import read_json, read_jsonl, write_json, write_text
from tests.evaluation.run_folder import write_kept

METHODS = {"base": 0.5, "few-shot": 0.55, "fspo": 0.8}
DETAILS = {
    "format": FORMAT,
    "seed": 0, "shots": 8, "queries": 8, "episodes": 1, "reduction": "sum",
    "rewards": {"base": ["likelihood"], "few-shot": ["antisymmetric"], "fspo": ["reference"]},
    "samplings": {"few-shot": "plain", "fspo": "guided"}, "floors": {"words": 3},
    "judge": {"kind": "AttributeJudge", "digest": "abc"},
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
    names = [row.name for row in found.methods]
    assert sorted(names) == sorted(f"{run}: {method}" for run in ("one", "two") for method in METHODS)
    assert [e.estimate.value for e in found.methods] == sorted((e.estimate.value for e in found.methods), reverse=True)
    assert [(pair.first, pair.second) for pair in found.pairs] == list(combinations(names, 2))
    values = {row.name: row.values for row in found.methods}
    for pair in found.pairs:
        alone = compare(values[pair.first], values[pair.second])
        assert pair.comparison.difference == alone.difference
        assert pair.comparison.difference.users == 16
    adjusted = holm({(pair.first, pair.second): pair.comparison.p for pair in found.pairs})
    assert [pair.comparison.adjusted for pair in found.pairs] == list(adjusted.values())
    assert all(pair.comparison.detectable for pair in found.pairs)


def test_each_method_stands_by_its_own_headline(tmp_path: Path) -> None:
    found = compare_runs([evaluated(tmp_path / "one")], measure="win_rate")
    assert {row.name: row.variant for row in found.methods} == {
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
    assert {row.name for row in found.methods} == {"base", "few-shot", "one: fspo", "two: fspo"}
    assert list(found.same) == ["base", "few-shot"]


def test_of_regret_the_least_is_the_best(tmp_path: Path) -> None:
    found = compare_runs([evaluated(tmp_path / "one")], measure="regret")
    values = [row.estimate.value for row in found.methods]
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
    runs = [evaluated(tmp_path / "one"), evaluated(tmp_path / "two", seed=1, shots=4, reduction="mean")]
    with pytest.raises(DataError, match="seed: 0 and 1; shots: 8 and 4; log-probs of a response: sum and mean"):
        compare_runs(runs)
    changed(runs[1], 0, prompt="Another?")
    with pytest.raises(DataError, match=r"sum and mean; and 2 more\. Evaluate"):
        compare_runs(runs)


def test_wins_over_another_base_model_are_no_common_measure(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / "one"), evaluated(tmp_path / "two")]
    changed(runs[1], 3, base_answer="another")
    with pytest.raises(DataError, match="base model's answers, which wins are counted over, of 1 of 128 items"):
        compare_runs(runs, measure="win_rate")
    for measure in ("reward_accuracy", "answer_utility/plain"):
        assert compare_runs(runs, measure=measure).pairs  # which the base model's answers have no part in


@pytest.mark.parametrize(
    ("measure", "fields", "details", "said"),
    [
        ("win_rate", {}, {"floors": {"words": 9}}, r"in the floors\. Evaluate"),
        ("win_rate", {}, {"given": True, "model": "m"}, "the model that measures fluency: None and m"),
        (
            "win_rate",
            {},
            {"judge": {"kind": "Mine", "digest": "x"}},
            r"the judge: AttributeJudge and Mine\. ",
        ),
        (
            "win_rate_by/far/guided",
            {},
            {"judges": {"far": {"kind": "PairwiseJudge", "digest": "y"}}},
            r"the judge 'far': none and PairwiseJudge\. ",
        ),
        ("regret", {}, {"judge": None}, r"the judge: AttributeJudge and none\. "),
        ("regret", {}, {"judge": {"kind": "AttributeJudge", "digest": "x"}}, r"in the judge\. "),
        ("win_rate/guided", {"traits": "other"}, {}, "the users' traits of 1 of 128 items"),
        ("win_rate", {"description": "other"}, {}, "the users' descriptions of 1 of 128 items"),
        ("answer_utility/plain", {"traits": "other"}, {}, "the users' traits of 1 of 128 items"),
        ("regret", {"traits": "other"}, {}, "the users' traits of 1 of 128 items"),
        (
            "user_swap_drop",
            {"donor": "other"},
            {},
            "the shots of other users, which were swapped in, of 1 of 128 items",
        ),
    ],
)
def test_what_a_measure_rests_on_must_be_the_same(
    tmp_path: Path, measure: str, fields: dict[str, Any], details: dict[str, Any], said: str
) -> None:
    runs = [evaluated(tmp_path / "one"), evaluated(tmp_path / "two", salt="x")]
    assert compare_runs(runs, measure=measure).pairs
    runs[1] = evaluated(tmp_path / "two", salt="x", **details)
    changed(runs[1], 0, **fields)
    with pytest.raises(DataError, match=f"can't be compared.*{said}"):
        compare_runs(runs, measure=measure)
    assert compare_runs(runs).pairs  # which rests on none of these


@pytest.mark.parametrize("missing", ["traits", "description", "donor", "shots"])
def test_items_that_do_not_say_what_they_rest_on_are_refused(tmp_path: Path, missing: str) -> None:
    run = evaluated(tmp_path / "one")
    path = run / "evaluation" / "items.jsonl"
    lines = [{key: value for key, value in line.items() if key != missing} for line in read_jsonl(path)]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(StorageError, match=rf"of another version of fspo .*{missing}.*fspo eval"):
        compare_runs([run])


def test_descriptions_are_a_part_of_the_items_of_whoever_is_told_them(tmp_path: Path) -> None:
    runs = [tmp_path / "one", tmp_path / "two"]
    for run in runs:
        write_kept(run / "evaluation", methods=METHODS | {"oracle": 0.6}, salt=run.name)
        rewards = DETAILS["rewards"] | {"oracle": ["reference"]}  # type: ignore[operator]
        write_json(run / "evaluation" / "details.json", DETAILS | {"rewards": rewards})
    changed(runs[1], 0, description="other")
    with pytest.raises(DataError, match="the users' descriptions of 1 of 128 items"):
        compare_runs(runs)
    assert compare_runs(runs, methods=["fspo"]).pairs


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    one = evaluated(tmp_path / "one")
    with pytest.raises(DataError, match="named twice"):
        compare_runs([one, one])
    with pytest.raises(DataError, match="no finished evaluation"):
        compare_runs([one, tmp_path / "nowhere"])
    with pytest.raises(DataError, match="a method 'fpso'; there are base, few-shot, fspo"):
        compare_runs([one], methods=["fpso"])
    with pytest.raises(DataError, match=r"fewer than two methods.*reward_accuracy"):
        compare_runs([one], methods=["fspo"])
    (one / "evaluation" / "items.jsonl").unlink()
    with pytest.raises(DataError, match=r"holds no items.*fspo eval"):
        compare_runs([one])


def test_judged_answers_are_compared_by_their_win_rates(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / name, baseline="few-shot") for name in ("one", "two")]
    for run in runs:
        for number, line in enumerate(read_jsonl(run / "evaluation" / "items.jsonl")):
            wins = {"win_rate/guided": line["values"]["fspo"]["win_rate/guided"] if run is runs[0] else 0.0}
            changed(run, number, values={"few-shot": {}, "fspo": wins})
    assert {compare_runs(runs).measure, fspo.compare(runs).measure} == {"win_rate"}
    with pytest.raises(DataError, match="by 'win_rate': a win rate is already a comparison with few-shot; name more"):
        compare_runs(runs[:1])


def test_a_measure_that_no_run_has_is_a_mistake_of_whoever_asked(tmp_path: Path) -> None:
    one = evaluated(tmp_path / "one")
    with pytest.raises(ConfigError, match=r"no measure 'beauty'.*there are reward_accuracy, win_rate, answer_utility"):
        compare_runs([one], measure="beauty")
    done = CliRunner().invoke(app, ["eval", "compare", str(one), "--measure", "win_rate/guidde"])
    assert done.exit_code == 2
    assert "Did you mean 'win_rate/guided'?" in done.stderr


def test_of_differences_the_threshold_is_nothing_and_no_coin(tmp_path: Path) -> None:
    found = compare_runs([evaluated(tmp_path / "one")], measure="user_swap_drop")
    assert found.chance == 0.0
    assert compare_runs([tmp_path / "one"], measure="win_rate").chance == 0.5
    assert compare_runs([tmp_path / "one"], measure="regret").chance is None
    page = write_comparison(found, tmp_path / "page.html").read_text(encoding="utf-8")
    ticks = [text for text in re.findall(r"<text[^>]*>([^<]+)</text>", page) if text.strip().endswith("%")]
    assert not any(text.strip() == "75%" for text in ticks)
    assert any(text.strip() == "0%" for text in ticks)


def test_the_page_names_variants_and_what_is_corrected(tmp_path: Path) -> None:
    found = compare_runs([evaluated(tmp_path / "one")])
    page = write_comparison(found, tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.search(r"few-shot<small> antisymmetric</small>", page)
    assert re.search(r"fspo<small> reference</small>", page)
    assert "Each interval is for its pair alone" in page


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("items.jsonl", '{"user": "u", "item": "u/0/0"}\n'),
        (
            "items.jsonl",
            '{"user": "u", "item": "u/0/0", "prompt": "p", "chosen": "c", "rejected": "r", "values": [1]}\n',
        ),
        ("details.json", "[]"),
        ("details.json", '{"format": 2, "rewards": ["fspo"]}'),
        ("details.json", '{"rewards": {}}'),  # of a version that wrote no format
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, file: str, text: str) -> None:
    one = evaluated(tmp_path / "one")
    (one / "evaluation" / file).write_text(text, encoding="utf-8")
    done = CliRunner().invoke(app, ["eval", "compare", str(one)])
    assert done.exit_code == 1
    said = " ".join(done.stderr.split())
    assert "Traceback" not in said
    assert file in said.replace(" ", "")
    assert "run `fspo eval` again" in said


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / "a" / "run"), evaluated(tmp_path / "b" / "run", salt="x")]
    for run in runs:
        write_text(run / "config.yaml", "name: same\n")
    assert {row.name.partition(":")[0] for row in compare_runs(runs).methods} == {"same (1)", "same (2)"}


def test_python_tells_what_is_detectable_as_the_printed_table_does(tmp_path: Path) -> None:
    write_kept(tmp_path / "evaluation", methods=METHODS, users=3)
    write_json(tmp_path / "evaluation" / "details.json", DETAILS)
    for number, line in enumerate(read_jsonl(tmp_path / "evaluation" / "items.jsonl")):
        one = float(line["user"] == "user-0")
        right = {"base": 0.0, "few-shot": one, "fspo": 1.0}
        values = {name: {f"reward_accuracy/{DETAILS['rewards'][name][0]}": right[name]} for name in right}
        changed(tmp_path, number, values=values)
    found = {
        (row["first"], row["second"]): row["detectable"] for row in fspo.compare([tmp_path]).pairs.to_dict("records")
    }
    assert math.isnan(found["fspo", "base"])  # a dash: they differ in every item alike
    assert found["fspo", "few-shot"] == found["few-shot", "base"] == math.inf  # over 100
    assert [pair["detectable"] for pair in compare_runs([tmp_path]).to_json()["pairs"]].count(None) == 1


def test_few_users_have_neither_interval_nor_p(tmp_path: Path) -> None:
    write_kept(tmp_path / "evaluation", methods=METHODS, users=2)
    write_json(tmp_path / "evaluation" / "details.json", DETAILS)
    for pair in compare_runs([tmp_path]).pairs:
        assert (pair.comparison.p, pair.comparison.adjusted, pair.comparison.detectable) == (None, None, None)
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
        e.name for e in compare_runs([one, two], methods=["fspo"]).methods
    ]
    assert found["pairs"][0].keys() >= {"first", "second", "value", "low", "high", "p", "adjusted", "detectable"}
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "Every two methods" in page
    assert 'download="pairs.csv"' in page
    assert "http" not in page.replace("http://www.w3.org", "")


def test_names_are_no_markup(tmp_path: Path) -> None:
    runs = [evaluated(tmp_path / "one"), evaluated(tmp_path / "two", salt="x")]
    for run, name in zip(runs, ("a[/b]", "[red]c$\\bad{$"), strict=True):
        write_text(run / "config.yaml", json.dumps({"name": name}))
    done = CliRunner().invoke(
        app, ["eval", "compare", *map(str, runs), "-m", "fspo", "--html", str(tmp_path / "p.html")]
    )
    assert done.exit_code == 0, done.exception
    text = "".join(done.output.split())
    for name in ("a[/b]", "[red]c$\\bad{$"):
        assert f"{name}:fspo" in text
        assert f"{name}: fspo" in (tmp_path / "p.html").read_text(encoding="utf-8")


def test_the_command_refuses_in_one_sentence(tmp_path: Path) -> None:
    runs = [str(evaluated(tmp_path / "one")), str(evaluated(tmp_path / "two", seed=1))]
    done = CliRunner().invoke(app, ["eval", "compare", *runs])
    assert done.exit_code == 1
    assert "seed: 0 and 1" in done.stderr


def test_eval_of_a_run_is_still_eval() -> None:
    done = CliRunner().invoke(app, ["eval", "--help"])
    assert "--on-existing" in done.output
    assert "eval compare" in CliRunner().invoke(app, ["--help"]).output
