"""Topics as attributes, and judges whose weights depend on the topic of the prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from fspo.errors import ConfigError, DataError
from fspo.judging.by_topic import TopicJudge, load_judge, weights_on
from fspo.judging.judge import AttributeJudge
from fspo.judging.topics import named, topic
from fspo.preferences.types import User

SPORT = {"sport": ("football", "run", "match")}
TEXTS = [
    "I run to the match.",
    "Footballs, runs, runs and matches.",
    "We read.",
    "A long evening with a good book here.",
]
USER = User("u", "", {"length": -1.0, "length@sport": 1.0})


def test_words_of_a_topic_are_counted_up_to_three() -> None:
    measure = topic("sport", SPORT["sport"]).measure
    assert [measure(text) for text in TEXTS] == [2.0, 3.0, 0.0, 0.0]
    assert topic("sport", ["a"]).name == "topic.sport"


def test_unknown_and_empty_topics_are_told() -> None:
    assert list(named(["length", "topic.sport"], SPORT)) == ["length", "topic.sport"]
    with pytest.raises(ConfigError, match=r"no topic 'sports' .* known are sport"):
        named(["topic.sports"], SPORT)
    with pytest.raises(ConfigError, match="has no words"):
        topic("sport", [])
    with pytest.raises(ConfigError, match="did you mean 'length'"):
        named(["lenght"], SPORT)


@pytest.mark.parametrize("vocabulary", [["machine learning", "deep learning"], ["c++"], ["#1", "snake_case"]])
def test_a_vocabulary_that_no_text_can_hold_is_refused(vocabulary: list[str]) -> None:
    with pytest.raises(ConfigError, match="same in all texts"):
        topic("computing", vocabulary)
    assert topic("computing", [*vocabulary, "code"]).measure("All of the code.") == 1


def test_a_word_counts_whose_plural_alone_is_a_word() -> None:
    assert topic("it", ["it'"]).measure("It's late.") == 1


def test_a_judge_with_topics_is_read_back(tmp_path: Path) -> None:
    judge = AttributeJudge.fit(TEXTS, ["length", "topic.sport"], 0.1, SPORT)
    again = load_judge(judge.save(tmp_path / "judge.json"))
    assert isinstance(again, AttributeJudge)
    assert again.standardized(TEXTS[0]) == judge.standardized(TEXTS[0])
    assert judge.compare(User("u", "", {"topic.sport": 1.0}), "?", TEXTS[1], TEXTS[2]) == "first"
    assert judge.knows(["length"])
    assert not judge.knows(["emoji"])


def test_own_weights_hold_on_the_own_topic_alone() -> None:
    assert weights_on(USER, "sport").traits == {"length": 1.0}
    assert weights_on(USER, "music").traits == {"length": -1.0}
    assert weights_on(USER, "").traits == {"length": -1.0}


def test_the_prompt_decides_which_weights_hold(tmp_path: Path) -> None:
    judge = TopicJudge(AttributeJudge.fit(TEXTS, ["length"], 0.1), {"Who won?": "sport"})
    for kept in (judge, load_judge(judge.save(tmp_path / "judge.json"))):
        assert kept.compare(USER, "Who won?", TEXTS[3], TEXTS[2]) == "first"
        assert kept.compare(USER, "Who wrote it?", TEXTS[3], TEXTS[2]) == "second"
        assert kept.knows(["length"])
    (tmp_path / "judge.json").write_text('{"scales": {"length": [1, 1]}, "margin": 0, "prompts": 3}')
    with pytest.raises(DataError, match="'prompts'"):
        load_judge(tmp_path / "judge.json")
