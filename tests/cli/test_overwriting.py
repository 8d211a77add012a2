"""Commands that replace or delete something remove only what fspo made."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from fspo import FSPOConfig, FSPOTrainer
from fspo.cli.main import app
from fspo.errors import ConfigError
from fspo.progress import Silent
from fspo.synthesis.synthesize import Writers, synthesize
from tests.synthesis.helpers import ScriptedModel, config_of
from tests.tiny_model import build_tiny_model


def fspo(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def write(path: Path, text: str = "somebody's own") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(tmp_path: Path, model: Path) -> Path:
    """A run with data and a policy of whole weights."""
    policy = tmp_path / "work/runs/x/methods/fspo"
    shutil.copytree(model, policy)
    card = {"format": 1, "base": "someone/base", "adapters": [], "method": "fspo", "starts_from": None, "details": {}}
    write(policy / "policy.json", json.dumps(card))
    write(tmp_path / "work/runs/x/data/preferences.parquet", "months of labels")
    write(tmp_path / "work/runs/x/metrics.json", "{}")
    write(tmp_path / "work/pyproject.toml")
    return tmp_path / "work/runs/x"


def its_run(run: Path) -> Path:
    return run


def its_methods(run: Path) -> Path:
    return run / "methods"


def itself(run: Path) -> Path:
    return run / "methods/fspo"


def its_data(run: Path) -> Path:
    return run / "data"


def a_link_to_its_run(run: Path) -> Path:
    link = run.parent / "link"
    link.symlink_to(run)
    return link


def its_project(run: Path) -> Path:
    return run.parents[1]


def another_policy(run: Path) -> Path:
    return Path(shutil.copytree(run / "methods/fspo", run / "methods/ipo"))


def a_model_with_notes(run: Path) -> Path:
    target = run.parents[1] / "models/mine"
    shutil.copytree(run / "methods/fspo", target)
    (target / "policy.json").unlink()
    write(target / "notes/today.txt")
    return target


TARGETS = [
    its_run,
    its_methods,
    itself,
    its_data,
    a_link_to_its_run,
    its_project,
    another_policy,
    a_model_with_notes,
]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dry", [True, False])
def test_an_export_replaces_nothing_but_an_exported_model(run: Path, target: Callable[[Path], Path], dry: bool) -> None:
    place = target(run)
    before = contents(run.parents[1])
    result = fspo("model", "export", run / "methods/fspo", place, "--overwrite", *(["--dry-run"] if dry else []))
    assert result.exit_code == 2 and "is not replaced" in result.stderr
    assert contents(run.parents[1]) == before


def test_a_dry_run_refuses_the_precision_that_the_command_refuses(run: Path, tmp_path: Path) -> None:
    for verb, target in (("export", tmp_path / "mine"), ("push", "me/mine")):
        result = fspo("model", verb, run / "methods/fspo", target, "--dtype", "banana", "--dry-run")
        assert result.exit_code == 2 and "banana" in result.stderr


def test_an_export_replaces_an_exported_model(run: Path, tmp_path: Path) -> None:
    target, policy = tmp_path / "work/models/mine", run / "methods/fspo"
    assert fspo("model", "export", policy, target).exit_code == 0
    assert fspo("model", "export", policy, target).exit_code == 2
    write(target / "README.md", "old")
    write(policy / "README.md", "new")
    assert fspo("model", "export", policy, target, "--overwrite").exit_code == 0
    assert (target / "README.md").read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["mine"]


def test_an_export_does_not_replace_the_model_that_the_policy_is_built_on(run: Path, model: Path) -> None:
    policy = run / "methods/fspo"
    base = Path(shutil.copytree(model, run.parent / "base"))
    card = json.loads((policy / "policy.json").read_text())
    write(policy / "policy.json", json.dumps({**card, "base": str(base)}))
    before = contents(base)
    result = fspo("model", "export", policy, base, "--overwrite")
    assert result.exit_code == 2 and "is not replaced" in result.stderr
    assert contents(base) == before


def test_an_import_replaces_a_dataset_alone(tmp_path: Path, run: Path) -> None:
    rows = [{"user": "u", "prompt": "What?", "chosen": "Yes.", "rejected": "No."}]
    source = write(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    before = contents(run.parents[1])
    for place in (run, run / "methods/fspo", run.parents[1]):
        result = fspo("data", "import", source, place, "--overwrite")
        assert result.exit_code == 2 and "so it is not replaced" in result.stderr
    assert contents(run.parents[1]) == before
    assert fspo("data", "import", source, tmp_path / "set").exit_code == 0
    write(tmp_path / "set/notes.txt")
    write(tmp_path / "set/deep/notes.txt")
    shutil.copytree(tmp_path / "set", tmp_path / "other")
    for verb, target in (
        (["import", source, tmp_path / "set"], tmp_path / "set"),
        (["export", "--format", "parquet", tmp_path / "other", tmp_path / "set"], tmp_path / "other"),
    ):
        assert fspo("data", *verb, "--overwrite").exit_code == 0
        assert (target / "notes.txt").exists() and (target / "deep/notes.txt").exists()


def test_an_import_does_not_replace_tables_of_somebody_else(tmp_path: Path) -> None:
    rows = [{"user": "u", "prompt": "What?", "chosen": "Yes.", "rejected": "No."}]
    source = write(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write(tmp_path / "spark/preferences.parquet/part-0000.parquet")
    write(tmp_path / "mixed/dataset.json", '{"rows": 3}')
    assert fspo("data", "import", source, tmp_path / "set").exit_code == 0
    write(tmp_path / "set/taken/users.parquet/part-0000.parquet")
    shutil.copytree(tmp_path / "set", tmp_path / "folders")
    (tmp_path / "folders/users.parquet").unlink()
    write(tmp_path / "folders/users.parquet/part-0000.parquet")
    (tmp_path / "raw").mkdir()
    for name in ("raw/preferences.parquet", "mixed/preferences.parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name)
    before = contents(tmp_path)
    trl = ("--format", "trl")
    for arguments in (
        (source, tmp_path / "spark"),
        (source, tmp_path / "mixed"),
        (source, tmp_path / "folders"),
        (source, tmp_path / "raw"),
        (tmp_path / "raw/preferences.parquet", tmp_path / "raw", *trl),
        (tmp_path / "set/preferences.parquet", tmp_path / "set", *trl),
        (tmp_path / "set", tmp_path / "set", "--format", "parquet"),
    ):
        for dry in ([], ["--dry-run"]):
            result = fspo("data", "import", *arguments, "--overwrite", *dry)
            assert result.exit_code == 2 and "not replaced" in result.stderr, (arguments, result.output)
            assert contents(tmp_path) == before
    write(tmp_path / "set/rows.jsonl", source.read_text())
    assert fspo("data", "import", tmp_path / "set/rows.jsonl", tmp_path / "set", "--overwrite").exit_code == 0
    after = contents(tmp_path / "set")
    assert after["rows.jsonl"] == source.read_bytes() and "taken/users.parquet/part-0000.parquet" in after


def test_an_import_into_the_working_folder_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"user": "u", "prompt": f"What of {q}?", "chosen": "Yes.", "rejected": "No."} for q in range(4)]
    source = write(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    left = write(here / f".here.{'0' * 32}.tmp/preferences.parquet", "half").parent  # of a call that was killed
    assert fspo("data", "import", source, ".").exit_code == 0
    refused = fspo("data", "import", source, ".")
    assert refused.exit_code == 1 and "add --overwrite" in refused.stderr
    write(here / "splits.json", "{}")
    write(here / "notes.txt")
    source.write_text(source.read_text().splitlines()[0] + "\n")
    result = fspo("data", "import", source, ".", "--overwrite")
    assert result.exit_code == 0 and "1 preference" in result.stdout, result.stderr
    assert set(contents(here)) == {
        "dataset.json",
        "preferences.parquet",
        "users.parquet",
        "notes.txt",
        f"{left.name}/preferences.parquet",
    }
    assert fspo("data", "validate", here).exit_code == 0


def test_an_export_replaces_no_part_of_a_dataset_a_policy_or_a_run(tmp_path: Path, run: Path) -> None:
    rows = [{"user": "u", "prompt": f"What of {q}?", "chosen": "Yes.", "rejected": "No."} for q in range(4)]
    source = write(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    dataset = tmp_path / "set"
    assert fspo("data", "import", source, dataset).exit_code == 0
    for name in ("settings.json", "versions.json"):
        write(run / name, json.dumps({"data": {}}))
    write(run / "methods/fspo/metrics.jsonl")
    before = contents(tmp_path)
    for format, target in (
        ("trl", dataset / "preferences.parquet"),
        ("trl", dataset / "users.parquet"),
        ("trl", run / "data/users.parquet"),
        ("jsonl", run / "data/labels/00001.jsonl"),
        ("jsonl", run / "samples.jsonl"),
        ("jsonl", run / "methods/fspo/metrics.jsonl"),
    ):
        for dry in ([], ["--dry-run"]):
            result = fspo("data", "export", target, dataset, "--format", format, "--overwrite", *dry)
            assert result.exit_code == 2 and "is a part of" in result.stderr
    assert contents(tmp_path) == before
    for target in (dataset / "mine.jsonl", tmp_path / "alone/preferences.parquet"):
        format = "trl" if target.suffix == ".parquet" else "jsonl"
        assert fspo("data", "export", target, dataset, "--format", format).exit_code == 0
        assert fspo("data", "export", target, dataset, "--format", format, "--overwrite").exit_code == 0


def test_a_division_replaces_the_splits_alone(tmp_path: Path) -> None:
    rows = [
        {"user": f"u{u}", "prompt": f"What of {q}?", "chosen": "Yes.", "rejected": "No."}
        for u in range(6)
        for q in range(6)
    ]
    source = write(tmp_path / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert fspo("data", "import", source, tmp_path / "set").exit_code == 0
    write(tmp_path / "set/notes.txt")
    assert fspo("data", "split", tmp_path / "set", "--test-users", 0.5).exit_code == 0
    before = contents(tmp_path / "set")
    assert fspo("data", "split", tmp_path / "set", "--test-users", 0.5).exit_code != 0
    assert contents(tmp_path / "set") == before
    assert fspo("data", "split", tmp_path / "set", "--test-users", 0.34, "--overwrite").exit_code == 0
    after = contents(tmp_path / "set")
    assert {name for name in before if before[name] != after[name]} == {"splits.json"}
    assert after.keys() == before.keys()


def test_a_training_overwrites_nothing_that_it_did_not_write(model: Path, tmp_path: Path) -> None:
    rows = [
        {"user": f"u{u}", "prompt": f"What of {q}?", "chosen": f"{q} is fine.", "rejected": f"{q} is not for {u}."}
        for u in range(3)
        for q in range(6)
    ]
    settings: dict[str, Any] = {"steps": 1, "shots": 2, "queries": 1, "users_per_step": 1}

    def trainer(out: Path) -> FSPOTrainer:
        return FSPOTrainer(str(model), FSPOConfig(output_dir=str(out), **settings), rows)

    for others in ("config.json", "checkpoints/checkpoint-1/mine", "vocab.json", "adapter-0/mine", "metrics.jsonl"):
        out = tmp_path / others.replace("/", "-")
        write(out / others)
        with pytest.raises(ConfigError, match="would be overwritten"):
            trainer(out)
        assert (out / others).read_text() == "somebody's own"
    out = tmp_path / "beside"
    beside = ("notes.txt", "LICENSE", "README.md", ".gitattributes")  # as in a repository that is cloned to be filled
    for name in beside:
        write(out / name)
    trained = trainer(out)
    trained.train()
    (out / "policy.json").unlink()  # as if it had been killed before its end
    write(out / "checkpoints/notes.txt")
    trainer(out).train()
    assert contents(out / "checkpoints") == {"notes.txt": b"somebody's own"}
    assert all((out / name).read_text() == "somebody's own" for name in beside)
    assert (out / "policy.json").exists()
    before = contents(out)
    trainer(out).train()
    assert contents(out) == before
    work = tmp_path / "work"
    write(work / "models/mine/notes.txt")
    for place in (out.parent, work, work / "models/mine", shutil.copytree(out, tmp_path / "another")):
        with pytest.raises(ConfigError):
            trained.save_model(place)
    assert contents(out) == before and contents(tmp_path / "another") == before
    trained.save_model(tmp_path / "saved")
    trained.save_model(tmp_path / "saved")


def test_synthesis_overwrites_nothing_that_it_did_not_write(tmp_path: Path) -> None:
    model = ScriptedModel()
    for others in ("questions.jsonl", "labels/mine", "README.md", "splits.json", "preferences.parquet"):
        out = tmp_path / others.replace("/", "-")
        write(out / others)
        with pytest.raises(ConfigError, match="would be overwritten"):
            synthesize(config_of(), Writers(model, model), out, Silent())
        assert contents(out) == {others: b"somebody's own"}


def test_synthesis_by_another_configuration_keeps_files_of_others(tmp_path: Path) -> None:
    model, out = ScriptedModel(), tmp_path / "out"
    synthesize(config_of(users=4), Writers(model, model), out, Silent())
    shards = {path.name for path in (out / "labels").iterdir()}
    write(out / "labels/notes.txt")
    write(out / "notes.txt")
    (out / "splits.json").unlink()  # the dataset is not finished
    synthesize(config_of(users=4, shard=2), Writers(model, model), out, Silent())
    assert {path.name for path in (out / "labels").iterdir()} > {*shards, "notes.txt"}
    assert (out / "labels/notes.txt").read_text() == (out / "notes.txt").read_text() == "somebody's own"
