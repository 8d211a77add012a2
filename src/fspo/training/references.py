"""What a policy is measured against: itself with its adapters off, or a frozen copy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch.distributed.fsdp import FSDPModule

from fspo.training.losses import Reference

if TYPE_CHECKING:
    from peft.tuners.tuners_utils import BaseTuner

__all__ = ["FrozenReference", "reference_of", "trainable_weights"]


class FrozenReference:
    """A frozen copy as the reference model; no part of the model in training, but sharded or placed as that one is."""

    def __init__(self, frozen: torch.nn.Module, model: torch.nn.Module) -> None:
        """`frozen` becomes the reference of `model`: from now on it is never trained, and drops nothing out."""
        self.frozen, self._model = frozen.requires_grad_(False).eval(), model

    def __call__(self) -> AbstractContextManager[torch.nn.Module]:
        """Enter the reference model."""
        if isinstance(self.frozen, FSDPModule):
            return nullcontext(self.frozen)
        return nullcontext(self.frozen.to(next(self._model.parameters()).device))


def reference_of(model: torch.nn.Module, frozen: torch.nn.Module | None) -> Reference:
    """The reference model: `frozen` if there is one, else `model` with its adapters off."""

    @contextmanager
    def without_adapters() -> Iterator[torch.nn.Module]:
        was_training, trained = model.training, trainable_weights(model).values()
        adapted: BaseTuner = model.base_model  # type: ignore[assignment]
        if was_training:
            model.eval()  # a reference drops nothing out
        try:
            adapted.disable_adapter_layers()  # as model.disable_adapter(), which also inspects every layer
            for weight in trained:
                weight.requires_grad_(True)  # peft turns this off, and sharded weights would remember it
            yield model
        finally:
            adapted.enable_adapter_layers()
            if was_training:
                model.train()

    return without_adapters if frozen is None else FrozenReference(frozen, model)


def trainable_weights(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The weights that are trained, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
