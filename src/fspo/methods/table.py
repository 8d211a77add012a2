"""The table of methods: what goes into the context, and which objectives the weights saw."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from fspo.errors import ConfigError
from fspo.methods import policies
from fspo.methods.adaptation import Adaptation
from fspo.methods.method import Method, MethodContext
from fspo.methods.reader_table import READERS
from fspo.printing import suggestion

__all__ = ["ADAPTATIONS", "METHODS", "USUAL", "Method", "MethodContext", "method", "training_order"]


def _found() -> Iterator[Method]:
    """The rows of the files in `fspo.methods.policies`, in the order of their names."""
    for name in sorted(module.name for module in pkgutil.iter_modules(policies.__path__)):
        yield from importlib.import_module(f"{policies.__name__}.{name}").ROWS


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        row.name: row
        for row in (
            Method(
                "base", "Base model", "none", (), None, "no-context",
                "The model as it is, told nothing of the user.",
            ),
            Method(
                "few-shot", "Few-shot prompt", "shots", (), None, "no-context",
                "The model as it is, shown the user's labelled preferences.",
            ),
            Method(
                "pref-ft", "Few-shot Pref-FT", "shots", ("pref-ft",), None, "no-context",
                "Maximum likelihood of the chosen response given the shots; the first stage of FSPO.",
            ),
            Method(
                "ipo", "IPO, no user", "none", ("ipo",), None, "start",
                "Preferences of all users together, told of no user: what the population likes.",
            ),
            Method(
                "fspo", "FSPO", "shots", ("pref-ft", "ipo"), "pref-ft", "start",
                "A preference objective on episodes with their mirrors, given the shots.",
                {"mirror": True},
            ),
            Method(
                "pref-ft-cot", "Few-shot Pref-FT with descriptions", "both", ("pref-ft",), None, "no-context",
                "Maximum likelihood of the user's description given the shots, and of the chosen response given both.",
                {"describe": "gold"}, describes=True,
            ),
            Method(
                "fspo-rat", "FSPO with rationalization", "both", ("pref-ft", "ipo"), "pref-ft-cot", "start",
                "Shots, then a description of the user in the model's own words, then a response; both are trained by "
                "preference, the descriptions on policy.",
                {"mirror": True, "describe": "own"}, describes=True,
            ),
            Method(
                "oracle", "Oracle description", "description", (), None, "no-context",
                "The model as it is, told the user's true description.",
            ),
            *_found(),
        )
    }
)  # fmt: skip
"""All methods by name, in the order of a report: plain ones first, then those with machinery of their own."""

ADAPTATIONS: Mapping[str, type[Adaptation]] = MappingProxyType(
    {name: row.adaptation for name, row in METHODS.items() if row.adaptation is not None}
)
"""The methods whose policy the shots change by code of their own."""

USUAL: tuple[str, ...] = ("base", "few-shot", "pref-ft", "ipo", "fspo", "oracle")
"""The methods of a run that names none."""


def method(name: str) -> Method:
    """The method of that name.

    Raises:
        ConfigError: there is none (the nearest name is given), or it is a reader.
    """
    if name in METHODS:
        return METHODS[name]
    if name in READERS:
        raise ConfigError(
            f"The method '{name}' scores responses and writes none, so it can't answer; choose from "
            f"{', '.join(METHODS)}, or let it choose among answers of the base model with evaluation.best_of."
        )
    raise ConfigError(f"There is no method '{name}'{suggestion(name, METHODS)}")


def training_order(methods: Iterable[Method]) -> tuple[Method, ...]:
    """The methods that must be trained, each after the one it starts from, which is added where it is missing.

    Raises:
        ConfigError: a method starts from one that doesn't exist or trains nothing.
    """
    wanted = {row.name: row for row in methods}
    order: dict[str, Method] = {}
    for row in list(wanted.values()):
        chain = [row]
        while (start := chain[-1].starts_from) is not None and len(chain) <= len(METHODS):
            chain.append(wanted[start] if start in wanted else method(start))
            if not chain[-1].trains:
                raise ConfigError(f"The method '{chain[-2].name}' can't start from '{start}', which trains nothing.")
        if chain[-1].starts_from is not None:
            raise ConfigError(f"The method '{row.name}' starts from itself, by way of '{chain[1].name}'.")
        order |= {link.name: link for link in reversed(chain) if link.trains and link.name not in order}
    return tuple(order.values())
