"""Makes the users: draws, portrays, refines and compares them, and draws those again that do not fit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from fspo.judging.pairwise import readable
from fspo.judging.verdicts import Comparison, Judgement, OrderTally, Preferred
from fspo.llm.batching import ask_all, mark_unusable
from fspo.llm.types import LanguageModel, Message
from fspo.preferences.types import Split, User
from fspo.printing import option
from fspo.progress import Progress
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.disagreement import Matrix, disagreement_of, outside
from fspo.synthesis.domain import Domain
from fspo.synthesis.judges import Judging
from fspo.synthesis.model_texts import fault, tidied
from fspo.synthesis.pairs import Pair, Pairs
from fspo.synthesis.refinement import Refined, refine, steps_of
from fspo.synthesis.user_slots import UserSlot, make_user

__all__ = ["PORTRAIT_TOKENS", "SynthesizedUsers", "UserMaker", "varies"]

PORTRAIT_TOKENS = 120

_REMEDY = (  # %s is the option, which is named when the message is shown
    'It has to answer with {"preferred": "A"}, "B" or "unclear": fix the prompt judge in the domain\'s prompts.yaml, '
    "if there is one, or use another model. Its answers are kept: once it works, run the same command with "
    "%s, which asks again only what could not be read."
)
"""What to do about a judge that can't be read."""


@dataclass
class SynthesizedUsers:
    """The users, and how they came about.

    Attributes:
        users: with their final descriptions, in the order of their places.
        first: user -> the description before refinement.
        added: user -> the sentences that refinement added.
        attempts: user -> how often the user was drawn again.
        outside: user -> why they are still outside the bounds of disagreement.
        matrix: disagreement on the shared pairs.
        entropy: mean entropy of a shared pair's label over the two orders, in nats, before and after refinement.
        open: pairs left open in each round of refinement.
        rejected: reason -> portraits and sentences not used.
        order: how the judge's two orders compare on the shared pairs, with the final descriptions.
        judged: user -> what came of each shared pair with the final description.
    """

    users: list[User] = field(default_factory=list)
    first: dict[str, str] = field(default_factory=dict)
    added: dict[str, list[str]] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    outside: dict[str, str] = field(default_factory=dict)
    matrix: Matrix | None = None
    entropy: tuple[float, float] = (math.nan, math.nan)
    open: list[int] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    order: OrderTally = field(default_factory=OrderTally)
    judged: dict[str, list[Judgement]] = field(default_factory=dict)


