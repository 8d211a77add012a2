from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError, DataError
from fspo.files import read_json, read_jsonl
from fspo.judging.judge import AttributeJudge
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.splits import Splits
from fspo.synthesis.restyled.config import RestyledConfig
from fspo.synthesis.restyled.make import is_complete, origin_of, synthesize
from fspo.synthesis.restyled.users import AXIS
from tests.synthesis.restyled.helpers import ScriptedModel, Stopped

CONFIG = RestyledConfig(
    titles=12, samples=6, responses=6, batch=20, attributes=("sentiment", "length", "bullets", "emoji")
)
FILES = ("responses.jsonl", "judge.json", "splits.json", "checks.json", "synthesis.json", "samples.jsonl")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("data")
    synthesize(CONFIG, ScriptedModel(), out)
    return out


def test_everything_is_on_disk(finished: Path) -> None:
    dataset = PreferenceDataset.load(finished)
    assert len(dataset.users) == 4 * 2 + 6 * 4
    assert len(dataset.questions()) == 12
    assert len(dataset) > 0.9 * 32 * 12 * CONFIG.pairs
    assert all((finished / name).exists() for name in FILES)
    assert len(read_jsonl(finished / "responses.jsonl")) > 60


def test_labels_are_the_saved_judges(finished: Path) -> None:
    dataset, judge = PreferenceDataset.load(finished), AttributeJudge.load(finished / "judge.json")
    for row in dataset.preferences[::17]:
        assert judge.compare(dataset.users[row.user], row.prompt, row.chosen, row.rejected) == "first"


def test_trained_users_lie_on_the_axes_and_works_are_held_out_whole(finished: Path) -> None:
    dataset, splits = PreferenceDataset.load(finished), Splits.load(finished / "splits.json")
    assert {dataset.users[id].group for id in splits.users["train"]} == {AXIS}
    assert AXIS not in {dataset.users[id].group for id in splits.users["test"]}
    works = {split: {id.rpartition("/")[0] for id in ids} for split, ids in splits.questions.items()}
    assert not works["train"] & works["test"]
    assert len(works["test"]) == 3
    assert all(len(splits.part(dataset, split)) for split in ("train", "validation", "test"))


def test_the_checks_say_what_the_data_is_like(finished: Path) -> None:
    checks = read_json(finished / "checks.json")
    assert checks["labels"]["consistency"] == 1.0
    assert checks["near_duplicates"]["verbatim_share"] == 0.0
    assert set(checks["attributes"]) == set(CONFIG.attributes)
    assert 0.4 < checks["balance"]["positive_share"] < 0.6
    assert checks["sampling"]["asked"] == 72
    assert sum(checks["sampling"]["rejected"].values()) > 0
    assert checks["samples"][0]["steered_to"] in ("positive", "negative")
    assert 0.3 < checks["disagreement"]["mean"] < 0.7


def test_a_finished_folder_is_not_made_again(finished: Path) -> None:
    model = ScriptedModel(stop_at=0)
    assert synthesize(CONFIG, model, finished) == PreferenceDataset.load(finished)
    assert is_complete(finished, origin_of(CONFIG, model))
    model.name = "another"
    assert not is_complete(finished, origin_of(CONFIG, model))


def test_what_an_earlier_version_finished_stays_finished(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "data")
    config = json.loads((finished / "synthesis.json").read_text())["config"]
    for name, same in (("scripted", True), ("another", False)):
        (tmp_path / "data/synthesis.json").write_text(json.dumps({"model": name, "config": config}))
        assert is_complete(tmp_path / "data", origin_of(CONFIG, ScriptedModel())) is same


def test_no_file_tells_where_the_model_is_and_other_weights_are_other_data(tmp_path: Path) -> None:
    model: Any = ScriptedModel()
    model.name, model.identity = "/srv/ann/models/my", {"model": "/srv/ann/models/my", "weights": "old"}
    synthesize(CONFIG, model, tmp_path)

    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"/srv/ann" in path.read_bytes()]
    assert is_complete(tmp_path, origin_of(CONFIG, model))
    model.identity = {**model.identity, "weights": "new"}
    assert not is_complete(tmp_path, origin_of(CONFIG, model))
    calls = len(model.calls)
    with pytest.raises(ConfigError, match="finished dataset that was made by models with other weights; choose"):
        synthesize(CONFIG, model, tmp_path)
    assert len(model.calls) == calls and (tmp_path / "splits.json").exists()


@pytest.mark.parametrize("stop_at", [0, 2])
def test_a_killed_run_ends_the_same(finished: Path, tmp_path: Path, stop_at: int) -> None:
    with pytest.raises(Stopped):
        synthesize(CONFIG, ScriptedModel(stop_at=stop_at), tmp_path)
    assert not is_complete(tmp_path, origin_of(CONFIG, ScriptedModel()))
    synthesize(CONFIG, ScriptedModel(), tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_text() == (finished / name).read_text(), name
    assert PreferenceDataset.load(tmp_path) == PreferenceDataset.load(finished)


def test_a_run_killed_while_writing_ends_the_same(finished: Path, tmp_path: Path) -> None:
    synthesize(CONFIG, ScriptedModel(), tmp_path)
    (tmp_path / "splits.json").unlink()
    (tmp_path / "preferences.parquet").unlink()
    synthesize(CONFIG, ScriptedModel(stop_at=0), tmp_path)
    assert PreferenceDataset.load(tmp_path) == PreferenceDataset.load(finished)


def test_another_seed_makes_other_data(finished: Path, tmp_path: Path) -> None:
    other = synthesize(CONFIG.model_copy(update={"seed": 1}), ScriptedModel(), tmp_path)
    assert other.questions() != PreferenceDataset.load(finished).questions()


def test_a_model_that_can_not_write_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"usable responses.*better model"):
        synthesize(CONFIG, ScriptedModel(noise=1.0), tmp_path)


def test_pairs_may_be_trained_on_when_asked_for(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"trained_pairs": 5})
    synthesize(config, ScriptedModel(), tmp_path)
    assert len(Splits.load(tmp_path / "splits.json").users["train"]) == 8 + 5
