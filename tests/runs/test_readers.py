"""Readers in a run: fitted in its folder, measured beside the other methods, and refused in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.errors import ConfigError, DataError
from fspo.evaluation.artifacts import read_details
from fspo.files import read_json
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.splits import Splits
from fspo.preferences.types import Preference, User
from fspo.progress import Silent
from fspo.runs import pipeline, processes
from fspo.runs.config import configuration, load_config
from fspo.runs.existing import Existing
from fspo.runs.folder import DATA, EVALUATION, RunFolder, method_part
from fspo.runs.preflight import opened
from fspo.runs.readers import fit_readers

SMALL = {"steps": 20, "shots": 3, "queries": 2, "users_per_step": 8, "hidden": 16}
EVALUATED = {
    "shots": 3,
    "ladder": [0, 1],
    "queries": 4,
    "answers": 0,
    "robustness": {"users": 2, "queries": 2, "wrong_labels": [0.5], "orders": 1},
    "antisymmetric_swap": False,
}


def people(count: int = 12, questions: int = 16) -> PreferenceDataset:
    """Users who like long answers and users who like short ones."""
    rows = []
    for user in range(count):
        for question in range(questions):
            long, short = f"It was good, {'very ' * (question % 5 + 6)}good {question}.", f"Good {question}."
            chosen, rejected = (long, short) if user % 2 else (short, long)
            rows.append(Preference(f"u{user}", f"How was number {question}?", chosen, rejected, f"q{question}"))
    users = [User(f"u{user}", "likes it " + ("long" if user % 2 else "short")) for user in range(count)]
    return PreferenceDataset(users, rows)


def run(tmp_path: Path, model: Path, **values: Any) -> RunFolder:
    """A run on people of whom four are held out, with half of the questions."""
    place = tmp_path / "people"
    if not place.exists():
        dataset = people()
        ids = [f"q{number}" for number in range(16)]
        dataset.save(place)
        users = list(dataset.users)
        Splits(
            users={"train": frozenset(users[:8]), "validation": frozenset(), "test": frozenset(users[8:])},
            questions={"train": frozenset(ids[:8]), "validation": frozenset(), "test": frozenset(ids[8:])},
        ).save(place / "splits.json")
    given = {
        "data": str(place),
        "output": str(tmp_path / "run"),
        "model": str(model),
        "methods": ["few-shot", "mean-difference", "ridge", "np-btl"],
        "readers": {"ridge": {"shots": 3, "episodes": 4}, "np-btl": SMALL},
        "evaluation": EVALUATED,
    }
    return RunFolder(configuration({**given, **values}, "test"))


def all_parts(folder: RunFolder) -> dict[str, Any]:
    with opened(folder, folder.parts(), Existing.RESUME):
        pipeline.synth(folder, Silent())
        pipeline.train(folder, Silent())
        return pipeline.evaluate(folder, Silent())


@pytest.mark.usefixtures("undrawn")
def test_readers_stand_beside_the_other_methods(tmp_path: Path, tiny_model_path: Path) -> None:
    folder = run(tmp_path, tiny_model_path)
    metrics = all_parts(folder)
    assert list(metrics) == ["few-shot", "mean-difference", "ridge", "np-btl"]
    for name in ("mean-difference", "ridge"):
        row = metrics[name]
        assert row["reward_accuracy"]["value"] > 0.7, "the length is easily read"
        assert row["reward_accuracy@0"]["value"] == pytest.approx(0.5, abs=0.25)
        assert row["label_flip_rate"]["value"] > 0.7
        assert row["user_swap_drop"]["users"] == 4
        assert "wrong_labels_accuracy/50%" in row and "order_accuracy" in row
        assert row.keys() >= {"reward_accuracy/antisymmetric", "first_shot_gain"} and "win_rate" not in row
        assert row["reward_accuracy"]["items"] == metrics["few-shot"]["reward_accuracy"]["items"]
    costs = read_details(folder.evaluation)["costs"]
    assert costs["ridge"].keys() == {"train_seconds", "parameters", "user_seconds", "bytes_per_user"}
    assert costs["ridge"]["bytes_per_user"] == 4 * read_json(folder.method("ridge") / "reader.json")["width"]
    assert costs["few-shot"]["parameters"] == 0 and costs["few-shot"]["bytes_per_user"] > 100
    page = pipeline.report(folder).read_text(encoding="utf-8")
    assert "np-btl" in page and "mean-difference" in page
    record = read_json(folder.method("np-btl") / "reader.json")
    assert record["users"] == 8 and record["preferences"] == 64

    files = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*.safetensors")}
    margins = (folder.evaluation / "ridge" / "margins.jsonl").read_bytes()
    assert all_parts(run(tmp_path, tiny_model_path)) == metrics
    assert {path: path.stat().st_mtime_ns for path in folder.path.rglob("*.safetensors")} == files
    assert (folder.evaluation / "ridge" / "margins.jsonl").read_bytes() == margins

    other = run(tmp_path, tiny_model_path, readers={"ridge": {"prior": "none", "shots": 3}, "np-btl": SMALL})
    with pytest.raises(ConfigError, match=r"methods/ridge was made with readers.ridge.*overwrite"):
        all_parts(other)


def test_a_row_of_your_own_is_a_reader_with_other_settings_or_your_code(
    tmp_path: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_reader_module.py").write_text(
        "from fspo.methods.readers.mean_difference import MeanDifference\n"
        "class Opposite(MeanDifference):\n"
        "    title, description = 'Opposite', 'Likes what is not chosen.'\n"
        "    def adapt(self, shots):\n"
        "        return -super().adapt(shots)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    readers = {
        "all": {"components": 8},
        "plain": {"reader": "mean-difference"},
        "opposite": {"reader": "own_reader_module:Opposite"},
    }
    folder = run(tmp_path, tiny_model_path, methods=["plain", "opposite"], readers=readers)
    metrics = all_parts(folder)
    right, wrong = (metrics[name]["reward_accuracy"]["value"] for name in ("plain", "opposite"))
    assert right > 0.7 and wrong == pytest.approx(1 - right)
    assert read_json(folder.method("plain") / "reader.json")["width"] == 8


def test_one_reader_can_be_fitted_alone(tmp_path: Path, tiny_model_path: Path) -> None:
    folder, recorded = run(tmp_path, tiny_model_path), list[tuple[int, Path]]()

    def record(dataset: PreferenceDataset, place: Path) -> None:
        recorded.append((len(dataset), place))

    with opened(folder, [DATA, method_part("ridge")], Existing.RESUME):
        pipeline.synth(folder, Silent())
        pipeline.train(folder, Silent(), pipeline.trained_methods(folder, ["ridge"]), record)
    assert recorded == [(64, folder.method("ridge"))]
    assert sorted(path.name for path in (folder.path / "methods").iterdir()) == ["ridge"]
    with (
        pytest.raises(DataError, match="mean-difference holds no fitted reader yet; run `fspo train`"),
        opened(folder, [EVALUATION], Existing.RESUME),
    ):
        pass


def test_other_processes_wait_for_the_one_that_fits(
    tmp_path: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow() -> None:
        raise ConfigError("waited")

    monkeypatch.setattr(processes, "is_first", lambda: False)
    monkeypatch.setattr(processes, "follow", follow)
    with pytest.raises(ConfigError, match="waited"):
        fit_readers(run(tmp_path, tiny_model_path), people(), ["ridge"], Silent())


def test_embeddings_of_another_model_are_not_used(tmp_path: Path, tiny_model_path: Path) -> None:
    folder = run(tmp_path, tiny_model_path, methods=["mean-difference"], readers={})
    all_parts(folder)
    record = folder.method("mean-difference") / "reader.json"
    record.write_text(json.dumps({**read_json(record), "embedder": "others", "embedder_name": "another model"}))
    with pytest.raises(ConfigError, match="fitted on embeddings of another model"):
        pipeline.evaluate(folder, Silent())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("methods: [rigde]", "line 1: there is no method 'rigde'; did you mean 'ridge'"),
        ("methods: [ridge]\nreaders: {ridge: {episode: 3}}", "line 2.*no setting 'readers.ridge.episode'.*episodes"),
        ("methods: [ridge]\nreaders: {all: {step: 3}}", "line 2: no reader of this run has a setting 'step'"),
        (
            "methods: [np-btl]\nreaders: {np-btl: {shots: 4}}",
            "'np-btl' takes at most 4 shots, and the evaluation shows 8",
        ),
        (
            "methods: [mine]\nreaders: {mine: {reader: rigde}}",
            "line 2: there is no reader 'rigde'; did you mean 'ridge'",
        ),
        ("methods: [fspo]\nreaders: {fspo: {reader: ridge}}", "line 2: 'fspo' is taken"),
        ("methods: [..]\nreaders: {..: {reader: ridge}}", "line 2: '..' can't name a reader"),
        (
            "methods: [mine]\nreaders: {mine: {reader: ridge}}\n"
            "evaluation: {reward_models: [{name: mine, scorer: 'a:b'}]}",
            "line 2: 'mine' is taken",
        ),
        ("methods: [gpo]\nreaders: {gpo: {heads: 3}}", "line 2: 'readers.gpo.heads'.* must divide hidden"),
        ("methods: [ridge]\nreaders: {ridge: {strengths: []}}", "line 2: 'readers.ridge.strengths'"),
        ("methods: [ridge]\nreaders: {lore: {rank: 0}}\ntraining: {ridge: {steps: 3}}", "settings of readers.*readers"),
        (
            "evaluation: {reward_models: [{name: ridge, scorer: 'a:b'}]}",
            "a reward model can't be called 'ridge', which is taken",
        ),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        load_config(path)
    assert "\n" not in str(raised.value)


def test_a_benchmark_with_more_shots_than_a_reader_takes_is_refused_before_the_training(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("methods: [gpo]\nreaders: {gpo: {shots: 2}}\nevaluation: {shots: 2}\nbenchmarks: {prism: {}}")
    asked = CliRunner().invoke(app, ["compare", str(path), "--dry-run"])
    assert asked.exit_code == 2
    assert "In the benchmark 'prism': 'gpo' takes at most 2 shots" in " ".join(asked.stderr.split())


def test_code_of_your_own_is_not_imported_to_read_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("methods: [mine]\nreaders: {mine: {reader: 'no_such_module:Reader', steps: 3}}")
    row = load_config(path).readers["mine"]
    assert row.identity() == {"seed": 0, "steps": 3, "reader": "no_such_module:Reader"}
    with pytest.raises(ConfigError, match="The reader 'no_such_module:Reader' can't be imported"):
        _ = row.kind
