"""Descriptions that are kept by their user."""

from __future__ import annotations

from fspo.preferences.types import Preference
from fspo.serving.engines.description_cache import DescriptionCache


def shots(name: str, count: int = 2) -> tuple[Preference, ...]:
    return tuple(Preference(name, f"Question {n}?", "Yes.", "No.") for n in range(count))


def test_a_description_is_written_once_and_dropped_with_its_user() -> None:
    written: list[tuple[Preference, ...]] = []

    def write(given: tuple[Preference, ...]) -> str:
        written.append(given)
        return f"{given[0].user} likes {len(given)} things."

    cache = DescriptionCache(write, size=2)
    for _ in range(2):
        assert cache.of("ann", shots("ann"), keep=True) == "ann likes 2 things."
    assert len(written) == len(cache) == 1
    assert cache.of("ann", shots("ann", 3), keep=True) == "ann likes 3 things."
    assert len(cache) == 1, "one of each user"
    cache.forget("ann")
    assert len(cache) == 0
    assert cache.of("ann", shots("ann"), keep=False) == "ann likes 2 things."
    assert len(cache) == 0
    for name in ("ann", "ben", "eve"):
        cache.of(name, shots(name), keep=True)
    assert len(cache) == 2
    before = len(written)
    cache.of("eve", shots("eve"), keep=True)
    cache.of("ann", shots("ann"), keep=True)
    assert len(written) == before + 1, "the one used longest ago went"
