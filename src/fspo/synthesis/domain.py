"""A domain: a folder of questions, personas, users, texts and prompts, inside the package or anywhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from itertools import chain, zip_longest
from pathlib import Path

from fspo.errors import ConfigError, DataError
from fspo.identity import digest
from fspo.judging.attributes import words
from fspo.judging.topics import named
from fspo.preferences.wording import wording
from fspo.printing import counted, suggestion
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain_files import (
    Directions,
    DomainFile,
    DomainFolder,
    SteeringFile,
    StylesFile,
    TraitsOfText,
    UsersFile,
    open_domain,
    parse_contents,
    question_rows,
    read_yaml,
)
from fspo.synthesis.templates import Template
from fspo.synthesis.written import WrittenText, check_weights, read_written

__all__ = ["NEEDED", "PROMPTS", "Domain", "Persona", "Question", "load_domain"]

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

_FILES = (
    "domain.yaml", "questions.yaml", "titles.yaml", "steering.yaml", "styles.yaml", "responses.jsonl", "traits.yaml",
    "users.yaml", "topics.yaml", "prompts.yaml",
)  # fmt: skip
_OWN_SETTINGS = frozenset(SynthesisConfig.model_fields) - {"domain", "seed"}


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        id: a short name, unique in the dataset.
        text: what is asked.
        topic: what it is about, where the domain says so.
        unit: what is held out together: the work, or the question alone.
        seed: whether people wrote it, and no model.
        kind: of the work it is about, such as `film`; empty where it is about none.
        title: of that work.
    """

    id: str
    text: str
    topic: str
    unit: str
    seed: bool
    kind: str = ""
    title: str = ""

    @classmethod
    def of(cls, text: str, topic: str = "", kind: str = "", title: str = "", *, seed: bool = True) -> Question:
        """The question of this text; its id depends on text and topic alone."""
        short = hashlib.sha256(text.encode()).hexdigest()[:10]
        slug = "-".join(words(topic.lower())) or "topic"
        unit = f"{kind}/{title}" if title else text
        return cls(f"{slug}/{short}" if topic else short, text, topic, unit, seed, kind, title)


@dataclass(frozen=True)
class Persona:
    """Whom a model answers as, or for.

    Of restyled responses, `sentiment` is which way it steers (`positive`, `negative` or empty), and `openings` are how
    a text may begin.
    """

    name: str
    system: Template
    sentiment: str = ""
    openings: tuple[Template, ...] = ()


@dataclass(frozen=True)
class Domain:
    """Everything a domain folder brings."""

    name: str
    file: DomainFile
    seeds: tuple[Question, ...]
    """Questions that people wrote."""
    personas: tuple[Persona, ...]
    users: UsersFile
    topics: Mapping[str, tuple[str, ...]]
    """Topic attribute -> its words."""
    prompts: Mapping[str, Template]
    fingerprint: str
    """SHA-256 of all files."""
    users_file: str = "users.yaml"
    """Where the users stand, for errors."""
    styles: StylesFile | None = None
    """What restyling draws from, where responses are restyled."""
    written: tuple[WrittenText, ...] = ()
    """The responses that people wrote, where they are."""
    traits: Mapping[str, TraitsOfText] = field(default_factory=dict)
    """The traits that written responses declare."""

    def weighed(self, chosen: Sequence[str] | None = None) -> tuple[str, ...]:
        """What the users of a domain with directions differ in: what a run has `chosen`, or what the domain lists.

        Raises:
            ConfigError: an attribute is unknown, or chosen twice.
        """
        assert self.users.directions is not None
        names = tuple(chosen or self.users.directions.attributes or self.traits)
        if not self.traits:
            named(names, self.topics)
            return names
        for name in names:
            if name not in self.traits:
                hint = suggestion(name, self.traits)
                raise ConfigError(f"The domain '{self.name}' declares no trait '{name}'{hint}")
            if names.count(name) > 1:
                raise ConfigError(f"The trait '{name}' is listed twice; list it once.")
        return names

    def attributes(self, chosen: Sequence[str] | None = None) -> tuple[str, ...]:
        """The attributes that any user has a weight for, without those of own topics spelt out."""
        if self.users.directions is not None:
            return self.weighed(chosen)
        people = [person.weights for person in self.users.users]
        traits = [row for rows in self.users.traits.values() for row in rows]
        weights = [*people, *(row.weights for row in traits), *(row.own for row in traits)]
        return tuple(dict.fromkeys(name for row in weights for name in row))


