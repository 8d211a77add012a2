"""The files of a domain folder as they must be; what is wrong in one is named by file and key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, TypeAdapter, ValidationError, model_validator

from fspo.errors import DataError, FspoError
from fspo.paths import expanded
from fspo.printing import suggestion
from fspo.pydantic_errors import first_fault

__all__ = [
    "Directions",
    "DomainFile",
    "DomainFolder",
    "PersonRow",
    "Production",
    "SteeringFile",
    "SteeringRow",
    "StylesFile",
    "TraitRow",
    "TraitValue",
    "TraitsOfText",
    "UsersFile",
    "domain_names",
    "open_domain",
    "parse_contents",
    "production_of",
    "question_rows",
    "read_yaml",
    "settings_of",
]

Production = Literal["sampled", "restyled", "written"]
"""How responses come about: a language model's texts; such texts changed by rule; texts that people wrote."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it
_USUAL_JUDGE: dict[Production, str] = {"sampled": "llm", "restyled": "measured", "written": "declared"}


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DomainFile(_Row):
    """`domain.yaml`."""

    about: str = Field(min_length=1)
    """One line: what the questions and responses are."""
    noun: str = "responses"
    """What responses are called in descriptions and in the dataset's card."""
    licence: str = Field(min_length=1)
    """Licence and source of what was written for the domain."""
    language: str = Field("en", pattern=r"^[a-z]{2}$")
    """ISO 639-1 code; responses in another language are not used."""
    responses: Production = "sampled"
    """How responses come about."""
    extends: str | None = None
    """A domain of the package whose files take the place of those that this folder lacks."""
    settings: dict[str, Any] = {}
    """What suits the domain of the settings of synthesis, where a run sets nothing else."""


class PersonRow(_Row):
    """One user of `users.yaml`, where users are listed."""

    id: str = Field(min_length=1)
    text: str = Field(min_length=1)
    """The description."""
    weights: dict[str, FiniteFloat] = {}
    """Attribute, or topic.NAME -> weight, for the measured judge."""
    held_out: bool = False
    """Whether this user is for the test: one between the others, for instance."""


class TraitRow(_Row):
    """One value of a factor of `users.yaml`."""

    name: str = Field(min_length=1)
    text: str = Field(min_length=1)
    """What takes the factor's place in the description."""
    weights: dict[str, FiniteFloat] = {}
    own: dict[str, FiniteFloat] = {}
    """Weights on the user's own topic, in place of the general ones."""


class Directions(_Row):
    """Users who weigh attributes of the text, or declared traits."""

    kind: Literal["axes", "sparse"] = "axes"
    """`axes`: one user for each end of each attribute, who are trained on, and one for every two ends together, who are
    held out. `sparse`: users drawn at random who weigh a few of them, no two alike."""
    attributes: list[str] = []
    """What users weigh; by default all declared traits."""
    most: int = Field(3, ge=1)
    """Of `sparse`: how many of them one user weighs, at most."""
    count: int = Field(100, ge=2)
    """Of `sparse`: users, where the run does not say how many."""


class UsersFile(_Row):
    """`users.yaml`: a list of users, factors that users are combined from, or the directions that users have."""

    users: list[PersonRow] = []
    directions: Directions | None = None
    traits: dict[str, list[TraitRow]] = {}
    """Factor -> its values."""
    combine: list[str] = []
    """Factors all of whose combinations there are."""
    draw: list[str] = []
    """Factors with one random value for each user."""
    each: int = Field(1, ge=1)
    """Users of every combination."""
    description: str = ""
    """Template over the factors."""
    topic: str | None = None
    """The factor whose value names the user's own topic, one of those of questions.yaml."""
    own_share: float = Field(0.5, ge=0, le=1)
    """Share of a user's pairs that are on their own topic."""

    @cached_property
    def by_id(self) -> dict[str, PersonRow]:
        """Id -> the listed user."""
        return {person.id: person for person in self.users}

    @model_validator(mode="after")
    def _whole(self) -> UsersFile:
        if sum(map(bool, (self.users, self.traits, self.directions))) != 1:
            raise ValueError("give either users, or directions, or traits with combine and description")
        if self.traits:
            named = [*self.combine, *self.draw, *([self.topic] if self.topic else [])]
            unknown = [name for name in named if name not in self.traits]
            if unknown:
                raise ValueError(f"traits has no '{unknown[0]}'{suggestion(unknown[0], self.traits)}")
            if not self.combine or not self.description:
                raise ValueError("users made from traits need combine and description")
            if bare := next((name for name in named if not self.traits[name]), None):
                raise ValueError(f"traits.{bare} has no value; list some, or leave it out")
        twice = _twice(person.id for person in self.users)
        if twice:
            raise ValueError(f"the user '{twice}' is listed twice")
        return self


class SteeringRow(_Row):
    """One persona of `steering.yaml`."""

    name: str = Field(min_length=1)
    system: str = Field(min_length=1)
    """The system prompt: whom to answer as, or for."""
    sentiment: Literal["positive", "negative"] | None = None
    """Of restyled responses: which way the persona steers; what came out is measured."""
    openings: list[str] = []
    """Of restyled responses: how a text may begin; the model goes on from there."""


class SteeringFile(_Row):
    """`steering.yaml`."""

    personas: list[SteeringRow] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> SteeringFile:
        twice = _twice(persona.name for persona in self.personas)
        if twice:
            raise ValueError(f"the persona '{twice}' is listed twice")
        return self


