from __future__ import annotations

from collections import Counter

from fspo.judging.judge import AttributeJudge
from fspo.judging.verdicts import Preferred
from fspo.preferences.types import User
from fspo.synthesis.restyled.config import RestyledConfig
from fspo.synthesis.restyled.labels import allowed_pairs, label_all
from fspo.synthesis.restyled.responses import Response

CONFIG = RestyledConfig(pairs=2, margin=0.3)


def response(number: int, text: str, sample: str) -> Response:
    return Response(f"q:{number}", "q", "Is it good?", text, sample, "fan", "It", "positive", 0.5, {}, ("bullets",), ())


RESPONSES = [
    response(0, "The film is a joy.", "s0"),
    response(1, "- The film is a joy!", "s0"),
    response(2, "The film is terrible, and far too long for what it has to say.", "s1"),
    response(3, "The film is a joy. 🎬", "s2"),
    response(4, "What an awful bore of a book.", "s3"),
]
USERS = [User("glad", traits={"sentiment": 1.0}), User("grim", traits={"sentiment": -1.0})]
JUDGE = AttributeJudge.fit([item.text for item in RESPONSES], ("sentiment", "length"), margin=CONFIG.margin)


class Undecided:
    def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
        return "tie"


def test_near_duplicates_of_two_samples_never_meet() -> None:
    pairs = {(a.id, b.id) for a, b in allowed_pairs(RESPONSES, CONFIG)}
    assert ("q:0", "q:3") not in pairs
    assert ("q:0", "q:1") in pairs
    without = allowed_pairs(RESPONSES, CONFIG.model_copy(update={"same_text_pairs": False}))
    assert ("q:0", "q:1") not in {(a.id, b.id) for a, b in without}


def test_the_judge_has_the_word_and_ties_are_counted() -> None:
    labels = label_all(CONFIG, USERS, {"q": RESPONSES}, JUDGE)
    assert Counter(row.user for row in labels.preferences) == {"glad": 2, "grim": 2}
    people = {user.id: user for user in USERS}
    for row in labels.preferences:
        assert JUDGE.compare(people[row.user], row.prompt, row.chosen, row.rejected) == "first"
        assert row.question == "q"


def test_where_nothing_is_decided_everything_is_a_tie() -> None:
    labels = label_all(CONFIG, USERS, {"q": RESPONSES}, Undecided())
    assert labels.preferences == []
    assert labels.ties == 2 * len(allowed_pairs(RESPONSES, CONFIG))


def test_same_seed_same_labels_and_no_pair_twice() -> None:
    labels = label_all(CONFIG, USERS, {"q": RESPONSES}, JUDGE)
    assert label_all(CONFIG, USERS, {"q": RESPONSES}, JUDGE) == labels
    pairs = Counter((row.user, row.pair) for row in labels.preferences)
    assert max(pairs.values()) == 1


def test_where_it_came_from_is_kept_for_both_sides() -> None:
    row = label_all(CONFIG, USERS, {"q": RESPONSES}, JUDGE).preferences[0]
    assert row.source["judge"] == "measured"
    for side in ("chosen", "rejected"):
        assert row.source[side]["steered_to"] == "positive"
        assert row.source[side]["restyle"] == ["bullets"]