class UserMaker:
    """Makes the users of a dataset."""

    def __init__(
        self,
        config: SynthesisConfig,
        domain: Domain,
        pairs: Pairs,
        parts: dict[Split, frozenset[str]],
        judging: Judging,
        llm: LanguageModel,
        progress: Progress,
    ) -> None:
        """Take what is needed; `parts` are ids of users, `llm` writes portraits and sentences."""
        self._config, self._domain, self._pairs, self._judging = config, domain, pairs, judging
        self._llm, self._progress = llm, progress
        self._split: dict[str, Split] = {id: split for split, ids in parts.items() for id in ids}
        self._users: dict[str, User] = {}
        self._judged: dict[str, tuple[list[Judgement], list[Judgement]]] = {}
        self._made = SynthesizedUsers()

    def make(self, places: Sequence[UserSlot]) -> SynthesizedUsers:
        """The users of all places.

        Raises:
            DataError: none of the judge's answers can be read.
            ModelError: a model failed.
        """
        bounds, result = self._config.disagreement, self._made
        result.attempts = {place.id: 0 for place in places}
        todo = list(places)
        while True:
            self._make(todo)
            result.matrix = disagreement_of(
                [place.id for place in places], [_preferred(self._judged[place.id][1]) for place in places]
            )
            result.outside = outside(result.matrix, bounds) if bounds is not None else {}
            todo = [
                place
                for place in places
                if place.id in result.outside
                and bounds is not None
                and result.attempts[place.id] < bounds.attempts
                and varies(self._config, self._domain)
            ]
            if not todo:
                break
            who = "1 user is" if len(todo) == 1 else f"{len(todo)} users are"
            self._progress.say(f"{who} regenerated: too similar to another user, or too different from all others.")
            for place in todo:
                result.attempts[place.id] += 1
        result.users = [self._users[place.id] for place in places]
        before, after = zip(*(self._judged[place.id] for place in places), strict=True)
        result.entropy = (_entropy(before), _entropy(after))
        result.judged = {place.id: self._judged[place.id][1] for place in places}
        for row in after:
            for judgement in row:
                result.order.add(judgement)
        return result

    def _make(self, places: Sequence[UserSlot]) -> None:
        attempts = self._made.attempts
        made = [make_user(self._config, self._domain, place, attempts[place.id]) for place in places]
        if self._config.portraits:
            made = self._portrayed(made)
        self._made.first.update((user.id, user.description) for user in made)
        before = self._on_shared(made, "Labelling shared pairs")
        users, after = made, before
        if _refines(self._config):
            refined = self._refined(made)
            users = refined.users
            self._made.added.update(refined.added)
            self._made.rejected.update(refined.rejected)
            self._made.open = _summed(self._made.open, refined.open)
            after = self._on_shared(users, "Labelling them again")
        self._users.update((user.id, user) for user in users)
        self._judged.update((user.id, (before[user.id], after[user.id])) for user in users)

    def _portrayed(self, users: Sequence[User]) -> list[User]:
        template, config = self._domain.prompts["portrait"], self._config
        requests = [
            config.request(
                Message("user", template.ask({"description": user.description}, about=self._domain.file.about)),
                max_tokens=PORTRAIT_TOKENS,
                seed=config.seed + 7919 * self._made.attempts[user.id],
            )
            for user in users
        ]
        made = []
        with self._progress.task("Writing portraits", total=len(users)) as task:
            answers = ask_all(self._llm, requests, config.batch, task)
            for user, request, completion in zip(users, requests, answers, strict=True):
                text = " ".join(tidied(completion).split())
                why = completion.missing or fault(text, min_words=5, language=self._domain.file.language)
                if why:  # the traits in a line still describe the user
                    self._made.rejected[f"portrait: {why}"] += 1
                    mark_unusable(self._llm, request)
                made.append(user if why else replace(user, description=text))
        return made

    def _refined(self, users: Sequence[User]) -> Refined:
        refinement = self._config.refinement
        assert refinement is not None

        def pairs(user: User, turn: int, count: int) -> list[Pair]:
            key = f"{user.id}/{self._made.attempts[user.id]}"
            return self._pairs.to_refine(key, self._split[user.id], turn, count)

        total = len(users) * refinement.rounds * steps_of(refinement)
        with self._progress.task("Refining descriptions", total=total) as task:
            return refine(self._config, refinement, self._domain, users, pairs, self._judging, self._llm, task)

    def _on_shared(self, users: Sequence[User], name: str) -> dict[str, list[Judgement]]:
        shared = self._pairs.shared
        found: dict[str, list[Judgement]] = {user.id: [] for user in users}
        comparisons = (Comparison(user, p.question.text, p.a.text, p.b.text) for user in users for p in shared)
        with self._progress.task(name, total=len(users) * len(shared)) as task:
            judgements = self._judging(comparisons, task)
            if not self._judged:  # of the first users; a later one may be odd without the judge being so
                judgements = readable(judgements, _REMEDY % option("on-existing", "overwrite"))
            for place, judgement in enumerate(judgements):
                found[users[place // len(shared)].id].append(judgement)
        return found


def varies(config: SynthesisConfig, domain: Domain) -> bool:
    """Whether drawing a user again can give another user."""
    return bool(domain.users.draw) or config.portraits or _refines(config)


def _refines(config: SynthesisConfig) -> bool:
    return config.refinement is not None and config.judge == "llm"


def _preferred(judgements: Iterable[Judgement]) -> list[Preferred]:
    return [judgement.preferred for judgement in judgements]


def _entropy(rows: Iterable[Sequence[Judgement]]) -> float:
    """Mean entropy in nats: nothing for a pair both orders decide alike, log 2 for one they do not."""
    open_pairs = [bool(judgement.reason) for row in rows for judgement in row]
    return math.log(2) * sum(open_pairs) / len(open_pairs) if open_pairs else math.nan


def _summed(one: Sequence[int], other: Sequence[int]) -> list[int]:
    longest = max(len(one), len(other))
    return [sum(row[place] for row in (one, other) if place < len(row)) for place in range(longest)]