class StylesFile(_Row):
    """`styles.yaml`: what restyling draws from."""

    topic: list[str] = Field(min_length=1)
    """Words; a text that holds none of them, nor the title of the work, is off the topic."""
    emoji: dict[str, list[str]]
    """`positive`, `negative`, and kinds of works -> emoji."""
    first_person: list[str] = Field(min_length=1)
    """Openers that speak of the writer; the sentence goes on in lower case."""
    informal: list[str] = Field(min_length=1)
    formal: list[str] = Field(min_length=1)
    contractions: dict[str, str]
    """Written out -> contracted."""

    @model_validator(mode="after")
    def _both_sides(self) -> StylesFile:
        for side in ("positive", "negative"):
            if len(self.emoji.get(side, [])) < 3:
                raise ValueError(f"emoji needs at least 3 for '{side}'")
        return self


class TraitValue(_Row):
    """One value of a declared trait."""

    value: int | str
    """As the responses declare it."""
    text: list[str] = Field(min_length=1)
    """What responses of this value are called in descriptions: adjectives, or phrases such as `with an example`."""


class TraitsOfText(_Row):
    """One trait of `traits.yaml`."""

    about: str = Field(min_length=1)
    values: list[TraitValue] = Field(min_length=2)
    """From one end to the other; of more than two, users like one best, and others the less the farther they are."""

    @model_validator(mode="after")
    def _distinct(self) -> TraitsOfText:
        twice = _twice(str(row.value) for row in self.values)
        if twice:
            raise ValueError(f"the value '{twice}' is listed twice")
        return self


def _inside() -> Traversable:
    return files("fspo.synthesis").joinpath("domains")


def domain_names() -> tuple[str, ...]:
    """The domains inside the package."""
    return tuple(sorted(folder.name for folder in _inside().iterdir() if folder.joinpath("domain.yaml").is_file()))


class DomainFolder:
    """A domain's folder, and below it the one that it extends."""

    def __init__(self, folder: Traversable, base: Traversable | None = None) -> None:
        """Read from `folder`, and what that lacks from `base`."""
        self._folder, self._base = folder, base

    def file(self, name: str) -> Traversable:
        """Where a file is, or would be."""
        own = self._folder.joinpath(name)
        return own if own.is_file() or self._base is None else self._base.joinpath(name)

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        return self.file(name).is_file()

    def yaml(self, name: str, *, needed: bool = True) -> Any:
        """The contents of a file; None where it is not there and not needed.

        Raises:
            DataError: the file is missing, is not text, or is not YAML.
        """
        if not self.has(name):
            if not needed:
                return None
            raise DataError(f"The domain {self._folder} has no {name}; see docs/domains.md for what it must hold.")
        return read_yaml(self.file(name))


def open_domain(name: str) -> DomainFolder:
    """A domain of the package by its name, or any folder by its path.

    Raises:
        DataError: there is no such domain, its `domain.yaml` is not YAML, or it extends no domain of the package.
    """
    names = domain_names()
    if name in names:
        folder = _inside().joinpath(name)
    elif (path := Path(expanded(name))).is_dir():
        folder = path
    else:
        hint = suggestion(name, names)
        raise DataError(f"There is no domain '{name}', and no folder of that name in {Path.cwd()}{hint}")
    file = folder.joinpath("domain.yaml")
    about = read_yaml(file) if file.is_file() else None
    base = about.get("extends") if isinstance(about, dict) else None
    if base is not None and base not in names:
        raise DataError(f"{file}, extends: there is no domain '{base}' in fspo{suggestion(str(base), names)}")
    return DomainFolder(folder, None if base is None else _inside().joinpath(base))


def settings_of(name: str) -> dict[str, Any]:
    """The settings of synthesis that suit a domain; none if it can't be read, which `load_domain` reports."""
    settings = _about(name).get("settings")
    usual = {"judge": _USUAL_JUDGE[production_of(name)]}
    return {**usual, **settings} if isinstance(settings, dict) else usual


def production_of(name: str) -> Production:
    """How the responses of a domain come about; `sampled` if it can't be read, which `load_domain` reports."""
    found = _about(name).get("responses")
    return found if found in _USUAL_JUDGE else "sampled"


def _about(name: str) -> dict[str, Any]:
    try:
        about = open_domain(name).yaml("domain.yaml")
    except FspoError:
        return {}
    return about if isinstance(about, dict) else {}


def read_yaml(file: Traversable) -> Any:
    """What a YAML file holds.

    Raises:
        DataError: the file is not text, or not YAML.
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8"), _Loader)
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
        raise DataError(f"{where}: '{meant}' contains a colon; put it in quotation marks.")
    raise DataError(f"{where}: {text!r} is not text; put it in quotation marks.")


def parse_contents(kind: Any, value: object, where: object) -> Any:
    """Parse the contents of a domain's YAML file as the pydantic type `kind`.

    Raises:
        DataError: naming the file, the key and what is wrong with it.
    """
    if value is None:
        raise DataError(f"{where} is empty; see docs/domains.md for what it must hold.")
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise DataError(f"{where}: {first_fault(error, kind, noun='key').sentence}") from error


def _twice(names: Iterable[str]) -> str | None:
    """The first name that comes more than once."""
    return next((name for name, count in Counter(names).items() if count > 1), None)
