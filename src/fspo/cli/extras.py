"""Which optional part of the package a missing module belongs to."""

from __future__ import annotations

import re
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, requires

__all__ = ["extra_of"]

_FOR_DEVELOPERS = ("bench", "dev")


def extra_of(module: str, verb: str = "") -> str | None:
    """The extra of fspo that installs a module, such as `serve` for `uvicorn`; None if there is none.

    An extra that is named like the verb comes first: it has all that the verb needs.
    """
    name = module.partition(".")[0].replace("_", "-").lower()
    holders = [
        extra
        for extra, packages in _packages().items()
        if any(f"{package}-".startswith(f"{name}-") for package in packages)
    ]
    return verb if verb in holders else next(iter(holders), None)


def _packages() -> dict[str, list[str]]:
    """Extra -> what it installs, with the packages of the extras that it contains."""
    try:
        requirements = requires("fspo") or []
    except PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = defaultdict(list)
    contained: list[tuple[str, str]] = []
    for requirement in requirements:
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", requirement)
        package = re.match(r"([\w.-]+)(?:\[([^\]]*)\])?", requirement)
        if extra is None or package is None or extra[1] in _FOR_DEVELOPERS:
            continue
        if package[1] == "fspo":
            contained += [(extra[1], inner.strip()) for inner in package[2].split(",")]
        else:
            found[extra[1]].append(package[1].replace("_", "-").lower())
    for outer, inner in contained:
        found[outer] += found[inner]
    return found
