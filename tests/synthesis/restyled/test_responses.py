from __future__ import annotations

from collections import Counter

import pytest

from fspo.judging.attributes import sentiment
from fspo.llm.types import Completion
from fspo.synthesis.restyled.checks import correlation
from fspo.synthesis.restyled.config import RestyledConfig
from fspo.synthesis.restyled.domain import load_domain
from fspo.synthesis.restyled.responses import Responses, make_responses
from fspo.synthesis.restyled.samples import Sample, plan_questions, plan_samples
from tests.synthesis.restyled.helpers import ScriptedModel

CONFIG = RestyledConfig(titles=20, samples=8, responses=8)
DOMAIN = load_domain("reviews")


def sampled(config: RestyledConfig = CONFIG) -> tuple[list[Sample], dict[str, Completion]]:
    samples = plan_samples(config, DOMAIN, plan_questions(config, DOMAIN))
    texts = ScriptedModel().complete([sample.request for sample in samples])
    return samples, {sample.id: text for sample, text in zip(samples, texts, strict=True)}


@pytest.fixture(scope="module")
def responses() -> Responses:
    return make_responses(CONFIG, DOMAIN, *sampled())


def test_they_are_a_function_of_what_was_sampled(responses: Responses) -> None:
    assert make_responses(CONFIG, DOMAIN, *sampled()).items == responses.items


def test_nearly_all_are_filled_and_the_rest_is_counted(responses: Responses) -> None:
    assert len(responses.items) + responses.unfilled == 20 * 8
    assert len(responses.items) > 0.9 * 20 * 8
    assert responses.rejected["role marker or refusal"] + responses.rejected["markup"] > 0


def test_no_text_occurs_twice(responses: Responses) -> None:
    assert len({item.text for item in responses.items}) == len(responses.items)


def test_praise_and_criticism_are_balanced_and_clear(responses: Responses) -> None:
    sides = Counter(item.style["sentiment"] for item in responses.items)
    assert abs(sides[1] - sides[-1]) <= 0.1 * len(responses.items)
    for item in responses.items:
        assert sentiment(item.text) * item.style["sentiment"] >= CONFIG.clear_sentiment - 0.1


def test_styles_are_nearly_uncorrelated(responses: Responses) -> None:
    names = [name for name in CONFIG.attributes]
    columns = {name: [float(item.style[name]) for item in responses.items] for name in names}
    assert correlation(columns)["largest"] < 0.2


def test_provenance_says_what_was_steered_and_what_came_out(responses: Responses) -> None:
    item = responses.items[0]
    record = item.record()
    assert {"steered_to", "measured", "restyle", "persona", "opening", "sample"} <= set(record)
    assert item.provenance()["restyle"] == list(item.restyle)
    assert sum(sum(counts.values()) for counts in responses.steering.values()) > 0


def test_a_text_gone_the_other_way_keeps_an_honest_record() -> None:
    config = CONFIG.model_copy(update={"titles": 3})
    samples, texts = sampled(config)
    gone = {
        sample.id: Completion(" a boring, awful, terrible and weak thing to sit through.", 9, "stop")
        for sample in samples
    }
    result = make_responses(config, DOMAIN, samples, gone)
    assert result.steering["positive"]["negative"] + result.steering["positive"]["unclear"] > 0
    assert all(item.measured < 0 for item in result.items if item.style["sentiment"] < 0)
    assert texts
