"""Seeds, and the questions written from them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fspo.llm.types import Completion, CompletionRequest
from fspo.progress import Silent
from fspo.synthesis.domain import load_domain
from fspo.synthesis.questions import make_questions
from fspo.synthesis.similarity import jaccard, shingles
from tests.synthesis.helpers import ScriptedModel, config_of, write_domain


class Saying(ScriptedModel):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        self.asked += requests
        return [self._said(self.text) for _ in requests]


def test_seeds_come_first_and_evenly_from_all_topics() -> None:
    model, domain = ScriptedModel(), load_domain("roleplay")
    made = make_questions(config_of(domain="roleplay", questions=20), domain, model, Silent())
    assert not model.asked
    assert all(question.seed for question in made.items)
    assert set(Counter(question.topic for question in made.items).values()) == {2}
    assert len({question.id for question in made.items}) == 20


def test_works_are_all_asked_about_before_a_second_question_on_one() -> None:
    made = make_questions(config_of(domain="reviews", questions=60), load_domain("reviews"), ScriptedModel(), Silent())
    assert len({question.unit for question in made.items}) == 60
    assert {question.kind for question in made.items} == {"film", "series", "anime", "book"}


def test_new_questions_of_a_domain_of_works_have_the_kind_that_personas_name() -> None:
    config = config_of(domain="reviews", works=3, questions=40)
    made = make_questions(config, load_domain("reviews"), ScriptedModel(), Silent())
    new = [question for question in made.items if not question.seed]
    assert new and all(question.kind == question.topic and not question.title for question in new)
    assert all(question.unit == question.text for question in new)


def test_new_questions_are_written_after_examples_of_one_topic(tmp_path: Path) -> None:
    domain, model = load_domain(str(write_domain(tmp_path / "mine"))), ScriptedModel()
    made = make_questions(config_of(domain="mine", questions=16), domain, model, Silent())
    assert len(made.items) == 16
    assert sum(question.seed for question in made.items) == 4
    assert {question.topic for question in made.items} == {"weather", "food"}
    for request in model.asked:
        text = request.messages[0].content
        assert ("Is it cold?" in text) != ("Who made it?" in text)
        assert "Small talk." in text
    texts = [shingles(question.text, 2) for question in made.items if not question.seed]
    assert all(jaccard(a, b) < 0.7 for place, a in enumerate(texts) for b in texts[:place])


def test_what_can_not_be_used_is_counted_and_the_rest_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    progress = Silent()
    progress.say = said.append  # type: ignore[method-assign]
    domain = load_domain(str(write_domain(tmp_path / "mine")))
    model = Saying(
        "1. Is it cold?\n2. Yes\n3. Where does the bread come from?\n4. Where does the bread come from\n" + "so " * 60
    )
    made = make_questions(config_of(domain="mine", questions=30), domain, model, progress)
    assert [question.text for question in made.items if not question.seed] == ["Where does the bread come from?"]
    assert made.rejected["near-duplicate question"] > 1
    assert made.rejected["question too short or too long"] > 1
    assert said == [
        "5 of 30 questions were found in 4 rounds; the other texts were near-duplicates or no questions. Raise "
        "synthesis.augment_rounds, or write more seeds."
    ]


def test_without_augmentation_nobody_is_asked(tmp_path: Path) -> None:
    domain, model = load_domain(str(write_domain(tmp_path / "mine"))), ScriptedModel()
    made = make_questions(config_of(domain="mine", questions=16, augment=False), domain, model, Silent())
    assert len(made.items) == 4
    assert not model.asked


def test_what_leads_to_a_list_is_cut_off_or_declines_is_no_question(tmp_path: Path) -> None:
    domain = load_domain(str(write_domain(tmp_path / "mine")))
    listed = "Here are six new questions for you:\n1. Will the snow stay until the weekend?\n"
    for text, rest in ((listed, 5), ("I'm sorry, but I cannot write more questions.", 4)):
        made = make_questions(config_of(domain="mine", questions=6), domain, Saying(text), Silent())
        assert len(made.items) == rest


def test_seeds_that_come_twice_are_taken_once(tmp_path: Path) -> None:
    folder = write_domain(
        tmp_path / "mine",
        questions='film:\n- "What is {title} about?"\n- "Is the cinema dead?"\n',
        titles="film: [Jaws, Alien, Jaws]\n",
    )
    made = make_questions(
        config_of(domain="mine", questions=12, augment=False),
        load_domain(str(folder)),
        ScriptedModel(),
        Silent(),
    )
    assert len({question.id for question in made.items}) == len(made.items) == 3
    assert made.rejected["duplicate seed"] == 3


def test_one_question_in_two_spellings_or_of_two_kinds_is_one_seed(tmp_path: Path) -> None:
    folder = write_domain(
        tmp_path / "mine",
        questions='- "What is {title} about?"\n- "Is {title} good?"\n',
        titles='film: [Jaws, The Office, ALIEN]\nseries: [The Office, Alien, "The  Wire"]\n',
    )
    made = make_questions(
        config_of(domain="mine", questions=20, augment=False),
        load_domain(str(folder)),
        ScriptedModel(),
        Silent(),
    )
    assert len(made.items) == 8
    assert made.rejected["duplicate seed"] == 4


def test_unicode_forms_of_a_text_are_near_duplicates() -> None:
    composed = "Is the café in the old town open on Sundays?"
    assert shingles(unicodedata.normalize("NFD", composed)) == shingles(composed.upper()) == shingles(composed)
