"""A domain: a folder of seeds, personas, users and prompts, inside the package or anywhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import chain, zip_longest
from pathlib import Path

from fspo.errors import ConfigError, DataError
from fspo.judging.topics import named
from fspo.preferences.validation import nearest
from fspo.preferences.wording import wording
from fspo.synthesis.recipe.files import (
    DomainFile,
    SteeringFile,
    UsersFile,
    question_rows,
    read_yaml,
    validated,
)
from fspo.synthesis.recipe.templates import Template

__all__ = ["NEEDED", "PROMPTS", "RecipeDomain", "Seed", "domain_names", "load_recipe_domain"]

PROMPTS: Mapping[str, frozenset[str]] = {
    "augment": frozenset({"about", "topic", "examples", "number"}),
    "answer": frozenset({"question", "about"}),
    "views": frozenset({"question", "number", "about"}),
    "view": frozenset({"view", "question", "about"}),
    "judge": frozenset({"description", "question", "first", "second"}),
    "append": frozenset({"description", "question", "chosen", "rejected"}),
    "portrait": frozenset({"description", "about"}),
}
"""Prompt -> the variables it may name."""

NEEDED: Mapping[str, frozenset[str]] = {
    "augment": frozenset({"examples"}),
    "answer": frozenset(),
    "views": frozenset({"question"}),
    "view": frozenset({"view"}),
    "judge": frozenset({"description", "question", "first", "second"}),
    "append": frozenset({"description", "chosen", "rejected"}),
    "portrait": frozenset({"description"}),
}
"""Prompt -> the variables it must name, since it asks for nothing in particular without them."""

_LEAST = 3
"""Questions of which one can be held out."""

_FILES = ("domain.yaml", "questions.yaml", "titles.yaml", "steering.yaml", "users.yaml", "topics.yaml", "prompts.yaml")


@dataclass(frozen=True)
class Seed:
    """A question written by people.

    Attributes:
        text: the question.
        topic: what it is about, where the domain says so.
        kind: of the work it is about, such as `film`; empty where it is about none.
        title: of that work.
    """

    text: str
    topic: str = ""
    kind: str = ""
    title: str = ""

    @property
    def unit(self) -> str:
        """What is held out together: the work, or the question alone."""
        return f"{self.kind}/{self.title}" if self.title else self.text


@dataclass(frozen=True)
class RecipeDomain:
    """Everything a domain folder brings."""

    name: str
    file: DomainFile
    seeds: tuple[Seed, ...]
    personas: tuple[tuple[str, Template], ...]
    """Name, and what the model is told."""
    users: UsersFile
    topics: Mapping[str, tuple[str, ...]]
    """Topic attribute -> its words."""
    prompts: Mapping[str, Template]
    fingerprint: str
    """SHA-256 of all files."""

    def attributes(self) -> tuple[str, ...]:
        """The attributes that any user has a weight for, without those of own topics spelt out."""
        people = [person.weights for person in self.users.users]
        traits = [row for rows in self.users.traits.values() for row in rows]
        weights = [*people, *(row.weights for row in traits), *(row.own for row in traits)]
        return tuple(dict.fromkeys(name for row in weights for name in row))


def domain_names() -> tuple[str, ...]:
    """The domains inside the package."""
    return tuple(sorted(folder.name for folder in _inside().iterdir() if folder.joinpath("users.yaml").is_file()))


def load_recipe_domain(name: str) -> RecipeDomain:
    """Read a domain of the package by its name, or any folder by its path.

    Raises:
        DataError: there is no such domain, a file is missing or wrong, a template names an unknown variable or lacks
            one that it needs, there are too few questions, or a weight is on an unknown attribute.
    """
    folder = _folder(name)
    where = {file: f"{folder.joinpath(file)}" for file in _FILES}
    about = validated(DomainFile, read_yaml(folder, "domain.yaml"), where["domain.yaml"])
    users = validated(UsersFile, read_yaml(folder, "users.yaml"), where["users.yaml"])
    questions = question_rows(read_yaml(folder, "questions.yaml"), where["questions.yaml"])
    titles = validated(
        dict[str, list[str | int]], read_yaml(folder, "titles.yaml", needed=False) or {}, where["titles.yaml"]
    )
    steering = validated(SteeringFile, read_yaml(folder, "steering.yaml"), where["steering.yaml"])
    topics = validated(dict[str, list[str]], read_yaml(folder, "topics.yaml", needed=False) or {}, where["topics.yaml"])
    seeds = _seeds(questions, titles, where["questions.yaml"])
    filled = frozenset({"kind", "title"} if titles else ())
    domain = RecipeDomain(
        name=Path(name).resolve().name,
        file=about,
        seeds=seeds,
        personas=tuple((row.name, Template(row.system, filled, where["steering.yaml"])) for row in steering.personas),
        users=users,
        topics={topic: tuple(words) for topic, words in topics.items()},
        prompts=_prompts(folder, where["prompts.yaml"]),
        fingerprint=_fingerprint(folder),
    )
    _check_users(domain, where["users.yaml"])
    return domain


def _inside() -> Traversable:
    return files("fspo.synthesis").joinpath("domains")


def _folder(name: str) -> Traversable:
    if name in domain_names():
        return _inside().joinpath(name)
    if Path(name).is_dir():
        return Path(name)
    close = nearest(name, domain_names(), cutoff=0.5)
    hint = f"did you mean '{close}'?" if close else f"there are {', '.join(domain_names())}."
    raise DataError(f"There is no domain '{name}', and no folder of that name in {Path.cwd()}; {hint}")


def _seeds(questions: Sequence[tuple[str, str]], titles: Mapping[str, list[str | int]], where: str) -> tuple[Seed, ...]:
    known = frozenset({"kind", "title"} if titles else ())
    patterns = [(topic, Template(text, known, where)) for topic, text in questions]
    if titles and not any("title" in pattern.variables() for _, pattern in patterns):
        raise DataError(
            f"{where}: no question names {{title}}, though there is a titles.yaml; name it, or remove that."
        )
    seeds = _filled(patterns, titles)
    count = len({wording(seed.text) for seed in seeds})
    if count < _LEAST:
        raise DataError(f"{where} holds {_questions(count)}, and at least {_LEAST} are needed; write more.")
    return seeds


def _questions(count: int) -> str:
    return "1 question" if count == 1 else f"{count} questions"


def _filled(patterns: Sequence[tuple[str, Template]], titles: Mapping[str, list[str | int]]) -> tuple[Seed, ...]:
    if not titles:
        return tuple(Seed(pattern.fill(), topic) for topic, pattern in patterns)
    # Kinds take turns, and so do phrasings, so that the first seeds are not all of a kind.
    rows_of_kinds = ([(kind, str(title)) for title in own] for kind, own in titles.items())
    works = [work for work in chain.from_iterable(zip_longest(*rows_of_kinds)) if work is not None]
    return tuple(
        Seed(pattern.fill(kind=kind, title=title), topic or kind, kind, title)
        for turn in range(len(patterns))
        for place, (kind, title) in enumerate(works)
        for topic, pattern in [patterns[(place + turn) % len(patterns)]]
    )


def _prompts(folder: Traversable, where: str) -> dict[str, Template]:
    usual = read_yaml(files("fspo.synthesis").joinpath("recipe"), "prompts.yaml")
    own = validated(dict[str, str], read_yaml(folder, "prompts.yaml", needed=False) or {}, where)
    for name in own:
        if name not in PROMPTS:
            close = nearest(name, PROMPTS, cutoff=0.5)
            hint = f"did you mean '{close}'?" if close else f"known are {', '.join(PROMPTS)}."
            raise DataError(f"{where}: there is no prompt '{name}'; {hint}")
    return {
        name: Template(
            own.get(name, usual[name]), known, f"{where}, {name}" if name in own else f"prompt {name}", NEEDED[name]
        )
        for name, known in PROMPTS.items()
    }


def _check_users(domain: RecipeDomain, where: str) -> None:
    users = domain.users
    if users.traits:
        Template(users.description, frozenset([*users.combine, *users.draw]), f"{where}, description")
    if users.topic:
        topics = {seed.topic for seed in domain.seeds}
        for row in users.traits[users.topic]:
            if row.name not in topics:
                raise DataError(
                    f"{where}: '{row.name}' is a user's own topic, and questions.yaml has no questions on it; "
                    "write some, or leave the topic out."
                )
    try:
        named(domain.attributes(), domain.topics)
    except ConfigError as error:
        raise DataError(f"{where}: {error}") from error


def _fingerprint(folder: Traversable) -> str:
    digest = hashlib.sha256()
    for name in _FILES:
        file = folder.joinpath(name)
        digest.update(f"{name}\0".encode() + (file.read_bytes() if file.is_file() else b"-") + b"\0")
    usual = files("fspo.synthesis").joinpath("recipe", "prompts.yaml")
    digest.update(usual.read_bytes())
    return digest.hexdigest()
