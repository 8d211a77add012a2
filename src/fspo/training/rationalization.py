"""Rationalization: shots, then a description in the model's own words, then a response (arXiv 2502.19312, v2).

In every step the policy drafts descriptions of each user from the shots. The draft closest in meaning to the user's own
description is to be preferred to the farthest one, and stands beside the shots when responses are ranked. The mirrored
shots get a draft of their own, since they are another person's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from fspo.identity import seed_by
from fspo.modeling.descriptions import write_descriptions
from fspo.preferences.types import Episode
from fspo.training.processes import collected, joined
from fspo.training.steps import Drafts, StepBatch, StepCollator, Unit, split_passes

__all__ = ["Closeness", "CommonWords", "Rationalizer", "closeness_named"]


class Closeness(Protocol):
    """Says how close texts are in meaning to the one that is wanted."""

    def closeness(self, texts: Sequence[str], wanted: str) -> list[float]:
        """A number for each text, the greater the closer."""


class CommonWords:
    """Closeness as the share of words in common (Jaccard): needs no model, and knows no synonyms."""

    def closeness(self, texts: Sequence[str], wanted: str) -> list[float]:
        """Between 0 and 1 for each text."""
        own = _words(wanted)
        return [len(own & words) / max(len(own | words), 1) for words in map(_words, texts)]


def closeness_named(name: str) -> Closeness:
    """The measure of closeness that a configuration names.

    Raises:
        ModelError: the sentence embedder can't be obtained.
    """
    if name == "words":
        return CommonWords()
    from fspo.modeling.sentences import SentenceEmbedder

    return SentenceEmbedder.load()


class Rationalizer:
    """Gives the units of a step the descriptions that the policy drafts of their users."""

    def __init__(
        self,
        collator: StepCollator,
        closeness: Closeness,
        *,
        measuring: StepCollator | None = None,
        validation: Sequence[Unit] = (),
    ) -> None:
        """Draft for `collator`'s units, and for the `validation` units of the collator `measuring`."""
        self._collator, self._config, self._closeness = collator, collator.config, closeness
        self._measuring, self._validation = measuring or collator, validation

    def step(self, policy: torch.nn.Module, batch: StepBatch) -> StepBatch:
        """The whole step with the policy's drafts beside the shots, in passes again."""
        units = self._drafted(policy, list(batch.units), self._collator)
        return StepBatch(split_passes(units, self._config.row_tokens))

    def measured(self, policy: torch.nn.Module) -> list[Unit]:
        """The validation units with the policy's drafts of today; shown is the first one, not the closest to gold."""
        return self._drafted(policy, self._validation, self._measuring)

    def _drafted(self, policy: torch.nn.Module, units: Sequence[Unit], collator: StepCollator) -> list[Unit]:
        waiting = [(unit, unit.episode) for unit in units if unit.episode is not None]
        # Every process drafts its part, and all get all.
        process = joined()
        own_part = waiting[process.process_index :: process.num_processes]
        parts = collected(self.drafts(policy, own_part, measuring=collator.both_sides, mirrors=collator.config.mirrors))
        drafts = [parts[place % len(parts)][place // len(parts)] for place in range(len(waiting))]
        found = {
            unit.index: collator.unit(unit.index, own, one) for (unit, own), one in zip(waiting, drafts, strict=True)
        }
        return [found.get(unit.index, unit) for unit in units]

    def drafts(
        self,
        policy: torch.nn.Module,
        waiting: Sequence[tuple[Unit, Episode]],
        *,
        measuring: bool = False,
        mirrors: bool | None = None,
    ) -> list[Drafts]:
        """What the policy writes of each unit's user: several drafts by the shots and, if it `mirrors`, one by theirs.

        In training the draft closest to gold is shown beside the shots; in measuring the first one, since gold is not
        to be known then.
        """
        config = self._config
        mirrors = config.mirrors if mirrors is None else mirrors
        shots, seeds = [], []
        for unit, episode in waiting:
            asked = [episode.shots] * config.drafts + [episode.flip_shots().shots] * mirrors
            shots += asked
            seeds += [seed_by("drafts", config.seed, unit.index, number) for number in range(len(asked))]
        written = write_descriptions(
            policy,
            self._collator.renderer,
            shots,
            seeds=seeds,
            max_new_tokens=config.description_tokens,
            temperature=1.0,
        )
        texts = iter(row.text for row in written)
        found = []
        for _, episode in waiting:
            own = [next(texts) for _ in range(config.drafts)]
            closer, farther = self._ranked(episode, own)
            found.append(Drafts(closer, farther, own[0] if measuring else closer, next(texts) if mirrors else ""))
        return found

    def _ranked(self, episode: Episode, own: Sequence[str]) -> tuple[str, str]:
        """The closest draft and the farthest; the same one where there is nothing to prefer."""
        scores = self._closeness.closeness(own, episode.description) if episode.description else [0.0] * len(own)
        order = sorted(range(len(own)), key=lambda place: (-scores[place], place))
        best, worst = order[0], order[-1]
        return own[best], own[best if scores[best] == scores[worst] else worst]


def _words(text: str) -> set[str]:
    return {word.strip(".,;:!?\"'()").lower() for word in text.split()}
