"""The policy of one user, where a method changes weights or context for each user by code of its own."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fspo.modeling.rendering import EpisodeRenderer
    from fspo.preferences.types import Preference

__all__ = ["PerUser", "UserView"]


@dataclass(frozen=True)
class UserView:
    """The policy of one user, for as long as it is entered."""

    model: PreTrainedModel
    renderer: EpisodeRenderer
    """Renders what this user's policy reads."""
    text: str
    """Stands in the place of the user's description."""


class PerUser(Protocol):
    """Gives every user a policy of their own."""

    def for_user(self, shots: Sequence[Preference]) -> AbstractContextManager[UserView]:
        """Enter the policy of a user who gave these shots, maybe none."""
