"""A dataset of restyled responses: what comes to lie in the folder, and that being killed changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError, DataError
from fspo.files import read_json
from fspo.judging.judge import AttributeJudge
from fspo.llm.batching import CachedModel
from fspo.llm.cache import RequestCache
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.splits import Splits
from fspo.synthesis.config import Restyling, SynthesisConfig
from fspo.synthesis.directions import AXIS
from fspo.synthesis.domain import load_domain
from fspo.synthesis.storage import load_questions, load_responses
from fspo.synthesis.synthesize import Writers, check_plan, is_complete, synthesize
from tests.synthesis.helpers import Stopped
from tests.synthesis.reviewer import ScriptedReviewer

CONFIG = SynthesisConfig(
    domain="reviews-restyled",
    questions=12,
    responses=6,
    restyling=Restyling(samples=6),
    batch=20,
    attributes=("sentiment", "length", "bullets", "emoji"),
)


def made(config: SynthesisConfig, out: Path, model: ScriptedReviewer | None = None) -> Path:
    model = model or ScriptedReviewer()
    return synthesize(config, Writers(model, model), out)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(CONFIG, tmp_path_factory.mktemp("data"))


def files(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_styles_without_emoji_are_refused_before_generation() -> None:
    domain = load_domain("reviews-restyled")
    assert domain.styles is not None
    faces = {side: [":-)", ":-(", ";-)"] for side in ("positive", "negative")}
    plain = replace(domain, styles=domain.styles.model_copy(update={"emoji": faces}))
    with pytest.raises(DataError, match="'emoji' is the same in all responses"):
        check_plan(CONFIG, plain)
    assert check_plan(CONFIG.model_copy(update={"attributes": ("sentiment", "length", "bullets")}), plain)
    assert check_plan(CONFIG, domain)


def test_users_see_the_wanted_number_of_pairs_of_each_question_of_their_part(finished: Path) -> None:
    dataset, splits = PreferenceDataset.load(finished), Splits.load(finished / "splits.json")
    assert len(dataset.users) == 4 * 2 + 6 * 4
    assert len(dataset.questions()) == 12
    questions = {split: len(ids) for split, ids in splits.questions.items()}
    assert questions == {"train": 8, "validation": 1, "test": 3}
    for split, ids in splits.users.items():
        rows = [row for row in dataset if row.user in ids]
        assert 0.9 * 3 * questions[split] * len(ids) < len(rows) <= 3 * questions[split] * len(ids)
        assert len(splits.part(dataset, split)) == len(rows)
        assert len({(row.user, row.pair) for row in rows}) == len(rows)


def test_labels_are_the_saved_judges(finished: Path) -> None:
    dataset, judge = PreferenceDataset.load(finished), AttributeJudge.load(finished / "judge.json")
    for row in dataset.preferences[::7]:
        assert judge.compare(dataset.users[row.user], row.prompt, row.chosen, row.rejected) == "first"
        assert row.source["judge"] == "measured"
        assert row.source["chosen"]["steered_to"] in ("positive", "negative")


def test_trained_users_lie_on_the_axes_and_works_are_held_out_whole(tmp_path: Path) -> None:
    two = CONFIG.model_copy(update={"works": 6, "also_trained": 5})
    made(two, tmp_path)
    dataset, splits = PreferenceDataset.load(tmp_path), Splits.load(tmp_path / "splits.json")
    trained = [dataset.users[id].group for id in splits.users["train"]]
    assert trained.count(AXIS) == 8 and len(trained) == 8 + 5
    assert splits.users["validation"] and AXIS not in {dataset.users[id].group for id in splits.users["test"]}
    units = {question.id: question.unit for question in load_questions(tmp_path).items}
    works = {split: {units[id] for id in ids} for split, ids in splits.questions.items()}
    assert not works["train"] & works["test"]
    assert sorted(units.values()) == sorted([*set(units.values())] * 2)


def test_the_checks_say_what_the_data_are_like(finished: Path) -> None:
    checks = read_json(finished / "checks.json")
    assert checks["labels"]["consistency"] == 1.0
    assert checks["near_duplicates"]["verbatim_share"] == 0.0
    assert set(checks["attributes"]) == set(CONFIG.attributes or ())
    assert 0.4 < checks["balance"]["positive_share"] < 0.6
    assert checks["sampling"]["asked"] == 72
    assert sum(checks["sampling"]["rejected"].values()) > 0
    assert checks["counts"]["works"] == 12
    assert 0.3 < checks["disagreement"]["mean"] < 0.7
    assert 0 < checks["labels"]["same_text_share"] < 1
    assert 0 < checks["labels"]["styles_differing"] < 1
    items = load_responses(finished).items
    assert checks["sampling"]["unfilled"] == 72 - len(items)
    said = {item.text: item for item in items}
    for sample in checks["samples"]:
        assert str(said[sample["response"]].made["measured"]) in sample["about"]


@pytest.mark.parametrize("stop_at", [0, 2])
def test_a_killed_run_ends_the_same_and_asks_nothing_twice(finished: Path, tmp_path: Path, stop_at: int) -> None:
    cache = RequestCache(tmp_path / "answers.sqlite")
    with pytest.raises(Stopped):
        made(CONFIG, tmp_path / "data", CachedModel(ScriptedReviewer(stop_at=stop_at), cache))  # type: ignore[arg-type]
    model = ScriptedReviewer()
    assert not is_complete(tmp_path / "data", CONFIG, Writers(model, model))
    made(CONFIG, tmp_path / "data", CachedModel(model, cache))  # type: ignore[arg-type]
    assert sum(model.calls) == 72 - 20 * stop_at
    assert files(tmp_path / "data") == files(finished)


def test_no_file_tells_where_the_model_is_and_other_weights_are_other_data(tmp_path: Path) -> None:
    model: Any = ScriptedReviewer()
    model.name, model.identity = "/srv/ann/models/my", {"model": "/srv/ann/models/my", "weights": "old"}
    model.title = "my"
    made(CONFIG, tmp_path, model)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"/srv/ann" in path.read_bytes()]
    assert is_complete(tmp_path, CONFIG, Writers(model, model))
    model.identity = {**model.identity, "weights": "new"}
    calls = len(model.calls)
    with pytest.raises(ConfigError, match="finished dataset that was made by models with other weights; choose"):
        made(CONFIG, tmp_path, model)
    assert len(model.calls) == calls and (tmp_path / "splits.json").exists()


def test_another_seed_makes_other_data(finished: Path, tmp_path: Path) -> None:
    other = PreferenceDataset.load(made(CONFIG.model_copy(update={"seed": 1}), tmp_path))
    assert set(other.questions()) != set(PreferenceDataset.load(finished).questions())


def test_a_model_that_can_not_write_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"usable responses.*better model"):
        made(CONFIG, tmp_path, ScriptedReviewer(noise=1.0))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"works": 9999}, r"synthesis\.works is 9999, and the domain 'reviews-restyled' has \d+; set it to at most"),
        ({"works": 3, "questions": 3, "also_trained": 999}, r"none is left to hold out; raise synthesis\.users"),
        ({"attributes": ("length",)}, r"synthesis\.attributes lists 'length' alone; list at least two"),
        ({"attributes": ("length", "emojy")}, r"no attribute 'emojy'; did you mean 'emoji'\?"),
        ({"judge": "declared"}, r"declare no traits; set it to measured or llm\."),
    ],
)
def test_what_leaves_nobody_or_nothing_is_refused_before_a_model_is_asked(
    settings: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        made(CONFIG.model_copy(update=settings), tmp_path, ScriptedReviewer(stop_at=0))
    assert not list(tmp_path.iterdir())


def test_labels_of_users_to_train_on_are_turned_over_on_request(finished: Path, tmp_path: Path) -> None:
    made(CONFIG.model_copy(update={"label_noise": 0.3}), tmp_path)
    noisy, splits = PreferenceDataset.load(tmp_path), Splits.load(tmp_path / "splits.json")
    exact = {(row.user, row.chosen, row.rejected) for row in PreferenceDataset.load(finished)}
    flipped = {split: 0 for split in splits.users}
    for row in noisy:
        turned = bool(row.source.get("flipped"))
        assert ((row.user, row.rejected, row.chosen) in exact) is turned
        assert ((row.user, row.chosen, row.rejected) in exact) is not turned
        flipped["train" if row.user in splits.users["train"] else "test"] += turned
    trained = sum(row.user in splits.users["train"] for row in noisy)
    assert flipped["test"] == 0
    assert 0.15 < flipped["train"] / trained < 0.45
    assert read_json(tmp_path / "checks.json")["labels"]["flipped_share"] > 0
