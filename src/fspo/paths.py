"""Paths as people write them: the one place where `~` becomes the home folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fspo.errors import ConfigError

__all__ = ["LocalPath", "PlaceName", "expanded", "in_full", "shown"]

AnyPath = TypeVar("AnyPath", bound=str | Path)


def expanded(path: AnyPath) -> AnyPath:
    """`path` with a leading `~` or `~user` replaced by that home folder.

    A name that is no path, such as a hub id, stays as it is; so does `~name` where a file of that name is there.

    Raises:
        ConfigError: there is no such home folder, or the path holds a character that no file name can.
    """
    text = str(path)
    if "\0" in text:
        raise ConfigError(f"The path {text!r} holds a null character; write it without.")
    if not text.startswith("~"):
        return path
    try:
        return type(path)(Path(text).expanduser())
    except RuntimeError:
        if os.path.lexists(text):
            return path
        raise ConfigError(f"The path {text} starts with a home folder that is not known; write it in full.") from None


def in_full(name: str) -> str:
    """The full path of a folder, however it is written; any other name, such as a hub id, is itself."""
    place = Path(expanded(name))
    return str(place.resolve()) if place.is_dir() else name


def shown(path: Path) -> str:
    """A path as sentences show it: `.` and `..` in full, since at the end of a sentence they are read as others."""
    return str(path.absolute() if path.name == "" else path.resolve() if path.name == ".." else path)


class _Expanded:
    """Tells pydantic to expand a value; pydantic itself is not needed to import this module."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic import AfterValidator

        return AfterValidator(_expanded_value).__get_pydantic_core_schema__(source, handler)


def _expanded_value(path: Any) -> Any:
    try:
        return expanded(path)
    except ConfigError as error:
        raise ValueError(str(error)) from error


LocalPath = Annotated[Path, _Expanded()]
"""A path in a configuration."""

PlaceName = Annotated[str, _Expanded()]
"""A name in a configuration that may be a path, such as that of a model."""
