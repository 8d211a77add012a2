"""Descriptions under evaluation: written once for each set of shots, and corrupted on purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fspo.evaluation.config import EvaluationConfig, Floors, RobustnessConfig
from fspo.evaluation.evaluate import evaluate
from fspo.evaluation.scoring.descriptions import Describer, corrupt_text, corrupt_trials, describe_all, description_cost
from fspo.evaluation.scoring.eval_episodes import build_trials
from fspo.evaluation.scoring.weights import LoadableModel
from fspo.files import read_json, read_jsonl
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.rendering import EpisodeRenderer
from tests.evaluation.helpers import CountingJudge, small_dataset

CONFIG = EvaluationConfig(
    shots=2, ladder=(0, 1), queries=2, answers=1, max_new_tokens=4, description_tokens=5, corruption=(0.5, 1.0),
    floors=Floors(log_prob=-99, words=0, distinct=0),
)  # fmt: skip
TRIALS = build_trials(small_dataset("t"), CONFIG)


def describer(folder: Path, path: Path, **options: Any) -> Describer:
    loaded = options.pop("model", lambda: load_model(folder))
    shots = [shots for trial in TRIALS for shots in (trial.own.shots, trial.own.flip_shots().shots, ())]
    model = LoadableModel(loaded, EpisodeRenderer(load_tokenizer(folder)), "w")
    return describe_all(model, shots, max_new_tokens=5, path=path, **options)


def test_descriptions_are_written_once(tiny_model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "descriptions.jsonl"
    first = describer(tiny_model_path, path)
    lines = path.read_text()
    assert len(lines.splitlines()) == 2 * len(TRIALS)
    assert first(()) == ""
    cost = description_cost([first.of(trial.own.shots) for trial in TRIALS])
    assert cost["users"] == len(TRIALS)
    assert 0 < cost["tokens_written"] <= 5
    assert cost["seconds"] > 0

    def gone() -> Any:
        raise AssertionError("the model is not needed")

    assert describer(tiny_model_path, path, model=gone) == first
    path.write_text("\n".join(lines.splitlines()[:3]) + '\n{"key"')
    again = describer(tiny_model_path, path)
    assert {key: row.text for key, row in again.written.items()} == {k: row.text for k, row in first.written.items()}


@pytest.mark.parametrize(("share", "kept"), [(0.0, 8), (0.25, 6), (0.5, 4), (1.0, 0)])
def test_as_many_words_are_replaced_as_asked(share: float, kept: int) -> None:
    text = "likes long warm reviews and dislikes short ones"
    words = corrupt_text(text, share, ["XX YY"], seed="s").split()
    assert len(words) == 8
    assert sum(word not in ("XX", "YY") for word in words) == kept
    assert corrupt_text(text, share, ["XX YY"], seed="s").split() == words


def test_spoilt_trials_differ_in_the_description_alone() -> None:
    for before, after in zip(TRIALS, corrupt_trials(TRIALS, 1.0), strict=True):
        assert after.own.shots == before.own.shots
        assert after.own.queries == before.own.queries
        assert after.own.description != before.own.description


def test_spoilt_descriptions_hold_no_word_of_ones_own(tiny_model_path: Path, tmp_path: Path) -> None:
    written = describer(tiny_model_path, tmp_path / "descriptions.jsonl")
    words = {trial.own.shots: f"w{number} v{number}" for number, trial in enumerate(TRIALS)}
    known = {
        key: replace(row, text=next((w for shots, w in words.items() if written.of(shots) is row), "mirror"))
        for key, row in written.written.items()
    }
    spoiling = replace(written, written=known).with_corruption(1.0, TRIALS)
    for shots, own in words.items():
        drawn = set(spoiling(shots).split())
        assert drawn.isdisjoint(own.split())
        assert "mirror" not in drawn
    for before, after in zip(TRIALS, corrupt_trials(TRIALS, 1.0), strict=True):
        others = {word for t in TRIALS if t.user != before.user for word in t.own.description.split()}
        assert set(after.own.description.split()) <= others


def test_a_method_that_describes_is_measured_with_its_own_words(
    tiny_model_path: Path,
    policies: dict[str, Path | None],
    tmp_path: Path,
) -> None:
    chosen = {"base": None, "pref-ft-cot": policies["pref-ft"], "fspo-rat": policies["fspo"], "oracle": None}
    config = CONFIG.model_copy(update={"robustness": RobustnessConfig(users=0)})
    metrics = evaluate(
        config, small_dataset("test"), chosen, model=str(tiny_model_path), out=tmp_path, judge=CountingJudge(),
        train=small_dataset("train"),
    )  # fmt: skip
    row = metrics["fspo-rat"]
    assert {
        "reward_accuracy@0",
        "reward_accuracy@1",
        "label_flip_rate",
        "user_swap_drop",
        "win_rate/guided",
    } <= row.keys()
    assert [measure for measure in row if measure.startswith("corrupted")] == [
        "corrupted_accuracy/0%", "corrupted_accuracy/50%", "corrupted_accuracy/100%",
    ]  # fmt: skip
    assert row["corrupted_accuracy/0%"]["value"] == row["reward_accuracy/reference"]["value"]
    assert "corrupted_accuracy/50%" in metrics["oracle"]
    assert "corrupted_accuracy/0%" not in metrics["base"]
    mirrored = config.model_copy(update={"headline_reward": "antisymmetric", "answers": 0})
    row = evaluate(
        mirrored, small_dataset("test"), {"fspo-rat": policies["fspo"]}, model=str(tiny_model_path),
        out=tmp_path / "mirrored", judge=None,
    )["fspo-rat"]  # fmt: skip
    assert row["reward_accuracy"] != row["reward_accuracy/reference"]  # else nothing here could be told apart
    assert row["corrupted_accuracy/0%"] == row["reward_accuracy"]
    assert row["corrupted_accuracy/100%"]["items"] == row["reward_accuracy"]["items"]
    lines = read_jsonl(tmp_path / "fspo-rat" / "descriptions.jsonl")
    assert len({line["key"] for line in lines}) == len(lines) > 8
    cost = read_json(tmp_path / "details.json")["descriptions"]["fspo-rat"]
    assert cost["users"] == 4
    samples = read_jsonl(tmp_path / "samples.jsonl")
    assert all(set(sample["described"]) == {"pref-ft-cot", "fspo-rat"} for sample in samples)
