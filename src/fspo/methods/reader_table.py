"""Which readers there are, and a run's rows of them: a name, a reader and its settings."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from fspo.errors import ConfigError
from fspo.identity import Unidentified, callable_identity
from fspo.methods import readers
from fspo.printing import suggestion
from fspo.pydantic_errors import first_fault

if TYPE_CHECKING:
    from fspo.methods.reader import Reader, ReaderSettings

__all__ = ["READERS", "ReaderRow", "reader_class"]

READERS: tuple[str, ...] = tuple(
    sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(readers.__path__))
)
"""The names of the readers that come with fspo: the files of `fspo.methods.readers`. None of them is imported."""

_READER = "reader"
"""The setting that names the reader of a row: one of `READERS`, or `module:Class`."""


@dataclass(frozen=True)
class ReaderRow:
    """A reader with its settings, as one row of the table of methods. Code of one's own is imported when it is used."""

    name: str
    given: Mapping[str, Any]
    """Its own settings, `reader` among them where the name is not that of a reader."""
    shared: Mapping[str, Any] = field(default_factory=dict)
    """The settings of all readers; each holds for the readers that have it."""

    @property
    def place(self) -> str:
        """One of `READERS`, or `module:Class`."""
        return str(self.given.get(_READER, self.name))

    @property
    def own_code(self) -> bool:
        """Whether the reader is no part of fspo."""
        return self.place not in READERS

    @property
    def kind(self) -> type[Reader]:
        """The class.

        Raises:
            ConfigError: there is none.
        """
        return reader_class(self.place)

    @property
    def code(self) -> str:
        """Identifies the code of a reader that is no part of fspo; empty for others, and where nothing tells it apart.

        Raises:
            ConfigError: it can't be imported.
        """
        try:
            return callable_identity(self.kind) if self.own_code else ""
        except Unidentified:
            return ""

    @cached_property
    def settings(self) -> ReaderSettings:
        """What the fit depends on.

        Raises:
            ConfigError: a setting is unknown or wrong.
        """
        kind = self.kind.Settings
        known = {key: value for key, value in self.shared.items() if key in kind.model_fields}
        own = {key: value for key, value in self.given.items() if key != _READER}
        try:
            return kind.model_validate({**known, **own})
        except ValidationError as error:
            raise ConfigError(f"The reader '{self.name}': {first_fault(error, kind).sentence}") from error

    @property
    def most_shots(self) -> int | None:
        """Most shots that it takes; None: any number."""
        return self.kind.most_shots(self.settings)

    def check_shots(self, shots: int) -> None:
        """Check that it takes so many shots.

        Raises:
            ConfigError: it takes fewer, or needs more.
        """
        if self.most_shots is not None and shots > self.most_shots:
            raise ConfigError(
                f"'{self.name}' takes at most {self.most_shots} shots, and the evaluation shows {shots}; raise "
                f"readers.{self.name}.shots and fit it again, or show fewer."
            )
        if shots < self.kind.least_shots:
            raise ConfigError(
                f"'{self.name}' needs at least {self.kind.least_shots} shots, and the evaluation shows {shots}; show "
                "more, or leave it out of the methods."
            )

    def identity(self) -> dict[str, Any]:
        """What decides its weights besides data and embeddings, ready for JSON; imports no code of one's own."""
        settings = {**self.shared, **self.given} if self.own_code else self.settings.model_dump(mode="json")
        return {**settings, _READER: self.place}

    def usual(self) -> dict[str, Any]:
        """The defaults of these settings."""
        return {} if self.own_code else self.kind.Settings().model_dump(mode="json")


@cache
def reader_class(place: str) -> type[Reader]:
    """The reader of that name, or the class at `module:Class`.

    Raises:
        ConfigError: there is none.
    """
    from fspo.methods.reader import Reader

    if place in READERS:
        module = importlib.import_module(f"{readers.__name__}.{place.replace('-', '_')}")
        own = [kind for kind in vars(module).values() if getattr(kind, "__module__", "") == module.__name__]
        found: list[type[Reader]] = [kind for kind in own if _is_reader(kind, Reader)]
        return found[0]
    name, colon, attribute = place.partition(":")
    if not (name and colon and attribute):
        raise ConfigError(
            f"There is no reader '{place}'{suggestion(place, READERS)} Your own is written as module:Class."
        )
    try:
        kind: type[Reader] = getattr(importlib.import_module(name), attribute)
    except Exception as error:  # whatever somebody else's code does when it is imported
        what = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"The reader '{place}' can't be imported ({what}); name it as module:Class, with the module where Python "
            "finds it (PYTHONPATH)."
        ) from error
    if not _is_reader(kind, Reader):
        raise ConfigError(f"The reader '{place}' is no class of fspo.methods.reader.Reader; let it inherit from that.")
    lacks = sorted(kind.__abstractmethods__) + [name for name in ("title", "description") if not hasattr(kind, name)]
    if lacks:
        raise ConfigError(f"The reader '{place}' lacks {', '.join(lacks)}; see docs/methods.md.")
    return kind


def _is_reader(kind: object, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base) and kind is not base
