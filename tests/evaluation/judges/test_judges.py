"""Configured judges: what they go by, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fspo.errors import DataError
from fspo.evaluation.config import EvaluationConfig, JudgeConfig
from fspo.evaluation.judges.judges import MeasuredJudge, judge_by, jury_of, obtain_judges
from fspo.judging.pairwise import PairwiseJudge
from fspo.judging.verdicts import Comparison
from fspo.judging.weighted import WeightedJudge
from fspo.llm.pool import EndpointPool
from fspo.llm.quoting import texts_of
from fspo.preferences.types import User
from fspo.progress import Silent
from tests.synthesis.helpers import ScriptedModel

TEXTS = ["Short.", "A bit longer than that!", "This one is the longest of all the texts that there are."]
ENDPOINT = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
ANN = User("ann", "Likes it short.", {"length": -1.0, "exclamation": 0.5})


def obtained(folder: Path, **entry: Any) -> Any:
    return obtain_judges([JudgeConfig.model_validate({"name": "j", **entry})], TEXTS, [ANN], EndpointPool(folder))["j"]


def test_longer_is_better_for_everybody(tmp_path: Path) -> None:
    judge = obtained(tmp_path, likes={"length": 1})
    assert isinstance(judge, MeasuredJudge)
    assert judge.compare(ANN, "?", TEXTS[2], TEXTS[0]) == "first"
    assert judge.compare(User("ben"), "?", TEXTS[0], TEXTS[2]) == "second"


def test_a_single_attribute_is_weighed_as_the_user_does(tmp_path: Path) -> None:
    judge = obtained(tmp_path, attributes=["length"])
    assert judge.compare(ANN, "?", TEXTS[2], TEXTS[0]) == "second"
    assert judge.compare(User("ben", "", {"exclamation": 1.0}), "?", TEXTS[2], TEXTS[0]) == "tie"
    assert judge.identity != obtained(tmp_path, likes={"length": 1}).identity
    assert judge.identity != obtained(tmp_path, attributes=["length"], margin=0.5).identity


def test_weights_of_a_topic_hold_where_the_judge_of_the_data_knows_the_topics(tmp_path: Path) -> None:
    cem = User("cem", "", {"length": -1.0, "length@optics": 1.0, "emoji": 1.0})
    entry = JudgeConfig.model_validate({"name": "j", "attributes": ["length"]})
    judge = obtain_judges([entry], TEXTS, [cem], EndpointPool(tmp_path), {"Why is it bright?": "optics"})["j"]
    assert judge.compare(cem, "Why is it bright?", TEXTS[2], TEXTS[0]) == "first"
    assert judge.compare(cem, "Why not?", TEXTS[2], TEXTS[0]) == "second"
    with pytest.raises(DataError, match="user 'cem' has 'length@optics' on a topic"):
        obtain_judges([entry], TEXTS, [cem], EndpointPool(tmp_path))
    everybody = JudgeConfig.model_validate({"name": "j", "likes": {"length": 1}})
    by_length = obtain_judges([everybody], TEXTS, [cem], EndpointPool(tmp_path))["j"]
    assert by_length.compare(cem, "?", TEXTS[2], TEXTS[0]) == "first"
    assert judge.identity != obtain_judges([entry], TEXTS, [ANN], EndpointPool(tmp_path))["j"].identity


def test_a_judge_knows_whether_a_user_has_weights_that_it_can_use(tmp_path: Path) -> None:
    judge = obtained(tmp_path, attributes=["length"])
    assert judge.has_weights(ANN, "?") and not judge.has_weights(User("ben", "", {"emoji": 1.0, "length": 0.0}), "?")
    assert obtained(tmp_path, likes={"length": 1}).has_weights(User("ben"), "?")


def test_an_endpoint_reads_the_description_in_the_usual_words_or_in_its_own(tmp_path: Path) -> None:
    judge = obtained(tmp_path, endpoint=ENDPOINT)
    assert isinstance(judge, PairwiseJudge)
    shown = judge.request(Comparison(ANN, "Why?", "one {second}", "two")).messages[0].content
    described = {"description": "Likes it short.", "question": "Why?"}
    assert texts_of(shown) == {**described, "first": "one {second}", "second": "two"}
    assert shown.index("Response A:\n<first-") < shown.index("Response B:\n<second-")
    own = JudgeConfig.model_validate({"name": "j", "endpoint": ENDPOINT, "prompt": "{first} or {second}?"})
    asked = judge_by(ScriptedModel(), own)
    own_words = asked.request(Comparison(ANN, "Why?", "one", "two")).messages[0].content
    assert texts_of(own_words) == {"first": "one", "second": "two"}
    assert re.search(r"\n\n<first-\w+>one</first-\w+> or <second-\w+>two</second-\w+>\?$", own_words)
    assert isinstance(obtained(tmp_path, endpoint=ENDPOINT, weighted=True), WeightedJudge)


def test_a_scripted_model_judges_for_the_user() -> None:
    judge = judge_by(ScriptedModel(), JudgeConfig.model_validate({"name": "j", "endpoint": ENDPOINT}))
    assert judge.compare(ANN, "?", TEXTS[2], TEXTS[0]) == "second"


def test_where_nothing_is_answered_no_judge_is_needed(tmp_path: Path) -> None:
    asked = {"name": "asked", "endpoint": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}}
    config = EvaluationConfig.model_validate({"answers": 0, "judges": [asked]})
    nobody = [User("u")]  # without a description
    assert jury_of(config, None, {}, ["a", "b"], nobody, EndpointPool(tmp_path), Silent()) == {}


def test_a_user_without_a_description_is_named(tmp_path: Path) -> None:
    entry = JudgeConfig.model_validate({"name": "j", "endpoint": ENDPOINT})
    with pytest.raises(DataError, match="user 'ben' has none"):
        obtain_judges([entry], TEXTS, [ANN, User("ben")], EndpointPool(tmp_path))


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({}, "exactly one of endpoint, attributes and likes"),
        ({"likes": {"length": 1}, "attributes": ["length"]}, "exactly one"),
        ({"likes": {"lenght": 1}}, "did you mean 'length'"),
        ({"likes": {"length": 1}, "weighted": True}, "has no endpoint"),
        ({"endpoint": ENDPOINT, "prompt": "{first}"}, "does not show {second}"),
        ({"endpoint": ENDPOINT, "prompt": "{first} {second} {descripton}"}, "did you mean '{description}'"),
        ({"endpoint": ENDPOINT, "name": "headline"}, "can't be called 'headline'"),
    ],
)
def test_what_makes_no_sense_is_refused(entry: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError) as error:
        EvaluationConfig.model_validate({"judges": [{"name": "j", **entry}]})
    assert told in str(error.value)


def test_two_judges_of_one_name_are_refused_and_judges_change_nothing_of_what_was_measured() -> None:
    entry = {"name": "j", "likes": {"length": 1}}
    with pytest.raises(ValidationError, match="a name is given twice"):
        EvaluationConfig.model_validate({"judges": [entry, entry]})
    more = EvaluationConfig.model_validate({"judges": [entry], "match": ["format"], "tax": {}})
    assert more.identity() == EvaluationConfig().identity()


def test_what_is_added_or_applied_afterwards_makes_no_other_evaluation() -> None:
    settings = {"floors": {"words": 9}, "observer_noise": 0.1, "reward_models": [{"name": "mine", "scorer": "a:b"}]}
    assert EvaluationConfig.model_validate(settings).identity() == EvaluationConfig().identity()
    assert EvaluationConfig(shots=4).identity() != EvaluationConfig().identity()
    with pytest.raises(ValidationError):
        EvaluationConfig.model_validate({"reward_models": [{"name": "..", "scorer": "a:b"}]})
