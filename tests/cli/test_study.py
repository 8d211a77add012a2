"""`fspo study`: what is checked before anything is served, a study on a real model, and what an export holds."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from alembic import command
from sqlalchemy import create_engine
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.cli.store_options import recording_people
from fspo.errors import StorageError
from fspo.preferences.dataset import PreferenceDataset
from fspo.progress import Silent
from fspo.serving import connection
from fspo.serving.listening import bound
from fspo.serving.ownership import pseudonym
from fspo.study.arms import load_models, open_engines, weights_of_arms
from fspo.study.config import load_study
from fspo.study.records import StudyRecords
from fspo.study.store import StudyStore
from tests.study.site import ScriptedEngine, StudySite, owner_of, write_texts

pytestmark = pytest.mark.usefixtures("migrated_stores")

ROOT = Path(__file__).parents[2]


def call(*arguments: str | Path, code: int = 0) -> str:
    port = ["--port", "0"] if arguments[0] in ("serve", "demo") and "--port" not in arguments else []
    found = CliRunner().invoke(app, ["study", *map(str, arguments), *port])
    assert found.exit_code == code, found.output
    return " ".join(found.output.split())


@pytest.fixture
def study_file(tmp_path: Path, speaking_model_path: Path) -> Path:
    model = str(speaking_model_path)
    values: dict[str, Any] = {
        "name": "small",
        "output": str(tmp_path / "study"),
        "arms": {
            "personal": {"policy": model, "layout": "conversation"},
            "base": {"policy": model, "layout": "conversation", "personalised": False},
        },
        "labels": {"source": {"file": str(write_texts(tmp_path))}, "count": 2},
        "comparisons": {"count": 2},
        "matching": {"length": None},
        "answers": {"max_tokens": 8},
        "consent": {"version": "1", "text": "Agree?", "contact": "ann@example.org"},
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


@pytest.mark.parametrize("name", ["paper", "second"])
def test_the_shipped_studies_pass_a_dry_run(name: str, speaking_model_path: Path, tmp_path: Path) -> None:
    model = [f"--set=arms.{arm}.policy={speaking_model_path}" for arm in ("personal", "base")]
    place = f"--set=output={tmp_path / 'study'}"
    said = call("serve", ROOT / f"configs/study/{name}.yaml", "--dry-run", place, *model)
    assert (
        f"for {25 if name == 'paper' else 50} participants: 9 labels, then 11 comparisons of personal and base" in said
    )
    assert not (tmp_path / "study").exists()
    values = load_study(ROOT / f"configs/study/{name}.yaml")
    assert {arm.policy for arm in values.arms.values()} == {"smollm2-135m"}  # needs no run before it


def test_mistakes_are_named_before_anything_is_made(study_file: Path, tmp_path: Path) -> None:
    for change, named, code in (
        ("comparisons.count=50", "10 prompts", 1),
        ("arms.base.policy=nowhere/at/all", "The arm 'base'", 1),
        ("labels.cuont=3", "labels.count", 2),
        ("arms.base={endpoint: {base_url: 'http://127.0.0.1:1/v1', model: m, key_variable: NO_KEY_HERE}}", "NO_KEY", 2),
    ):
        assert named in call("serve", study_file, "--dry-run", f"--set={change}", code=code)
    closed = "{endpoint: {base_url: 'http://127.0.0.1:1/v1', model: m, retries: 0}}"
    arms = [f"--set=arms.{arm}={closed}" for arm in ("personal", "base")]
    said = call("serve", study_file, "--port", "0", "--store", tmp_path / "other", *arms, code=1)
    assert "The arm 'personal'" in said and "127.0.0.1:1" in said and "Registered" not in said
    assert "There is no store" in call("export", study_file, tmp_path / "out", code=1)
    assert not (tmp_path / "study").exists()
    StudyStore.open(tmp_path / "study").close()
    assert "no preferences" in call("export", study_file, tmp_path / "out", "--dataset", code=1)
    assert not (tmp_path / "out").exists()
    assert "0 labels and 0 comparisons of 0 participants" in call("export", study_file, tmp_path / "out", "--parquet")


def test_targets_are_checked_before_anything_is_read(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread(*_: object) -> None:
        raise AssertionError("nothing is to be read")

    for reads in ("fspo.study.material.load_material", "fspo.study.store.StudyStore.records"):
        monkeypatch.setattr(reads, unread)
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "out"):
        assert f"{file} is a file" in call("export", study_file, out, code=2)
        for dry in ([], ["--dry-run"]):
            said = call("serve", study_file, f"--set=output={out}", "--store", tmp_path / "store", *dry, code=2)
            assert f"{file} is a file" in said
        assert str(file) in call("serve", study_file, "--store", out, code=1)


def test_a_port_in_use_is_named_before_anything_is_made(study_file: Path, tmp_path: Path) -> None:
    with bound("127.0.0.1", 0) as other:
        other.listen()
        port = other.getsockname()[1]
        for more in ([], ["--dry-run"], ["--set=arms.base.policy=nowhere/at/all"]):
            said = call("serve", study_file, "--port", port, *more, code=2)
            assert said.count(str(port)) == said.count("127.0.0.1") == 1
    assert not (tmp_path / "study").exists()


def test_a_dry_run_leaves_a_store_of_an_earlier_version_as_it_is(study_file: Path, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    file = tmp_path / "study" / connection.STORE_FILE
    engine, config = create_engine(f"sqlite:///{file}"), connection._migrations()
    with engine.begin() as config.attributes["connection"]:
        command.upgrade(config, "studies")
    engine.dispose()
    before = file.read_bytes()
    assert "Would change the store's tables" in call("serve", study_file, "--dry-run")
    assert file.read_bytes() == before


def test_a_study_on_a_real_model_is_registered_served_and_exported(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_study(study_file)
    store = StudyStore.open(config.output)
    site = StudySite(config, store, ScriptedEngine(), weights=weights_of_arms(config))  # registers it
    engines = open_engines(config, load_models(config))
    assert engines["personal"] is engines["base"]
    with _running(site, engines):
        site.person().finish(lambda _: "2")
    store.close()
    assert "small" in call("serve", study_file, "--dry-run")
    for change, named in (("participants=26", "participants"), ("consent.version='2'", "consent")):
        assert named in call("serve", study_file, "--dry-run", f"--set={change}", code=2)
    write_texts(tmp_path, prompts=13)
    assert "the texts of its items" in call("serve", study_file, "--dry-run", code=2)
    write_texts(tmp_path)
    before = weights_of_arms(config)
    assert set(before) == {"personal", "base"} and all(before.values())
    monkeypatch.setattr("fspo.study.arms.weights_of_arms", lambda _: {**before, "base": "others"})
    assert "the weights of the arm 'base'" in call("serve", study_file, "--dry-run", code=2)

    out = tmp_path / "out"
    assert "2 labels and 2 comparisons of 1 participant to" in call("export", study_file, out, "--dataset", "--parquet")
    records = StudyRecords.load(out)
    assert [item.choice for item in records.items] == ["second"] * 5
    assert all(item.first and item.second for item in records.items)
    rows = pq.read_table(out / "items.parquet").to_pylist()
    assert [row["id"] for row in rows] == [item.id for item in records.items]
    assert json.loads(rows[1]["first_traits"])["tone"] in ("calm", "loud")
    dataset = PreferenceDataset.load(out / "dataset")
    different = [item for item in records.items if item.stage != "practice" and item.first != item.second]
    assert len(dataset.preferences) == len(different) >= 2
    assert "is not empty" in call("export", study_file, out, code=2)


def test_an_export_holds_who_takes_part_and_the_store_knows_it(study_file: Path, tmp_path: Path) -> None:
    config, out, policy, numbers = load_study(study_file), tmp_path / "out", tmp_path / "policy", itertools.count()
    store = StudyStore.open(config.output)
    with StudySite(config, store, ScriptedEngine(lambda _: f"Answer {next(numbers)}.")).running() as site:
        stays, leaves, left = (site.person().finish() for _ in range(3))
        left.post("/withdraw", sure="yes")
        call("export", study_file, out, "--dataset")
        dataset = PreferenceDataset.load(out / "dataset")
        names = [pseudonym(owner_of(site, person)) for person in (stays, leaves)]
        assert list(dataset.users) == names
        assert {row.user for row in dataset} == set(names)
        assert {row.source["stage"] for row in dataset} == {"label", "compare"}
        assert {(row.source["study"], row.source["consent"]) for row in dataset} == {("small", "1")}
        recording_people(Silent())(dataset, policy)
        assert store.policies_to_train_again() == store.datasets_to_delete() == []
        gone = [item.first for item in store.records("small").items if item.participant == names[1]]
        leaves.post("/withdraw", sure="yes")
        assert (store.policies_to_train_again(), store.datasets_to_delete()) == ([str(policy)], [str(out)])
        said = call("export", study_file, tmp_path / "again", "--dataset", "--parquet")
        assert "2 labels and 2 comparisons of 1 participant (2 more withdrew) to" in said
        assert list(PreferenceDataset.load(tmp_path / "again" / "dataset").users) == names[:1]
        again = "".join(path.read_text() for path in (tmp_path / "again").glob("*.jsonl"))
        answers = [text for text in gone if text.startswith("Answer ")]
        assert answers and not any(text in again for text in answers)
        recording_people(Silent())(PreferenceDataset.load(tmp_path / "again" / "dataset"), policy)
        assert (store.policies_to_train_again(), store.datasets_to_delete()) == ([], [str(out)])
        assert set(store.withdraw(owner_of(site, stays)).datasets) == {str(out), str(tmp_path / "again")}
    store.close()


def test_an_export_and_a_report_are_outdated_when_somebody_who_withdrew_deletes_everything(
    study_file: Path, tmp_path: Path
) -> None:
    config, out = load_study(study_file), tmp_path / "out"
    store = StudyStore.open(config.output)
    with StudySite(config, store, ScriptedEngine()).running() as site:
        left, stays = (site.person().begin() for _ in range(2))
        owners = [owner_of(site, person) for person in (left, stays)]
        left.post("/withdraw", sure="yes")
        call("export", study_file, out)
        call("report", study_file)
        written = [out / "participants.jsonl", out / "events.jsonl", config.output / "study.json"]
        written.append(config.output / "report.html")
        texts = [path.read_text() for path in written]
        assert not any(owner.id in text for owner in owners for text in texts)
        assert pseudonym(owners[0]) in texts[0]
        assert store.datasets_to_delete() == []
        left.post("/delete", sure="yes")
        assert store.datasets_to_delete() == sorted(str(path) for path in (out, *written[2:]))
        call("report", study_file)
        assert store.datasets_to_delete() == [str(out)]
    store.close()


def test_an_export_that_breaks_off_can_be_repeated(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    StudyStore.open(load_study(study_file).output).close()

    def broken(*_: object) -> None:
        raise StorageError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr("fspo.study.export.save_parquet", broken)
        assert "The disk is full" in call("export", study_file, out, "--parquet", code=1)
    assert not out.exists()
    assert "0 labels" in call("export", study_file, out, "--parquet")


def test_the_registration_is_written_where_an_earlier_call_could_not(
    study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fspo.serving.listening.listen", lambda *_, **__: None)
    monkeypatch.setattr("fspo.study.arms.open_engines", lambda *_: {})
    file = load_study(study_file).output / "registration.json"
    said = call("serve", study_file, "--port", "0")
    before = json.loads(file.read_text())
    assert before["fingerprint"] in said
    assert "Registered" not in call("serve", study_file, "--port", "0")
    file.unlink()  # as if the first call was killed before it wrote the file
    assert before["fingerprint"] in call("serve", study_file, "--port", "0")
    assert json.loads(file.read_text()) == before


def test_a_folder_that_nothing_is_written_into_may_be_read_only(
    study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, *, inside: bool = False) -> None:
        raise StorageError(f"{path} can't be written.")

    monkeypatch.setattr("fspo.serving.listening.listen", lambda *_, **__: None)
    monkeypatch.setattr("fspo.study.arms.open_engines", lambda *_: {})
    serve = ("serve", study_file, "--store", tmp_path / "store")
    call(*serve)
    monkeypatch.setattr("fspo.files.check_writable", read_only)
    call("serve", study_file, code=1)  # its store would be there
    call(*serve)


def test_the_registration_on_disk_has_the_weights_once_they_are_known(
    study_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fspo.serving.listening.listen", lambda *_, **__: None)
    monkeypatch.setattr("fspo.study.arms.open_engines", lambda *_: {})
    config = load_study(study_file)
    known = weights_of_arms(config)
    with monkeypatch.context() as unknown:
        unknown.setattr("fspo.study.arms.weights_of_arms", lambda _: dict.fromkeys(known))
        call("serve", study_file)
    before = json.loads((config.output / "registration.json").read_text())
    call("serve", study_file)
    assert json.loads((config.output / "registration.json").read_text()) == {**before, "weights": known}


def _running(site: StudySite, engines: Any) -> Any:
    from fspo.study.app import create_study_app

    site.app = create_study_app(site.config, site.material, site.store, engines)
    return site.running()


def test_the_demo_checks_itself(speaking_model_path: Path) -> None:
    said = call("demo", "--policy", speaking_model_path, "--dry-run")
    assert "4 labels, then 4 comparisons of personal and base" in said
