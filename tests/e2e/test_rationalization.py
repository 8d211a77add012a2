"""Rationalization through the real program: trained, evaluated, reported, and talked to."""

from __future__ import annotations

from pathlib import Path

from fspo.files import read_json, read_jsonl
from tests.e2e.conftest import run, tiny


def test_a_run_with_descriptions_in_the_models_own_words(speaking_model_path: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    settings = [
        "methods=[base,fspo-rat,oracle]",
        "training.all.steps=2",
        "training.fspo-rat={objective: mirrored-contrast, closeness: words, drafts: 2, description_tokens: 8}",
        "evaluation.description_tokens=8",
        "evaluation.answers=1",
        "evaluation.corruption=[1.0]",
    ]
    sets = [part for setting in settings for part in ("--set", setting)]
    run("run", *tiny(speaking_model_path, output), *sets, undrawn=True)
    metrics = read_json(output / "metrics.json")
    assert {"reward_accuracy", "label_flip_rate", "corrupted_accuracy/0%", "corrupted_accuracy/100%"} <= set(
        metrics["fspo-rat"]
    )
    assert read_json(output / "methods" / "fspo-rat" / "policy.json")["starts_from"] == "../pref-ft-cot"
    assert read_jsonl(output / "evaluation" / "fspo-rat" / "descriptions.jsonl")
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "Description by fspo-rat" in page
    assert "corrupted accuracy" in page
    talk = "/describe\n/describe Likes long reviews.\nHello\n/describe\n/quit\n"
    said = run("chat", output, "--method", "fspo-rat", "--max-tokens", "4", "--guidance", "1", stdin=talk).stdout
    assert said.count("fspo-rat on ") == 3
    assert said.count(": Likes long reviews.") == 2
    assert "[fspo-rat, for " in said
