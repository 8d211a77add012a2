"""Readers of traits: fitted on some questions, measured on others, saved as JSON."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from fspo.errors import DataError
from fspo.judging.by_topic import load_judge
from fspo.judging.declared import DeclaredJudge
from fspo.judging.trait_readers import DeclaredText, ReaderJudge, fit_readers, surface_of
from fspo.judging.traits import Value
from fspo.preferences.types import User

VALUES: dict[str, tuple[Value, ...]] = {"length": (0, 1), "mood": (0, 1), "level": ("low", "middle", "high")}
_TOPICS = ("lamp", "river", "bread", "train", "piano", "garden", "winter", "letter", "horse", "window", "barn", "clock")
_LEVELS = {
    "low": "It is big and it is good.",
    "middle": "The material has several useful properties.",
    "high": "Thermodynamic equilibrium necessitates electrostatic polarisability considerations.",
}


def written(seed: int = 0) -> list[DeclaredText]:
    """Twelve texts on each topic: length and level can be read in them, mood was drawn by lot."""
    rng = random.Random(seed)
    rows = []
    for topic in _TOPICS:
        for level, sentence in _LEVELS.items():
            for length in (0, 1):
                for number in range(2):
                    extra = " Then there is a little more to say about it all, as you see." * (3 * length)
                    text = f"About the {topic}, version {number}. {sentence}{extra}"
                    traits: dict[str, Value] = {"length": length, "mood": rng.randrange(2), "level": level}
                    rows.append(DeclaredText(topic, text, traits))
    return rows


@pytest.fixture(scope="module")
def judge() -> ReaderJudge:
    rows = written()
    fitted = fit_readers(rows[:96], rows[96:], VALUES, margin=0.5)
    assert fitted is not None
    return fitted


def user(**traits: float) -> User:
    return User("ada", traits={name.replace("__", "="): weight for name, weight in traits.items()})


def test_what_texts_show_is_read_on_other_questions_and_what_they_do_not_show_is_not(
    judge: ReaderJudge,
) -> None:
    readings = judge.readings
    assert readings["length"].ordered == 1 and readings["level"].ordered == 1
    assert readings["length"].questions == 4 and readings["length"].pairs == 4 * 36
    assert readings["level"].balanced > 0.9
    assert not readings["mood"].readable and 0.2 < readings["mood"].ordered < 0.8


def test_a_word_of_one_question_alone_is_no_feature(judge: ReaderJudge) -> None:
    used = {name for reader in judge.readers.values() for name in reader.weights}
    assert not used & {f"'{topic}'" for topic in _TOPICS} and "'it'" in used


def test_users_are_judged_for_by_the_places_that_are_read_in_new_texts(judge: ReaderJudge) -> None:
    short = "A new clock is good."
    long = short + " There is a little more to say about it all here." * 4
    hard = "Electrostatic polarisability necessitates thermodynamic considerations."
    assert judge.compare(user(length=1.0), "", long, short) == "first"
    assert judge.compare(user(length=-1.0), "", long, short) == "second"
    assert judge.compare(user(level__low=1.0), "", hard, short) == "second"
    assert judge.compare(user(level__high=1.0), "", hard, short) == "first"
    assert judge.compare(user(length=1.0), "", long, long) == "tie"
    assert replace(judge, margin=9.0).compare(user(length=1.0), "", long, short) == "tie"


def test_more_of_a_trait_than_any_text_has_counts_no_more(judge: ReaderJudge) -> None:
    assert all(abs(value) <= 2 for value in judge.standardized("word " * 5000).values())
    assert judge.standardized("") and judge.standardized("?!?! 7 \u2014")


def test_a_user_with_a_weight_for_an_unreadable_trait_is_not_judged_for(judge: ReaderJudge) -> None:
    assert judge.has_weights(user(length=0.5, level__low=0.5))
    assert not judge.has_weights(user(length=0.5, mood=0.1))
    assert judge.has_weights(user(length=0.5, mood=0.0)) and not judge.has_weights(user())
    with pytest.raises(DataError, match="can't be read well enough"):
        judge.utility(user(mood=1.0), "Good.")


def test_readers_come_back_from_the_file_of_the_judge_of_declared_texts(judge: ReaderJudge, tmp_path: Path) -> None:
    rows = written()
    whole = DeclaredJudge(VALUES, {row.text: row.traits for row in rows}, 0.5, judge)
    again = load_judge(whole.save(tmp_path / "judge.json"))
    assert isinstance(again, DeclaredJudge) and again.answers is not None
    assert again.answers == judge and again.answers.identity == judge.identity
    assert again.identity == whole.identity == replace(whole, answers=None).identity
    fitted = fit_readers(rows[:96], rows[96:], VALUES, margin=0.5)
    assert fitted is not None and fitted.identity == judge.identity
    other = fit_readers(rows[:84], rows[84:], VALUES, margin=0.5)
    assert other is not None and other.identity != judge.identity
    assert judge.utility(user(length=1.0), "Short.") == again.answers.utility(user(length=1.0), "Short.")


def test_a_damaged_file_is_refused(judge: ReaderJudge) -> None:
    record = judge.record()
    del record["readers"]["mood"]["intercept"]
    with pytest.raises(DataError, match="holds no readers"):
        ReaderJudge.of_record(record, Path("judge.json"))


def test_one_question_is_too_little_to_fit_on() -> None:
    rows = written()
    assert fit_readers(rows[:12], rows[12:], VALUES) is None
    fitted = fit_readers(rows[:24], [], VALUES)
    assert fitted is not None and not any(reading.readable for reading in fitted.readings.values())


def test_list_markers_and_emphasis_are_not_words() -> None:
    prose = surface_of("Take a coat. Take a hat.")
    for text in (
        "- Take a coat.\n- Take a hat.",
        "1. Take a **coat**.\n2) Take a hat.",
        "## Take a coat.\n* Take a hat.",
    ):
        listed = surface_of(text)
        assert listed["lines of a list"] == (0.5 if "#" in text else 1) and not prose["lines of a list"]
        assert {name for name in listed if listed[name] != prose[name]} <= {"lines of a list", "reading grade"}
