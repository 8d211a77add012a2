"""Weights of a method's own that are trained beside the adapters of a policy, such as soft tokens of each user.

A companion is trained, saved and resumed with the policy: its weights are a part of the model in training. It says what
is scored of an episode, and what it changes while the policy scores; the reference never sees it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from fspo.errors import ModelError, StorageError
from fspo.files import read_json, write_json

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    import torch

    from fspo.preferences.types import Episode
    from fspo.training.steps import StepCollator, Unit

__all__ = ["COMPANION", "Companion", "attach", "load_companion", "save_companion"]

COMPANION = "companion"
"""The part of the model in training, and the files in the policy's folder."""


class Companion(ABC):
    """Weights of a method's own."""

    reads_shots: ClassVar[bool] = False
    """Whether it makes something of the shots, which are then drawn, and have labels to mirror, without being shown."""

    @abstractmethod
    def identity(self) -> Mapping[str, Any]:
        """What decides which weights come out, besides settings and data; ready for JSON."""

    @abstractmethod
    def build(self, policy: Any) -> torch.nn.Module:
        """The weights before the first step, for a policy with fresh adapters."""

    @abstractmethod
    def units(self, collator: StepCollator, index: int, episode: Episode) -> Sequence[Unit]:
        """What is scored of an episode, each with its weight in the loss."""

    @abstractmethod
    def enter(self, policy: torch.nn.Module, units: Sequence[Unit]) -> AbstractContextManager[None]:
        """Let the weights take part while the policy scores these units."""

    def record(self) -> Mapping[str, Any]:
        """What is saved beside the weights, ready for JSON."""
        return {}


def attach(companion: Companion, policy: torch.nn.Module, seed: int) -> None:
    """Make the companion's weights a part of the policy, so that they are trained and checkpointed with it."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = companion.build(policy)
    policy.add_module(COMPANION, built.to(next(policy.parameters()).device))


def save_companion(companion: Companion, policy: torch.nn.Module, folder: Path) -> None:
    """Write the weights and the record into the folder of a policy."""
    from safetensors.torch import save_file

    tensors = policy.get_submodule(COMPANION).state_dict()
    save_file(
        {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()},
        folder / f"{COMPANION}.safetensors",
    )
    write_json(folder / f"{COMPANION}.json", dict(companion.record()))


def load_companion(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The weights and the record in the folder of a policy.

    Raises:
        ModelError: there are none.
        StorageError: they can't be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / f"{COMPANION}.safetensors"
    if not path.is_file():
        raise ModelError(f"{folder} lacks {path.name}, the method's own weights; train the method again.")
    try:
        return load_file(path), read_json(folder / f"{COMPANION}.json")
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{path} can't be read ({error}); train the method again.") from error
