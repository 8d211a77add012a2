"""Every path that a person writes may start with `~`, on the command line, in YAML and in Python."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fspo import FSPOConfig, FSPOTrainer, PreferenceDataset
from fspo.cli.main import app
from fspo.errors import ConfigError
from fspo.runs.config import load_config
from fspo.study.config import load_study
from fspo.training.start import Start
from tests.study.site import write_texts
from tests.tiny_model import build_tiny_model


def fspo(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with rows of preferences; the working folder is another one, and empty."""
    home = tmp_path / "home"
    home.mkdir()
    rows = [
        {"user": f"u{u}", "prompt": f"What of {q}?", "chosen": f"{q} is fine.", "rejected": f"{q} is not for {u}."}
        for u in range(6)
        for q in range(12)
    ]
    (home / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (home / "users.jsonl").write_text("".join(json.dumps({"id": f"u{u}"}) + "\n" for u in range(6)))
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path / "work")
    return home


def test_verbs_of_data(home: Path) -> None:
    assert fspo("data", "import", "~/rows.jsonl", "~/set", "--users=~/users.jsonl").exit_code == 0
    assert fspo("data", "split", "~/set").exit_code == 0
    assert fspo("data", "show", "~/set").exit_code == 0
    assert fspo("data", "validate", "~/rows.jsonl").exit_code == 0
    assert fspo("data", "export", "~/again.jsonl", "~/set").exit_code == 0
    assert {"set", "again.jsonl"} <= {path.name for path in home.iterdir()}
    assert PreferenceDataset.load("~/set") == PreferenceDataset.load(home / "set")
    assert list(Path().iterdir()) == []


def test_a_dataset_is_imported_into_the_empty_folder_one_is_in(home: Path) -> None:
    result = fspo("data", "import", "~/rows.jsonl", ".")
    assert result.exit_code == 0, result.output
    assert len(PreferenceDataset.load(".")) == 72
    again = fspo("data", "import", "~/rows.jsonl", ".", "--overwrite")
    assert again.exit_code == 0, again.output
    assert len(PreferenceDataset.load(Path.cwd())) == 72


def test_settings_of_a_run(home: Path) -> None:
    (home / "my.yaml").write_text(
        "model: ~/m\ndata: ~/d\noutput: ~/o\nensemble: [{model: ~/e}]\nbenchmarks: {prism: {data: ~/p}}\n"
        "evaluation: {reward_models: [{name: r, model: ~/r}]}\nsynthesis: {domain: ~/mine}\n"
    )
    config = load_config(home / "my.yaml")
    assert config.model == str(home / "m") and config.data == home / "d" and config.output == home / "o"
    assert config.ensemble[0].model == str(home / "e") and config.benchmarks["prism"].data == str(home / "p")
    assert config.evaluation.reward_models[0].model == str(home / "r")
    assert config.synthesis.domain == str(home / "mine")
    config = load_config(None, ["model=~/n"], Path("~/x"))
    assert config.model == str(home / "n") and config.output == home / "x"
    with pytest.raises(ConfigError, match="home folder that is not known"):
        load_config(None, ["model=~no-such-user/n"])
    with pytest.raises(ConfigError, match="null character"):
        load_config(None, ['output="a\\0b"'])
    said = fspo("synth", "--config=~/my.yaml", "--output=~/y", "--dry-run")
    assert "~" not in said.output


def test_settings_of_a_study(home: Path) -> None:
    policy = {"policy": "~/m"}
    values = {
        "name": "mine",
        "output": "~/study",
        "arms": {"personal": policy, "base": {**policy, "personalised": False}},
        "labels": {"source": {"file": "~/texts.jsonl"}, "count": 2},
        "comparisons": {"count": 2},
        "consent": {"version": "1", "text": "Agree?", "contact": "ann@example.org"},
    }
    (home / "study.yaml").write_text(json.dumps(values))
    write_texts(home)
    build_tiny_model(home / "m")
    config = load_study(home / "study.yaml")
    assert config.output == home / "study" and config.labels.source.file == home / "texts.jsonl"
    said = fspo("study", "serve", "~/study.yaml", "--port", "0", "--dry-run")
    assert said.exit_code == 0, said.output
    assert list(Path().iterdir()) == []


def test_judges_in_a_file(home: Path) -> None:
    (home / "judges.yaml").write_text("judges: [{name: longer, likes: {length: 1}}]\n")
    rows = [{"prompt": f"What of {n}?", "ours": f"{n} is fine.", "theirs": f"{n}."} for n in range(4)]
    (home / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = fspo("eval", "answers", "~/answers.jsonl", "--judge=~/judges.yaml", "--dry-run")
    assert said.exit_code == 0, said.output


def test_models_and_policies(home: Path) -> None:
    policy = home / "policy"
    build_tiny_model(policy)
    shutil.copytree(policy, home / "m")
    card = {"format": 1, "base": "a/b", "adapters": [], "method": "fspo", "starts_from": None, "details": {}}
    (policy / "policy.json").write_text(json.dumps(card))
    assert f"folder: {home / 'm'}" in fspo("model", "show", "~/m").output
    assert fspo("model", "pull", "~/m").exit_code == 0
    assert fspo("model", "export", "~/policy", "~/whole").exit_code == 0
    assert (home / "whole/config.json").is_file() and list(Path().iterdir()) == []


def test_a_training_in_python(home: Path) -> None:
    build_tiny_model(home / "m")
    rows = [json.loads(line) for line in (home / "rows.jsonl").read_text().splitlines()]
    settings: dict[str, Any] = {"steps": 1, "shots": 2, "queries": 1, "users_per_step": 1}
    trainer = FSPOTrainer("~/m", FSPOConfig(output_dir="~/out", **settings), rows)
    assert trainer.args.output_dir == str(home / "out")
    assert trainer._training.start.identity() == Start(str(home / "m"), home / "out").identity()
    with pytest.raises(ConfigError, match="home folder that is not known"):
        FSPOConfig(output_dir="~no-such-user/x")
