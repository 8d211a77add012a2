"""Steering: the mean difference of hidden states of chosen and rejected responses is added while the model reads.

Let h_l(x, y) be the state after block l, as the mean over the tokens of response y or as that of its last one, given
prompt x and nothing of the user. For a user with the shots (x_i, y_i, y'_i), i = 1 .. k,

    v = 1/k sum_i [h_l(x_i, y_i) - h_l(x_i, y'_i)],

and this user's policy adds a v to the state after block l at every position, for a strength a. Nothing is trained. With
mirrored shots v has the opposite sign. The vector is that of contrastive activation addition (arXiv 2312.06681), with a
user's preferences in the place of pairs that show a behaviour; there the prompt is left as it is, here it is not.

The reward is log pi(y | x, a v) - log pi(y | x). To first order in a it is linear in v. What shots contradict one
another in, such as a taste that changes with the prompt, has a v of 0 and can't be followed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from fspo.errors import ConfigError
from fspo.methods.adaptation import Adaptation, AdaptationInput, AdaptationSettings, AdaptationWork, UserState
from fspo.methods.method import Method
from fspo.preferences.types import Preference

if TYPE_CHECKING:
    from torch import Tensor, nn

    from fspo.modeling.rendering import Context, EpisodeRenderer

__all__ = ["ROWS", "Steering", "SteeringSettings", "added_to", "block_after", "steering_vector"]


class SteeringSettings(AdaptationSettings):
    """Settings of steering."""

    layer: int | None = Field(default=None, ge=1)
    """The block after which the vector is read and added, counted from 1; it can't be the last one. Null: the one after
    two thirds of the blocks."""
    pooling: Literal["mean", "last"] = "mean"
    """The state of a response: the mean over its tokens, or its last token."""
    strength: float = 1.0
    """The vector is added so many times. A negative number steers the other way."""
    length: Literal["shots", "states"] = "shots"
    """Length of the vector before the strength: `shots` leaves it as the shots give it, so that it is longer where they
    agree; `states` gives every user a vector as long as the states of responses are on average."""


class Steering(Adaptation):
    """A vector in the residual stream, from the user's shots."""

    Settings = SteeringSettings
    in_context: ClassVar[Context] = "none"

    def prepare(self) -> None:
        """Find the block.

        Raises:
            ConfigError: the model has too few blocks.
        """
        from fspo.modeling.embeddings import HiddenStates

        model, renderer, pooling = self.model, self.renderer, self.settings.pooling
        layer, self.block = block_after(model, self.settings.layer)
        name = str(model.name_or_path)
        self.states = HiddenStates(name, lambda: model, renderer, "", pooling, layer, renderer.max_length)

    def adapt(self, shots: Sequence[Preference]) -> UserState:
        """The vector, in float32."""
        import torch

        responses = [(shot.prompt, text) for shot in shots for text in (shot.chosen, shot.rejected)]
        found = dict(self.states.embed(responses))
        states = torch.stack([found[place] for place in range(len(responses))]).view(len(shots), 2, -1)
        scaled = self.settings.length == "states"
        return UserState({"vector": steering_vector(states[:, 0], states[:, 1], scaled=scaled)})

    @classmethod
    def work(cls, given: AdaptationInput) -> AdaptationWork:
        """The model reads every response once."""
        from fspo.modeling.embeddings import read_tokens

        return AdaptationWork(read_tokens(given.renderer, given.shots))

    @contextmanager
    def using(self, state: UserState) -> Iterator[EpisodeRenderer]:
        """Add the vector at every position."""
        vector = state.tensors.get("vector")
        if vector is None:
            yield self.renderer
            return
        with added_to(self.block, self.settings.strength * vector):
            yield self.renderer


def steering_vector(chosen_KD: Tensor, rejected_KD: Tensor, *, scaled: bool = False) -> Tensor:
    """[D]: the mean of chosen minus rejected states; `scaled`: as long as the states are on average."""
    import torch

    vector_D = (chosen_KD - rejected_KD).mean(0)
    if not scaled:
        return vector_D
    usual = torch.cat([chosen_KD, rejected_KD]).norm(dim=1).mean()
    scale: Tensor = usual / vector_D.norm().clamp(min=torch.finfo(torch.float32).tiny)
    return vector_D * scale


def block_after(model: Any, layer: int | None) -> tuple[int, nn.Module]:
    """Number and module of the block of that number, counted from 1; of None, the one after two thirds of the blocks.

    Raises:
        ConfigError: there is none, or it is the last one.
    """
    blocks = model.get_decoder().layers
    number = max(1, round(2 / 3 * len(blocks))) if layer is None else layer
    if number >= len(blocks):
        raise ConfigError(
            f"Steering adds its vector after block {number}, but the model has {len(blocks)} blocks and it must be "
            f"below the last one; set adaptations.steering.layer to at most {len(blocks) - 1}."
        )
    return number, blocks[number - 1]


@contextmanager
def added_to(block: nn.Module, vector: Tensor) -> Iterator[None]:
    """Add a vector [D] to the states that a block gives."""

    def add(_: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + vector.to(output[0]), *output[1:])
        return output + vector.to(output)

    handle = block.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


ROWS = (
    Method(
        "steering",
        "Steering vector",
        "shots",
        (),
        None,
        "start",
        "The model as it is, with the mean difference between the states of chosen and rejected responses added.",
        adaptation=Steering,
    ),
)
