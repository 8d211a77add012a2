"""A neural process over shots that conditions every block of a language model (NP-DPO, arXiv 2412.13998).

A shot is [x; x'], the features of its chosen and its rejected response, and of k shots

    z = MLP(sum over shots of attention(W [x_i; x'_i])).

After block l the state s becomes (1 + g_l) s + b_l with (g_l, b_l) = A_l z + c_l (FiLM, arXiv 1709.07871). A_l and c_l
are 0 at the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from fspo.errors import ConfigError, ModelError
from fspo.methods.features import FeatureSpace
from fspo.methods.readers.np_btl import encode_pairs
from fspo.modeling.embeddings import Response
from fspo.preferences.types import Preference

__all__ = ["Embed", "Film", "NeuralProcess", "blocks_of"]

Embed = Callable[[Sequence[Response]], Tensor]
"""[N, e]: the vectors of responses, in order."""


class Film(nn.Module):
    """Factors and shifts of the states after each block, as linear functions of z."""

    def __init__(self, blocks: int, hidden: int, width: int) -> None:
        """Condition nothing yet: all factors are 1 and all shifts 0."""
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(hidden, 2 * width) for _ in range(blocks))
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    @contextmanager
    def on(self, blocks: Sequence[nn.Module], z_EH: Tensor, owners_T: Tensor | None = None) -> Iterator[None]:
        """Condition the blocks of a model; gradients flow to z and to the maps.

        Args:
            blocks: as many as there are maps.
            z_EH: one z for each of E episodes.
            owners_T: for each token of the one row that the model reads, its episode; None: there is one episode, and
                rows of any shape are its.
        """
        with ExitStack() as stack:
            for block, linear in zip(blocks, self.maps, strict=True):
                found = linear(z_EH)
                factor, shift = (found[0] if owners_T is None else found[owners_T]).chunk(2, dim=-1)
                stack.callback(block.register_forward_hook(_modulated(1 + factor, shift)).remove)
            yield


def _modulated(factor: Tensor, shift: Tensor) -> Any:
    def modulate(_: nn.Module, __: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        changed = states * factor.to(states) + shift.to(states)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return modulate


class NeuralProcess(nn.Module):
    """From the embeddings of a user's shots to z, and from z to the factors and shifts of a model's blocks."""

    def __init__(self, space: FeatureSpace, *, hidden: int, heads: int, blocks: int, width: int) -> None:
        """Make the weights, for z of width `hidden`, and so many `blocks` of a model with states of this `width`."""
        super().__init__()
        self.space = space
        self.pair = nn.Linear(2 * space.projection.shape[1], hidden)
        self.attention = nn.MultiheadAttention(hidden, heads, batch_first=True)
        self.latent = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.film = Film(blocks, hidden, width)

    def encode(self, chosen_KE: Tensor, rejected_KE: Tensor) -> Tensor:
        """[H]: z from the embeddings of the shots' responses; without shots that of an unknown user."""
        features = (self.space(side.to(self.space.mean)) for side in (chosen_KE, rejected_KE))
        return encode_pairs(self, *(side[None] for side in features))[0]

    def encode_shots(self, shots: Sequence[Preference], embed: Embed) -> Tensor:
        """[H]: z of the user who gave these shots, maybe none."""
        width = len(self.space.mean)
        sides = [
            embed([(shot.prompt, text) for shot, text in texts]) if texts else torch.zeros(0, width)
            for texts in ([(s, s.chosen) for s in shots], [(s, s.rejected) for s in shots])
        ]
        return self.encode(*sides)

    @classmethod
    def of(cls, state: Mapping[str, Tensor], *, hidden: int, heads: int) -> NeuralProcess:
        """The one whose weights these are.

        Raises:
            ModelError: they are of something else.
        """
        try:
            blocks = len({name for name in state if name.startswith("film.maps.") and name.endswith(".bias")})
            space, width = FeatureSpace(*state["space.projection"].shape), len(state["film.maps.0.bias"]) // 2
            made = cls(space, hidden=hidden, heads=heads, blocks=blocks, width=width)
            made.load_state_dict(dict(state))
        except (KeyError, RuntimeError) as error:
            raise ModelError(f"The policy's own weights are of something else ({error}); train it again.") from error
        return made.eval().requires_grad_(False)


def blocks_of(model: Any, last: int | None = None) -> list[nn.Module]:
    """The blocks of a model, with or without adapters: all, or so many of the last.

    Raises:
        ConfigError: it has fewer.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    blocks = list(inner.get_decoder().layers)
    if last is not None and last > len(blocks):
        raise ConfigError(f"last_blocks: {last}, but the model has only {len(blocks)} blocks.")
    return blocks if last is None else blocks[-last:]
