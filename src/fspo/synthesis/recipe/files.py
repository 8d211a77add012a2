"""The files of a domain folder as they must be; what is wrong in one is named by file and key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from importlib.resources.abc import Traversable
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from fspo.errors import DataError
from fspo.preferences.validation import nearest

__all__ = [
    "DomainFile",
    "PersonRow",
    "SteeringFile",
    "SteeringRow",
    "TraitRow",
    "UsersFile",
    "question_rows",
    "read_yaml",
    "validated",
]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DomainFile(_Row):
    """`domain.yaml`."""

    about: str = Field(min_length=1)
    """One line: what the questions and responses are."""
    noun: str = "responses"
    """What responses are called in descriptions and in the dataset's card."""
    licence: str = Field(min_length=1)
    """Licence and source of the seeds."""
    language: str = Field("en", pattern=r"^[a-z]{2}$")
    """ISO 639-1 code; responses in another language are not used."""


class PersonRow(_Row):
    """One user of `users.yaml`, where users are listed."""

    id: str = Field(min_length=1)
    text: str = Field(min_length=1)
    """The description."""
    weights: dict[str, float] = {}
    """Attribute, or topic.NAME -> weight, for the measured judge."""
    held_out: bool = False
    """Whether this user is for the test: one between the others, for instance."""


class TraitRow(_Row):
    """One value of a factor of `users.yaml`."""

    name: str = Field(min_length=1)
    text: str = Field(min_length=1)
    """What takes the factor's place in the description."""
    weights: dict[str, float] = {}
    own: dict[str, float] = {}
    """Weights on the user's own topic, in place of the general ones."""


class UsersFile(_Row):
    """`users.yaml`: a list of users, or factors that users are combined from."""

    users: list[PersonRow] = []
    traits: dict[str, list[TraitRow]] = {}
    """Factor -> its values."""
    combine: list[str] = []
    """Factors all of whose combinations there are."""
    draw: list[str] = []
    """Factors of which one value is drawn for each user."""
    each: int = Field(1, ge=1)
    """Users of every combination."""
    description: str = ""
    """Template over the factors."""
    topic: str | None = None
    """The factor whose value names the user's own topic, one of those of questions.yaml."""
    own_share: float = Field(0.5, ge=0, le=1)
    """Share of a user's pairs that are on their own topic."""

    @model_validator(mode="after")
    def _whole(self) -> UsersFile:
        if bool(self.users) == bool(self.traits):
            raise ValueError("give either users, or traits with combine and description")
        if self.traits:
            named = [*self.combine, *self.draw, *([self.topic] if self.topic else [])]
            unknown = [name for name in named if name not in self.traits]
            if unknown:
                raise ValueError(f"traits has no '{unknown[0]}'{_hint(unknown[0], list(self.traits))}")
            if not self.combine or not self.description:
                raise ValueError("users made from traits need combine and description")
        twice = _twice(person.id for person in self.users)
        if twice:
            raise ValueError(f"the user '{twice}' is listed twice")
        return self


class SteeringRow(_Row):
    """One persona of `steering.yaml`."""

    model_config = ConfigDict(extra="ignore", frozen=True)  # the reviews' personas have more for the other recipe

    name: str = Field(min_length=1)
    system: str = Field(min_length=1)
    """What the model is told: whom to answer as, or for."""


class SteeringFile(_Row):
    """`steering.yaml`."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    personas: list[SteeringRow] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> SteeringFile:
        twice = _twice(persona.name for persona in self.personas)
        if twice:
            raise ValueError(f"the persona '{twice}' is listed twice")
        return self


def read_yaml(folder: Traversable, name: str, *, needed: bool = True) -> Any:
    """The contents of a file of a domain; None where it is not there and not needed.

    Raises:
        DataError: the file is missing, is not text, or is not YAML.
    """
    file = folder.joinpath(name)
    if not file.is_file():
        if not needed:
            return None
        raise DataError(f"The domain {folder} has no {name}; see docs/domains.md for what it must hold.")
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        what = " ".join(str(error).split())
        hint = " A text with ': ' or '#' in it needs quotation marks." if "mapping values" in what else ""
        raise DataError(f"{file} is not readable as YAML ({what}).{hint}") from error


def question_rows(value: object, where: object) -> list[tuple[str, str]]:
    """Topic (empty for none) and text of each question in the contents of `questions.yaml`.

    They are questions, or topic -> questions; {kind} and {title} are filled in where there is a `titles.yaml`.

    Raises:
        DataError: naming the topic and the place of what is no question.
    """
    if value is None or value == [] or value == {}:
        raise DataError(f"{where} holds no question; write some.")
    if not isinstance(value, list | dict):
        raise DataError(f"{where}: write questions, each after a dash, or topics with such lists below them.")
    rows: list[tuple[str, str]] = []
    for topic, texts in value.items() if isinstance(value, dict) else [("", value)]:
        if not isinstance(topic, str):
            raise DataError(f"{where}: the topic {topic!r} is not text; put it in quotation marks.")
        place = f"{where}, {topic}" if topic else f"{where}"
        if not isinstance(texts, list) or not texts:
            raise DataError(f"{place}: there is no list of questions below it; write some, each after a dash.")
        rows += [(topic, _question(text, f"{place}, question {at}")) for at, text in enumerate(texts, start=1)]
    return rows


def _question(text: object, where: str) -> str:
    if isinstance(text, str) and text.strip():
        return text
    if text is None or isinstance(text, str):
        raise DataError(f"{where}: it is empty; write it, or remove its dash.")
    if isinstance(text, dict):  # what YAML makes of a colon
        meant = ", ".join(f"{key}:{'' if of is None else f' {of}'}" for key, of in text.items())
        raise DataError(f"{where}: '{meant}' has a colon in it, so that it needs quotation marks.")
    raise DataError(f"{where}: {text!r} is not text; put it in quotation marks.")


def validated(kind: Any, value: object, where: object) -> Any:
    """A file's contents, checked.

    Raises:
        DataError: naming the file, the key and what is wrong with it.
    """
    if value is None:
        raise DataError(f"{where} is empty; see docs/domains.md for what it must hold.")
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        problems = error.errors()
        # A misspelt key is the likelier cause, so it is told before what is missing for want of it.
        problem = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
        key = ".".join(str(part) for part in problem["loc"] if not _is_tag(part))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            known = _keys_at(kind, problem["loc"])
            message = f"there is no such key{_hint(str(problem['loc'][-1]), known)}"
        told = f"{message[:1].lower()}{message[1:].rstrip('.')}"
        raise DataError(f"{where}{f', {key}' if key else ''}: {told}{'' if told.endswith('?') else '.'}") from error


def _twice(names: Iterable[str]) -> str | None:
    """The first name that comes more than once."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _is_tag(part: object) -> bool:
    return isinstance(part, str) and ("[" in part or part in ("str", "list", "dict"))


def _keys_at(kind: Any, location: tuple[object, ...]) -> list[str]:
    rows: dict[object, type[BaseModel]] = {"users": PersonRow, "traits": TraitRow, "personas": SteeringRow}
    row = rows.get(location[0]) if len(location) > 1 else None
    return list((row or kind).model_fields)


def _hint(name: str, known: list[str]) -> str:
    close = nearest(name, known, cutoff=0.5)
    if close:
        return f"; did you mean '{close}'?"
    return f"; known are {', '.join(known)}" if known else ""
