"""A fitted reader as a reward model: measured on the same items and under the same conditions as every method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from fspo.evaluation.scoring.reward_models.protocol import RewardRequest
from fspo.methods.reader_fitting import FittedReader
from fspo.modeling.embeddings import Response

__all__ = ["ReaderRewardModel"]


class ReaderRewardModel:
    """Scores responses by a reader."""

    def __init__(self, name: str, reader: FittedReader, responses: Iterable[Response] = ()) -> None:
        """`responses` are those that scores will be asked of; they are embedded together at the first request."""
        self.name, self._reader, self._responses = name, reader, responses

    @property
    def identity(self) -> str:
        """Tells apart readers that give different scores."""
        return self._reader.identity

    def score(self, requests: Sequence[RewardRequest]) -> list[float]:
        """The reader's reward for each request."""
        self._reader.embeddings.add(self._responses)
        self._responses = ()
        found: list[float] = []
        for shots, group in groupby(requests, key=lambda request: request.shots):
            found += self._reader.scores(shots, [(request.prompt, request.response) for request in group])
        return found
