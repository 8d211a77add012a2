"""The settings reference, from the types: `python -m fspo.cli.settings_reference [--check] docs/settings.md`."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from fspo.cli.reference import update_page
from fspo.study.texts import PageTexts

__all__ = ["main", "render", "setting_keys"]

_HEADER = """\
# Settings

After reading this page you can look up every key of the YAML files of a run and of a study: values, default, meaning.
`make docs` generates this page from the types that check the file, and `make check` compares the two.

- On the command line, `--set KEY=VALUE` takes the same keys: `--set training.fspo.steps=100`.
- In Python, `fspo.FSPOConfig` takes the keys of `training`, and `fspo.synthesize` those of `synthesis`.
- Settings that the file does not name have the default. The `settings` of a domain's `domain.yaml` come before the
  defaults of `synthesis`, and a method's own settings (below) before those of `training`.
- An unknown key is an error that names the nearest known one. `fspo env --config FILE` shows the resolved settings.
- `NAME` in a key stands for a name of yours, and `[]` for each entry of a list. A key whose value is a section has a
  table of its own.
- The tables at the end, "Study", are the keys of [a study's file](study.md).
"""

_BOUNDS = {"ge": "at least {}", "gt": "above {}", "le": "at most {}", "lt": "below {}", "min_length": None}
_WORDS: dict[Any, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    Path: "path",
    Any: "any value",
    NoneType: "null",
}


@dataclass(frozen=True)
class _Section:
    """One table of the page: a model, and the key in the file below which its fields stand."""

    key: str
    model: type[BaseModel]
    study: bool = False
    """Whether it is of a study's file, and not of a run's."""

    @property
    def anchor(self) -> str:
        """The place of its table, as GitHub makes it of the heading."""
        return "".join(c for c in self.title.lower().replace(" ", "-") if c.isalnum() or c in "-_")

    @property
    def title(self) -> str:
        """Its heading."""
        if self.study:
            return f"Study: {self.key}" if self.key else "Study: the whole file"
        return self.key or "The whole file"


def render() -> str:
    """The whole reference as Markdown.

    Raises:
        LookupError: a setting has no description.
    """
    first: dict[type[BaseModel], _Section] = {}
    for section in _sections():
        first.setdefault(section.model, section)
    tables = [
        line
        for section in first.values()
        for line in (
            *_table(section, first),
            *_defaults_of_methods(section, first),
            *_settings_of_readers(section, first),
            *_settings_of_adaptations(section, first),
        )
    ]
    return "\n".join([_HEADER, *tables])


def setting_keys(*, study: bool = False) -> frozenset[str]:
    """Every key of a run's file, or of a study's, in full, such as `synthesis.refinement.rounds`."""
    sections = (section for section in _sections() if section.study == study)
    found = {_join(section.key, name) for section in sections for name, _ in _fields(section.model)}
    if not study:
        found |= {f"readers.NAME.{name}" for kind in _readers().values() for name in ("reader", *kind.model_fields)}
        found |= {f"adaptations.NAME.{name}" for kind in _adaptations().values() for name in kind.model_fields}
        found |= {f"training.NAME.{name}" for kind in _own_settings() for name in kind.model_fields}
    return frozenset(found)


def _sections() -> Iterator[_Section]:
    from fspo.runs.config import RunConfig
    from fspo.study.config import StudyConfig

    waiting = [_Section("", RunConfig), _Section("", StudyConfig, study=True)]
    while waiting:
        section = waiting.pop(0)
        yield section
        below = [
            _Section(_join(section.key, name + suffix), model, section.study)
            for name, field in _fields(section.model)
            for model, suffix in [*_models_in(_annotation(name, field))]
            if model is not PageTexts
        ]
        waiting = [*below, *waiting]


def _annotation(name: str, field: FieldInfo) -> Any:
    """What a field holds; settings of methods are checked later than the rest."""
    from fspo.methods.adaptation import AdaptationSettings
    from fspo.methods.reader import ReaderSettings
    from fspo.training.config import TrainingConfig

    checked_later: dict[str, Any] = {
        "training": dict[str, TrainingConfig],
        "readers": dict[str, ReaderSettings],
        "adaptations": dict[str, AdaptationSettings],
    }
    return checked_later.get(name, field.annotation)


def _models_in(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:
    """The models inside an annotation, and what follows the key of each: nothing, `[]` or `.NAME`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
    origin = get_origin(annotation)
    suffix = "[]" if origin in (tuple, list) else ".NAME" if origin is dict else ""
    for inner in get_args(annotation) if origin is not Literal else ():
        yield from ((model, suffix + rest) for model, rest in _models_in(inner))


def _fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """A model's fields by the names that files have for them."""
    return [(field.alias or name, field) for name, field in model.model_fields.items()]


def _table(section: _Section, first: Mapping[type[BaseModel], _Section]) -> Iterator[str]:
    about = (inspect.getdoc(section.model) or "").partition("\n\n")[0]
    yield f"## {section.title}\n"
    yield f"{_cell(about)}\n"
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    yield from _rows(section, first)
    yield ""


def _rows(section: _Section, first: Mapping[type[BaseModel], _Section]) -> Iterator[str]:
    documented = _attribute_docstrings(section.model)
    for (name, field), attribute in zip(_fields(section.model), section.model.model_fields, strict=True):
        meaning = field.description or documented.get(attribute)
        if not meaning:
            raise LookupError(f"The setting {_join(section.key, name)} of {section.model.__name__} has no description.")
        annotation = _annotation(name, field)
        value = _values(annotation, field.metadata)
        for model, _ in _models_in(annotation):
            shown = f"[section](#{first[model].anchor})" if model in first else "texts by name"
            value = value.replace(model.__name__, shown)
        yield f"| `{name}` | {_cell(value)} | {_default(field)} | {_cell(meaning)} |"


def _defaults_of_methods(section: _Section, first: Mapping[type[BaseModel], _Section]) -> Iterator[str]:
    from fspo.methods.table import METHODS
    from fspo.training.config import TrainingConfig

    if section.model is not TrainingConfig:
        return
    yield "`training.all` holds for every method. Each method that trains has these settings of its own:\n"
    yield "| method | settings |"
    yield "|---|---|"
    for row in METHODS.values():
        if row.trains:
            own = {"objective": row.objectives[-1], **row.defaults}
            yield f"| `{row.name}` | {', '.join(f'`{key}: {_shown(value)}`' for key, value in own.items())} |"
    yield ""
    shared = set(_rows(section, first))
    for model, names in _own_settings().items():
        rows = [row for row in _rows(_Section("training.NAME", model), first) if row not in shared]
        if not rows:
            continue
        shared |= set(rows)
        yield f"{', '.join(f'`{name}`' for name in names)} also {'has' if len(names) == 1 else 'have'}:\n"
        yield "| key | value | default | meaning |"
        yield "|---|---|---|---|"
        yield from rows
        yield ""


def _own_settings() -> dict[type[BaseModel], list[str]]:
    """Types of settings that only some methods have -> these methods; a type comes before those that inherit it."""
    from fspo.methods.table import METHODS
    from fspo.training.config import TrainingConfig

    found: dict[type[BaseModel], list[str]] = {}
    for row in METHODS.values():
        for kind in row.settings.__mro__:
            if issubclass(kind, TrainingConfig) and kind is not TrainingConfig:
                found.setdefault(kind, []).append(row.name)
    return dict(sorted(found.items(), key=lambda entry: len(entry[0].__mro__)))


def _readers() -> dict[str, type[BaseModel]]:
    """Reader -> its settings."""
    from fspo.methods.reader_table import READERS, reader_class

    return {name: reader_class(name).Settings for name in READERS}


def _settings_of_readers(section: _Section, first: Mapping[type[BaseModel], _Section]) -> Iterator[str]:
    """The settings that a reader has besides those of all readers."""
    from fspo.methods.reader import ReaderSettings

    if section.model is not ReaderSettings:
        return
    yield "`reader` names the reader of a row that has a name of your own (docs/methods.md).\n"
    yield from _beside_shared(section, "readers", _readers(), first)


def _adaptations() -> dict[str, type[BaseModel]]:
    """Method with an adaptation -> its settings."""
    from fspo.methods.table import ADAPTATIONS

    return {name: kind.Settings for name, kind in ADAPTATIONS.items()}


def _settings_of_adaptations(section: _Section, first: Mapping[type[BaseModel], _Section]) -> Iterator[str]:
    """The settings that an adaptation has besides those of all adaptations."""
    from fspo.methods.adaptation import AdaptationSettings

    if section.model is AdaptationSettings:
        yield from _beside_shared(section, "adaptations", _adaptations(), first)


def _beside_shared(
    section: _Section, key: str, models: Mapping[str, type[BaseModel]], first: Mapping[type[BaseModel], _Section]
) -> Iterator[str]:
    """A table for each of the models below a key, of what it has besides the shared settings of the section."""
    shared = set(_rows(section, first))
    for name, model in models.items():
        own = [row for row in _rows(_Section(f"{key}.{name}", model), first) if row not in shared]
        if own:
            yield from (f"### {key}.{name}\n", "| key | value | default | meaning |", "|---|---|---|---|", *own, "")


def _values(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    """The values that an annotation allows, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(inner[0], [*metadata, *inner[1:]])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, UnionType):
        parts = [_values(part, metadata if part in (int, float, str) else ()) for part in inner]
        return ("; or " if any(", " in part for part in parts) else " or ").join(parts)
    if origin in (tuple, list):
        return f"list: {_values(inner[0])}"
    if origin is dict:
        return f"mapping: {_values(inner[1])}"
    return ", ".join([_WORDS.get(annotation, getattr(annotation, "__name__", str(annotation))), *_bounds(metadata)])


def _bounds(metadata: Sequence[Any]) -> Iterator[str]:
    for rule in metadata:
        if get_origin(rule) is None and isinstance(rule, FieldInfo):
            yield from _bounds(rule.metadata)
        for name, words in _BOUNDS.items():
            if words and (bound := getattr(rule, name, None)) is not None:
                yield words.format(bound)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return "its defaults"
    if _holds_model(value):
        return "built in"
    return "" if value == Path() else f"`{_cell(_shown(value))}`"


def _holds_model(value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ()
    return any(isinstance(one, BaseModel) for one in inner)


def _shown(value: Any) -> str:
    """A value as YAML has it."""
    if isinstance(value, str):
        return value
    return json.dumps(list(value) if isinstance(value, tuple) else value).replace('"', "")


def _attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Field -> the docstring that follows it in the source, of the model and those it inherits from."""
    found: dict[str, str] = {}
    for cls in reversed([one for one in model.__mro__ if issubclass(one, BaseModel) and one is not BaseModel]):
        found |= _own_docstrings(cls)
    return found


@functools.cache
def _own_docstrings(cls: type[BaseModel]) -> dict[str, str]:
    """Field -> the docstring that follows it in the source of this class."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    assert isinstance(body, ast.ClassDef)
    return {
        statement.target.id: inspect.cleandoc(following.value.value)
        for statement, following in itertools.pairwise(body.body)
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and isinstance(following, ast.Expr)
        and isinstance(following.value, ast.Constant)
        and isinstance(following.value.value, str)
    }


def _join(above: str, name: str) -> str:
    return f"{above}.{name}" if above else name


def _cell(text: str) -> str:
    """Text in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def main(arguments: list[str]) -> int:
    """Write the reference, or compare it with `--check`; returns the exit code."""
    return update_page(arguments, render(), "the settings' types")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
