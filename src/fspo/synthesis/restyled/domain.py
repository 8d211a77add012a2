"""A domain's data: works, questions, personas, styles; read from YAML files inside the package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from fspo.errors import DataError

__all__ = ["Domain", "Persona", "Styles", "Work", "load_domain"]

Side = Literal["positive", "negative"]


@dataclass(frozen=True)
class Work:
    """One thing opinions are about.

    Attributes:
        kind: such as `film`.
        title: its name.
        id: a short name without spaces, unique in the domain.
    """

    kind: str
    title: str

    @property
    def id(self) -> str:
        """The title in lower case with hyphens, and the kind."""
        plain = "".join(letter if letter.isalnum() else " " for letter in self.title.lower())
        return f"{self.kind}/{'-'.join(plain.split())}"

    def fill(self, pattern: str) -> str:
        """`pattern` with {kind} and {title} filled in."""
        return pattern.replace("{kind}", self.kind).replace("{title}", self.title)


@dataclass(frozen=True)
class Persona:
    """Who a sample is steered to answer as."""

    name: str
    sentiment: Side
    system: str
    openings: tuple[str, ...]


@dataclass(frozen=True)
class Styles:
    """What deterministic restyling draws from."""

    emoji: Mapping[str, tuple[str, ...]]
    first_person: tuple[str, ...]
    informal: tuple[str, ...]
    formal: tuple[str, ...]
    contractions: Mapping[str, str]


@dataclass(frozen=True)
class Domain:
    """Everything a domain brings as data."""

    name: str
    works: tuple[Work, ...]
    questions: tuple[str, ...]
    personas: tuple[Persona, ...]
    topic: frozenset[str]
    styles: Styles
    noun: str = "reviews"
    """What its responses are called in a user's description."""

    def steered(self, side: Side) -> tuple[Persona, ...]:
        """The personas that steer to one side."""
        return tuple(persona for persona in self.personas if persona.sentiment == side)


@cache
def load_domain(name: str) -> Domain:
    """Read a domain's files.

    Raises:
        DataError: there is no such domain.
    """
    folder = files("fspo.synthesis").joinpath("domains", name)
    if not folder.is_dir():
        raise DataError(f"There is no domain '{name}'; the one there is is called 'reviews'.")

    def read(file: str) -> Any:
        return yaml.safe_load(folder.joinpath(file).read_text(encoding="utf-8"))

    steering, styles = read("steering.yaml"), read("styles.yaml")
    return Domain(
        name=name,
        works=tuple(Work(kind, str(title)) for kind, titles in read("titles.yaml").items() for title in titles),
        questions=tuple(read("questions.yaml")),
        personas=tuple(
            Persona(p["name"], p["sentiment"], p["system"], tuple(p["openings"])) for p in steering["personas"]
        ),
        topic=frozenset(map(str, steering["topic"])),
        styles=Styles(
            emoji={pool: tuple(signs) for pool, signs in styles["emoji"].items()},
            first_person=tuple(styles["first_person"]),
            informal=tuple(styles["informal"]),
            formal=tuple(styles["formal"]),
            contractions=dict(styles["contractions"]),
        ),
    )
