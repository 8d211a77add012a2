from __future__ import annotations

import io
import json
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from benchmarks import evaluation_everywhere
from benchmarks.evaluation_everywhere import DOMAINS, configurations, estimate
from fspo.progress import Progress
from fspo.runs import pipeline
from fspo.runs.config import RunConfig
from fspo.runs.folder import RunFolder

PAPER = {"base", "few-shot", "pref-ft", "ipo", "fspo", "pref-ft-cot", "fspo-rat", "oracle"}
"""The methods of the paper; `fspo compare` has the related systems."""
QUICK = (
    "synthesis.max_tokens=24",
    "synthesis.questions=24",
    "synthesis.responses=8",
    "training.all.lora={r: 4, alpha: 8}",
    "training.all.shots=2",
    "training.all.queries=2",
    "training.ipo.shots=0",
    "training.pref-ft.steps=2",
    "training.ipo.steps=2",
    "training.fspo.steps=2",
    "training.pref-ft-cot.steps=2",
    "training.fspo-rat.steps=2",
    "evaluation.shots=2",
    "evaluation.ladder=[0, 1, 2]",
    "evaluation.queries=2",
    "evaluation.max_new_tokens=8",
    "evaluation.description_tokens=8",
    "evaluation.tax={users: 1, general: 1, refusals: 1, max_new_tokens: 8}",
)


def command(model: Path, folder: Path, *more: str) -> list[str]:
    sets = [part for setting in (f"model={model}", *QUICK) for part in ("--set", setting)]
    where = ["--work", str(folder / "work"), "--out", str(folder / "out")]
    return ["--domains", "reviews,elix-easy", "--small", *where, *sets, *more]


def run(arguments: list[str]) -> str:
    """The last line that is printed."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert evaluation_everywhere.main(arguments) == 0
    return printed.getvalue().splitlines()[-1]


def test_the_whole_takes_about_an_hour_and_the_small_one_less() -> None:
    whole = json.loads(run(["--estimate"]))
    assert whole["seconds"].keys() == DOMAINS.keys()
    assert 20 < whole["minutes"] < 80
    assert json.loads(run(["--estimate", "--small"]))["minutes"] < whole["minutes"] / 2


def test_every_method_of_the_paper_is_measured_on_every_domain_in_every_way(tmp_path: Path) -> None:
    for domain, config in configurations(list(DOMAINS), tmp_path).items():
        assert set(config.methods) == PAPER
        assert config.synthesis.domain == domain
        evaluation = config.evaluation
        assert evaluation.label_flip and evaluation.user_swap and evaluation.answers
        assert evaluation.robustness.users and evaluation.robustness.wrong_labels and evaluation.robustness.other_topics
        assert evaluation.samplings == ("plain", "guided")
        assert evaluation.users is not None and evaluation.users >= 3  # enough for an interval


def test_the_estimate_grows_with_what_is_done(tmp_path: Path) -> None:
    def expected(*overrides: str) -> evaluation_everywhere.Expected:
        return estimate(configurations(["roleplay"], tmp_path, overrides=overrides)["roleplay"], users=30)

    usual = expected()
    assert expected("synthesis.responses=12").synthesis == pytest.approx(2 * usual.synthesis)
    assert expected("training.fspo.steps=64").training > usual.training
    for more in ("users=9", "answers=4", "robustness.users=4", "ladder=[0,1,2,4]", "queries=6", "answer_ladder=[1,2]"):
        found = expected(f"evaluation.{more}")
        assert found.evaluation > usual.evaluation
        assert found.training == usual.training


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_all_methods_on_two_domains_killed_on_the_way(
    speaking_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        pass

    real = pipeline.evaluate

    def killed(folder: RunFolder, progress: Progress) -> dict[str, Any]:
        if folder.path.name == "elix-easy":
            raise Killed
        return real(folder, progress)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(pipeline, "evaluate", killed)
        run(command(speaking_model_path, tmp_path))
    out = tmp_path / "out"
    assert (out / "reviews/report.html").exists() and not (out / "elix-easy").exists()
    before = (out / "reviews/metrics.json").read_bytes()

    weights = {path: path.stat().st_mtime_ns for path in (tmp_path / "work").rglob("adapter_model.safetensors")}
    record = json.loads(run(command(speaking_model_path, tmp_path)))
    assert weights and weights == {path: path.stat().st_mtime_ns for path in weights}
    assert (out / "reviews/metrics.json").read_bytes() == before
    saved = json.loads((out / "figures.json").read_text())
    for domain in ("reviews", "elix-easy"):
        found = record["domains"][domain]
        assert found == {**saved["domains"][domain], "metrics": json.loads((out / domain / "metrics.json").read_text())}
        assert found["metrics"].keys() == PAPER
        assert {"label_flip_rate", "win_rate", "order_change_rate"} <= found["metrics"]["fspo"].keys()
        assert found["seconds"].keys() == {"synthesis", "training", "evaluation"}
        assert (out / domain / "report.html").stat().st_size > 0
    assert "user_swap_drop" in record["domains"]["reviews"]["metrics"]["fspo"]
    assert "user_swap_drop" not in record["domains"]["elix-easy"]["metrics"]["fspo"]  # one user is held out
    page = (out / "README.md").read_text()
    highest = max(row["label_flip_rate"]["value"] for d in record["domains"].values() for row in d["metrics"].values()
                  if "label_flip_rate" in row)  # fmt: skip
    assert f"The highest label flip rate is {100 * highest:.0f}% (" in page
    assert ("no method follows the labels" in page) == (highest < 0.3)
    for name in sorted(PAPER):
        assert page.count(f"\n| {name} |") == 2
    for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_what_is_wrong_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--domains", "elixir"], ["--set", "evaluation.usrs=3"]):
        assert evaluation_everywhere.main([*arguments, "--work", str(tmp_path)]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_configurations_are_runs_of_their_own(tmp_path: Path) -> None:
    found: dict[str, RunConfig] = configurations(list(DOMAINS), tmp_path, small=True)
    assert {config.output for config in found.values()} == {tmp_path / name for name in DOMAINS}


def test_what_a_page_is_made_from_is_kept_unless_it_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = tmp_path / "run" / "evaluation"
    evaluation.mkdir(parents=True)
    for name in ("judges.json", "games.jsonl", "items.jsonl", "scores.jsonl"):
        (evaluation / name).write_text("{}" if name != "games.jsonl" else "{}" * 9, encoding="utf-8")
    config = RunConfig(name="kept", output=tmp_path / "run")
    evaluation_everywhere._published(config, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["games.jsonl", "items.jsonl", "judges.json"]
    monkeypatch.setattr(evaluation_everywhere, "_LARGEST", 9)
    evaluation_everywhere._published(config, tmp_path / "few")
    assert sorted(path.name for path in (tmp_path / "few").iterdir()) == ["items.jsonl", "judges.json"]
