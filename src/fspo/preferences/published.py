"""Preference datasets that others have published, in their own columns, as datasets of fspo.

Rows that can't be used (the same text twice, a repetition, two rows of one user that contradict each other, turns
before the question) are left out and counted by reason. A file without the columns that are expected is an error.
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
from fspo.preferences.types import Preference, User
from fspo.preferences.validation import Problem, nearest

__all__ = ["PUBLISHED", "Drawn", "Imported", "Published", "from_published"]

_Numbered = Iterable[tuple[int, Mapping[str, Any]]]
_Found = Iterator["tuple[User, Preference] | str"]
"""A user's preference, or why a row is left out."""


_RESPONSE = re.compile(r"response_[1-9]\d*")


@dataclass(frozen=True)
class Imported:
    """A dataset, and how many rows were left out for each reason."""

    dataset: PreferenceDataset
    left_out: Mapping[str, int]


@dataclass(frozen=True)
class Drawn:
    """The users of data that has scores and no users: each one weighs the scores as a Dirichlet draw says."""

    users: int = 100
    concentration: float = 0.05
    """Of the Dirichlet distribution: the smaller, the fewer scores a user goes by (PersonalLLM, arXiv 2409.20296)."""
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
    rows: Callable[[_Source], _Found]


@dataclass(frozen=True)
class _Source:
    rows: _Numbered
    named: Callable[[], str]
    drawn: Drawn = field(default_factory=Drawn)

    @property
    def file(self) -> str:
        """What errors call it."""
        return self.named()

    def text(self, row: Mapping[str, Any], column: str, number: int) -> str:
        """A column as text; ids may be numbers."""
        value = row[column]
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise Problem(number, column, f"must be text, not {type(value).__name__}.").error(self.file)
        return value


