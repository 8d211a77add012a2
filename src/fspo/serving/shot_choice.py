"""Which of a user's preferences the policy sees.

`usable` leaves out what is out of date: of the preferences on one question with the same two responses the newest
counts. `choose_shots` takes all where all have room. Otherwise the shots are, in this order:

1. the core: settled preferences, chosen for being recent and unlike one another, oldest first;
2. the newest preferences, fewer than a block, oldest first;
3. a block of those of the rest that are most like the prompt, oldest first.

A preference is settled if it belongs to a full block, counted from the user's oldest. So the core stays the same while
fewer than a block of preferences are added, and whatever the prompt is: an engine has read it already. A block is a
quarter of the shots.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from fspo.preferences.types import Preference
from fspo.preferences.wording import wording
from fspo.serving.stored_preferences import StoredPreference

__all__ = ["CANDIDATES", "READ", "choose_shots", "usable"]

CANDIDATES = 500
"""The newest settled preferences, among which shots are chosen."""
READ = 1_000
"""The newest preferences of a user, which are read for an answer or a question: the candidates, and the newest of any
model."""

_WORD = re.compile(r"\w+")
_RECENT = 0.5
"""What it counts to be the newest, where 1 is the likeness of two texts with the same words."""


def usable(preferences: Sequence[StoredPreference], prompt: str) -> list[StoredPreference]:
    """The preferences that may be shown beside a prompt, a transcript. They are given, and come, oldest first.

    Of repeated and contradictory ones the newest stays, and one on the prompt itself is left out, as in training.
    """
    newest: dict[tuple[str, frozenset[str]], int] = {}
    for place, stored in enumerate(preferences):
        newest[(stored.preference.question_key, stored.preference.pair)] = place
    asked = wording(prompt)
    kept = (preferences[place] for place in sorted(newest.values()))
    return [stored for stored in kept if wording(stored.preference.prompt) != asked]


def choose_shots(
    preferences: Sequence[StoredPreference], prompt: str, room: int, older: int = 0
) -> list[StoredPreference]:
    """At most `room` of the usable preferences, in the order in which they are shown; see the module.

    They are given oldest first; the user has `older` ones, which were not read.
    """
    if len(preferences) <= room:
        return list(preferences)
    block = room // 4
    if block == 0:
        return list(preferences[len(preferences) - room :])
    settled = (older + len(preferences)) // block * block - older
    candidates = range(max(0, settled - CANDIDATES), settled)
    words = {place: _words(preferences[place].preference) for place in candidates}
    newest = range(settled, len(preferences))
    core = _unlike(candidates, words, room - 2 * block)
    rest = [place for place in candidates if place not in core]
    asked = frozenset(_WORD.findall(prompt.casefold()))
    like = sorted(rest, key=lambda place: (-_likeness(words[place], asked), -place))[: room - len(core) - len(newest)]
    return [preferences[place] for place in (*sorted(core), *newest, *sorted(like))]


def _unlike(candidates: range, words: dict[int, frozenset[str]], count: int) -> set[int]:
    """Greedily: recent and unlike those that are chosen already (maximal marginal relevance, Carbonell 1998)."""
    nearest = dict.fromkeys(candidates, 0.0)
    chosen: set[int] = set()
    for _ in range(count):
        if not nearest:
            break
        best = max(nearest, key=lambda place: (_RECENT * _age(place, candidates) - nearest[place], place))
        chosen.add(best)
        del nearest[best]
        for place in nearest:
            nearest[place] = max(nearest[place], _likeness(words[place], words[best]))
    return chosen


def _age(place: int, candidates: range) -> float:
    """From 0 for the oldest candidate to 1 for the newest."""
    return (place - candidates.start + 1) / len(candidates)


def _words(preference: Preference) -> frozenset[str]:
    return frozenset(_WORD.findall(" ".join((preference.prompt, preference.chosen, preference.rejected)).casefold()))


def _likeness(one: frozenset[str], other: frozenset[str]) -> float:
    """Shared words by all words (Jaccard)."""
    return len(one & other) / (len(one | other) or 1)
