"""A language model that follows a script for every prompt of the recipe, and a small domain of one's own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from fspo.llm.quoting import texts_of
from fspo.llm.types import Completion, CompletionRequest
from fspo.synthesis.config import SynthesisConfig

__all__ = ["ScriptedModel", "Stopped", "TopicalModel", "config_of", "write_domain"]

_PARTS = (
    "plot",
    "light",
    "water",
    "engine",
    "garden",
    "music",
    "river",
    "teacher",
    "bread",
    "window",
    "market",
    "winter",
)
_VERBS = ("carries", "changes", "follows", "warms", "needs", "shows", "moves", "holds", "breaks", "keeps")
_GRADES = {"easy": "The cat sat on the mat.", "hard": "Photosynthetic organelles phosphorylate adenosine molecules."}


class Stopped(BaseException):
    """The process was killed (a base exception: nothing may swallow it)."""


class ScriptedModel:
    """Answers by what it is asked; each answer is a function of the request alone.

    Attributes:
        asked: every request, in order.
        stop_at: the call at which the model is killed.
        judge: (description, first, second, rng) -> what the judge says.
    """

    name = "scripted"

    def __init__(self, stop_at: int | None = None) -> None:
        self.asked: list[CompletionRequest] = []
        self.calls = 0
        self.stop_at = stop_at

    def judge(self, description: str, first: str, second: str, rng: random.Random) -> str:
        """Short responses for who likes them short, long ones for others; unclear where lengths are alike."""
        difference = len(first) - len(second)
        if "Adores" in description:
            difference += 13
        if abs(difference) < 8:
            return "unclear"
        return "A" if (difference < 0) == ("short" in description) else "B"

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        if self.calls == self.stop_at:
            raise Stopped
        self.calls += 1
        self.asked += requests
        return [self._complete(request) for request in requests]

    def _complete(self, request: CompletionRequest) -> Completion:
        rng, said = random.Random(f"{request}"), request.messages[-1].content
        if "new questions of the same kind" in said:
            return self._said("\n".join(f"{n}. Why does the {self._words(rng, 3)}?" for n in range(1, 7)))
        if "viewpoints" in said:
            return self._said("\n".join(f"{n}. Think of the {self._words(rng, 2)}" for n in range(1, 5)))
        if "Two responses" in said:
            texts = texts_of(said)
            choice = self.judge(texts.get("description", ""), texts["first"], texts["second"], rng)
            return self._said(f'{{"preferred": "{choice}"}}')
        if "Write the person's next message" in said:
            texts = texts_of(said)
            reaction = "" if texts["conversation"] == "Nothing yet." else f"I like the {self._words(rng, 1)}. "
            return self._said(f"{reaction}Tell me: {texts['question']}")
        if "how well the answer fits this person" in said:
            return self._said(f'{{"level": {min(5, 1 + len(texts_of(said)["answer"]) // 4)}}}')
        if "Write one more sentence" in said:
            return self._said(f"Adores the {self._words(rng, 2)}.")
        if "short portrait" in said:
            return self._said(f"A person who likes things short and the {self._words(rng, 3)}. Lives by the sea.")
        return self._said(self._response(request, rng))

    def _response(self, request: CompletionRequest, rng: random.Random) -> str:
        count = rng.choice((2, 3, 5, 8))
        text = ". ".join(f"The {self._words(rng, 4)}" for _ in range(count)) + "."
        return rng.choice((*(_GRADES.values()), "")) + " " + text

    def _words(self, rng: random.Random, count: int) -> str:
        return " ".join(f"{rng.choice(_PARTS)} {rng.choice(_VERBS)}" for _ in range(count))

    @staticmethod
    def _said(text: str) -> Completion:
        return Completion(text.strip(), len(text.split()), "stop")


class TopicalModel:
    """Writes texts that differ in every attribute, and hold some of the words given; a function of the request alone.

    Attributes:
        asked: every request, in order.
    """

    name = "topical"

    def __init__(self, vocabulary: Sequence[str]) -> None:
        self.asked: list[CompletionRequest] = []
        self._vocabulary = tuple(vocabulary)

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        self.asked += requests
        return [self._complete(random.Random(f"{request}")) for request in requests]

    def _complete(self, rng: random.Random) -> Completion:
        openings = (
            "I love it!",
            "That is terrible.",
            "It's really great, honestly.",
            "Indeed, it is not bad \U0001f600",
        )
        lines = [rng.choice(openings), *_GRADES.values()] if rng.random() < 0.5 else [rng.choice(openings)]
        for _ in range(rng.choice((1, 3, 6))):
            said = " ".join(rng.choice((*self._vocabulary, *_PARTS, *_VERBS)) for _ in range(rng.choice((4, 9))))
            lines.append(f"The {said}.")
        text = "\n".join(f"- {line}" for line in lines) if rng.random() < 0.3 else " ".join(lines)
        return Completion(text, len(text.split()), "stop")


def config_of(**settings: object) -> SynthesisConfig:
    """A small configuration."""
    usual = {
        "domain": "elix-easy",
        "questions": 12,
        "responses": 5,
        "pairs": 20,
        "shared_pairs": 8,
        "meaning": False,
    }
    return SynthesisConfig.model_validate({**usual, **settings})


def write_domain(folder: Path, **files: str) -> Path:
    """A domain of one's own; `files` replace or add to the usual ones, by their names without the ending."""
    usual = {
        "domain": "about: Small talk.\nnoun: answers\nlicence: ours\n",
        "questions": "weather:\n- Will it rain today?\n- Is it cold?\nfood:\n- What is for lunch?\n- Who made it?\n",
        "steering": "personas:\n  - {name: friend, system: Be a friend.}\n  - {name: boss, system: Be a boss.}\n",
        "users": (
            "combine: [age]\ndraw: [taste]\neach: 3\ndescription: 'Is {age} and likes it {taste}.'\ntraits:\n"
            "  age: [{name: young, text: young}, {name: old, text: old}]\n"
            "  taste:\n    - {name: short, text: short, weights: {length: -1}}\n"
            "    - {name: long, text: long, weights: {length: 1}}\n"
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**usual, **files}.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder
