"""Preference datasets that others have published, in their own columns, as datasets of fspo.

Rows that can't be used (an empty text, the same text twice, a repetition, two rows of one user that contradict each
other, turns before the question) are left out and counted by reason. A file without the columns that are expected is an
error.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from fspo.errors import ConfigError, DataError
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.rows import Row, finite
from fspo.preferences.types import Preference, User
from fspo.preferences.validation import user_problem
from fspo.preferences.wording import is_blank, wording
from fspo.printing import counted, nearest

__all__ = ["PUBLISHED", "Drawn", "Imported", "Published", "from_published"]

_Numbered = Iterable[tuple[int, Mapping[str, Any]]]
_Found = Iterator["tuple[Row, tuple[User, Preference] | str]"]
"""A row with its user's preference, or with the reason why it is left out."""


_RESPONSE = re.compile(r"response_[1-9]\d*")

_EMPTY = "EMPTY STRING"
"""The words that PRISM stores for an empty text, and so do the datasets made from it."""


@dataclass(frozen=True)
class Imported:
    """A dataset, how many rows were left out for each reason, and where the first of them is."""

    dataset: PreferenceDataset
    left_out: Mapping[str, int]
    first: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What to know of how the rows were read, one sentence each."""


@dataclass(frozen=True)
class Drawn:
    """The users of data that has scores and no users: each one weighs the scores as a Dirichlet draw says."""

    users: int = 100
    concentration: float = 0.05
    """Of the Dirichlet distribution: the smaller, the fewer scores matter to a user (PersonalLLM, arXiv 2409.20296)."""
    pairs: int = 1
    """Pairs of responses to each prompt that a user labels."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: one of them is out of its range.
        """
        if self.users < 1 or self.pairs < 1 or not 1e-3 <= self.concentration <= 1e3:
            raise ConfigError(
                "Drawn users need at least 1 user, 1 pair a prompt and a concentration from 0.001 to 1000."
            )


@dataclass(frozen=True)
class Published:
    """One kind of published data: what it is, which columns it must have, and how its rows are read."""

    about: str
    columns: tuple[str, ...]
    rows: Callable[[Iterator[Row], Drawn], _Found]


def from_published(
    rows: _Numbered, kind: str, *, file: str | Callable[[], str], drawn: Drawn | None = None
) -> Imported:
    """Make a dataset of published rows.

    `rows` are (number from 1, columns by name). `file` is what errors call the source, or gives it for the row that was
    read last. `drawn` says how users are drawn where the data has none (`personal-llm`).

    Raises:
        ConfigError: there is no such kind.
        DataError: a column is missing or of the wrong type, naming file, row and column; or nothing can be used.
    """
    if kind not in PUBLISHED:
        close = nearest(kind, PUBLISHED)
        raise ConfigError(
            f"There is no published data of the kind '{kind}'"
            + (f"; did you mean '{close}'?" if close else f"; choose {', '.join(PUBLISHED)}.")
        )
    published = PUBLISHED[kind]
    named = file if callable(file) else lambda: file
    collected = _Collected()
    for row, found in published.rows(_checked(rows, published, named, kind), drawn or Drawn()):
        if isinstance(found, str):
            collected.leave_out(found, row)
        else:
            collected.take(row, *found)
    return collected.imported(named())


class _Collected:
    """Users and labels as they come in, and what was left out."""

    def __init__(self) -> None:
        self._users: dict[str, User] = {}
        self._labels: dict[tuple[str, str, frozenset[str]], tuple[Row, Preference] | None] = {}
        self._left_out: Counter[str] = Counter()
        self._first: dict[str, str] = {}

    def leave_out(self, why: str, row: Row) -> None:
        self._left_out[why] += 1
        self._first.setdefault(why, row.place)

    def take(self, row: Row, user: User, preference: Preference) -> None:
        why = _unusable(user, preference)
        if why:
            self.leave_out(why, row)
            return
        known = self._users.get(user.id)
        if known is None or len(user.description) > len(known.description):  # personas are extended, row by row
            self._users[user.id] = user
        key = (preference.user, wording(preference.prompt), preference.pair)
        if key not in self._labels:
            self._labels[key] = (row, preference)
            return
        earlier = self._labels[key]
        if earlier is not None and earlier[1].chosen == preference.chosen:
            self.leave_out("rows repeating an earlier one", row)
            return
        if earlier is not None:
            self._labels[key] = None
            self.leave_out(_CONTRADICTED, earlier[0])
        self.leave_out(_CONTRADICTED, row)

    def imported(self, file: str) -> Imported:
        kept = [label[1] for label in self._labels.values() if label is not None]
        if not kept:
            reasons = ", ".join(counted(count, why) for why, count in self._left_out.items()) or "it has no rows"
            raise DataError(f"{file} holds no preference that can be used: {reasons}.")
        used = {preference.user for preference in kept}
        dataset = PreferenceDataset([user for user in self._users.values() if user.id in used], kept, file=file)
        return Imported(dataset, dict(self._left_out), self._first)


_CONTRADICTED = "rows of a pair that its user labels both ways"


def _checked(rows: _Numbered, published: Published, named: Callable[[], str], kind: str) -> Iterator[Row]:
    for number, values in rows:
        row = Row(values, named(), number)
        for column in published.columns:
            if column not in values:
                there = ", ".join(values) or "none"
                raise row.wrong(column, f"missing; rows of the kind '{kind}' have it, and this one has: {there}.")
        yield row


def _unusable(user: User, preference: Preference) -> str:
    if not preference.user.strip() or any(map(_says_nothing, _texts(preference))):
        return _NOTHING
    if preference.chosen.strip() == preference.rejected.strip():
        return "rows with the same response twice"
    try:
        "".join(_texts(preference)).encode()
    except UnicodeEncodeError:
        return _HALF
    return _HALF if user_problem(user, 1) is not None else ""  # its id is not empty


_NOTHING = "rows with an empty user, prompt or response"
_HALF = "rows with half of a surrogate pair"


def _texts(preference: Preference) -> tuple[str, str, str]:
    return preference.prompt, preference.chosen, preference.rejected


def _says_nothing(text: str) -> bool:
    return is_blank(text) or text.strip() == _EMPTY


def _roleplay(rows: Iterator[Row], _: Drawn) -> _Found:
    personas: dict[str, str] = {}
    for row in rows:
        persona, user = row.inside("score_persona"), row.id("level")
        id = persona.id("persona_uuid")
        if id and personas.setdefault(user, id) != id:
            yield row, "rows of a user who was another persona in an earlier row"
            continue
        source = {"persona": id} if id else {}
        yield (
            row,
            (
                User(user, persona.text("persona_description"), group="persona"),
                Preference(user, row.text("x"), row.text("yw"), row.text("yl"), source=source),
            ),
        )


def _labelled(described: Callable[[str], str], group: Callable[[str], str]) -> Callable[[Iterator[Row], Drawn], _Found]:
    """Rows with two responses and a label: 0 prefers the first (ELIX and Reviews of arXiv 2502.19312)."""

    def found(rows: Iterator[Row], _: Drawn) -> _Found:
        for row in rows:
            label = row.number_of("label")
            if label not in (0, 1):
                yield row, "rows without a label" if label is None else "rows whose label is neither 0 nor 1"
                continue
            pair = row.text("response_x"), row.text("response_y")
            chosen, rejected = pair if label == 0 else pair[::-1]
            user = row.id("scorer_level")
            source = row.about("level_x", "level_y", "model_name_x", "model_name_y", "scorer_level_id")
            yield (
                row,
                (
                    User(user, described(user), group=group(user)),
                    Preference(user, row.text("prompt"), chosen, rejected, source=source),
                ),
            )

    return found


def _rewarded(rows: Iterator[Row], _: Drawn) -> _Found:
    for row in rows:
        turns = [_message(Row({"context": turn}, row.file, row.number), "context") for turn in row.listed("context")]
        if not turns or turns[-1][0] != "user":
            yield row, "rows whose context does not end with the user"
        elif len(turns) > 1:
            yield row, "rows with turns before the question"
        else:
            user = row.id("user_id")
            chosen, rejected = (_message(row, column)[1] for column in ("chosen", "rejected"))
            preference = Preference(user, turns[0][1], chosen, rejected, source=row.about("split"))
            yield row, (User(user, group="person"), preference)


def _message(row: Row, column: str) -> tuple[str, str]:
    """Role and text of a message; both are empty where there is none."""
    if row.lacks(column):
        return "", ""
    value = row.values[column]
    if not isinstance(value, Mapping) or not isinstance(value.get("role"), str) or "content" not in value:
        raise row.wrong(column, 'must hold {"role": ..., "content": text}.')
    return value["role"], row.inside(column).text("content")


def _prism(rows: Iterator[Row], _: Drawn) -> _Found:
    """Rows of one response each; those of one interaction that were not chosen lost against the one that was."""
    interactions: dict[tuple[str, str], list[_Utterance]] = {}
    for row in rows:
        user, interaction = row.id("user_id"), row.id("interaction_id")
        if not user.strip() or not interaction.strip():
            # Nothing else says which rows are answers to one question of one person.
            yield row, "rows without a user or an interaction"
            continue
        one = _Utterance(
            row, row.number_of("turn"), row.text("user_prompt"), row.text("model_response"), row.flag("if_chosen")
        )
        interactions.setdefault((user, interaction), []).append(one)
    for (user, interaction), found in interactions.items():
        why = _unusable_interaction(found)
        if why:
            yield from ((one.row, why) for one in found)
            continue
        (best,) = (one for one in found if one.chosen)
        for one in found:
            if one.chosen is None:
                yield one.row, "rows without a value of if_chosen"
            elif one is not best:
                scores = [best.row.about("score").get("score"), one.row.about("score").get("score")]
                source = {"interaction": interaction, "scores": scores}
                preference = Preference(user, best.prompt, best.response, one.response, source=source)
                yield one.row, (User(user, group="person"), preference)


@dataclass(frozen=True)
class _Utterance:
    """One response of PRISM."""

    row: Row
    turn: float | None
    prompt: str
    response: str
    chosen: bool | None


def _unusable_interaction(rows: list[_Utterance]) -> str:
    best = [row for row in rows if row.chosen]
    if any(row.turn is None for row in rows):
        return "rows of an interaction that does not say which turn it is"
    if any(row.turn != 0 for row in rows):
        return "rows with turns before the question"
    if len({wording(row.prompt) for row in rows}) > 1:
        return "rows of an interaction with several prompts"
    if len(best) != 1:
        return "rows of an interaction without one chosen response"
    if _says_nothing(best[0].response) or _says_nothing(best[0].prompt):
        return "rows of an interaction whose prompt or chosen response is empty"
    return "rows of an interaction with one response" if len(rows) == 1 else ""


def _scored(rows: Iterator[Row], drawn: Drawn) -> _Found:
    """Responses with the scores of several reward models, which drawn users weigh each in their own way."""
    read = [(row, row.text("prompt"), _responses(row)) for row in rows]
    models = _reward_models(response.scores for _, _, responses in read for response in responses)
    if read and not models:
        raise read[0][0].wrong("response_1_...", "no scores; each response needs columns response_1_NAME.")
    prompts = []
    for row, prompt, responses in read:
        usable = []
        for response in responses:
            scores = [finite(response.scores.get(model)) for model in models]
            if _says_nothing(response.text):
                yield row, "responses without text"
            elif any(score is None for score in scores):
                yield row, "responses without a finite score of each reward model"
            else:
                usable.append((response.text, [score for score in scores if score is not None]))
        if len(usable) < 2:
            yield row, "prompts with less than two responses that can be used"
        else:
            prompts.append((row, prompt, usable))
    if not prompts:  # and so there is nothing to standardise the scores over
        return
    scales = [_scale([scores[place] for _, _, rs in prompts for _, scores in rs]) for place in range(len(models))]
    for number in range(drawn.users):
        rng = random.Random(f"{drawn.seed} user {number}")
        weights = _dirichlet(len(models), drawn.concentration, rng)
        user = User(f"drawn-{number}", traits=dict(zip(models, weights, strict=True)), group="drawn")
        for row, prompt, usable in prompts:
            rewards = [
                math.fsum(
                    weight * (score - mean) / spread
                    for weight, score, (mean, spread) in zip(weights, scores, scales, strict=True)
                )
                for _, scores in usable
            ]
            for one, other in _some_pairs(len(usable), drawn.pairs, rng):
                if rewards[one] == rewards[other]:
                    yield row, "pairs of equal reward"
                    continue
                best, worst = (one, other) if rewards[one] > rewards[other] else (other, one)
                yield row, (user, Preference(user.id, prompt, usable[best][0], usable[worst][0]))


@dataclass(frozen=True)
class _Response:
    """One response of PersonalLLM, with whatever stands in its columns: scores, and what else there is of it."""

    text: str
    scores: Mapping[str, Any]


def _responses(row: Row) -> list[_Response]:
    found = []
    for index in range(1, 1 + sum(_RESPONSE.fullmatch(name) is not None for name in row.values)):
        column = f"response_{index}"
        if column not in row.values:
            raise row.wrong(column, "missing; responses are numbered from 1 without gaps.")
        beside = {
            name.removeprefix(f"{column}_"): value
            for name, value in row.values.items()
            if name.startswith(f"{column}_")
        }
        found.append(_Response(row.text(column), beside))
    return found


def _reward_models(columns: Iterable[Mapping[str, Any]]) -> list[str]:
    """The names whose columns hold scores: a number anywhere, or nothing but numbers written as text."""
    numbers, texts, others = set[str](), set[str](), set[str]()
    for values in columns:
        for name, value in values.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                numbers.add(name)
            elif finite(value) is not None:
                texts.add(name)
            elif value is not None:
                others.add(name)
    return sorted(numbers | (texts - others))


def _scale(scores: list[float]) -> tuple[float, float]:
    """Mean and standard deviation: reward models score on scales of their own."""
    mean = math.fsum(scores) / len(scores)
    spread = math.sqrt(math.fsum((score - mean) ** 2 for score in scores) / len(scores))
    return mean, spread or 1.0


def _dirichlet(size: int, concentration: float, rng: random.Random) -> list[float]:
    # A gamma draw of shape a < 1 may underflow to 0; as the logarithm of one of shape a + 1 it can't.
    logs = [
        math.log(rng.gammavariate(concentration + 1, 1)) + math.log(1 - rng.random()) / concentration
        for _ in range(size)
    ]
    shares = [math.exp(log - max(logs)) for log in logs]
    return [share / math.fsum(shares) for share in shares]


def _some_pairs(count: int, pairs: int, rng: random.Random) -> list[tuple[int, int]]:
    every = [(one, other) for other in range(count) for one in range(other)]
    return sorted(every, key=lambda _: rng.random())[:pairs]


def _review_taste(user: str) -> str:
    return f"Likes reviews that are {user.replace('+', ' and ')}."


PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "roleplay": Published(
            "Roleplay of the FSPO paper (sher222/persona-iterative-responses)",
            ("x", "yw", "yl", "level", "score_persona"),
            _roleplay,
        ),
        "elix": Published(
            "ELIX, easy or hard, of the FSPO paper (Asap7772/elix_generations_gpt4omini_pref, "
            "Asap7772/elix_multexpert_preferences_gpt4o_pref)",
            ("prompt", "response_x", "response_y", "scorer_level", "label"),
            _labelled(lambda user: f"Wants explanations for: {user}.", lambda _: "level"),
        ),
        "reviews": Published(
            "Reviews of the FSPO paper (Asap7772/steered_reviews_full_autolabel_gpt4o_pref)",
            ("prompt", "response_x", "response_y", "scorer_level", "label"),
            _labelled(_review_taste, lambda user: "interpolated" if "+" in user else "axis"),
        ),
        "reward-bench": Published(
            "PersonalRewardBench: Chatbot Arena and PRISM by user (MichaelR207/chatbot_arena_personalized_0125, "
            "MichaelR207/prism_personalized_0125)",
            ("user_id", "context", "chosen", "rejected"),
            _rewarded,
        ),
        "prism": Published(
            "PRISM's utterances (HannahRoseKirk/prism-alignment)",
            ("interaction_id", "user_id", "turn", "user_prompt", "model_response", "if_chosen"),
            _prism,
        ),
        "personal-llm": Published(
            "PersonalLLM: eight responses and the scores of reward models, whose weights are drawn for each user "
            "(namkoong-lab/PersonalLLM)",
            ("prompt", "response_1", "response_2"),
            _scored,
        ),
    }
)
"""Name -> what it is and how it is read."""
