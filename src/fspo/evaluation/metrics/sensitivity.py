"""Does the label matter, and does the user? The label-flip rate and the user-swap drop, read off scored trials.

In-context reward models are known to memorise the contents of their context and ignore its labels; accuracy alone does
not show it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fspo.evaluation.scoring.eval_episodes import Item
from fspo.evaluation.scoring.logprob_scores import Condition, accuracy

__all__ = ["Margins", "flipped_decisions", "swap_drops"]

Margins = Callable[[str, Condition], float | None]
"""The margin of an item at the full shot count under a condition; None where it was not measured."""


def flipped_decisions(items: Sequence[Item], margins: Margins, *, only_correct: bool = False) -> dict[Item, float]:
    """1 for every item whose decision changes when the labels of the shots are flipped, 0 for the others.

    An item without a decision (a margin of zero) on either side counts as unchanged.
    """
    decisions: dict[Item, float] = {}
    for item in items:
        own, flipped = margins(item[1], "own"), margins(item[1], "flipped")
        if own is None or flipped is None or (only_correct and accuracy(own) < 1):
            continue
        decisions[item] = float({accuracy(own), accuracy(flipped)} == {0.0, 1.0})
    return decisions


def swap_drops(items: Sequence[Item], margins: Margins) -> dict[Item, float]:
    """Accuracy given the user's own shots minus accuracy given another user's, by item; of those that have both."""
    own, swapped = _accuracies(items, margins, "own"), _accuracies(items, margins, "swapped")
    return {item: own[item] - swapped[item] for item in own if item in swapped}


def _accuracies(items: Sequence[Item], margins: Margins, condition: Condition) -> dict[Item, float]:
    found = ((item, margins(item[1], condition)) for item in items)
    return {item: accuracy(margin) for item, margin in found if margin is not None}
