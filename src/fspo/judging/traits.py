"""Traits that texts declare, and what users have weights for."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["Value", "feature_names", "features_at", "features_of"]

Value = int | str
"""What a text declares of a trait."""


def feature_names(values: Mapping[str, tuple[Value, ...]]) -> list[str]:
    """What users may have weights for: each trait of two values, and each value of a trait of more (`level=child`)."""
    return [key for name, known in values.items() for key in _keys(name, known)]


def features_of(traits: Mapping[str, Value], values: Mapping[str, tuple[Value, ...]]) -> dict[str, float]:
    """The features of a text, each from -1 to 1; see `features_at`."""
    found: dict[str, float] = {}
    for name, known in values.items():
        found |= features_at(name, known.index(traits[name]), known)
    return found


def features_at(name: str, place: float, known: tuple[Value, ...]) -> dict[str, float]:
    """The features of a text that stands at `place` between the first value of a trait (0) and the last one.

    A trait of two values is -1 at the first and 1 at the second, and more beyond. Of a trait of more, each value is a
    feature: 1 for a text of that value, and the less the farther the text is, down to -1 for the distance between the
    two ends.
    """
    steps = len(known) - 1
    if steps == 1:
        return {name: 2.0 * place - 1.0}
    inside = max(0.0, min(float(steps), place))
    return {key: 1.0 - 2.0 * abs(inside - at) / steps for at, key in enumerate(_keys(name, known))}


def _keys(name: str, known: tuple[Value, ...]) -> list[str]:
    return [name] if len(known) == 2 else [f"{name}={value}" for value in known]
