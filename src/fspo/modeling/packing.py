"""Many episodes in one row of tokens: each trunk once, each query's prompt once, each response once.

A *forest* says which tokens of the row may look at which: it is all that the attention function needs, and it costs a
few integers per branch instead of a square mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from fspo.errors import ModelError
from fspo.modeling.rendering import TokenizedEpisode

__all__ = ["Forest", "PackedRow", "Segment", "Tree", "pack"]


@dataclass(frozen=True)
class Segment:
    """One branch's place in the row: its prompt, then its responses, one after the other."""

    start: int
    prompt: int
    responses: tuple[int, ...]
    boundary: int
    """How many tokens of the trunk this branch sees; its first token has this position."""

    @property
    def length(self) -> int:
        """Tokens of the branch."""
        return self.prompt + sum(self.responses)


@dataclass(frozen=True)
class Tree:
    """One trunk's place in the row, and the branches right after it."""

    start: int
    trunk: int
    segments: tuple[Segment, ...]

    @property
    def length(self) -> int:
        """Tokens of the trunk and of all its branches."""
        return self.trunk + sum(segment.length for segment in self.segments)


@dataclass(frozen=True)
class Forest:
    """The trees of one row, in order and without gaps."""

    trees: tuple[Tree, ...]

    @property
    def length(self) -> int:
        """Tokens of the row."""
        return sum(tree.length for tree in self.trees)


@dataclass(frozen=True)
class PackedRow:
    """One row ready for the model, and where the log-probs of its responses are to be read."""

    input_ids: Tensor
    """[1, S]"""
    position_ids: Tensor
    """[1, S]: every branch counts on from its boundary, every response from its prompt."""
    forest: Forest
    predictors: Tensor
    """[T]: index in the row of the token that predicts each response token."""
    targets: Tensor
    """[T]: id of each response token."""
    owners: Tensor
    """[T]: which response each of them belongs to, counted through episodes, branches and responses."""
    shapes: tuple[tuple[int, int], ...]
    """Per episode: number of branches and number of responses of each branch."""


def pack(episodes: Sequence[TokenizedEpisode], device: torch.device | str = "cpu") -> PackedRow:
    """Lay `episodes` out in one row: trunk A, branches of A, trunk B, branches of B, ...

    Raises:
        ModelError: a branch lies outside its trunk, has nothing to be predicted from, or an episode's branches differ
            in their number of responses.
    """
    ids: list[int] = []
    positions: list[int] = []
    trees: list[Tree] = []
    shapes: list[tuple[int, int]] = []
    for episode in episodes:
        shapes.append(_shape(episode))
        start = len(ids)
        ids.extend(episode.trunk_ids)
        positions.extend(range(len(episode.trunk_ids)))
        segments = []
        for branch in episode.branches:
            segment = Segment(len(ids), len(branch.prompt_ids), tuple(map(len, branch.responses)), branch.boundary)
            segments.append(segment)
            ids.extend(chain(branch.prompt_ids, *branch.responses))
            fork = segment.boundary + segment.prompt
            positions.extend(range(segment.boundary, fork))
            positions.extend(chain.from_iterable(range(fork, fork + length) for length in segment.responses))
        trees.append(Tree(start, len(episode.trunk_ids), tuple(segments)))
    predictors, owners = _predictors(trees)
    tokens = [token for episode in episodes for branch in episode.branches for token in chain(*branch.responses)]
    return PackedRow(
        input_ids=torch.tensor([ids], dtype=torch.long, device=device),
        position_ids=torch.tensor([positions], dtype=torch.long, device=device),
        forest=Forest(tuple(trees)),
        predictors=torch.tensor(predictors, dtype=torch.long, device=device),
        targets=torch.tensor(tokens, dtype=torch.long, device=device),
        owners=torch.tensor(owners, dtype=torch.long, device=device),
        shapes=tuple(shapes),
    )


def _shape(episode: TokenizedEpisode) -> tuple[int, int]:
    counts = {len(branch.responses) for branch in episode.branches}
    if len(counts) > 1:
        raise ModelError(
            f"The branches of one episode must have equally many responses, but here they have {sorted(counts)}."
        )
    for branch in episode.branches:
        if not 0 <= branch.boundary <= len(episode.trunk_ids):
            raise ModelError(
                f"A branch hangs off token {branch.boundary} of a trunk of {len(episode.trunk_ids)} tokens."
            )
        if branch.boundary + len(branch.prompt_ids) == 0 and branch.responses:
            raise ModelError(
                "A response needs at least one token before it, but its trunk and its prompt are both empty."
            )
    return len(episode.branches), counts.pop() if counts else 0


def _predictors(trees: Sequence[Tree]) -> tuple[list[int], list[int]]:
    predictors: list[int] = []
    owners: list[int] = []
    response = 0
    for tree in trees:
        for segment in tree.segments:
            before = segment.start + segment.prompt - 1 if segment.prompt else tree.start + segment.boundary - 1
            start = segment.start + segment.prompt
            for length in segment.responses:
                if length:
                    predictors.append(before)
                    predictors.extend(range(start, start + length - 1))
                owners.extend([response] * length)
                start += length
                response += 1
    return predictors, owners
