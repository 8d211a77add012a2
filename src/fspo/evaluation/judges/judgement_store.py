"""What a judge said of pairs of answers, in both orders: asked once, kept line by line, found again by all it rests on.

A key stands for the judge, the user as the judge knows them, the prompt and both outputs. Judges that can be asked many
pairs at once are; those that were answered before one fails are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from fspo.errors import ConfigError, ModelError
from fspo.files import append_jsonl, read_jsonl
from fspo.identity import digest
from fspo.judging.by_topic import TopicJudge
from fspo.judging.judge import AttributeJudge
from fspo.judging.pairwise import Comparison, readable
from fspo.judging.pairwise import Judgement as Verdict
from fspo.preferences.types import User
from fspo.progress import Progress, Silent

__all__ = [
    "Annotation",
    "Comparer",
    "ManyComparer",
    "Outcome",
    "Pair",
    "TextUtility",
    "annotate",
    "check_identity",
    "judge_both_orders",
    "judge_digest",
    "silence",
]

Outcome = Literal["win", "loss", "tie"]

_REJECTS = {"unreadable": "unreadable", "reasoning": "reasoning", "failed": "unreadable", "refused": "refused"}
"""Reason that a pair is not decided -> what it is left out as."""
_FEW = 8
"""Comparisons from which it is worth a word that all of them were ties."""
_REMEDY = (
    "It has to name one of the two: change its prompt, use another model, or leave it out; what was measured is kept. "
    "Once it is repaired, --on-existing overwrite asks again what could not be read, and keeps its other answers."
)


class Comparer(Protocol):
    """Whoever says which of two answers a user prefers (`fspo.judging.judge.Judge`).

    One that is not fspo's own has besides an `identity`, a text that is another one wherever its words may be.
    """

    def compare(self, user: User, prompt: str, a: str, b: str) -> Literal["a", "b", "tie"]:
        """Which answer `user` prefers."""


@runtime_checkable
class ManyComparer(Comparer, Protocol):
    """One that is asked many pairs at once, each in both orders (`fspo.judging.pairwise.PairwiseJudge`)."""

    def judge(self, comparisons: Iterable[Comparison]) -> Iterator[Verdict]:
        """Judge many pairs, in order."""


@runtime_checkable
class TextUtility(Protocol):
    """A judge that can say how much a user likes a text."""

    def utility(self, user: User, text: str, prompt: str = "") -> float:
        """How much `user` likes `text` as a response to `prompt`; only differences on one prompt mean something."""


@dataclass(frozen=True)
class Pair:
    """An answer and the one it is judged against."""

    item: str
    user: User
    prompt: str
    answer: str
    base: str

    @property
    def comparison(self) -> Comparison:
        """What is put before the judge."""
        return Comparison(self.user, self.prompt, self.answer, self.base)


@dataclass(frozen=True)
class Annotation:
    """A judge's word on one pair."""

    judged: Outcome
    """In both orders; a tie where the orders contradict each other, or where there is a reject."""
    consistent: bool
    """Whether both orders agreed."""
    reject: str = ""
    """`unreadable` where an order named neither answer, `reasoning` where it was nothing but reasoning, `refused` where
    it was refused; empty where there was none."""
    preference: float | None = None
    """The probability that the answer is preferred, from a judge that weighs."""
    unweighed: int = 0
    """Orders in which such a judge had no log-probs to go by."""
    failed: bool = False
    """Whether an order was not answered because the endpoint failed."""
    used_up: str = ""
    """The limit that reasoning used up, in words, if it did."""

    @property
    def lasting(self) -> bool:
        """Whether it is kept; where a server failed, or reasoning used up the limit, the next call asks again."""
        return not self.failed and self.reject != "reasoning"

    @classmethod
    def of(cls, verdict: Verdict) -> Annotation:
        """From a verdict in which the answer is `a`."""
        outcome: Outcome = {"a": "win", "b": "loss", "tie": "tie"}[verdict.verdict]  # type: ignore[assignment]
        reject = _REJECTS.get(verdict.reason, "")
        consistent = set(verdict.choices) in ({"first", "second"}, {"unclear"})
        failed = verdict.reason == "failed"
        return cls(outcome, consistent, reject, verdict.preference, verdict.unweighed, failed, verdict.used_up)


def judge_digest(judge: Comparer, prompts: Iterable[str]) -> str:
    """Tells apart judges of different words on these prompts."""
    said = sorted({prompt: _identity(judge, prompt) for prompt in prompts}.items())
    return digest(said)


def silence(
    judge: str, *, unreadable: int, refused: int, reasoning: int, ties: int, decided: int, used_up: str = ""
) -> list[str]:
    """Sentences on a judge that gave nothing on some comparisons, or none but ties on all `decided` ones.

    `used_up` is the limit of tokens that `reasoning` answers used up, in words.
    """
    found, asked = [], decided + unreadable + refused + reasoning
    if unreadable or refused:
        found.append(
            f"{judge} named neither answer in {unreadable} of {asked} comparisons and refused {refused}; they are left "
            "out of its figures."
        )
    if reasoning:
        found.append(
            f"{judge} gave only reasoning in {reasoning} of {asked} comparisons, which are left out of its figures: "
            f"reasoning used up {used_up or 'its limit of tokens'}. Raise it, or switch reasoning off "
            "(endpoint.extra_body)."
        )
    if decided >= _FEW and ties == decided:
        found.append(f"{judge} preferred neither answer in any of {decided} comparisons.")
    return found


