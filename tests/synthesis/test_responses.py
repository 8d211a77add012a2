"""Responses: how they are steered, and which of them are used."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from fspo.errors import DataError
from fspo.llm.ensemble import Ensemble, Member
from fspo.llm.quoting import texts_of
from fspo.llm.types import Completion, CompletionRequest
from fspo.progress import Silent
from fspo.synthesis.diversity import diversity
from fspo.synthesis.domain import Question, load_domain
from fspo.synthesis.responses import Response, make_views, sampled_responses
from tests.progress_lines import Lines
from tests.synthesis.helpers import ScriptedModel, config_of, write_domain

DOMAIN = load_domain("elix-easy")
QUESTIONS = [Question(f"q{n}", f"Why is it {n}?", "", f"u{n}", True) for n in range(6)]


def test_each_persona_steers_as_often_as_the_others() -> None:
    config, model = config_of(responses=16), ScriptedModel()
    made = sampled_responses(config, DOMAIN, QUESTIONS, {}, model, Silent())
    assert made.asked == 96 == len(model.asked)
    per_question = Counter((request.messages[1].content, request.messages[0].content) for request in model.asked)
    assert set(per_question.values()) == {2}
    assert len({request.seed for request in model.asked}) == 96
    assert {response.model for response in made.items} == {"scripted"}
    assert {response.steered for response in made.items} <= {persona.name for persona in DOMAIN.personas}


def test_views_are_listed_and_answered_from() -> None:
    config, model = config_of(steering="views", views=3), ScriptedModel()
    views = make_views(config, DOMAIN, QUESTIONS, model, Silent())
    assert set(map(len, views.values())) == {3}
    model.asked.clear()
    made = sampled_responses(config, DOMAIN, QUESTIONS, views, model, Silent())
    assert {response.steered for response in made.items if response.question == "q0"} <= set(views["q0"])
    told = {request.messages[0].content for request in model.asked}
    assert all("from this viewpoint: Think of" in text for text in told)
    assert not any(map(texts_of, told))  # a view is to be followed, and not quoted


def test_a_view_holds_no_control_token() -> None:
    model = ScriptedModel()
    sampled_responses(config_of(steering="views"), DOMAIN, QUESTIONS, {"q0": ["<|im_end|> [INST]"]}, model, Silent())
    told = {request.messages[0].content for request in model.asked if "viewpoint" in request.messages[0].content}
    assert told and not any("<|im_end" in text or "[INST]" in text for text in told)


def test_without_views_or_steering_nobody_in_particular_answers() -> None:
    for config, views in ((config_of(steering="views"), {"q0": []}), (config_of(steering="none"), {})):
        made = sampled_responses(config, DOMAIN, QUESTIONS, views, ScriptedModel(), Silent())
        assert {response.steered for response in made.items} == {""}


def test_the_member_of_an_ensemble_that_wrote_a_response_is_recorded() -> None:
    class Other(ScriptedModel):
        name = "other"

    ensemble = Ensemble([Member(ScriptedModel(), 1.0), Member(Other(), 1.0, 0.3)])
    made = sampled_responses(config_of(), DOMAIN, QUESTIONS, {}, ensemble, Silent())
    assert {response.model for response in made.items} == {"scripted", "other at T=0.3"}


def test_what_can_not_be_used_is_counted_by_reason() -> None:
    answers = iter(["", "I'm sorry, no.", "Hm.", "The sea is wide and blue.", "The sea is wide and blue!", None] * 6)

    class Mixed(ScriptedModel):
        def _complete(self, request: CompletionRequest) -> Completion:
            text = next(answers)
            return Completion("", 0, "refused") if text is None else self._said(text)

    with pytest.raises(
        DataError, match=r"Only 0 of 6 questions got two usable responses; .* empty \(6\), refusal \(6\)"
    ):
        sampled_responses(config_of(responses=6), DOMAIN, QUESTIONS, {}, Mixed(), Silent())


def test_an_attribute_that_does_not_vary_is_said_after_the_first_responses(tmp_path: Path) -> None:
    people = ("id: ann, text: Likes it., weights: {emoji: 1, length: 1}", "id: ben, text: Not., weights: {length: -1}")
    weights = "users:\n" + "".join(f"- {{{person}}}\n" for person in people)
    domain = load_domain(str(write_domain(tmp_path / "mine", users=weights)))
    for judge, said in (("measured", ["emoji"]), ("llm", [])):
        heard = Lines()
        sampled_responses(config_of(responses=16, judge=judge), domain, QUESTIONS, {}, ScriptedModel(), heard)
        assert [line for line in heard.lines if "The same in the first 32 responses: emoji." in line] == heard.lines
        assert len(heard.lines) == len(said)


def test_diversity_is_of_responses_to_one_question() -> None:
    texts = {"q0": ["a b c d", "a b c d"], "q1": ["a b c d", "e f g h"], "q2": ["alone"]}
    responses = [Response(f"{q}:{n}", q, text, "", "m") for q, own in texts.items() for n, text in enumerate(own)]
    found = diversity(responses, 0)
    assert found == {"questions": 2, "mean_overlap": 0.5, "mean_similarity": None}


@pytest.mark.builtin_model
def test_diversity_in_meaning() -> None:
    from fspo.synthesis.diversity import sentence_embedding

    alike = [Response("a", "q", "The film is great.", "", "m"), Response("b", "q", "It is a great film.", "", "m")]
    apart = [alike[0], Response("c", "q", "Rust forms when iron meets water.", "", "m")]
    close, far = (diversity(rows, 0, sentence_embedding)["mean_similarity"] for rows in (alike, apart))
    assert close > 0.7 > 0.4 > far
