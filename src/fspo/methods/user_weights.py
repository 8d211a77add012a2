"""Small weights that belong to one user, laid over a frozen model by hooks and taken off again.

They are named tensors beside the model: the model itself never changes, so that it can serve other users, other methods
and the reference at once.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from fspo.errors import ConfigError
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.rendering import TokenizedEpisode
from fspo.training import objectives

__all__ = ["LowRank", "NormScales", "UserWeights", "pair_margins", "take_steps"]

_LAYER = re.compile(r"\.(\d+)\.")


class UserWeights(ABC):
    """Places in a model where weights of a user are added."""

    @abstractmethod
    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Weights that change nothing yet, in float32."""

    @abstractmethod
    def distance(self, weights: Mapping[str, Tensor]) -> Tensor:
        """How far the user's model is from the start: a sum of squares, which is 0 where nothing has changed."""

    @abstractmethod
    def _hook(self, name: str, weights: Mapping[str, Tensor]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        """What happens to the output of one part."""

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        self.parts = dict(parts)

    @contextmanager
    def on(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Lay the weights over the model; none of them leaves it as it is."""
        with ExitStack() as stack:
            for name, part in self.parts.items() if weights else ():
                handle = part.register_forward_hook(self._hook(name, weights))
                stack.callback(handle.remove)
            yield


class LowRank(UserWeights):
    """Low-rank adapters (LoRA, arXiv 2106.09685): W x + (alpha / r) B A x in every linear layer, B = 0 at the start."""

    def __init__(self, model: Any, *, rank: int, alpha: float, last_layers: int | None = None) -> None:
        """Put adapters on the linear layers of the last layers, or of all, but not on the output layer.

        Raises:
            ConfigError: the model has fewer layers.
        """
        head = model.get_output_embeddings()
        linear = {
            name: part
            for name, part in model.named_modules()
            if isinstance(part, nn.Linear | Conv1D) and part is not head
        }
        super().__init__(_of_last_layers(linear, model, last_layers))
        self.rank, self.scale = rank, alpha / rank

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """A [r, in] of normal numbers with variance 1 / r, and B [out, r] of zeros."""
        found = {}
        for name, part in self.parts.items():
            rows, columns = _sizes(part)
            device = next(part.parameters()).device
            drawn = torch.randn(self.rank, columns, generator=generator) / self.rank**0.5
            found[f"{name}.A"] = drawn.to(device)
            found[f"{name}.B"] = torch.zeros(rows, self.rank, device=device)
        return found

    def distance(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The sum of squares of all B."""
        return torch.stack([value.square().sum() for name, value in weights.items() if name.endswith(".B")]).sum()

    def _hook(self, name: str, weights: Mapping[str, Tensor]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        a, b = weights[f"{name}.A"], weights[f"{name}.B"]

        def add(_: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            (x,) = inputs
            added: Tensor = (x @ a.T.to(x.dtype)) @ b.T.to(x.dtype)
            return output + self.scale * added

        return add


class NormScales(UserWeights):
    """Factors on the outputs of the norms: (1 + s) * norm(x), s = 0 at the start; the smallest weights there are."""

    def __init__(self, model: Any, *, last_layers: int | None = None) -> None:
        """Put factors on the norms of the last layers, or of all.

        Raises:
            ConfigError: the model has fewer layers, or no norms with a weight.
        """
        norms = {name: part for name, part in model.named_modules() if _is_norm(part)}
        found = _of_last_layers(norms, model, last_layers)
        if not found:
            raise ConfigError(f"{type(model).__name__} has no norms to scale; set weights: low-rank.")
        super().__init__(found)

    def start(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Zeros, s [d] for each norm."""
        weights: dict[str, Any] = {name: part.weight for name, part in self.parts.items()}
        return {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}

    def distance(self, weights: Mapping[str, Tensor]) -> Tensor:
        """The sum of squares of all s."""
        return torch.stack([value.square().sum() for value in weights.values()]).sum()

    def _hook(self, name: str, weights: Mapping[str, Tensor]) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        scale = weights[name]
        return lambda _, inputs, output: output * (1 + scale.to(output.dtype))


def take_steps(
    weights: Mapping[str, Tensor], loss: Callable[[Mapping[str, Tensor], int], Tensor], *, steps: int, rate: float
) -> dict[str, Tensor]:
    """Weights after steps of Adam on `loss`, which gets the weights and the number of the step.

    The gradient is clipped to norm 1. It is on here wherever the caller has it off.
    """
    with torch.inference_mode(False), torch.enable_grad():
        moved = {name: value.detach().clone().requires_grad_(True) for name, value in weights.items()}
        optimizer = torch.optim.Adam(moved.values(), lr=rate)
        for step in range(steps):
            optimizer.zero_grad()
            torch.autograd.backward(loss(moved, step), inputs=list(moved.values()))
            nn.utils.clip_grad_norm_(moved.values(), 1.0)
            optimizer.step()
    return {name: value.detach() for name, value in moved.items()}


def pair_margins(model: nn.Module, episodes: Sequence[TokenizedEpisode]) -> Tensor:
    """How much likelier the first response of each pair is than the second, in nats: [P], through all episodes."""
    sums = torch.cat([scored.sums for scored in branch_logprobs(model, episodes)])
    return objectives.margins(sums[:, 0], sums[:, 1])


def _is_norm(part: nn.Module) -> bool:
    weight = getattr(part, "weight", None)
    return "norm" in type(part).__name__.lower() and isinstance(weight, Tensor) and weight.dim() == 1


def _sizes(part: nn.Module) -> tuple[int, int]:
    """Rows and columns of the map x -> W x."""
    weight: Any = part.weight
    first, second = weight.shape
    return (second, first) if isinstance(part, Conv1D) else (first, second)


def _of_last_layers(parts: Mapping[str, nn.Module], model: Any, last: int | None) -> dict[str, nn.Module]:
    """The parts of the last layers, or all of them."""
    if last is None:
        return dict(parts)
    count = model.config.get_text_config().num_hidden_layers
    if last > count:
        raise ConfigError(f"last_layers: {last}, but the model has only {count} layers.")
    numbers = {name: int(found[1]) for name in parts if (found := _LAYER.search(f".{name}."))}
    return {name: part for name, part in parts.items() if numbers.get(name, -1) >= count - last}
