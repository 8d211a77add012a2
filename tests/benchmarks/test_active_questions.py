from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks import active_questions
from benchmarks.active_questions import DOMAINS, FEW, Sizes, main, measure_users
from fspo.modeling.loading import load_model
from fspo.modeling.policies import save_policy

SMALL = Sizes(people=25, known=40, answers=4, questions=40, tested=30)


def test_chosen_questions_tell_more_than_random_ones() -> None:
    found = measure_users("reviews-written", SMALL)
    curves = found["accuracy"]
    assert all(len(curve) == 5 for curve in curves.values())
    for curve in curves.values():
        assert all(point["low"] <= point["value"] <= point["high"] for point in curve)
        assert curve[0]["value"] < curve[4]["value"]
    assert curves["information"][4]["value"] > curves["random"][4]["value"]
    assert found["gain"]["information"][0]["value"] == 0


def test_a_policy_is_measured_in_pieces(
    tiny_model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    sizes = ["--people", "3", "--known", "5", "--questions", "3", "--tested", "6"]
    policy = ["--policy", str(tiny_model_path), "--dtype", "float32", "--work", str(work)]

    def run(*more: str) -> str:
        main([*sizes, "--domains", "elix-written", *more])
        return capsys.readouterr().out

    assert run(*policy, "--rows", "2").startswith("1 of 3")
    first = (work / "effects.jsonl").read_text()
    other = shutil.copytree(tiny_model_path, tmp_path / "other")
    there = ["--policy", str(other), *policy[2:]]
    assert run(*there, "--rows", "0").startswith("1 of 3"), "the same model in another folder"
    with (other / "config.json").open("a") as file:
        file.write("\n")
    assert run(*there, "--rows", "0").startswith("3 of 3"), "another model in that folder"
    users = json.loads(run("--out", str(out)))
    both = json.loads(run(*policy, "--out", str(out)))
    assert both == json.loads((out / "metrics.json").read_text()) and both["users"] == users["users"]
    assert "<svg" in (out / "accuracy-by-answers.svg").read_text()
    rows = (work / "effects.jsonl").read_text().splitlines()
    assert len(rows) == 3 * 8 and (work / "effects.jsonl").read_text().startswith(first)
    found = both["policy"]["elix-written"]
    assert set(found["accuracy"]) == {"random", "information", "variance", "uncertainty", "declared"}
    assert all(curve[0]["value"] == 0.5 and len(curve) == 4 for curve in found["accuracy"].values())
    assert found["measured_with"]["layout"] == "conversation"

    monkeypatch.setattr(active_questions, "_plot", lambda _: "")
    details = {"context": "shots", "training": {"layout": "labelled"}}
    labelled = save_policy(
        load_model(tiny_model_path), tmp_path / "labelled", base=str(tiny_model_path), details=details
    )
    few = ["--people", "3", "--known", "5", "--questions", "1", "--tested", "6", "--domains", "advice"]
    main([*few, "--policy", str(labelled), "--dtype", "float32", "--work", str(work), "--out", str(out)])
    later = json.loads(capsys.readouterr().out)
    assert later["policy"]["advice"]["measured_with"]["layout"] == "labelled"
    assert list(later["policy"]) == ["advice"], "elix-written was measured with another policy"
    assert later["users"] == users["users"]


def test_the_saved_results_say_what_they_were_measured_with() -> None:
    saved = json.loads((Path(__file__).parents[2] / "docs/results/active_questions/metrics.json").read_text())
    users = {"sizes": asdict(Sizes()), "seed": 0}
    assert {domain: row["measured_with"] for domain, row in saved["users"].items()} == dict.fromkeys(DOMAINS, users)
    sizes = {domain: row["measured_with"]["sizes"] for domain, row in saved["policy"].items()}
    assert sizes == {"elix-written": asdict(replace(FEW, questions=12))}
