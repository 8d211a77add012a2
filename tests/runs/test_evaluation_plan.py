"""What a dry run says of the evaluation, against what the evaluation does."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fspo.evaluation.evaluate import evaluate
from fspo.files import read_jsonl
from fspo.methods import adaptation
from fspo.methods.policies.asls import ContinualAdapters
from fspo.methods.policies.steering import Steering
from fspo.methods.policies.summary import Summary
from fspo.methods.policies.ttt import TestTimeTraining
from fspo.modeling import logprobs
from fspo.modeling.rendering import TokenizedEpisode
from fspo.preferences.dataset import PreferenceDataset
from fspo.runs.config import RunConfig, load_config
from fspo.runs.evaluation_plan import PlannedEvaluation, planned_evaluation, sentence
from tests.evaluation.helpers import CountingJudge
from tests.methods.adaptation_worlds import counted_tokens
from tests.training.helpers import small_dataset

SETTINGS = ["methods=[base,few-shot]", "evaluation.shots=2", "evaluation.queries=2", "evaluation.answers=2"]


def test_the_tokens_are_those_that_the_evaluation_reads_and_writes(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(None, [*SETTINGS, f"model={tiny_model_path}", "evaluation.max_new_tokens=4"], tmp_path)
    test = small_dataset(users=3, questions=8)
    read: list[int] = []
    score = logprobs.branch_logprobs

    def counting(model: Any, episodes: list[TokenizedEpisode]) -> Any:
        read.append(sum(episode.tokens for episode in episodes))
        return score(model, episodes)

    monkeypatch.setattr(logprobs, "branch_logprobs", counting)
    methods = {"base": None, "few-shot": None}
    evaluate(config.evaluation, test, methods, model=config.model, out=tmp_path / "out", judge=None)
    planned = planned_evaluation(config, test, judged=False)
    assert planned is not None
    assert planned.read == pytest.approx(sum(read), rel=0.35)
    answers = [row for name in methods for row in read_jsonl(tmp_path / "out" / name / "answers.jsonl")]
    assert planned.written == 4 * len(answers)
    assert planned.seconds() > 0
    judged = planned_evaluation(config, test, judged=True)
    assert judged is not None and judged.written > planned.written
    left = _left(config, test, tmp_path / "out")
    assert left.finished and "is finished" in sentence(left)
    scores = tmp_path / "out" / "few-shot" / "margins.jsonl"
    scores.write_text("".join(scores.read_text().splitlines(keepends=True)[:1]))
    left = _left(config, test, tmp_path / "out")
    assert 0 < left.read < planned.read and not left.written and "has left" in sentence(left)


def _left(config: RunConfig, test: PreferenceDataset, out: Path, *, judged: bool = False) -> PlannedEvaluation:
    """What a dry run says is left of an evaluation."""
    planned = planned_evaluation(config, test, judged=judged, out=out)
    assert planned is not None
    return planned


WORDS = ["methods=[base,few-shot,summary,oracle]", "evaluation.description_tokens=3", "evaluation.corruption=[0.5]"]


@pytest.fixture(scope="module")
def finished(
    tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunConfig, PreferenceDataset, Path]:
    """A finished evaluation with every kind of log."""
    out = tmp_path_factory.mktemp("finished")
    more = ["evaluation.max_new_tokens=2", "evaluation.answers=1", "evaluation.answer_batch=1", *WORDS]
    config = load_config(None, [*SETTINGS, *more, f"model={tiny_model_path}"], out)
    test = small_dataset(users=2, questions=8)
    methods = dict.fromkeys(config.methods)
    evaluate(config.evaluation, test, methods, model=config.model, out=out, judge=None)
    return config, test, out


@pytest.fixture(scope="module")
def half_of_it(finished: tuple[RunConfig, PreferenceDataset, Path]) -> float:
    """Half of the tokens of that evaluation."""
    config, test, _ = finished
    whole = _fresh(config, test)
    return (whole.read + whole.written) / 2


def test_an_evaluation_with_every_kind_of_log_is_finished(
    finished: tuple[RunConfig, PreferenceDataset, Path],
) -> None:
    assert _left(*finished).finished


@pytest.mark.parametrize(
    "log",
    [
        "few-shot/variations.jsonl",
        "summary/variations.jsonl",
        "summary/margins.jsonl",  # its last line is a score with a corrupted description, and so is the oracle's
        "oracle/margins.jsonl",
        "summary/descriptions.jsonl",
        "few-shot/answers.jsonl",
        "fluency.jsonl",
    ],
)
def test_a_log_that_lacks_its_last_line_is_not_finished(
    finished: tuple[RunConfig, PreferenceDataset, Path], half_of_it: float, tmp_path: Path, log: str
) -> None:
    config, test, whole = finished
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    lines = (out / log).read_bytes().splitlines(keepends=True)
    (out / log).write_bytes(b"".join([*lines[:-1], lines[-1][:20]]))  # as a killed process leaves it
    left = _left(config, test, out)
    assert not left.finished and left.begun
    assert left.read + left.written < half_of_it


def test_results_of_other_settings_do_not_count(finished: tuple[RunConfig, PreferenceDataset, Path]) -> None:
    config, test, out = finished
    other = config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"seed": 5})})
    left, whole = _left(other, test, out), _fresh(other, test)
    assert (left.read, left.written, left.begun) == (whole.read, whole.written, False)


def test_a_method_that_is_not_trained_yet_is_counted_whole(
    finished: tuple[RunConfig, PreferenceDataset, Path], tmp_path: Path
) -> None:
    config, test, out = finished
    more = load_config(None, [*SETTINGS, "methods=[base,few-shot,fspo]", f"model={config.model}"], tmp_path)
    left = _left(more, test, out)
    assert not left.finished
    assert left.read < _fresh(more, test).read


def _fresh(config: RunConfig, test: PreferenceDataset) -> PlannedEvaluation:
    planned = planned_evaluation(config, test, judged=False)
    assert planned is not None
    return planned


def test_the_answers_that_readers_choose_from_are_counted(tiny_model_path: Path, tmp_path: Path) -> None:
    test, given = small_dataset(users=3, questions=8), [*SETTINGS, f"model={tiny_model_path}"]
    alone, choosing = (
        planned_evaluation(load_config(None, [*given, *more], tmp_path), test, judged=True)
        for more in (["methods=[base]"], ["methods=[base,ridge]", "evaluation.best_of=3"])
    )
    assert alone is not None and choosing is not None
    assert choosing.written == 4 * alone.written
    assert choosing.read > alone.read


def test_the_adaptations_are_those_that_the_evaluation_makes(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adaptation, "_REMEMBERED", 4)  # so that some are made again
    methods = ["ttt", "asls", "steering", "summary"]
    more = ["methods=[ttt,asls,steering,summary]", "evaluation.max_new_tokens=2", "evaluation.description_tokens=3"]
    more += [
        "evaluation.answer_ladder=[1]",
        "evaluation.robustness.users=1",
        "adaptations.ttt.steps=1",
        "adaptations.asls.steps=1",
    ]
    config = load_config(None, [*SETTINGS, *more, f"model={tiny_model_path}"], tmp_path)
    test = small_dataset(users=2, questions=6)
    made: Counter[str] = Counter()
    for kind in (TestTimeTraining, ContinualAdapters, Steering):
        monkeypatch.setattr(kind, "adapt", _counting(kind.adapt, made, kind.__name__))
    monkeypatch.setattr(Summary, "write", _counting(Summary.write, made, "Summary"))
    with counted_tokens() as read:
        evaluate(
            config.evaluation, test, dict.fromkeys(methods), model=config.model, out=tmp_path / "out",
            judge=CountingJudge(), adaptations=config.adaptations,
        )  # fmt: skip
    planned = planned_evaluation(config, test, judged=True)
    assert planned is not None
    found = {one.method: one.count for one in planned.adaptations}
    assert found == {
        "ttt": made["TestTimeTraining"],
        "asls": made["ContinualAdapters"],
        "steering": made["Steering"],
        "summary": made["Summary"],
    }
    assert planned.learned == pytest.approx(read["learned"], rel=0.02)
    assert planned.read == pytest.approx(read["read"], rel=0.35)
    assert "ttt" in sentence(planned) and planned.seconds() > 0
    assert _left(config, test, tmp_path / "out", judged=True).finished


def _counting(work: Any, made: Counter[str], name: str) -> Any:
    def count(self: Any, users: Any, **given: Any) -> Any:
        made[name] += len(users) if name == "Summary" else 1
        return work(self, users, **given)

    return count


def test_an_adaptation_of_unknown_work_is_named(tiny_model_path: Path, tmp_path: Path) -> None:
    config = load_config(None, [*SETTINGS, "methods=[steering]", f"model={tiny_model_path}"], tmp_path)
    planned = planned_evaluation(config, small_dataset(users=3, questions=8), judged=True)
    assert planned is not None
    (steering,) = planned.adaptations
    assert "nor is" not in sentence(planned)
    assert "nor is how steering adapts" in sentence(replace(planned, adaptations=(replace(steering, work=None),)))
