"""A YAML file as plain values, with the line on which each key stands, and overrides from the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fspo.errors import ConfigError
from fspo.keys import hidden, shown_override
from fspo.preferences.tables import stem_of
from fspo.printing import command
from fspo.pydantic_errors import Key

__all__ = ["Settings", "parse_value", "read_settings"]


@dataclass
class Settings:
    """Values read from a file and from overrides, and where each came from."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[Key, int] = field(default_factory=dict)
    overridden: dict[Key, str] = field(default_factory=dict)

    def where(self, key: Key) -> str:
        """In which line or override the value at `key` (or the nearest one above it) was written, or one below it."""
        below = [written for place, written in self.overridden.items() if place[: len(key)] == key]
        if key and below and key not in self.overridden:
            override = f"--set {shown_override(below[-1])}"
            return f"{self.name}, line {self.lines[key]}, with {override}" if key in self.lines else override
        for length in range(len(key), 0, -1):
            if key[:length] in self.overridden:
                return f"--set {shown_override(self.overridden[key[:length]])}"
            if key[:length] in self.lines:
                return f"{self.name}, line {self.lines[key[:length]]}"
        return self.name

    def override(self, assignments: Iterable[str], every: Key = ()) -> None:
        """Apply `key.key=value` assignments in order; a value is read as YAML.

        The values of the section `every`, such as ("training", "all"), hold for all sections beside it. A value that is
        set in it also replaces the one that a section beside it has of its own.

        Raises:
            ConfigError: an assignment has no `=`, an impossible value, or goes below a value that is no mapping.
        """
        for assignment in assignments:
            path, equals, text = assignment.partition("=")
            key = tuple(part.strip() for part in path.split("."))
            if not equals or not all(key):
                raise ConfigError(
                    f"--set {shown_override(assignment)}: write it as key=value, such as --set training.fspo.steps=50."
                )
            value = parse_value(text, f"--set {shown_override(assignment)}")
            self._put(key, value, assignment)
            if every and key[: len(every)] == every and len(key) > len(every):
                for beside in self._having(every, key[len(every) :]):
                    self._put((*beside, *key[len(every) :]), deepcopy(value), assignment)

    def _having(self, every: Key, below: Key) -> list[Key]:
        """The sections beside `every` that have a value at `below`, or a mapping that it would be in."""
        above: Any = self.values
        for part in every[:-1]:
            above = above[part]
        having = {
            section: inner[below[0]]
            for section, inner in above.items()
            if section != every[-1] and isinstance(inner, dict) and below[0] in inner
        }
        return [(*every[:-1], section) for section, own in having.items() if len(below) == 1 or isinstance(own, dict)]

    def _put(self, key: Key, value: Any, assignment: str) -> None:
        target = self.values
        for depth, part in enumerate(key[:-1], start=1):
            inner = target.get(part)
            if inner is None:
                inner = target[part] = {}
            if not isinstance(inner, dict):
                above = ".".join(key[:depth])
                what = "a list, which is set as a whole" if isinstance(inner, list) else "a single value"
                raise ConfigError(
                    f"--set {shown_override(assignment)}: {above} is {what}, so nothing can be set below it."
                )
            target = inner
        target[key[-1]] = value
        self.overridden[key] = assignment


class _Loader(yaml.SafeLoader):
    """YAML as people write it: `1e-3` is a number and `2024-05-01` is text (YAML 1.2); what is wrong is a YAMLError."""

    def get_single_node(self) -> Any:
        """The document as nodes, none of which holds itself."""
        try:
            node = super().get_single_node()
            _refuse_loops(node, (), set())
        except RecursionError:
            raise yaml.YAMLError("too many values inside one another") from None
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, AttributeError) as error:  # such as !!int many
            what = f"{node.value!r} is not of the type {node.tag.rpartition(':')[2]}"
            raise yaml.MarkedYAMLError(problem=what, problem_mark=node.start_mark) from error


def _refuse_loops(node: yaml.Node | None, above: tuple[yaml.Node, ...], done: set[int]) -> None:
    if not isinstance(node, yaml.CollectionNode) or id(node) in done:
        return
    if node in above:
        raise yaml.MarkedYAMLError(problem="a value that holds itself", problem_mark=node.start_mark)
    for item in node.value:
        for inner in item if isinstance(item, tuple) else (item,):
            _refuse_loops(inner, (*above, node), done)
    done.add(id(node))


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)$"),
    list("-+0123456789."),
)


def parse_value(text: str, where: str) -> Any:
    """The value of an option that is written in YAML; an error names the option by `where`.

    Raises:
        ConfigError: it is not YAML.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: the value is not valid YAML ({_problem(error)}).") from error


def read_settings(path: Path) -> Settings:
    """Read a YAML file of mappings.

    Raises:
        ConfigError: the file is missing, a table or empty, is not YAML, gives a key twice, or is not a mapping.
    """
    _refuse_table(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"There is no configuration file {path}{_similar(path)}") from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder; name a YAML file.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {path} can't be read ({error}).") from error
    settings = Settings(str(path))
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(f"{path} holds no settings; write them into it, such as `model: smollm2-135m`.")
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{path} must hold keys and values, such as `model: smollm2-135m`.")
        _note_lines(settings, node, ())
        settings.values = loader.construct_document(node)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {_problem(error)}.") from error
    return settings


def _refuse_table(path: Path) -> None:
    """Refuse a file of preferences, which has to be imported; JSON is YAML too."""
    if path.is_file() and path.suffix.lower() != ".json" and stem_of(path) != path.name:
        proposed = command("fspo", "data", "import", path, Path("data", stem_of(path)))
        raise ConfigError(
            f"{path} is a table, not a configuration; make a dataset of it with `{proposed}`, and name that in a "
            f"configuration as `data: {Path('data', stem_of(path))}`."
        )


def _note_lines(settings: Settings, node: yaml.MappingNode, above: Key) -> None:
    for key_node, value_node in node.value:
        key = (*above, str(key_node.value))
        line = key_node.start_mark.line + 1
        if key in settings.lines:
            raise ConfigError(
                f"{settings.name}, line {line}: {'.'.join(key)} is given twice (first in line {settings.lines[key]}); "
                "delete one of them."
            )
        settings.lines[key] = line
        if isinstance(value_node, yaml.MappingNode):
            _note_lines(settings, value_node, key)


def _problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or str(error)
    return hidden(f"{what} in line {mark.line + 1}" if mark is not None else what)


def _similar(path: Path) -> str:
    """The end of a sentence: a hint at a file of nearly the same name beside it, if there is one."""
    from difflib import get_close_matches

    folder = path.parent
    names = {beside.stem: beside.name for beside in sorted(folder.glob("*.y*ml"))} if folder.is_dir() else {}
    close = get_close_matches(path.stem, names, n=1)
    return f"; did you mean {folder / names[close[0]]}?" if close else "."