def check_identity(judge: Comparer) -> None:
    """Check that it can be told whose words are kept: of judges that are given in Python only they themselves know.

    Raises:
        ConfigError: the judge has no identity.
    """
    if not isinstance(judge, AttributeJudge | TopicJudge) and not getattr(judge, "identity", ""):
        kind = f"{type(judge).__module__}.{type(judge).__qualname__}"
        raise ConfigError(
            f"The judge {kind} does not say what tells it from others, so that what it said could be taken for another "
            "one's; give it an attribute `identity`, a text that is another one wherever its words may be (settings, "
            "version)."
        )


def judge_both_orders(judge: Comparer, user: User, prompt: str, answer: str, base: str) -> tuple[Outcome, bool]:
    """The judge's word on `answer` against `base`, and whether both orders agree; contradicting orders are a tie.

    Raises:
        ModelError: the judge said none of what it may say.
    """
    first = _outcome(judge, judge.compare(user, prompt, answer, base), "win", "loss")
    second = _outcome(judge, judge.compare(user, prompt, base, answer), "loss", "win")
    return (first, True) if first == second else ("tie", False)


def _outcome(judge: Comparer, said: str, a: Outcome, b: Outcome) -> Outcome:
    outcomes: dict[str, Outcome] = {"a": a, "b": b, "tie": "tie"}
    if said not in outcomes:
        raise ModelError(
            f"The judge {type(judge).__qualname__} answered {said!r}; its compare must return 'a', 'b' or 'tie'."
        )
    return outcomes[said]


def annotate(
    judge: Comparer, pairs: Sequence[Pair], *, path: Path, name: str = "", progress: Progress | None = None
) -> list[Annotation]:
    """The judge's word on each pair, in order.

    Args:
        judge: whom to ask; a `ManyComparer` is asked all that is not known in one go.
        pairs: what to ask; equal ones are asked once.
        path: gains one line for each pair that was not known and has a lasting word. Where the judge fails, the lines
            before stay.
        name: what the judge is called on the progress bar.
        progress: shown once a pair.

    Raises:
        ConfigError: the judge has no identity; see `check_identity`.
        DataError: none of the first hundred answers can be read. Fewer are kept and counted as rejects.
        ModelError: the judge failed; see its own.
    """
    known = {line["key"]: line for line in read_jsonl(path) if "key" in line}
    keys = [_key(judge, pair) for pair in pairs]
    todo = {key: pair for key, pair in zip(keys, pairs, strict=True) if key not in known}
    done = len(set(keys)) - len(todo)
    asked = _asked(judge, list(todo.values()), [known[key] for key in set(keys) - todo.keys()])
    with (progress or Silent()).task(_title(name), total=len(set(keys)), done=done) as task:
        for (key, pair), found in zip(todo.items(), asked, strict=True):
            known[key] = _line(key, pair, found)
            if found.lasting:
                append_jsonl(path, known[key])
            task.advance(1)
    return [_annotation(known[key]) for key in keys]


def _title(name: str) -> str:
    return f"Judging answers, {name}" if name else "Judging answers"


def _asked(judge: Comparer, pairs: Sequence[Pair], before: Sequence[Mapping[str, Any]]) -> Iterator[Annotation]:
    """What the judge says; not on and on where it can't be read, nor could be `before`."""
    if isinstance(judge, ManyComparer):
        said = judge.judge(pair.comparison for pair in pairs)
        if all(line.get("reject") == "unreadable" for line in before):
            said = readable(said, _REMEDY, before=len(before), whole=False)
        yield from map(Annotation.of, said)
        return
    for pair in pairs:
        yield Annotation(*judge_both_orders(judge, pair.user, pair.prompt, pair.answer, pair.base))


def _line(key: str, pair: Pair, found: Annotation) -> dict[str, Any]:
    line: dict[str, Any] = {"key": key, "item": pair.item, "judged": found.judged, "consistent": found.consistent}
    if found.reject:
        line["reject"] = found.reject
    if found.preference is not None:
        line["preference"] = found.preference
    if found.unweighed:
        line["unweighed"] = found.unweighed
    if found.used_up:
        line["used_up"] = found.used_up
    return line


def _annotation(line: Mapping[str, Any]) -> Annotation:
    return Annotation(
        line["judged"],
        bool(line["consistent"]),
        line.get("reject", ""),
        line.get("preference"),
        line.get("unweighed", 0),
        used_up=line.get("used_up", ""),
    )


def _key(judge: Comparer, pair: Pair) -> str:
    user = pair.user
    person = [user.id, user.description, sorted(user.traits.items())]
    return digest([_identity(judge, pair.prompt), person, pair.prompt, pair.answer, pair.base])


def _identity(judge: Comparer, prompt: str) -> str:
    """What tells judges of different words on this prompt apart: what a judge says of itself, or how it measures."""
    check_identity(judge)
    kind = f"{type(judge).__module__}.{type(judge).__qualname__}"
    if hasattr(judge, "identity"):
        return f"{kind}/{judge.identity}"
    if isinstance(judge, AttributeJudge):
        scales = {name: list(scale) for name, scale in sorted(judge.scales.items())}
        words = {name: sorted(words) for name, words in sorted(judge.vocabularies.items())}
        return json.dumps([kind, scales, judge.margin, *([words] if words else [])])
    assert isinstance(judge, TopicJudge)
    return f"{kind}/{judge.name}//{judge.topics.get(prompt, '')}"
