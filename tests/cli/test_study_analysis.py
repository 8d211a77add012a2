"""`fspo study report` and `fspo study plan`."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fspo.cli.study import app
from fspo.errors import ConfigError, DataError
from fspo.study.analysis.wording import NO_RESULT
from tests.study.made_records import attentive, item, person, study

pytestmark = pytest.mark.usefixtures("migrated_stores")

PAPER = "configs/study/paper.yaml"


def _export(folder: Path, name: str = "paper") -> Path:
    chance = random.Random(0)
    people = [person(f"p{n}", study=name) for n in range(12)]
    study(people, [one for who in people for one in attentive(who.id, chance, 0.8)]).save(folder)
    return folder


def _run(*arguments: object) -> str:
    found = CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False)
    assert found.exit_code == 0
    return found.output


def test_the_report_is_printed_and_written_twice_over(tmp_path: Path) -> None:
    records, out = _export(tmp_path / "export"), tmp_path / "out"
    for _ in range(2):
        printed = _run("report", PAPER, "--records", records, "--output", out)
    assert "preferred 'personal' to 'base'" in printed
    saved = json.loads((out / "study.json").read_text())
    value = saved["results"]["win_rates"][0]["estimate"]["value"]
    assert f"{value * 100:.1f}" in printed and f"{value * 100:.1f}" in (out / "report.html").read_text()


def test_an_empty_main_analysis_is_said(tmp_path: Path) -> None:
    study([person("p1", study="paper", finished=None)], [item("p1", 1), item("p1", 2, choice=None)]).save(tmp_path)
    printed = _run("report", PAPER, "--records", tmp_path, "--output", tmp_path / "out")
    assert NO_RESULT in printed and NO_RESULT in (tmp_path / "out" / "report.html").read_text()


def test_named_records_are_read_although_the_environment_names_a_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSPO_STORE", str(tmp_path / "store"))
    records = _export(tmp_path / "export")
    _run("report", PAPER, "--records", records, "--output", tmp_path / "out")
    with pytest.raises(ConfigError, match="one of --store and --records"):
        _run("report", PAPER, "--records", records, "--store", tmp_path / "other", "--output", tmp_path / "out")
    assert (tmp_path / "out" / "report.html").is_file()


def test_another_studys_records_and_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'other'"):
        _run("report", PAPER, "--records", _export(tmp_path / "other", "other"), "--output", tmp_path / "out")
    with pytest.raises(DataError, match=r"There is no folder .*nowhere"):
        _run("report", PAPER, "--records", tmp_path / "nowhere", "--output", tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "study.json").write_text("[1]")
    with pytest.raises(ConfigError, match="not replaced"):
        _run("report", PAPER, "--records", _export(tmp_path / "export"), "--output", tmp_path / "mine")
    assert (tmp_path / "mine" / "study.json").read_text() == "[1]"


def test_the_plan_recommends_a_number(tmp_path: Path) -> None:
    printed = _run("plan", PAPER, "--win-rate", "0.65", "--json", tmp_path / "plan.json")
    saved = json.loads((tmp_path / "plan.json").read_text())
    assert (
        f"has 25 participants, which is enough for a chance of 80% to find a win rate of 65%: {saved['recommended']} "
        in (" ".join(printed.split()))
    )
    assert saved["needed"]["0.65"] == saved["recommended"] < saved["needed"]["0.6"]
    changes = ("--set", "participants=1", "--set", "comparisons.count=1", "--set", "comparisons.attention=0")
    printed = " ".join(_run("plan", PAPER, *changes).split())
    assert "only 1 participant." in printed and "1 comparison of a pair" in printed and "1 people" not in printed


def test_rules_that_differ_from_the_registration_are_named(tmp_path: Path) -> None:
    from fspo.study.config import load_study
    from fspo.study.material import load_material
    from fspo.study.registration import registration_of
    from fspo.study.store import StudyStore

    config = load_study(Path(PAPER), [f"output={tmp_path}"])
    store = StudyStore.open(str(tmp_path))
    try:
        store.register(config.name, registration_of(config, load_material(config)))
        store.enter(config, "en", {}, "one", lambda _: [])
    finally:
        store.close()
    assert "as registered" in _run("report", PAPER, "--set", f"output={tmp_path}")
    other = _run("report", PAPER, "--set", f"output={tmp_path}", "--set", "exclusions.failed_attention=2")
    assert "differs from its registration in: exclusions" in other
