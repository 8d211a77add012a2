from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import ConfigError
from fspo.judging.attributes import ATTRIBUTES, attributes_named, measure, plain_text, sentences, words

PROSE = "I think it is a wonderful film. The plot's ending surprised me."


@pytest.mark.parametrize(
    ("name", "more", "less"),
    [
        ("sentiment", "A wonderful, moving film.", "A boring, terrible film."),
        ("length", "It is a film about a man and his dog.", "It is fine."),
        ("bullets", "- It is fine.\n- The cast is good.", "It is fine. The cast is good."),
        ("emoji", "It is fine. 🎬 ❤️", "It is fine."),
        ("exclamation", "It is fine! The cast is good!", "It is fine. The cast is good!"),
        ("rarity", "Ephemeral, crepuscular melancholia.", "It is a film about a man and his dog."),
        ("first_person", "I'd say it moved me.", "It is moving."),
        ("formality", "Indeed, it is not for everyone.", "Honestly, it isn't for everyone, it's kinda slow."),
        (
            "reading_grade",
            "Notwithstanding considerable deficiencies, characterization remains extraordinarily sophisticated.",
            "It is a cat. The cat is fun.",
        ),
    ],
)
def test_more_measures_more(name: str, more: str, less: str) -> None:
    assert ATTRIBUTES[name].measure(more) > ATTRIBUTES[name].measure(less)


def test_every_attribute_has_words_for_both_ends() -> None:
    for attribute in ATTRIBUTES.values():
        assert len(attribute.high) >= 2
        assert len(attribute.low) >= 2
        assert not set(attribute.high) & set(attribute.low)


@given(st.text(max_size=200))
def test_any_text_can_be_measured(text: str) -> None:
    figures = measure(text, ATTRIBUTES)
    assert all(figure == figure and abs(figure) < 1e6 for figure in figures.values())
    assert -1 <= figures["sentiment"] <= 1
    assert 0 <= figures["bullets"] <= 1
    assert 0 <= figures["exclamation"] <= 1


@given(st.sampled_from(["😍", "👎 💔", "🎬"]), st.booleans(), st.booleans())
def test_form_does_not_change_the_sentiment(signs: str, bulleted: bool, exclaimed: bool) -> None:
    text = PROSE.replace(".", "!") if exclaimed else PROSE
    text = "\n".join(f"- {part}" for part in sentences(text)) if bulleted else text
    assert plain_text(f"{text} {signs}") == PROSE
    assert ATTRIBUTES["sentiment"].measure(f"{text} {signs}") == ATTRIBUTES["sentiment"].measure(PROSE)


def test_the_reading_grade_is_the_automated_readability_index() -> None:
    # 29 characters in 5 words; "Really?" is too short to count as a sentence.
    text = "- A wonderful, moving film!\n- Really? 🎬"
    assert ATTRIBUTES["reading_grade"].measure(text) == pytest.approx(4.71 * 29 / 5 + 0.5 * 5 / 1 - 21.43)
    assert ATTRIBUTES["reading_grade"].measure("No.") == ATTRIBUTES["reading_grade"].measure("") == 0
    assert ATTRIBUTES["reading_grade"].measure("Incomprehensibilities! " * 9) == 20


def test_a_possessive_is_no_contraction() -> None:
    assert ATTRIBUTES["formality"].measure("The film's cast is large.") == 0
    assert ATTRIBUTES["formality"].measure("It's large.") < 0


def test_words_and_sentences() -> None:
    assert words("It's well-made; 'Dune' isn't.") == ["It's", "well-made", "Dune", "isn't"]
    assert sentences("One. Two!\n- Three") == ["One.", "Two!", "- Three"]
    assert sentences("... 🎬") == []


def test_an_unknown_attribute_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'sentiment'"):
        attributes_named(["sentimnt"])
    with pytest.raises(ConfigError, match="twice"):
        attributes_named(["emoji", "emoji"])
