"""`fspo eval --benchmark` in this process, on rows of exactly the published columns and a tiny random model."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.evaluation.benchmarks.benchmark import BENCHMARKS
from tests.evaluation.benchmarks.rows import bench_rows, domain_rows, personal_rows, prism_rows, written

QUICK = (
    "evaluation.robustness={users: 0}",
    "evaluation.ladder=[0]",
    "evaluation.antisymmetric_swap=false",
    "methods=[base, few-shot]",
)


def fspo(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def measured(folder: Path, model: Path, name: str, *arguments: object, sets: tuple[str, ...] = QUICK) -> Any:
    config = folder / "run.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("name: tiny\n")
    options = [part for setting in (f"model={model}", *sets) for part in ("--set", setting)]
    return fspo("eval", config, "--output", folder / "run", "--benchmark", name, *options, *arguments)


def comparison(folder: Path, name: str) -> Mapping[str, Any]:
    found: dict[str, Any] = json.loads((folder / "run/benchmarks" / name / "comparison.json").read_text())
    return found


def test_reward_bench_stands_beside_published_rows(tmp_path: Path, tiny_model_path: Path) -> None:
    rows = written(tmp_path / "rows.jsonl", bench_rows(users=3, shown=3, asked=2))
    scorer = "evaluation.reward_models=[{name: longest, scorer: 'tests.runs.test_benchmarks:longest'}]"
    done = measured(tmp_path, tiny_model_path, "reward-bench-prism", "--data", rows, "--set", scorer)
    assert done.exit_code == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "PersonalRewardBench, PRISM" in text
    assert "longest" in text and "this run" in text
    assert "P-GenRM" in text and "65.32 ± 0.56" in text and "2602.12116" in text
    assert "3 users, 6 pairs, 3 shots." in text
    assert "The published figures are of 723 users, those of this run of 3." in text
    assert "rows with turns before the question are left out" in text
    found = comparison(tmp_path, "reward-bench-prism")
    assert found["ours"]["longest"]["value"] == 1 / 3  # one user of three likes it long
    assert found["ours"].keys() == {"base", "few-shot", "longest"}
    assert {row["source"]["where"] for row in found["published"]} == {"arXiv 2602.12116, Table 1"}
    assert found["data"]["source"] == str(rows)
    page = (tmp_path / "run/benchmarks/reward-bench-prism/README.md").read_text()
    assert str(tmp_path) not in page and str(tiny_model_path) not in page
    assert "| P-GenRM | Llama 3.1 8B | three earlier pairs | 65.32 ± 0.56 | arXiv 2602.12116, Table 1 |" in page
    for lines in page.split("\n\n"):
        columns = {line.count("|") for line in lines.splitlines() if line.startswith("|")}
        assert len(columns) <= 1


def longest(_: object, __: str, response: str) -> float:
    """A reward model that knows no user."""
    return float(len(response))


def test_the_same_command_goes_on_and_other_settings_are_refused(
    tmp_path: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = written(tmp_path / "rows/test.jsonl", bench_rows(users=3, shown=3, asked=2)).parent
    assert measured(tmp_path, tiny_model_path, "reward-bench-arena", "--data", rows).exit_code == 0
    before = (tmp_path / "run/benchmarks/reward-bench-arena/metrics.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(
            "fspo.evaluation.scoring.weights.Weights.load", lambda *_: pytest.fail("nothing is left to score")
        )
        again = fspo("eval", tmp_path / "run", "--benchmark", "reward-bench-arena")
    assert again.exit_code == 0, again.stderr
    assert (tmp_path / "run/benchmarks/reward-bench-arena/metrics.json").read_bytes() == before
    fewer = ("--set", "benchmarks.reward-bench-arena.users=2")
    refused = fspo("eval", tmp_path / "run", "--benchmark", "reward-bench-arena", *fewer)
    assert refused.exit_code == 2
    assert "benchmarks.reward-bench-arena.users not set, and now" in refused.stderr
    mine = tmp_path / "run/benchmarks/reward-bench-arena/notes.txt"
    mine.write_text("mine")
    anew = fspo("eval", tmp_path / "run", "--benchmark", "reward-bench-arena", *fewer, "--on-existing", "overwrite")
    assert anew.exit_code == 2 and "notes.txt is no part of a run" in anew.stderr and mine.exists()
    mine.unlink()
    anew = fspo("eval", tmp_path / "run", "--benchmark", "reward-bench-arena", *fewer, "--on-existing", "overwrite")
    assert anew.exit_code == 0, anew.stderr
    text = " ".join(anew.stdout.split())
    assert "departs from the protocol: users 2 instead of all (benchmarks.reward-bench-arena.users)" in text
    assert comparison(tmp_path, "reward-bench-arena")["data"]["users_beyond_the_limit"] == 1
    assert not (tmp_path / "run/metrics.json").exists()


def test_several_episodes_are_refused_where_the_rows_say_which_pairs_are_shots(tmp_path: Path) -> None:
    sets = ("benchmarks.reward-bench-arena.episodes=2",)
    done = measured(tmp_path, tmp_path, "reward-bench-arena", sets=sets)
    assert done.exit_code == 2
    assert "benchmarks.reward-bench-arena.episodes: its rows say which pairs" in done.stderr


def test_what_was_measured_stays_where_something_is_missing(tmp_path: Path, tiny_model_path: Path) -> None:
    rows = written(tmp_path / "rows/test.jsonl", bench_rows(users=3, shown=3, asked=2))
    assert measured(tmp_path, tiny_model_path, "reward-bench-arena", "--data", rows).exit_code == 0
    run = tmp_path / "run"
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    torn = tmp_path / "torn.jsonl"
    torn.write_text(rows.read_text()[:-20])
    few = written(tmp_path / "few.jsonl", bench_rows(users=3, shown=3, asked=2)[:1])
    nobody = "{base_url: 'http://127.0.0.1:9/v1', model: m, retries: 0}"
    for more in (
        ("--data", torn),
        ("--data", tmp_path / "none.jsonl"),
        ("--data", few),
        ("--set", f"evaluation.reward_models=[{{name: far, endpoint: {nobody}}}]"),
        ("--set", "model=./nowhere"),
        ("--set", "methods=[base, fspo]"),
    ):
        line = ("eval", run / "config.yaml", "--output", run, "--benchmark", "reward-bench-arena", *more)
        done = fspo(*line, "--on-existing", "overwrite")
        assert done.exit_code in (1, 2) and done.stderr.startswith("Error: "), (more, done.output)
        assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.usefixtures("undrawn")
def test_what_was_measured_on_a_benchmark_is_reported_and_compared(tmp_path: Path, tiny_model_path: Path) -> None:
    rows = written(tmp_path / "prism.jsonl", prism_rows(users=3))
    for place in ("a", "b"):
        assert measured(tmp_path / place, tiny_model_path, "prism", "--data", rows).exit_code == 0
    run = tmp_path / "a/run"
    done = fspo("report", run, "--benchmark", "prism", "--figures", tmp_path / "figures")
    assert done.exit_code == 0, done.stderr
    assert "tiny on prism" in done.stdout
    page = (run / "benchmarks/prism/report.html").read_text(encoding="utf-8")
    assert "<h1>tiny on prism</h1>" in page and re.search(r"3 held-out users\b.*\b12 pairs", page)
    assert (tmp_path / "figures/ranking-accuracy.svg").exists()
    assert not (run / "report.html").exists()
    done = fspo("eval", "compare", run, tmp_path / "b/run", "--benchmark", "prism")
    assert done.exit_code == 0, done.stderr
    assert "The same item by item in several runs, shown once: base, few-shot." in " ".join(done.stdout.split())
    for verb in (("report",), ("eval", "compare")):
        done = CliRunner().invoke(app, [*verb, str(run), "--benchmark", "prims"])
        assert "did you mean 'prism'?" in done.stderr
        done = CliRunner().invoke(app, [*verb, str(run), "--benchmark", "roleplay"])
        assert "fspo eval" in done.stderr and "--benchmark roleplay" in done.stderr


def test_prism_and_personal_llm(tmp_path: Path, tiny_model_path: Path) -> None:
    rows = written(tmp_path / "prism.jsonl", prism_rows(users=3))
    done = measured(tmp_path, tiny_model_path, "prism", "--data", rows)
    assert done.exit_code == 0, done.stderr
    assert "No published figure could be read in its source" in " ".join(done.stdout.split())
    assert comparison(tmp_path, "prism")["data"]["pairs"] == 12

    folder = written(tmp_path / "personal/data/test-0.jsonl", personal_rows()).parents[1]
    written(folder / "data/train-0.jsonl", personal_rows(prompts=40))
    fewer = [part for name in ("users=3", "queries=4") for part in ("--set", f"benchmarks.personal-llm.{name}")]
    done = measured(tmp_path, tiny_model_path, "personal-llm", "--data", folder, *fewer)
    assert done.exit_code == 0, done.stderr
    found = comparison(tmp_path, "personal-llm")
    assert (found["data"]["users"], found["data"]["pairs"], found["data"]["users_beyond_the_limit"]) == (3, 12, 17)
    assert "win_rate" not in (tmp_path / "run/benchmarks/personal-llm/metrics.json").read_text()


@pytest.mark.parametrize(
    ("name", "kind", "users"), [("reviews", "reviews", 3), ("elix-hard", "elix", 4), ("roleplay", "roleplay", 4)]
)
def test_the_papers_own_data(tmp_path: Path, tiny_model_path: Path, name: str, kind: str, users: int) -> None:
    rows = written(tmp_path / "rows.jsonl", domain_rows(kind))
    fewer = [part for what in ("shots=2", "queries=2", "episodes=1") for part in ("--set", f"benchmarks.{name}.{what}")]
    sets = (*QUICK[:-1], "methods=[few-shot, oracle]")
    done = measured(tmp_path, tiny_model_path, name, "--data", rows, *fewer, sets=sets)
    assert done.exit_code == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert "Nothing of this run has a win rate" in text  # measured attributes can't judge for these users
    assert "FSPO" in text and "2502.19312" in text
    found = comparison(tmp_path, name)
    assert found["data"]["users"] == users
    metrics = json.loads((tmp_path / f"run/benchmarks/{name}/metrics.json").read_text())
    assert metrics.keys() == {"few-shot", "oracle"}
    assert metrics["few-shot"]["reward_accuracy"]["items"] == 2 * users


def test_a_method_told_descriptions_is_left_out_where_there_are_none(tmp_path: Path, tiny_model_path: Path) -> None:
    rows = written(tmp_path / "rows.jsonl", bench_rows(users=3, shown=3, asked=1))
    sets = (*QUICK[:-1], "methods=[base, oracle]")
    done = measured(tmp_path, tiny_model_path, "reward-bench-prism", "--data", rows, sets=sets)
    assert done.exit_code == 0, done.stderr
    assert "Not measured, since users have no descriptions: oracle." in " ".join(done.stdout.split())
    sets = (*QUICK[:-1], "methods=[oracle]")
    done = measured(tmp_path / "b", tiny_model_path, "reward-bench-prism", "--data", rows, sets=sets)
    assert done.exit_code == 2
    assert "have no descriptions" in done.stderr


def test_a_domain_is_made_and_measured_in_one_go(
    tmp_path: Path, speaking_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"questions": 16, "responses": 6, "max_tokens": 40, "pairs": 80, "shared_pairs": 8, "disagreement": None}
    row = BENCHMARKS["reviews"]
    quick = replace(row, synthesis={**row.synthesis, **small})
    monkeypatch.setattr("fspo.runs.benchmarks.benchmark_of", lambda _: quick)
    fewer = ("shots=2", "queries=2", "episodes=1", "answers=1")
    sets = (*QUICK, *(f"benchmarks.reviews.{what}" for what in fewer), "evaluation.max_new_tokens=8")
    done = measured(tmp_path, speaking_model_path, "reviews", sets=sets)
    assert done.exit_code == 0, done.stderr
    found = comparison(tmp_path, "reviews")
    assert found["data"]["users"] == 4
    assert "few-shot" in found["ours"]  # a win rate by the measured judge
    assert (tmp_path / "run/benchmarks/reviews/data/splits.json").exists()
    assert (tmp_path / "run/benchmarks/reviews/observer.json").read_text() != "{}"
    answers = (tmp_path / "run/benchmarks/reviews/few-shot/answers.jsonl").read_bytes()
    again = fspo("eval", tmp_path / "run", "--benchmark", "reviews")
    assert again.exit_code == 0, again.stderr
    assert "responses" not in again.stderr
    assert (tmp_path / "run/benchmarks/reviews/few-shot/answers.jsonl").read_bytes() == answers


def test_a_written_domain_is_measured_without_published_rows(tmp_path: Path, tiny_model_path: Path) -> None:
    fewer = (f"benchmarks.reviews-written.{what}" for what in ("users=3", "shots=2", "queries=2"))
    done = measured(tmp_path, tiny_model_path, "reviews-written", sets=(*QUICK, *fewer))
    assert done.exit_code == 0, done.stderr
    found = comparison(tmp_path, "reviews-written")
    assert found["data"]["users"] == 3
    assert set(found["ours"]) == {"base", "few-shot"}
    (tmp_path / "empty").mkdir()
    done = measured(tmp_path / "other", tiny_model_path, "reviews-written", "--data", tmp_path / "empty")
    assert done.exit_code == 1
    assert "was not published, so name a dataset's folder" in done.stderr


def test_a_run_of_the_domain_is_measured_on_its_own_held_out_part(tmp_path: Path, speaking_model_path: Path) -> None:
    made = (
        "{domain: elix-easy, questions: 30, responses: 6, max_tokens: 40, pairs: 80, shared_pairs: 8, "
        "augment: false, judge: measured, meaning: false, disagreement: null, held_out: 0.4, validation: 0.0}"
    )
    fewer = (f"benchmarks.elix-easy.{what}" for what in ("shots=2", "queries=2", "episodes=2", "answers=0"))
    sets = (*QUICK, f"synthesis={made}", *fewer)
    done = measured(tmp_path, speaking_model_path, "elix-easy", sets=sets)
    assert done.exit_code == 0, done.stderr
    assert "No interval for reward accuracy" in " ".join((done.stdout + done.stderr).split())
    found = comparison(tmp_path, "elix-easy")
    assert found["data"]["source"] == str(tmp_path / "run/data")
    assert not (tmp_path / "run/benchmarks/elix-easy/data").exists()
    # The run knows its data as its own.
    assert fspo("synth", tmp_path / "run").exit_code == 0
    assert fspo("eval", tmp_path / "run", "--benchmark", "elix-easy", "--on-existing", "overwrite").exit_code == 0
    assert (tmp_path / "run/data/splits.json").exists()


def test_what_is_missing_is_one_sentence(tmp_path: Path, tiny_model_path: Path) -> None:
    def told(name: str, *arguments: object, code: int, sets: tuple[str, ...] = QUICK) -> str:
        done = measured(tmp_path, tiny_model_path, name, *arguments, sets=sets)
        assert done.exit_code == code, done.stderr
        assert done.stderr.count("\n") == 1
        return str(done.stderr)

    assert "did you mean 'prism'?" in told("prizm", code=2)
    error = told("prism", "--data", tmp_path / "none.jsonl", code=1)
    assert "There is no file or folder" in error
    assert "fetch HannahRoseKirk/prism-alignment/utterances.jsonl where the hub can be reached" in error
    error = told("prism", code=1)  # the tests have no hub
    assert "The hub can't be reached" in error and "name its files here with --data" in error
    error = told("prism", "--data", written(tmp_path / "elix.jsonl", domain_rows("elix")), code=1)
    assert "column 'interaction_id': missing; rows of the kind 'prism' have it" in error
    (tmp_path / "empty").mkdir()
    assert "holds no table (.parquet, .jsonl" in told("prism", "--data", tmp_path / "empty", code=1)
    rows = written(tmp_path / "prism.jsonl", prism_rows(conversations=1))
    assert "None of the 4 users of" in told("prism", "--data", rows, code=1)
    untrained = (*QUICK[:-1], "methods=[pref-ft]")
    assert "holds no trained policy yet" in told("prism", "--data", rows, code=1, sets=untrained)
    assert "there is no setting 'benchmarks.prism.user'; did you mean 'benchmarks.prism.users'?" in told(
        "prism", code=2, sets=(*QUICK, "benchmarks.prism.user=3")
    ).replace(" (1 more after it)", "")
    assert "there is no benchmark 'prsm'; did you mean 'prism'?" in told(
        "prism", code=2, sets=(*QUICK, "benchmarks.prsm.users=3")
    )
    lone = fspo("eval", "--output", tmp_path / "x", "--set", f"model={tiny_model_path}", "--data", rows)
    assert lone.exit_code == 2


def test_a_dry_run_fetches_and_makes_nothing(tmp_path: Path, tiny_model_path: Path) -> None:
    done = measured(tmp_path, tiny_model_path, "prism", "--dry-run", "--set", "benchmarks.prism.users=7")
    assert done.exit_code == 0, done.stderr
    assert "Data: hub:HannahRoseKirk/prism-alignment/utterances.jsonl." in done.stdout
    assert "users 7 instead of all" in done.stdout
    done = measured(tmp_path, tiny_model_path, "elix-easy", "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert "still to be made" in done.stdout
    assert not (tmp_path / "run").exists()
    assert measured(tmp_path, tiny_model_path, "prism", "--dry-run", "--data", "none").exit_code == 1
    damaged = tmp_path / "rows.jsonl"
    damaged.write_text('{"user_id": 1}\n')
    done = measured(tmp_path, tiny_model_path, "prism", "--dry-run", "--data", damaged)
    assert done.exit_code == 1 and str(damaged) in done.stderr
    planned = fspo(
        "run",
        tmp_path / "run.yaml",
        "--dry-run",
        "--set",
        "benchmarks.prism.data=none",
        "--set",
        f"model={tiny_model_path}",
    )
    assert planned.exit_code == 1
    assert planned.stderr.startswith("Error: benchmarks.prism.data: there is no file or folder none;")
