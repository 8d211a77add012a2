"""SPIN: self-play fine-tuning, in which a policy learns to tell the data from its own answers (arXiv 2401.01335).

In round t the chosen response of a question is preferred to an answer y' that the policy of the round before gives to
it, by DPO's loss against that policy:

    -log sigmoid(beta ([log p_t(y) - log p_t-1(y)] - [log p_t(y') - log p_t-1(y')]))

Rejected responses of the data are not used. The loss has no gradient left, on average, exactly where the policy's
answers are distributed like the data (theorem 5.2 there), so that is what it converges to, and no further.

The paper has no users. Here answers are written given the shots of an episode and the loss is of the same episode, so
that p is conditional on the user; `spin-population` is the paper's, without users. The paper starts from weights that
were fine-tuned on the same data, and plays the same questions in each round; here training starts from the base model,
and each round draws its own episodes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from fspo.methods.method import Method
from fspo.methods.round_settings import RoundSettings, in_rounds

if TYPE_CHECKING:
    from fspo.methods.one_round import Pairs, Round

__all__ = ["ROWS"]


def _against_own_answers(one: Round) -> Pairs:
    """The chosen response of each query against the policy's own answer to it."""
    from fspo.methods.one_round import Pairs

    return Pairs.of(
        replace(
            episode,
            queries=tuple(
                replace(query, rejected=own.text) for query, (own,) in zip(episode.queries, replies, strict=True)
            ),
        )
        for episode, replies in one.own_answers(one.draw())
    )


_DEFAULTS = {"beta": 0.1}

ROWS = (
    Method(
        "spin",
        "SPIN",
        "shots",
        ("dpo",),
        None,
        "start",
        "Self-play: the chosen response against the policy's own answer of the round before, given the shots.",
        _DEFAULTS,
        settings=RoundSettings,
        train=in_rounds(_against_own_answers),
    ),
    Method(
        "spin-population",
        "SPIN, no user",
        "none",
        ("dpo",),
        None,
        "start",
        "Self-play on the preferences of all users together, told of no user.",
        _DEFAULTS,
        settings=RoundSettings,
        train=in_rounds(_against_own_answers),
    ),
)
