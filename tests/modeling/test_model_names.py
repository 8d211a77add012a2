"""Which policy the folder of a run stands for, in Python and on the command line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fspo.cli.chat import _only_method
from fspo.cli.main import app
from fspo.errors import ModelError
from fspo.files import write_json
from fspo.modeling.model_names import check_folder, folder_name, policy_in
from fspo.modeling.policy import Policy
from fspo.runs.config import RunConfig
from fspo.runs.folder import RunFolder


def run_with(folder: Path, model: Path, *methods: str) -> RunFolder:
    for name in methods:
        (folder / "methods" / name).mkdir(parents=True)
        record = {"format": 1, "base": str(model), "adapters": ["adapter-0"], "method": name}
        write_json(folder / "methods" / name / "policy.json", record)
    return RunFolder(RunConfig(output=folder))


@pytest.mark.parametrize(
    ("methods", "meant"),
    [(("fspo", "ipo", "pref-ft"), "fspo"), (("fspo-rat", "fspo"), "fspo"), (("ipo",), "ipo")],
)
def test_a_run_stands_for_its_policy_of_fspo_or_else_its_only_one(
    tmp_path: Path, tiny_model_path: Path, methods: tuple[str, ...], meant: str
) -> None:
    run = run_with(tmp_path / "run", tiny_model_path, *methods)
    assert policy_in(run.path) == policy_in(run.method(meant)) == run.method(meant)
    loaded = Policy.load(run.path).weights
    assert loaded is not None and loaded.folder == run.method(meant)
    assert _only_method(run) == meant
    for verb, target in (("export", str(tmp_path / "whole")), ("push", "me/mine")):
        result = CliRunner().invoke(app, ["model", verb, str(run.path), target, "--dry-run"])
        assert result.exit_code == 0, result.stderr
        assert meant in result.output


def test_a_run_with_several_policies_and_none_of_fspo_lists_them(tmp_path: Path, tiny_model_path: Path) -> None:
    run = run_with(tmp_path / "run", tiny_model_path, "pref-ft", "ipo")
    for use in (lambda: Policy.load(run.path), lambda: _only_method(run)):
        with pytest.raises(ModelError, match=r"policies ipo, pref-ft, .* such as .*run/methods/ipo, .*--method ipo"):
            use()
    result = CliRunner().invoke(app, ["model", "export", str(run.path), str(tmp_path / "whole"), "--dry-run"])
    assert result.exit_code == 1 and "ipo, pref-ft" in result.stderr


@pytest.mark.parametrize(
    ("written", "short"),
    [
        (("m", "./m", "m/", "here/../m"), "m"),
        (("models/my", "./models/my", "models/my/", "models/../models/my"), "models/my"),
        (("./a/b/c", "a/b/c/"), "a/b/c"),
        (("/a/b", "/a//b/"), "/a/b"),
        (("../m", ".././m/"), "../m"),
        (("./owner/mine", "owner/mine/", "./owner/other/../mine"), "./owner/mine"),
        (("owner/mine",), "owner/mine"),
    ],
)
def test_a_folder_has_one_name_and_no_hub_s(written: tuple[str, ...], short: str) -> None:
    assert {folder_name(name) for name in written} == {short}


def test_it_is_said_where_relative_paths_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=f"runs/nope in {tmp_path}, where relative paths begin"):
        check_folder("runs/nope")
    with pytest.raises(ModelError) as caught:
        check_folder(tmp_path / "nope")
    assert "where relative" not in str(caught.value)


@pytest.mark.parametrize("line", [["show"], ["pull"], ["pull", "--dry-run"], ["export", "out"], ["push", "me/mine"]])
def test_a_missing_folder_is_named_as_one_and_no_hub_is_asked(
    line: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["model", line[0], "runs/nope", *line[1:]])
    assert result.exit_code == 1 and "There is no model folder runs/nope" in result.stderr
    assert "hub can't be" not in result.stderr


def test_a_name_of_a_hub_below_a_folder_here_says_why_no_hub_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Qwen").mkdir()
    with pytest.raises(ModelError, match="no hub is asked because there is a folder Qwen here"):
        check_folder("Qwen/Qwen3-8B")


def test_a_run_without_a_policy_leaves_it_to_the_verb_to_say_so(tmp_path: Path, tiny_model_path: Path) -> None:
    run = run_with(tmp_path / "run", tiny_model_path, "ipo")
    shutil.rmtree(run.path / "methods")
    assert policy_in(run.path) is None
    assert _only_method(run) == "fspo"