def load_domain(name: str) -> Domain:
    """Read a domain of the package by its name, or any folder by its path.

    Raises:
        DataError: there is no such domain, a file is missing or wrong, a template names an unknown variable or lacks
            one that it needs, there are too few questions, or a weight is on an unknown attribute.
    """
    try:
        fingerprint = _fingerprint(open_domain(name))
    except OSError:
        fingerprint = ""  # reading says which file it is
    return _read_domain(name, Path.cwd(), fingerprint)


@lru_cache(maxsize=16)
def _read_domain(name: str, working: Path, fingerprint: str) -> Domain:
    """The domain with this fingerprint, seen from the working folder: the stages of a run all ask for it."""
    folder = open_domain(name)
    where = {file: f"{folder.file(file)}" for file in _FILES}
    about: DomainFile = parse_contents(DomainFile, folder.yaml("domain.yaml"), where["domain.yaml"])
    _check_settings(about, where["domain.yaml"])
    users = parse_contents(UsersFile, folder.yaml("users.yaml"), where["users.yaml"])
    topics = parse_contents(dict[str, list[str]], folder.yaml("topics.yaml", needed=False) or {}, where["topics.yaml"])
    traits: dict[str, TraitsOfText] = {}
    written: tuple[WrittenText, ...] = ()
    personas: tuple[Persona, ...] = ()
    if about.responses == "written":
        traits = parse_contents(dict[str, TraitsOfText], folder.yaml("traits.yaml"), where["traits.yaml"])
        written = read_written(folder.file("responses.jsonl"), traits)
        topic_of = {row.question: row.topic for row in written}
        seeds = tuple(Question.of(text, topic) for text, topic in topic_of.items())
        _check_count(seeds, where["responses.jsonl"])
    else:
        questions = question_rows(folder.yaml("questions.yaml"), where["questions.yaml"])
        titles = parse_contents(
            dict[str, list[str | int]], folder.yaml("titles.yaml", needed=False) or {}, where["titles.yaml"]
        )
        seeds = _seeds(questions, titles, where["questions.yaml"])
        steering = parse_contents(SteeringFile, folder.yaml("steering.yaml"), where["steering.yaml"])
        personas = _personas(steering, titles, about, where["steering.yaml"])
    styles = None
    if about.responses == "restyled":
        styles = parse_contents(StylesFile, folder.yaml("styles.yaml"), where["styles.yaml"])
    domain = Domain(
        name=Path(name).resolve().name,
        file=about,
        seeds=seeds,
        personas=personas,
        users=users,
        topics={topic: tuple(own) for topic, own in topics.items()},
        prompts=_prompts(folder, where["prompts.yaml"]),
        fingerprint=_fingerprint(folder),
        users_file=where["users.yaml"],
        styles=styles,
        written=written,
        traits=traits,
    )
    _check_users(domain, where["users.yaml"])
    return domain


def _check_settings(about: DomainFile, where: str) -> None:
    for name in about.settings:
        if name not in _OWN_SETTINGS:
            hint = suggestion(name, sorted(_OWN_SETTINGS))
            raise DataError(f"{where}, settings: synthesis has no setting '{name}' for a domain to choose{hint}")


