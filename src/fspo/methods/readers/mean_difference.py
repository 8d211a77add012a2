"""Mean difference: the mean of chosen minus rejected is the direction of a user's reward."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from fspo.methods.reader import Pairs, Reader, TrainingUsers

__all__ = ["MeanDifference"]


class MeanDifference(Reader):
    """w = mean over the shots of x_chosen - x_rejected; the reward of a response is w . x.

    Nothing is trained. Since features are whitened by the pool's covariance, this is the direction of a linear
    discriminant. A user without shots has no direction, so all rewards are 0.
    """

    title = "Mean difference"
    description = "The mean of chosen minus rejected features is the direction of the reward; nothing is trained."
    least_shots = 1

    def fit(self, users: TrainingUsers) -> Mapping[str, float]:
        """Learn nothing."""
        return {}

    def adapt(self, shots: Pairs) -> Tensor:
        """[d]: the mean difference."""
        return shots.differences.mean(0)

    def rewards(self, user: Tensor, candidates: Tensor) -> Tensor:
        """[C]: w . x."""
        return candidates @ user
