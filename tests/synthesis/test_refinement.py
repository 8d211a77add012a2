"""Descriptions that are extended until they decide."""

from __future__ import annotations

from collections.abc import Sequence

from fspo.llm.quoting import texts_of
from fspo.llm.types import Completion, CompletionRequest
from fspo.preferences.types import User
from fspo.progress import Silent
from fspo.synthesis.config import Refinement
from fspo.synthesis.domain import Question, load_domain
from fspo.synthesis.judges import pairwise_judge
from fspo.synthesis.pairs import Pair
from fspo.synthesis.refinement import Refined, refine
from fspo.synthesis.responses import Response
from tests.synthesis.helpers import ScriptedModel, config_of

DOMAIN = load_domain("elix-easy")
QUESTION = Question("q", "Why?", "", "u", True)
USERS = [User("clear", "Knows: short. "), User("open", "Says little.")]


def pairs(user: User, turn: int, count: int) -> list[Pair]:
    def response(id: str, text: str) -> Response:
        return Response(id, "q", text, "", "m")

    return [
        Pair(QUESTION, response(f"{turn}:{n}", f"First {n}."), response(f"{turn}:{n}b", f"Other {n}."))
        for n in range(count)
    ]


class Model(ScriptedModel):
    """Decides where the description says something, and writes the sentences it is given."""

    def __init__(self, *sentences: str) -> None:
        super().__init__()
        self.sentences = list(sentences)

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        self.asked += requests
        return [self._said(self._answer(request.messages[0].content)) for request in requests]

    def _answer(self, said: str) -> str:
        if "Write one more sentence" in said:
            return self.sentences.pop(0)
        texts = texts_of(said)
        first = texts["first"].startswith("First") if "Knows" in texts["description"] else None
        return '{"preferred": "%s"}' % ("unclear" if first is None else "A" if first else "B")


def refined(model: Model, rounds: int = 3) -> Refined:
    config = config_of()
    judging = pairwise_judge(config, DOMAIN, model).judge
    with Silent().task("", 1) as task:
        return refine(config, Refinement(rounds=rounds, pairs=2), DOMAIN, USERS, pairs, judging, model, task)


def test_a_description_that_decides_nothing_is_extended_until_it_does() -> None:
    found = refined(Model("Likes the colour blue.", "Knows what is first. And more."))
    assert [user.description for user in found.users] == [
        USERS[0].description, "Says little. Likes the colour blue. Knows what is first.",
    ]  # fmt: skip
    assert found.added == {"clear": [], "open": ["Likes the colour blue.", "Knows what is first."]}
    assert found.open == [2, 2, 0]


def test_rounds_are_limited() -> None:
    found = refined(Model("Likes blue things.", "Likes red things."), rounds=2)
    assert len(found.added["open"]) == 2
    assert found.open == [2, 2]


def test_sentences_that_can_not_be_used_are_counted_and_not_added() -> None:
    found = refined(Model("", "I'm sorry, I can't do that.", "and on " * 80 + "."))
    assert found.users[1].description == "Says little."
    assert sum(found.rejected.values()) == 3
    assert found.rejected["empty"] == found.rejected["refusal"] == 1


def test_the_side_is_picked_at_random_and_told_to_the_writer() -> None:
    sides = set()
    for seed in range(8):
        config, model = config_of(seed=seed), Model("Knows it.")
        refinement, judging = Refinement(rounds=1, pairs=1), pairwise_judge(config, DOMAIN, model).judge
        with Silent().task("", 1) as task:
            refine(config, refinement, DOMAIN, USERS[1:], pairs, judging, model, task)
        sides.add(texts_of(model.asked[-1].messages[0].content)["chosen"])
    assert sides == {"First 0.", "Other 0."}
