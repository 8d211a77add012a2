"""Restyled responses: what is sampled for them, what is made of that, and which of them may be a pair."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from fspo.judging.attributes import ATTRIBUTES, sentiment
from fspo.llm.types import Completion, CompletionRequest
from fspo.progress import Silent
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import Question, load_domain
from fspo.synthesis.figures import correlation
from fspo.synthesis.pairs import Pairs
from fspo.synthesis.questions import make_questions
from fspo.synthesis.responses import Response, Responses
from fspo.synthesis.restyled_responses import plan_samples, restyled_responses
from tests.synthesis.reviewer import ScriptedReviewer

DOMAIN = load_domain("reviews-restyled")


def config_of(questions: int = 20, samples: int = 8, responses: int = 8, **settings: object) -> SynthesisConfig:
    restyling = {"samples": samples, "same_text_pairs": settings.pop("same_text_pairs", True)}
    wanted = {"domain": "reviews-restyled", "questions": questions, "responses": responses, "restyling": restyling}
    return SynthesisConfig.model_validate(wanted | settings)


CONFIG = config_of()


def questions_of(config: SynthesisConfig) -> list[Question]:
    return make_questions(config, DOMAIN, ScriptedReviewer(), Silent()).items


def made(config: SynthesisConfig = CONFIG, model: ScriptedReviewer | None = None) -> Responses:
    return restyled_responses(config, DOMAIN, questions_of(config), model or ScriptedReviewer(), Silent())


@pytest.fixture(scope="module")
def responses() -> Responses:
    return made()


def test_half_of_a_questions_texts_are_steered_to_either_side_and_each_has_a_seed_of_its_own() -> None:
    config = config_of(questions=8, samples=6)
    requests = []
    for question in questions_of(config):
        own = plan_samples(config, DOMAIN, question)
        assert plan_samples(config, DOMAIN, question) == own
        assert Counter(sample.sentiment for sample in own) == {"positive": 3, "negative": 3}
        assert len({(sample.steered, sample.request.prefix) for sample in own}) == 6
        assert not any("{" in sample.request.prefix + sample.request.messages[0].content for sample in own)
        requests += [sample.request for sample in own]
    assert len({request.seed for request in requests}) == 48


def test_they_are_a_function_of_what_was_sampled(responses: Responses) -> None:
    assert made().items == responses.items


def test_nearly_all_are_filled_and_no_text_occurs_twice(responses: Responses) -> None:
    assert 0.9 * 20 * 8 < len(responses.items) <= 20 * 8
    assert responses.rejected["role marker or refusal"] + responses.rejected["markup"] > 0
    assert len({item.text for item in responses.items}) == len(responses.items)


def test_praise_and_criticism_are_balanced_and_clear(responses: Responses) -> None:
    sides = Counter(item.made["style"]["sentiment"] for item in responses.items)
    assert abs(sides[1] - sides[-1]) <= 0.1 * len(responses.items)
    for item in responses.items:
        assert sentiment(item.text) * item.made["style"]["sentiment"] >= CONFIG.restyling.clear_sentiment - 0.1


def test_styles_are_nearly_uncorrelated(responses: Responses) -> None:
    names = DOMAIN.attributes()
    columns = {name: [float(item.made["style"][name]) for item in responses.items] for name in names}
    assert correlation(columns)["largest"] < 0.2


def test_provenance_says_what_was_steered_and_what_came_out(responses: Responses) -> None:
    item = responses.items[0]
    assert {"steered_to", "measured", "restyle", "opening", "sample"} <= set(item.made)
    assert item.steered in {persona.name for persona in DOMAIN.personas}
    assert sum(sum(counts.values()) for counts in responses.steering.values()) > 0


class _Gloomy(ScriptedReviewer):
    """Finds fault, whatever it was told."""

    def _complete(self, request: CompletionRequest) -> Completion:
        return Completion(
            f" a boring, awful, terrible and weak thing to sit through {request.seed % 89} times.", 9, "stop"
        )


def test_a_text_gone_the_other_way_keeps_an_honest_record() -> None:
    result = made(config_of(questions=3), _Gloomy())
    assert result.steering["positive"].get("negative", 0) + result.steering["positive"].get("unclear", 0) > 0
    blamed = [item for item in result.items if item.made["style"]["sentiment"] < 0]
    assert blamed and all(item.made["measured"] < 0 for item in blamed)


def test_attributes_that_nobody_weighs_are_left_as_they_are() -> None:
    items = made(config_of(attributes=("sentiment", "length"))).items
    assert not any(ATTRIBUTES["emoji"].measure(item.text) or ATTRIBUTES["bullets"].measure(item.text) for item in items)


def response(number: int, text: str, sample: str) -> Response:
    return Response(f"q:{number}", "q", text, "fan", "m", {"sample": sample})


TEXTS = [
    response(0, "The film is a joy.", "s0"),
    response(1, "- The film is a joy!", "s0"),
    response(2, "The film is terrible, and far too long for what it has to say.", "s1"),
    response(3, "The film is a joy. \N{CLAPPER BOARD}", "s2"),
]


def pairs_of(config: SynthesisConfig, items: Sequence[Response]) -> set[tuple[str, str]]:
    question = Question("q", "Is it good?", "", "q", True)
    parts = {"train": frozenset({"q"}), "validation": frozenset[str](), "test": frozenset[str]()}
    pairs = Pairs(config, [question], items, parts, 0.0)  # type: ignore[arg-type]
    return {pair.key for own in pairs.of_each_question("user", "train") for pair in own}


def test_near_duplicates_of_two_texts_never_meet() -> None:
    pairs = pairs_of(CONFIG, TEXTS)
    assert ("q:0", "q:3") not in pairs
    assert {("q:0", "q:1"), ("q:0", "q:2"), ("q:2", "q:3")} <= pairs
    assert ("q:0", "q:1") not in pairs_of(config_of(same_text_pairs=False), TEXTS)


def test_the_domain_is_rich_enough() -> None:
    works = {seed.unit for seed in DOMAIN.seeds}
    assert len(works) >= 110 and len(DOMAIN.seeds) == 8 * len(works)
    sides = Counter(persona.sentiment for persona in DOMAIN.personas)
    assert sides["positive"] == sides["negative"] >= 4


def test_no_opening_speaks_against_its_persona() -> None:
    for persona in DOMAIN.personas:
        sign = 1 if persona.sentiment == "positive" else -1
        for opening in persona.openings:
            assert sentiment(opening.fill(kind="book", title="Foundation")) * sign >= 0, opening


def test_styles_change_only_what_they_are_for() -> None:
    assert DOMAIN.styles is not None
    for pool in DOMAIN.styles.emoji.values():
        assert all(ATTRIBUTES["emoji"].measure(sign) == 1 for sign in pool)
    for opener in DOMAIN.styles.first_person:
        assert ATTRIBUTES["first_person"].measure(opener) >= 1
        assert abs(sentiment(opener)) < 0.2, opener
