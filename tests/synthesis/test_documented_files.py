"""What docs/data.md says of the recipe's files: all of them, all their fields, and how one stage is done again."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fspo.files import read_jsonl
from fspo.llm.batching import CachedModel
from fspo.llm.cache import RequestCache
from fspo.preferences.dataset import PreferenceDataset
from fspo.synthesis.synthesize import Writers, synthesize
from tests.synthesis.helpers import ScriptedModel, TopicalModel, config_of, write_domain

PAGE = (Path(__file__).parents[2] / "docs/data.md").read_text(encoding="utf-8")
PART = PAGE[PAGE.index("## Files that `fspo synth` writes") :]
CONFIG = config_of(domain="roleplay", questions=110, users=12, steering="views", portraits=True)
MEASURED = config_of(domain="reviews", judge="measured")
EXAMPLES = {"balance", "samples", "sample_pairs"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, by a language model as the judge."""
    folder = tmp_path_factory.mktemp("run")
    made(folder)
    return folder


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of the measured judge."""
    folder = tmp_path_factory.mktemp("measured")
    model = TopicalModel(())
    synthesize(MEASURED, Writers(model, model), folder)
    return folder


def made(folder: Path) -> ScriptedModel:
    model = ScriptedModel()
    remembered = CachedModel(model, RequestCache(folder / "answers-scripted.sqlite"))
    synthesize(CONFIG, Writers(remembered, remembered), folder / "data")
    return model


def table(head: str) -> dict[str, str]:
    """First cell -> last cell of the rows below a head."""
    (found,) = re.finditer(rf"^\| {re.escape(head)} \|.*\n\|---", PART, re.MULTILINE)
    lines = PART[found.start() :].splitlines()[2:]
    rows: dict[str, str] = {}
    for line in lines:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        rows[cells[0]] = cells[-1]
    return rows


def names(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def of_all(cells: Iterator[str] | list[str]) -> set[str]:
    return set().union(*map(names, cells))


def test_every_file_is_in_the_table(run: Path, measured: Path) -> None:
    listed = {name.removeprefix("../").rstrip("/") for name in of_all(list(table("file | stage | reads")))}
    listed -= {"answers-MODEL.sqlite", "answers.sqlite", "unfinished.json"}
    there = {path.name for folder in (run / "data", measured) for path in folder.iterdir()}
    assert there == listed


@pytest.mark.parametrize("name", ["questions.jsonl", "views.jsonl", "responses.jsonl"])
def test_the_fields_of_lines_are_those_of_the_page(name: str, run: Path) -> None:
    rows = table(f"`{name}`")
    header, *lines = read_jsonl(run / "data" / name)
    assert set(header) == {word for word in names(rows.pop("header")) if word in ("asked", "rejected", "steering")}
    assert {frozenset(line) for line in lines} == {frozenset(of_all(list(rows)))}


def test_the_fields_of_people_shards_and_judge_are_those_of_the_page(run: Path, measured: Path) -> None:
    people = json.loads((run / "data/people.json").read_text())
    assert all(person.keys() == of_all(list(table("`people.json`, by user"))) for person in people.values())
    scales = json.loads((measured / "judge.json").read_text())
    assert {"scales", "margin"} == scales.keys() <= of_all(list(table("`judge.json`")))
    shard = {row.strip("`"): names(told) for row, told in table("in a shard").items()}
    for name in ("labels/00000.jsonl", "undecided/00000.jsonl"):
        for line in read_jsonl(run / "data" / name):
            assert line.keys() <= shard[name]
    reasons = {"inconsistent", "unclear", "unreadable", "refused"}
    assert shard["undecided/00000.jsonl"] - reasons == line.keys()
    assert json.loads((run / "data/labels/00000.json").read_text()).keys() == shard["labels/00000.json"]


def test_the_fields_of_checks_are_those_of_the_page(run: Path) -> None:
    rows = table("`checks.json`")
    checks: dict[str, Any] = json.loads((run / "data/checks.json").read_text())
    assert checks.keys() == of_all(list(rows)) - {"near_duplicates", "readers"}
    for row, told in rows.items():
        for key in names(row) - EXAMPLES - {"format", "correlation", "attributes", "near_duplicates", "readers"}:
            assert set(checks[key]) <= names(told), key
    assert set(next(iter(checks["attributes"].values()))) <= names(rows["`attributes`, `correlation`"])
    assert set(checks["labels"]["order"]) <= names(rows["`labels`"])


def test_steered_responses_are_all_counted(run: Path) -> None:
    sampling = json.loads((run / "data/checks.json").read_text())["sampling"]
    assert len(sampling["steered"]) == 20
    assert sum(sampling["steered"].values()) + sampling["steered_others"] == sampling["used"]


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ("", "No user has weights."),
        (", weights: {emoji: 1}", "The attribute 'emoji' is the same in all "),
        (", weights: {length: 1}", None),
    ],
)
def test_an_agreement_that_is_not_measured_has_its_reason(weights: str, why: str | None, tmp_path: Path) -> None:
    users = "".join(f"- {{id: {name}, text: Likes it {name}{weights}}}\n" for name in ("short", "long"))
    domain = write_domain(tmp_path / "mine", users=f"users:\n{users}")
    config = config_of(domain=str(domain), refinement=None, disagreement=None)
    model = ScriptedModel()
    synthesize(config, Writers(model, model), tmp_path / "out")
    labels = json.loads((tmp_path / "out/checks.json").read_text())["labels"]
    if why is None:
        assert 0 <= labels["agreement_with_measures"] <= 1 and "why" not in labels
    else:
        assert labels["agreement_with_measures"] is None
        assert labels["why"].startswith(why)


def test_the_folder_loads_with_the_datasets_library_as_the_page_says(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets", reason="the datasets library is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (block,) = re.findall(r"^```python no-run\n(.*?)^```", PART, re.DOTALL | re.MULTILINE)
    lines = [line for line in block.splitlines() if line]
    folder = run / "data"
    assert len(lines) == 2 and all('"runs/my-domain/data"' in line for line in lines)
    preferences, users = (
        eval(line.replace("runs/my-domain/data", str(folder)), {"datasets": datasets}) for line in lines
    )
    dataset = PreferenceDataset.load(folder)
    assert preferences["chosen"][:] == [row.chosen for row in dataset]
    assert users["id"][:] == list(dataset.users)


def test_identity_source_and_answers_are_those_of_the_page(run: Path) -> None:
    identity = json.loads((run / "data/synthesis.json").read_text())
    assert identity == json.loads((run / "data/begun.json").read_text())
    told = names(PART[PART.index("`synthesis.json` and `begun.json` hold") : PART.index("**Saved answers.**")])
    assert identity.keys() <= told
    source = PreferenceDataset.load(run / "data").preferences[0].source
    assert source.keys() | source["chosen"].keys() <= told
    connection = sqlite3.connect(run / "answers-scripted.sqlite")
    columns = {row[1] for row in connection.execute("PRAGMA table_info(answers)")}
    connection.close()
    assert columns <= names(PART[PART.index("**Saved answers.**") : PART.index("**Redoing one stage.**")])


def test_one_stage_is_done_again_from_what_is_on_disk(run: Path, tmp_path: Path) -> None:
    """The commands of the page, on responses that somebody has looked through."""
    again = tmp_path / "mine"
    shutil.copytree(run, again)
    path = again / "data/responses.jsonl"
    header, *lines = path.read_text().splitlines(keepends=True)
    gone = {json.loads(line)["id"] for line in lines[::5]}
    path.write_text(header + "".join(line for line in lines if json.loads(line)["id"] not in gone))
    block = PART[PART.index("```sh") :]
    (remove,) = re.findall(r"^rm -r (.*)$", block, re.MULTILINE)
    for name in shlex.split(remove):
        place = again / Path(name).relative_to("runs/mine")
        assert place.exists()
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    asked = made(again).asked
    assert not any("viewpoint" in request.messages[0].content for request in asked)  # no response, and no list of views
    dataset = PreferenceDataset.load(again / "data")
    used = {side["response"] for p in dataset for side in (p.source["chosen"], p.source["rejected"])}
    assert used and not used & gone
    assert made(again).asked == []