def _personas(
    steering: SteeringFile, titles: Mapping[str, object], about: DomainFile, where: str
) -> tuple[Persona, ...]:
    filled = frozenset({"kind", "title"} if titles else ())
    personas = tuple(
        Persona(
            row.name,
            Template(row.system, filled, where),
            row.sentiment or "",
            tuple(Template(opening, filled, where) for opening in row.openings),
        )
        for row in steering.personas
    )
    if about.responses == "restyled":
        for persona in personas:
            if not persona.sentiment or not persona.openings:
                raise DataError(
                    f"{where}: the persona '{persona.name}' needs a sentiment and openings, since responses are "
                    "restyled; give both."
                )
        sides = {persona.sentiment for persona in personas}
        if len(sides) < 2:
            raise DataError(f"{where}: all personas are {sides.pop()}; restyled responses need both sentiments.")
    return personas


def _seeds(
    questions: Sequence[tuple[str, str]], titles: Mapping[str, list[str | int]], where: str
) -> tuple[Question, ...]:
    known = frozenset({"kind", "title"} if titles else ())
    patterns = [(topic, Template(text, known, where)) for topic, text in questions]
    if titles and not any("title" in pattern.variables() for _, pattern in patterns):
        raise DataError(
            f"{where}: no question names {{title}}, though there is a titles.yaml; name it, or remove that."
        )
    seeds = _filled(patterns, titles)
    _check_count(seeds, where)
    return seeds


def _check_count(seeds: Iterable[Question], where: str) -> None:
    count = len({wording(seed.text) for seed in seeds})
    if count < _LEAST:
        raise DataError(f"{where} holds {counted(count, 'questions')}, and at least {_LEAST} are needed; write more.")


def _filled(patterns: Sequence[tuple[str, Template]], titles: Mapping[str, list[str | int]]) -> tuple[Question, ...]:
    if not titles:
        return tuple(Question.of(pattern.fill(), topic) for topic, pattern in patterns)
    # Kinds take turns, and so do phrasings, so that the first seeds are not all of a kind.
    rows_of_kinds = ([(kind, str(title)) for title in own] for kind, own in titles.items())
    works = [work for work in chain.from_iterable(zip_longest(*rows_of_kinds)) if work is not None]
    return tuple(
        Question.of(pattern.fill(kind=kind, title=title), topic or kind, kind, title)
        for turn in range(len(patterns))
        for place, (kind, title) in enumerate(works)
        for topic, pattern in [patterns[(place + turn) % len(patterns)]]
    )


def _prompts(folder: DomainFolder, where: str) -> dict[str, Template]:
    usual = read_yaml(files("fspo.synthesis").joinpath("prompts.yaml"))
    own = parse_contents(dict[str, str], folder.yaml("prompts.yaml", needed=False) or {}, where)
    for name in own:
        if name not in PROMPTS:
            raise DataError(f"{where}: there is no prompt '{name}'{suggestion(name, PROMPTS)}")
    return {
        name: Template(
            own.get(name, usual[name]), known, f"{where}, {name}" if name in own else f"prompt {name}", NEEDED[name]
        )
        for name, known in PROMPTS.items()
    }


def _check_users(domain: Domain, where: str) -> None:
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
    if isinstance(users.directions, Directions) and not (users.directions.attributes or domain.traits):
        raise DataError(f"{where}, directions: list the attributes that users weigh.")
    try:
        names = domain.attributes()
        if not domain.traits:
            named(names, domain.topics)
        elif users.directions is None:
            check_weights(names, domain.traits)
    except ConfigError as error:
        raise DataError(f"{where}: {error}") from error


def _fingerprint(folder: DomainFolder) -> str:
    """Of all files, and of the usual prompts, by what they hold."""
    read = {name: folder.file(name).read_bytes() for name in _FILES if folder.has(name)}
    read["usual prompts"] = files("fspo.synthesis").joinpath("prompts.yaml").read_bytes()
    return digest({name: hashlib.sha256(held).hexdigest() for name, held in read.items()}, 64)
