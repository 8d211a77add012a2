from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fspo.errors import ConfigError
from fspo.llm.types import Completion, CompletionRequest
from fspo.synthesis.restyled.config import RestyledConfig
from fspo.synthesis.restyled.domain import load_domain
from fspo.synthesis.restyled.samples import plan_questions, plan_samples, sample_all
from tests.synthesis.restyled.helpers import ScriptedModel, Stopped

CONFIG = RestyledConfig(titles=8, questions=2, samples=6, seed=3)
DOMAIN = load_domain("reviews")
QUESTIONS = plan_questions(CONFIG, DOMAIN)
SAMPLES = plan_samples(CONFIG, DOMAIN, QUESTIONS)


def test_questions_are_spread_over_works_and_kinds() -> None:
    assert len({question.id for question in QUESTIONS}) == 16
    assert len({question.work.id for question in QUESTIONS}) == 8
    assert {question.work.kind for question in QUESTIONS} == {"film", "series", "anime", "book"}
    assert all(question.work.title in question.prompt for question in QUESTIONS)


def test_more_works_keep_the_questions_there_were() -> None:
    more = plan_questions(CONFIG.model_copy(update={"titles": 20}), DOMAIN)
    assert {question.work.id for question in QUESTIONS} <= {question.work.id for question in more}


@pytest.mark.parametrize(("setting", "there"), [("titles", len(DOMAIN.works)), ("questions", len(DOMAIN.questions))])
def test_more_than_the_domain_has_is_refused(setting: str, there: int) -> None:
    most = plan_questions(CONFIG.model_copy(update={setting: there}), DOMAIN)
    assert len(most) == there * (CONFIG.questions if setting == "titles" else CONFIG.titles)
    with pytest.raises(ConfigError, match=rf"synthesis\.{setting} is {there + 1}, .* set it to at most {there}\."):
        plan_questions(CONFIG.model_copy(update={setting: there + 1}), DOMAIN)


def test_half_of_a_questions_samples_are_steered_to_either_side() -> None:
    for question in QUESTIONS:
        own = [sample for sample in SAMPLES if sample.question == question]
        assert Counter(sample.steered_to for sample in own) == {"positive": 3, "negative": 3}
        assert len({(sample.persona.name, sample.opening) for sample in own}) == 6


def test_every_sample_has_a_seed_of_its_own() -> None:
    assert len({sample.request.seed for sample in SAMPLES}) == len(SAMPLES)
    assert plan_samples(CONFIG, DOMAIN, QUESTIONS) == SAMPLES


@pytest.mark.parametrize("stop_at", [0, 1, 4])
def test_a_killed_run_goes_on_and_ends_the_same(tmp_path: Path, stop_at: int) -> None:
    whole = sample_all(SAMPLES, ScriptedModel(), tmp_path / "whole.jsonl", batch=10)
    torn = tmp_path / "torn.jsonl"
    with pytest.raises(Stopped):
        sample_all(SAMPLES, ScriptedModel(stop_at=stop_at), torn, batch=10)
    model = ScriptedModel()
    assert sample_all(SAMPLES, model, torn, batch=10) == whole
    assert sum(model.calls) == len(SAMPLES) - 10 * stop_at
    assert torn.read_text() == (tmp_path / "whole.jsonl").read_text()


def test_a_batch_torn_in_the_middle_is_sampled_whole(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    whole = sample_all(SAMPLES, ScriptedModel(), path, batch=10)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:13]) + lines[13][:20])
    model = ScriptedModel()
    assert sample_all(SAMPLES, model, path, batch=10) == whole
    assert model.calls[0] == 10
    assert sum(model.calls) == len(SAMPLES) - 10


class _Flaky(ScriptedModel):
    """Fails on the requests of some seeds."""

    def _complete(self, request: CompletionRequest) -> Completion:
        return Completion("", 0, "failed") if request.seed % 7 == 0 else super()._complete(request)


def test_a_request_that_failed_is_asked_again_by_the_next_call(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    first = sample_all(SAMPLES, _Flaky(), path, batch=10)
    failed = {id for id, completion in first.items() if completion.finish_reason == "failed"}
    assert failed and first.keys() == {sample.id for sample in SAMPLES}
    torn = [number for number in range(0, len(SAMPLES), 10) if failed & {s.id for s in SAMPLES[number : number + 10]}]
    model = ScriptedModel()
    assert sample_all(SAMPLES, model, path, batch=10) == sample_all(
        SAMPLES, ScriptedModel(), tmp_path / "whole.jsonl", batch=10
    )
    assert len(model.calls) == len(torn) < len(SAMPLES) / 10
    assert sample_all(SAMPLES, _Flaky(stop_at=0), path, batch=10).keys() == first.keys()


def test_another_request_is_asked_anew(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl"
    sample_all(SAMPLES[:10], ScriptedModel(), path, batch=10)
    hotter = plan_samples(CONFIG.model_copy(update={"temperature": 1.0}), DOMAIN, QUESTIONS)
    model = ScriptedModel()
    sample_all(hotter[:10], model, path, batch=10)
    assert model.calls == [10]
