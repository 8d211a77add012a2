"""Users of a domain: listed ones, combinations of traits, or directions; a user that does not fit is drawn again."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

from fspo.errors import ConfigError, DataError
from fspo.judging.by_topic import OWN
from fspo.judging.traits import features_of
from fspo.preferences.types import Split, User
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.directions import AXIS, Direction, axes, describe, ends_of, sparse
from fspo.synthesis.domain import Domain
from fspo.synthesis.domain_files import Directions, TraitRow, UsersFile
from fspo.synthesis.templates import Template
from fspo.synthesis.written import values_of

__all__ = ["LISTED", "UserSlot", "make_user", "slots_of", "split_users"]

LISTED = "listed"
"""The group of users that a domain lists one by one."""
_GOLDEN = (math.sqrt(5) - 1) / 2
"""Its multiples fall evenly on the circle, however many there are."""


@dataclass(frozen=True)
class UserSlot:
    """Where a user belongs among the domain's combinations; who takes it may be drawn again.

    Attributes:
        id: the user's id.
        group: the combination, or `LISTED`.
        traits: the factors that are fixed.
        topic: the user's own topic, if any.
        held_out: whether the domain says that this user is not trained on.
        direction: what the user weighs, in a domain whose users have directions.
        part: the part that the user belongs to however many others there are.
    """

    id: str
    group: str
    traits: Mapping[str, TraitRow]
    topic: str = ""
    held_out: bool | None = None
    direction: Direction | None = None
    part: Split | None = None


def slots_of(config: SynthesisConfig, domain: Domain) -> list[UserSlot]:
    """The slots of all users wanted, in a fixed order; fewer than all are spread evenly.

    Raises:
        ConfigError: more users are asked for than there are, nobody would be left to train on or to hold out, or an
            attribute that users are to weigh is unknown.
        DataError: two users have the same id, the domain leaves nobody to hold out or to train on, or the judge
            needs weights and a user has none.
    """
    users = domain.users
    if users.directions is not None:
        slots = _directed(config, domain, users.directions)
    elif users.users:
        slots = [UserSlot(person.id, LISTED, {}, held_out=person.held_out) for person in users.users]
    else:
        slots = [
            _place(users, dict(zip(users.combine, rows, strict=True)), number)
            for number in range(users.each)
            for rows in product(*(users.traits[factor] for factor in users.combine))
        ]
    _refuse_namesakes(domain, slots)
    _refuse_few(domain, slots)
    chosen = _chosen(config, domain, slots)
    _refuse_nobody(config, chosen)
    if config.by_traits:
        _refuse_weightless(config, domain, chosen)
    if config.judge == "declared" and domain.written:
        _refuse_undecided(config, domain, chosen)
    return chosen


def _directed(config: SynthesisConfig, domain: Domain, directions: Directions) -> list[UserSlot]:
    names = domain.weighed(config.attributes)
    if len(names) < 2:
        raise ConfigError(
            f"synthesis.attributes lists '{names[0]}' alone; list at least two, or there is nothing between users."
        )
    ends = ends_of(domain, names)
    if directions.kind == "axes":
        return [UserSlot(one.name, one.group, {}, held_out=one.group != AXIS, direction=one) for one in axes(ends)]
    count = config.users or directions.count
    drawn = sparse(ends, directions.most, count, config.seed)
    width = max(4, len(str(count - 1)))
    parts, of = _parts(config, count), Path(config.domain).name
    return [
        UserSlot(f"{of}-{number:0{width}}", one.group, {}, direction=one, part=part)
        for number, (one, part) in enumerate(zip(drawn, parts, strict=True))
    ]


def _parts(config: SynthesisConfig, count: int) -> list[Split]:
    """The part of each of so many users: evenly by the shares, and the same for the first ones however many follow."""
    parts: list[Split] = []
    for number in range(count):
        at = (number + 1) * _GOLDEN % 1
        tested = at < config.held_out
        parts.append("test" if tested else "validation" if at < config.held_out + config.validation else "train")
    return parts


def _chosen(config: SynthesisConfig, domain: Domain, slots: list[UserSlot]) -> list[UserSlot]:
    users = domain.users
    if config.users is None or len(slots) == config.users:
        return slots
    if config.users > len(slots):
        raise ConfigError(
            f"synthesis.users is {config.users}, and the domain '{domain.name}' has {len(slots)}; ask for at most so "
            "many, or leave it out."
        )
    combined = len(slots) // users.each
    if config.users >= combined:  # one of each combination first, then a second one
        return slots[: config.users]
    return [slots[at * combined // config.users] for at in range(config.users)]


def _refuse_namesakes(domain: Domain, slots: Sequence[UserSlot]) -> None:
    twice = [id for id, count in Counter(slot.id for slot in slots).items() if count > 1]
    if twice:
        raise DataError(
            f"The domain '{domain.name}': users.yaml gives the id '{twice[0]}' to more than one user; give their "
            "traits names that differ in letters or digits."
        )


def _refuse_few(domain: Domain, slots: Sequence[UserSlot]) -> None:
    where = f"The domain '{domain.name}': users.yaml"
    if len(slots) < 2:
        raise DataError(f"{where} makes one user, and at least 2 are needed, one of them held out; write more.")
    if all(slot.held_out for slot in slots):
        raise DataError(f"{where} holds out every user, so none is left to train on; hold out fewer.")


def _refuse_nobody(config: SynthesisConfig, slots: Sequence[UserSlot]) -> None:
    parts = split_users(config, slots)
    if not parts["test"]:
        raise ConfigError(
            f"Of {len(slots)} users none is left to hold out; raise synthesis.users or synthesis.held_out, or lower "
            "synthesis.also_trained."
        )
    if any(slot.held_out for slot in slots) and not parts["train"]:
        raise ConfigError(
            f"synthesis.users is {config.users}, and the domain holds out all of these, so none is left to train "
            "on; raise it."
        )
    if not parts["train"]:
        raise ConfigError(
            f"synthesis.held_out is {config.held_out:g}, which holds out all {len(slots)} users, so none is left "
            "to train on; lower it, or make more users."
        )


def _refuse_weightless(config: SynthesisConfig, domain: Domain, slots: Sequence[UserSlot]) -> None:
    for slot in slots:
        if not make_user(config, domain, slot).traits:
            raise DataError(
                f"The domain '{domain.name}': the user '{slot.id}' has no weights, or weights that cancel out, but "
                f"the {config.judge} judge needs them; give some in users.yaml, or set synthesis.judge to llm."
            )


def _refuse_undecided(config: SynthesisConfig, domain: Domain, slots: Sequence[UserSlot]) -> None:
    """Refuse users to whom no response is better than another one to the same question."""
    values = values_of(domain.traits)
    questions: dict[str, list[dict[str, float]]] = {}
    for row in domain.written:
        questions.setdefault(row.question, []).append(features_of(row.traits, values))
    for slot in slots:
        traits = make_user(config, domain, slot).traits
        utilities = (
            [sum(weight * text[name] for name, weight in traits.items()) for text in texts]
            for texts in questions.values()
        )
        if not any(max(row) - min(row) >= max(config.margin, 1e-6) for row in utilities):
            raise DataError(
                f"{domain.users_file}{_line_of(slot.id, domain.users_file)}: the user '{slot.id}' likes no response "
                f"better than another to the same question by the margin of {config.margin:g}; lower synthesis.margin, "
                "or change the weights."
            )


def _line_of(id: str, file: str) -> str:
    """Where a listed user stands."""
    found = re.compile(rf"\bid:\s*['\"]?{re.escape(id)}\b")
    lines = Path(file).read_text(encoding="utf-8").splitlines() if Path(file).is_file() else []
    return next((f", line {number}" for number, line in enumerate(lines, start=1) if found.search(line)), "")


def make_user(config: SynthesisConfig, domain: Domain, slot: UserSlot, attempt: int = 0) -> User:
    """The user at a slot; another `attempt` draws other traits where any are drawn."""
    users = domain.users
    if slot.direction is not None:
        rng = random.Random(f"{config.seed}/users/{slot.id}")
        text = describe(slot.direction, domain.file.noun, rng)
        weights = {name: round(weight, 6) for name, weight in slot.direction.traits.items()}
        return User(slot.id, text, weights, slot.group)
    if users.users:
        person = users.by_id[slot.id]
        return User(person.id, person.text, _unit(person.weights), slot.group)
    rng = random.Random(f"{config.seed}/users/{slot.id}/{attempt}")
    drawn = {factor: rng.choice(users.traits[factor]) for factor in users.draw}
    traits = {**slot.traits, **drawn}
    text = Template(users.description, frozenset(traits), "users.yaml, description").fill(
        **{factor: row.text for factor, row in traits.items()}
    )
    return User(slot.id, text, _weights(list(traits.values()), slot.topic), slot.group)


def split_users(config: SynthesisConfig, slots: Sequence[UserSlot]) -> dict[Split, frozenset[str]]:
    """Who is trained on and who is held out: as the domain says, or else drawn by the shares of the configuration.

    Of the users that a domain holds out, `also_trained` are trained on all the same, and a share of the others is for
    validation.
    """
    if all(slot.part for slot in slots):
        names: tuple[Split, ...] = ("train", "validation", "test")
        return {name: frozenset(slot.id for slot in slots if slot.part == name) for name in names}
    if any(slot.held_out for slot in slots):
        named = [slot.id for slot in slots if slot.held_out]
        random.Random(f"{config.seed}/split users").shuffle(named)
        rest = named[config.also_trained :]
        validated = min(round(config.validation * len(rest)), max(0, len(rest) - 1))
        return {
            "train": frozenset(slot.id for slot in slots).difference(rest),
            "validation": frozenset(rest[:validated]),
            "test": frozenset(rest[validated:]),
        }
    ids = [slot.id for slot in slots]
    random.Random(f"{config.seed}/split users").shuffle(ids)
    tested = max(1, round(config.held_out * len(ids)))
    # Of two or three users to train on none is to spare.
    validated = min(round(config.validation * len(ids)), max(0, len(ids) - tested - 2))
    return {
        "train": frozenset(ids[tested + validated :]),
        "validation": frozenset(ids[tested : tested + validated]),
        "test": frozenset(ids[:tested]),
    }


def _place(users: UsersFile, rows: dict[str, TraitRow], number: int) -> UserSlot:
    parts = [_slug(row.name) for row in rows.values()]
    suffix = [f"{number:02d}"] if users.each > 1 else []
    topic = rows[users.topic].name if users.topic in rows else ""
    return UserSlot("-".join([*parts, *suffix]), "-".join(parts), rows, topic)


def _weights(rows: Sequence[TraitRow], topic: str) -> dict[str, float]:
    general = _unit(_sum(row.weights for row in rows))
    own = _unit(_sum(row.own for row in rows)) if topic else {}
    return {**general, **{f"{name}{OWN}{topic}": weight for name, weight in own.items()}}


def _sum(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for row in rows:
        for name, weight in row.items():
            total[name] = total.get(name, 0.0) + weight
    return total


def _unit(weights: Mapping[str, float]) -> dict[str, float]:
    """The weights at length 1, so that margins are in standard deviations; without those that cancel out."""
    length = math.sqrt(sum(weight * weight for weight in weights.values()))
    return {name: round(weight / length, 6) for name, weight in weights.items() if abs(weight) > 1e-9} if length else {}


@lru_cache(maxsize=4096)  # the same few names in all combinations
def _slug(name: str) -> str:
    return re.sub(r"[^\w]+", "_", name.lower()).strip("_")
