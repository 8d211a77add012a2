"""What pydantic finds wrong with settings and files, in one sentence."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from fspo.keys import secret_in
from fspo.printing import nearest, suggestion

__all__ = ["Fault", "Key", "Section", "first_fault"]

Key = tuple[str, ...]
"""Names of settings from the top, such as ("evaluation", "shots")."""

_EXPECTED = {
    "string": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list, such as [a, b]",
    "tuple": "a list, such as [a, b]",
    "dict": "names with values (name: value)",
    "model": "names with values (name: value)",
}
"""What pydantic calls a type, or the beginning of that -> what a setting of this type is."""
_TAGS = ("str", "list", "dict", "int", "float", "bool")
_SHOWN = 60
"""Characters of a value that a sentence shows, at most."""
_ADDRESSED = frozenset({"endpoint", "ensemble", "judges", "reward_models"})
"""Settings that say how a server is asked, and so may hold a key."""


class Section(BaseModel):
    """A section of settings: it can't be changed, unknown keys are errors, and errors do not repeat what was given."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, protected_namespaces=())


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong.

    Attributes:
        key: the setting; empty for the settings as a whole.
        kind: pydantic's word for what is wrong, such as `missing` or `extra_forbidden`.
        sentence: what is wrong, with the key, and how many other things are.
    """

    key: Key
    kind: str
    sentence: str


def first_fault(
    error: ValidationError,
    model: Any = None,
    above: Key = (),
    *,
    noun: str = "setting",
    names: Mapping[str, str] = types.MappingProxyType({}),
) -> Fault:
    """The first thing wrong, or else the first unknown key: it is the likelier cause of what is missing.

    Args:
        error: what pydantic raised.
        model: the type that was validated, whose keys are suggested in place of an unknown one.
        above: the key of the value that was validated.
        noun: what the sentence calls a key.
        names: the reader's own names for some keys, such as those of options.
    """
    # A default that depends on the setting that is wrong is no fault of its own.
    problems = [one for one in error.errors(include_url=False) if one["type"] != "default_factory_not_called"]
    problem = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
    location = [part for part in problem["loc"] if not _is_union_tag(part)]
    key, kind = (*above, *map(str, location)), problem["type"]
    path = ".".join(names.get(part, part) for part in key)
    more = f" ({len(problems) - 1} more after it)" if len(problems) > 1 else ""
    if kind == "extra_forbidden":
        hint = suggestion(key[-1], _keys_at(model, location[:-1]), key[:-1])
        return Fault(key, kind, f"there is no {noun} '{path}'{more}{hint}")
    if kind == "missing":
        return Fault(key, kind, f"the {noun} '{path}' is missing{more}.")
    message = _message(problem)
    subject = f"'{path}': " if path else ""
    told = f"{subject}{message[:1].lower()}{message[1:]}{_shown(problem['input'], key)}{more}{_remedy(problem)}"
    return Fault(key, kind, told if told.endswith("?") else f"{told}.")


def _message(problem: Mapping[str, Any]) -> str:
    """What is wrong with a value, without the value."""
    expected, _, fault = problem["type"].partition("_")
    if expected in _EXPECTED and fault in ("type", "parsing", "from_float", "attributes_type"):
        return f"must be {_EXPECTED[expected]}"
    message: str = problem["msg"]
    return message.removeprefix("Value error, ").removesuffix(".")


def _shown(given: Any, key: Key) -> str:
    short = isinstance(given, str | int | float | bool | None) and len(repr(given)) < _SHOWN
    secret = not _ADDRESSED.isdisjoint(key) or bool(secret_in([given]))
    return f", not {given!r}" if short and not secret else ""


def _remedy(problem: Mapping[str, Any]) -> str:
    """How to write a text that YAML reads as a number, or the nearest of several choices."""
    given = problem["input"]
    if problem["type"] == "literal_error" and isinstance(given, str):
        close = nearest(given, re.findall("'([^']+)'", problem["ctx"]["expected"]))
        return f"; did you mean '{close}'?" if close else ""
    return "; write it in quotes" if problem["type"] == "string_type" and isinstance(given, int | float) else ""


def _is_union_tag(part: object) -> bool:
    """Whether pydantic put this part into a location to say which member of a union it tried."""
    return isinstance(part, str) and (part in _TAGS or "[" in part or part.startswith(("function-", "constrained-")))


def _keys_at(kind: Any, location: Iterable[object]) -> list[str]:
    """The keys known at a location below a type."""
    current, named = _model_in(kind), False
    for part in location:
        if isinstance(part, int) or named:
            named = False
            continue  # the place in a list, or a name in a mapping, whose entries are all of one kind
        field = None if current is None else _fields(current).get(str(part))
        named = field is not None and get_origin(field.annotation) is dict
        current = None if field is None else _model_in(field.annotation)
    return [] if current is None else list(_fields(current))


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """A model's fields by the names that files have for them."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first pydantic model inside an annotation such as `Model | None` or `list[Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, types.UnionType, list, tuple, dict, Mapping, Literal):
        return next((found for inner in get_args(annotation) if (found := _model_in(inner)) is not None), None)
    return None
