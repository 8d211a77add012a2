"""Verbs that overwrite a stage of a run remove what fspo wrote, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fspo.files import check_no_others
from fspo.runs.config import load_config
from fspo.runs.folder import RunFolder
from fspo.runs.made import RUN
from tests.e2e.conftest import run

OVERWRITE = ("--on-existing", "overwrite")


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_all_that_a_run_writes_is_known(finished: Path) -> None:
    for part in RunFolder(load_config(finished / "config.yaml", output=finished)).parts():
        check_no_others(finished, RUN, below=part)


@pytest.mark.parametrize(
    ("verb", "others"),
    [
        (("synth",), "data/notes.txt"),
        (("synth",), "methods/fspo/notes.txt"),
        (("synth",), "evaluation/figures/mine.svg"),
        (("run",), "data/labels/mine.txt"),
        (("train", "--method", "fspo"), "methods/fspo/checkpoints/mine/notes.txt"),
        (("train", "--method", "fspo"), "evaluation/notes.txt"),
        (("eval",), "evaluation/fspo/notes.txt"),
    ],
)
def test_a_stage_with_files_of_others_is_not_overwritten(copied: Path, verb: tuple[str, ...], others: str) -> None:
    own = copied / others
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("mine")
    before = contents(copied)
    name, *more = verb
    said = run(name, copied, *more, *OVERWRITE, code=2).stderr
    assert "is no part of a run, and would be removed; move it away" in " ".join(said.split())
    assert contents(copied) == before


def test_files_of_others_beside_the_stages_stay(copied: Path) -> None:
    beside = ("notes.txt", "methods/notes.txt", "models/mine/model.safetensors", "data/notes.txt")
    for name in beside:
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_text("mine")
    run("eval", copied, *OVERWRITE, "--set", "evaluation.answers=0", "--set", "evaluation.users=3")
    run("report", copied, "--figures", copied / "figures", undrawn=True)
    assert [(copied / name).read_text() for name in beside] == ["mine"] * len(beside)


def test_plots_and_comparisons_replace_their_own_kind(finished: Path, copied: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures"
    for _ in range(2):
        run("report", copied, "--figures", figures, undrawn=True)
    plot = next(figures.glob("*.svg"))
    plot.write_text("<svg>mine</svg>")
    before = contents(figures)
    assert "is not a plot of a report" in run("report", copied, "--figures", figures, code=2, undrawn=True).stderr
    assert contents(figures) == before
    plot.unlink()
    if plot.with_suffix(".csv").exists():
        assert "belongs to no plot" in run("report", copied, "--figures", figures, code=2, undrawn=True).stderr

    compared, page = tmp_path / "c.json", tmp_path / "c.html"
    for _ in range(2):
        run("eval", "compare", copied, "--json", compared, "--html", page)
    assert json.loads(compared.read_text())["measure"] == "reward_accuracy"
    before = contents(copied)
    for option, place in (
        ("--json", copied / "metrics.json"),
        ("--json", copied / "evaluation/details.json"),
        ("--html", copied / "report.html"),
        ("--json", copied / "data/dataset.json"),
        ("--json", copied / "methods/fspo/policy.json"),
    ):
        assert "is a part of" in run("eval", "compare", copied, option, place, code=2).stderr
    assert contents(copied) == before
    for option, place in (("--json", compared), ("--html", page)):
        place.write_text('{"mine": 1}')
        assert "so it is not replaced" in run("eval", "compare", copied, option, place, code=2).stderr
        assert place.read_text() == '{"mine": 1}'
