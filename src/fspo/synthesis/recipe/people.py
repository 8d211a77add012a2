"""Users of a domain: the listed ones, or combinations of traits; a user that does not fit is drawn anew."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from fspo.errors import ConfigError, DataError
from fspo.judging.by_topic import OWN
from fspo.preferences.types import Split, User
from fspo.synthesis.recipe.config import RecipeConfig
from fspo.synthesis.recipe.domain import RecipeDomain
from fspo.synthesis.recipe.files import TraitRow, UsersFile
from fspo.synthesis.recipe.templates import Template

__all__ = ["LISTED", "Place", "make_user", "places_of", "split_users"]

LISTED = "listed"
"""The group of users that a domain lists one by one."""


@dataclass(frozen=True)
class Place:
    """Where a user belongs among the domain's combinations; who takes it may be drawn again.

    Attributes:
        id: the user's id.
        group: the combination, or `LISTED`.
        traits: the factors that are fixed.
        topic: the user's own topic, if any.
        held_out: whether the domain says that this user is for the test.
    """

    id: str
    group: str
    traits: Mapping[str, TraitRow]
    topic: str = ""
    held_out: bool | None = None


def places_of(config: RecipeConfig, domain: RecipeDomain) -> list[Place]:
    """The places of all users wanted, in a fixed order; fewer than all are spread evenly.

    Raises:
        ConfigError: more users are asked for than there are.
        DataError: two users have the same id, there is nobody to hold out or to train on, or one has no weights for
            the measured judge.
    """
    users = domain.users
    if users.users:
        places = [Place(person.id, LISTED, {}, held_out=person.held_out) for person in users.users]
    else:
        places = [
            _place(users, dict(zip(users.combine, rows, strict=True)), number)
            for number in range(users.each)
            for rows in product(*(users.traits[factor] for factor in users.combine))
        ]
    _refuse_namesakes(domain, places)
    _refuse_few(domain, places)
    chosen = _chosen(config, domain, places)
    _refuse_nobody(config, chosen)
    if config.judge == "measured":
        _refuse_weightless(config, domain, chosen)
    return chosen


def _chosen(config: RecipeConfig, domain: RecipeDomain, places: list[Place]) -> list[Place]:
    users = domain.users
    if config.users is None:
        return places
    if config.users > len(places):
        raise ConfigError(
            f"synthesis.users is {config.users}, and the domain '{domain.name}' has {len(places)}; ask for at most so "
            "many, or leave it out."
        )
    combined = len(places) // users.each
    if config.users >= combined:  # one of each combination first, then a second one
        return places[: config.users]
    return [places[at * combined // config.users] for at in range(config.users)]


def _refuse_namesakes(domain: RecipeDomain, places: Sequence[Place]) -> None:
    twice = [id for id, count in Counter(place.id for place in places).items() if count > 1]
    if twice:
        raise DataError(
            f"The domain '{domain.name}': users.yaml gives the id '{twice[0]}' to more than one user; give their "
            "traits names that differ in letters or digits."
        )


def _refuse_few(domain: RecipeDomain, places: Sequence[Place]) -> None:
    where = f"The domain '{domain.name}': users.yaml"
    if len(places) < 2:
        raise DataError(f"{where} makes one user, and at least 2 are needed, of whom one is held out; write more.")
    if all(place.held_out for place in places):
        raise DataError(f"{where} holds every user out, so that nobody is left to train on; hold fewer out.")


def _refuse_nobody(config: RecipeConfig, places: Sequence[Place]) -> None:
    parts = split_users(config, places)
    if any(place.held_out for place in places) and not parts["train"]:
        raise ConfigError(
            f"synthesis.users is {config.users}, and the domain holds all of these out, so that nobody is left to "
            "train on; ask for more users."
        )
    if not parts["train"]:
        raise ConfigError(
            f"synthesis.held_out is {config.held_out:g}, which holds out all {len(places)} users, so that nobody is "
            "left to train on; lower it, or make more users."
        )


def _refuse_weightless(config: RecipeConfig, domain: RecipeDomain, places: Sequence[Place]) -> None:
    for place in places:
        if not make_user(config, domain, place).traits:
            raise DataError(
                f"The domain '{domain.name}': the user '{place.id}' has no weights, or such that cancel out, and the "
                "measured judge goes by nothing else; give some in users.yaml, or set synthesis.judge to llm."
            )


def make_user(config: RecipeConfig, domain: RecipeDomain, place: Place, attempt: int = 0) -> User:
    """The user at a place; another `attempt` draws other traits where any are drawn."""
    users = domain.users
    if users.users:
        person = next(person for person in users.users if person.id == place.id)
        return User(person.id, person.text, _unit(person.weights), place.group)
    rng = random.Random(f"{config.seed}/users/{place.id}/{attempt}")
    drawn = {factor: rng.choice(users.traits[factor]) for factor in users.draw}
    traits = {**place.traits, **drawn}
    text = Template(users.description, frozenset(traits), "users.yaml, description").fill(
        **{factor: row.text for factor, row in traits.items()}
    )
    return User(place.id, text, _weights(list(traits.values()), place.topic), place.group)


def split_users(config: RecipeConfig, places: Sequence[Place]) -> dict[Split, frozenset[str]]:
    """Who is trained on and who is held out: as the domain says, or else drawn by the shares of the configuration.

    A domain that names who is held out has no users for validation.
    """
    if any(place.held_out for place in places):
        test = frozenset(place.id for place in places if place.held_out)
        return {"train": frozenset(place.id for place in places) - test, "validation": frozenset(), "test": test}
    ids = [place.id for place in places]
    random.Random(f"{config.seed}/split users").shuffle(ids)
    tested = max(1, round(config.held_out * len(ids)))
    # Of two or three users to train on none is to spare.
    validated = min(round(config.validation * len(ids)), max(0, len(ids) - tested - 2))
    return {
        "train": frozenset(ids[tested + validated :]),
        "validation": frozenset(ids[tested : tested + validated]),
        "test": frozenset(ids[:tested]),
    }


def _place(users: UsersFile, rows: dict[str, TraitRow], number: int) -> Place:
    parts = [_slug(row.name) for row in rows.values()]
    suffix = [f"{number:02d}"] if users.each > 1 else []
    topic = rows[users.topic].name if users.topic in rows else ""
    return Place("-".join([*parts, *suffix]), "-".join(parts), rows, topic)


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


def _slug(name: str) -> str:
    return re.sub(r"[^\w]+", "_", name.lower()).strip("_")