def from_published(
    rows: _Numbered, kind: str, *, file: str | Callable[[], str], drawn: Drawn | None = None
) -> Imported:
    """Make a dataset of published rows.

    Args:
        rows: (number from 1, columns by name), such as a file of JSON lines or of Parquet gives.
        kind: one of `PUBLISHED`.
        file: what errors call the source; or tells, for the row that was read last.
        drawn: how users are drawn where the data has none (`personal-llm`).

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
    source = _Source(_checked(rows, published, named, kind), named, drawn or Drawn())
    users: dict[str, User] = {}
    labels: dict[tuple[str, str, frozenset[str]], Preference | None] = {}
    left_out: Counter[str] = Counter()
    for found in published.rows(source):
        why = found if isinstance(found, str) else _unusable(found[1])
        if why or isinstance(found, str):
            left_out[why] += 1
            continue
        user, preference = found
        known = users.get(user.id)
        if known is None or len(user.description) > len(known.description):  # personas are extended, row by row
            users[user.id] = user
        key = (preference.user, preference.prompt, preference.pair)
        earlier = labels.setdefault(key, preference)
        if earlier is preference:
            continue
        if earlier is not None and earlier.chosen != preference.chosen:
            labels[key] = None
            left_out[_CONTRADICTED] += 2
        else:
            left_out[_CONTRADICTED if earlier is None else "rows repeating an earlier one"] += 1
    kept = [preference for preference in labels.values() if preference is not None]
    if not kept:
        reasons = ", ".join(f"{count} {why}" for why, count in left_out.items()) or "it has no rows"
        raise DataError(f"{named()} holds no preference that can be used: {reasons}.")
    used = {preference.user for preference in kept}
    dataset = PreferenceDataset([user for user in users.values() if user.id in used], kept, file=named())
    return Imported(dataset, dict(left_out))


_CONTRADICTED = "rows of a pair that its user labels both ways"


def _checked(
    rows: _Numbered, published: Published, named: Callable[[], str], kind: str
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, row in rows:
        for column in published.columns:
            if column not in row:
                there = ", ".join(row) or "none"
                what = f"missing; rows of the kind '{kind}' have it, and this one has: {there}."
                raise Problem(number, column, what).error(named())
        yield number, row


def _unusable(preference: Preference) -> str:
    texts = (preference.user, preference.prompt, preference.chosen, preference.rejected)
    if not all(text.strip() for text in texts):
        return "rows with an empty user, prompt or response"
    if preference.chosen.strip() == preference.rejected.strip():
        return "rows with the same response twice"
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return "rows with half of a surrogate pair"
    return ""


def _roleplay(source: _Source) -> _Found:
    for number, row in source.rows:
        persona = row["score_persona"]
        if not isinstance(persona, Mapping):
            what = f"must be an object with persona_description, not {type(persona).__name__}."
            raise Problem(number, "score_persona", what).error(source.file)
        user = source.text(row, "level", number)
        description = persona.get("persona_description")
        yield (
            User(user, description if isinstance(description, str) else "", group="persona"),
            Preference(
                user,
                source.text(row, "x", number),
                source.text(row, "yw", number),
                source.text(row, "yl", number),
                source={"persona": str(persona.get("persona_uuid", ""))},
            ),
        )


def _labelled(described: Callable[[str], str], group: Callable[[str], str]) -> Callable[[_Source], _Found]:
    """Rows with two responses and a label: 0 prefers the first (ELIX and Reviews of arXiv 2502.19312)."""

    def rows(source: _Source) -> _Found:
        for number, row in source.rows:
            label = row["label"]
            if isinstance(label, bool) or not isinstance(label, int | float) or not math.isfinite(label):
                raise Problem(number, "label", f"must be a number, not {label!r:.40}.").error(source.file)
            if label not in (0, 1):
                yield "rows whose label is neither 0 nor 1"
                continue
            pair = [source.text(row, column, number) for column in ("response_x", "response_y")]
            chosen, rejected = pair if label == 0 else pair[::-1]
            user = source.text(row, "scorer_level", number)
            about = {name: row[name] for name in _ABOUT_LABELLED if row.get(name) is not None}
            prompt = source.text(row, "prompt", number)
            yield (
                User(user, described(user), group=group(user)),
                Preference(user, prompt, chosen, rejected, source=about),
            )

    return rows


_ABOUT_LABELLED = ("level_x", "level_y", "model_name_x", "model_name_y", "scorer_level_id")


def _rewarded(source: _Source) -> _Found:
    for number, row in source.rows:
        turns = [_message(turn, "context", number, source) for turn in _list(row["context"], "context", number, source)]
        if not turns or turns[-1][0] != "user":
            yield "rows whose context does not end with the user"
        elif len(turns) > 1:
            yield "rows with turns before the question"
        else:
            user = source.text(row, "user_id", number)
            chosen, rejected = (_message(row[column], column, number, source)[1] for column in ("chosen", "rejected"))
            about = {"split": row["split"]} if "split" in row else {}
            yield User(user, group="person"), Preference(user, turns[0][1], chosen, rejected, source=about)


def _list(value: Any, column: str, number: int, source: _Source) -> list[Any]:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, list):
        raise Problem(number, column, f"must be a list of messages, not {type(value).__name__}.").error(source.file)
    return value


def _message(value: Any, column: str, number: int, source: _Source) -> tuple[str, str]:
    content = value.get("content") if isinstance(value, Mapping) else None
    if not isinstance(content, str) or not isinstance(value.get("role"), str):
        raise Problem(number, column, 'must hold {"role": ..., "content": text}.').error(source.file)
    return value["role"], content


def _prism(source: _Source) -> _Found:
    """Rows of one response each; those of one interaction that were not chosen lost against the one that was."""
    interactions: dict[str, list[Mapping[str, Any]]] = {}
    for number, row in source.rows:
        interactions.setdefault(source.text(row, "interaction_id", number), []).append(
            {**row, **{name: source.text(row, name, number) for name in ("user_id", "user_prompt", "model_response")}}
        )
    for interaction, rows in interactions.items():
        best = [row for row in rows if row["if_chosen"]]
        why = ""
        if any(row["turn"] != 0 for row in rows):
            why = "rows with turns before the question"
        elif len(best) != 1:
            why = "rows of an interaction without one chosen response"
        elif len(rows) == 1:
            why = "rows of an interaction with one response"
        if why:
            yield from [why] * len(rows)
            continue
        (chosen,) = best
        user, prompt = chosen["user_id"], chosen["user_prompt"]
        for row in rows:
            if row is not chosen:
                about = {"interaction": interaction, "scores": [chosen.get("score"), row.get("score")]}
                preference = Preference(user, prompt, chosen["model_response"], row["model_response"], source=about)
                yield User(user, group="person"), preference


def _scored(source: _Source) -> _Found:
    """Responses with the scores of several reward models, which drawn users weigh each in their own way."""
    prompts = [(source.text(row, "prompt", number), _responses(row, number, source)) for number, row in source.rows]
    models = sorted({model for _, responses in prompts for _, scores in responses for model in scores})
    if not models:
        raise Problem(1, "response_1_...", "no scores; each response needs columns response_1_NAME.").error(source.file)
    scales = [_scale([scores[m] for _, rs in prompts for _, scores in rs if m in scores]) for m in models]
    for number in range(source.drawn.users):
        rng = random.Random(f"{source.drawn.seed} user {number}")
        weights = _dirichlet(len(models), source.drawn.concentration, rng)
        user = User(f"drawn-{number}", traits=dict(zip(models, weights, strict=True)), group="drawn")
        for prompt, responses in prompts:
            rewards = [
                math.fsum(
                    weight * (scores.get(model, mean) - mean) / spread
                    for model, weight, (mean, spread) in zip(models, weights, scales, strict=True)
                )
                for _, scores in responses
            ]
            for one, other in _some_pairs(len(responses), source.drawn.pairs, rng):
                if rewards[one] == rewards[other]:
                    yield "pairs of equal reward"
                    continue
                best, worst = (one, other) if rewards[one] > rewards[other] else (other, one)
                yield user, Preference(user.id, prompt, responses[best][0], responses[worst][0])


def _responses(row: Mapping[str, Any], number: int, source: _Source) -> list[tuple[str, dict[str, float]]]:
    found = []
    for index in range(1, 1 + sum(_RESPONSE.fullmatch(name) is not None for name in row)):
        column = f"response_{index}"
        if column not in row:
            raise Problem(number, column, "missing; responses are numbered from 1 without gaps.").error(source.file)
        scores = {
            name.removeprefix(f"{column}_"): float(value)
            for name, value in row.items()
            if name.startswith(f"{column}_") and isinstance(value, int | float) and math.isfinite(value)
        }
        found.append((source.text(row, column, number), scores))
    return found


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
