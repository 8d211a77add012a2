"""NP-DPO: a neural process encodes the shots, and its output conditions every block of a policy (arXiv 2412.13998).

The policy is the base model with low-rank adapters; z, which the shots are encoded as, sets factors and shifts of the
states after each block (`fspo.methods.neural_process` has the formulas). Encoder, factors, shifts and adapters learn
together by DPO on the queries of training users, each after a random number of their shots; the reference is the base
model without any of it. The policy reads nothing of the user, so that an answer costs no tokens for the shots, and of a
user only z is stored.

The released run of the paper drifts to what most users like. With `mirror`, each episode is trained on together with
its mirror: a policy that ignores z then gets the same margin h in both, and no lower loss than at the start, since
-log sigmoid(b h) - log sigmoid(-b h) is least at h = 0.

Unlike the paper, features are the base model's whitened hidden states in the place of a larger model's embeddings, and
sizes are chosen for small models.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from fspo.methods.adaptation import Adaptation, AdaptationInput, AdaptationWork, UserState
from fspo.methods.method import Job, Method, train_once
from fspo.training.companion import COMPANION, Companion, load_companion
from fspo.training.config import Needs, TrainingConfig

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from fspo.methods.neural_process import Embed
    from fspo.modeling.embeddings import Embedder, Response
    from fspo.modeling.rendering import Context, EpisodeRenderer
    from fspo.preferences.dataset import PreferenceDataset
    from fspo.preferences.types import Episode, Preference
    from fspo.training.steps import StepCollator, Unit

__all__ = ["ROWS", "NpDpo", "NpDpoSettings", "ShotProcess"]

_OWN = ("hidden", "heads", "last_blocks", "embedding", "pooling", "layer")
"""Settings that the policy needs when it is used."""
_MOST_FITTED = 1000
"""Preferences that the space of features is fitted on."""


class NpDpoSettings(TrainingConfig):
    """Settings of the training of NP-DPO. Shots that an episode has at most are `shots`."""

    needs: ClassVar[Needs] = {
        **TrainingConfig.needs,
        "pooling": ("embedding backbone", lambda config: config.embedding == "backbone"),
        "layer": ("embedding backbone", lambda config: config.embedding == "backbone"),
    }

    hidden: int = Field(default=64, ge=8, multiple_of=8, description="Numbers that a user is encoded as.")
    heads: int = Field(default=8, ge=1, description="Heads of the attention among the shots; they divide `hidden`.")
    components: int = Field(
        default=32, ge=1, description="Features of a response: directions in which responses to one question differ."
    )
    embedding: Literal["backbone", "sentence"] = Field(
        default="backbone", description="What embeds responses: the base model's hidden states, or a sentence embedder."
    )
    pooling: Literal["mean", "last"] = Field(
        default="mean", description="Of the backbone: the mean over the tokens of a response, or its last one."
    )
    layer: int | None = Field(
        default=None,
        description="Of the backbone: which hidden states; 0 are the embeddings of the tokens, -1 the last ones, null "
        "those after two thirds of the layers.",
    )
    last_blocks: int | None = Field(
        default=None, ge=1, description="Condition only so many of the last blocks; null: all."
    )
    fewest_shots: int = Field(
        default=0, ge=0, description="How many shots an episode has is drawn from this number up to `shots`."
    )

    @model_validator(mode="after")
    def _conditioned(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"heads: {self.heads} do not divide hidden, which is {self.hidden}")
        wrong = {
            "lora": (self.lora is None, "the policy is trained by adapters, so that the base model is the reference"),
            "describe": (self.describe != "none", "the policy reads nothing of the user"),
            "ladder": (self.ladder is not None, "the number of shots is drawn; set fewest_shots and shots"),
            "shots": (self.shots == 0, "the policy is conditioned on shots; set at least 1"),
            "fewest_shots": (self.fewest_shots > self.shots, f"there are at most {self.shots} shots"),
        }
        for name, (given, why) in wrong.items():
            if given:
                raise ValueError(f"{name}: {why}")
        return self


class ShotProcess(Companion):
    """A neural process over the shots, as weights beside a policy."""

    reads_shots: ClassVar[bool] = True

    def __init__(self, config: NpDpoSettings, dataset: PreferenceDataset, embed: Embed) -> None:
        """`dataset` is the training part, on whose responses the space of features is fitted."""
        self.config, self.dataset, self.embed = config, dataset, embed

    def identity(self) -> Mapping[str, Any]:
        """Settings and data say it all."""
        return {"kind": "neural process"}

    def record(self) -> Mapping[str, Any]:
        """What the files of the weights don't say."""
        return {name: getattr(self.config, name) for name in _OWN}

    def build(self, policy: Any) -> nn.Module:
        """Fit the space of features, and make weights that condition nothing yet."""
        import torch

        from fspo.methods.features import FeatureSpace
        from fspo.methods.neural_process import NeuralProcess, blocks_of

        config, rows = self.config, list(self.dataset)
        drawn = random.Random(config.seed).sample(rows, min(len(rows), _MOST_FITTED))
        responses = {(row.prompt, text): row.question_key for row in drawn for text in (row.chosen, row.rejected)}
        space = FeatureSpace.fit(self.embed(list(responses)), list(responses.values()), config.components)
        torch.manual_seed(config.seed)  # what embeds may have drawn random numbers
        blocks, width = blocks_of(policy, config.last_blocks), policy.get_input_embeddings().embedding_dim
        return NeuralProcess(space, hidden=config.hidden, heads=config.heads, blocks=len(blocks), width=width)

    def units(self, collator: StepCollator, index: int, episode: Episode) -> Sequence[Unit]:
        """The episode with the first of its shots, as many as its number says; the policy reads none of them."""
        most = len(episode.shots)
        fewest = min(most, max(self.config.fewest_shots, collator.config.mirrors))  # a mirror swaps at least one label
        count = random.Random(f"{self.config.seed} shots {index}").randint(fewest, most)
        return [replace(collator.unit(index, episode), episode=episode.with_shots(episode.shots[:count]))]

    @contextmanager
    def enter(self, policy: torch.nn.Module, units: Sequence[Unit]) -> Iterator[None]:
        """Condition every token of the row on z of its episode."""
        import torch

        from fspo.methods.neural_process import blocks_of

        inner: Any = getattr(policy, "module", policy)  # without what several processes put around it
        process: Any = inner.get_submodule(COMPANION)
        z, sizes = [], []
        for unit in units:
            assert unit.episode is not None
            for shown, tokens in zip((unit.episode, unit.episode.flip_shots()), unit.policy, strict=False):
                z.append(process.encode_shots(shown.shots, self.embed))
                sizes.append(tokens.tokens)
        owners_T = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(z[0].device)
        with process.film.on(blocks_of(inner, self.config.last_blocks), torch.stack(z), owners_T):
            yield


class NpDpo(Adaptation):
    """The policy that a user's z conditions."""

    in_context: ClassVar[Context] = "none"
    keeps_adapters: ClassVar[bool] = True
    least_shots: ClassVar[int] = 0

    def prepare(self) -> None:
        """Read what training left beside the adapters.

        Raises:
            ModelError: the policy was trained by another method, or its files are damaged.
        """
        from fspo.methods.neural_process import NeuralProcess, blocks_of
        from fspo.modeling.policies import read_card

        assert self.folder is not None, "it trains a policy"
        state, record = load_companion(self.folder)
        self.process = NeuralProcess.of(state, hidden=record["hidden"], heads=record["heads"]).to(self.model.device)
        self.blocks = blocks_of(self.model, record["last_blocks"])
        self.embedder = _embedder(record, read_card(self.folder).base, self.model)

    def adapt(self, shots: Sequence[Preference]) -> UserState:
        """The encoding of the shots."""
        import torch

        with torch.no_grad():
            return UserState({"z": self.process.encode_shots(shots, self.embed)})

    @classmethod
    def work(cls, given: AdaptationInput) -> AdaptationWork:
        """The base model reads every response; a sentence embedder is so small that it counts as nothing."""
        from fspo.modeling.embeddings import read_tokens

        if isinstance(given.training, NpDpoSettings) and given.training.embedding == "sentence":
            return AdaptationWork()
        return AdaptationWork(read_tokens(given.renderer, given.shots))

    def embed(self, responses: Sequence[Response]) -> Tensor:
        """[N, e]: the vectors of responses, by the base model."""
        import torch

        model: Any = self.model
        with model.disable_adapter():
            found = dict(self.embedder.embed(responses))
        return torch.stack([found[place] for place in range(len(responses))])

    @contextmanager
    def using(self, state: UserState) -> Iterator[EpisodeRenderer]:
        """Condition the blocks on z."""
        with self.process.film.on(self.blocks, state.tensors["z"][None]):
            yield self.renderer


def _embedder(settings: Mapping[str, Any], base: str, model: Any = None) -> Embedder:
    """What embeds responses; with a model in memory, whose adapters are off then, no other one is loaded."""
    from fspo.modeling.embeddings import HiddenStates, embedder_of

    found = embedder_of(settings["embedding"], base, pooling=settings["pooling"], layer=settings["layer"])
    if model is not None and isinstance(found, HiddenStates):
        found.load = model.get_base_model
    return found


def _train(job: Job) -> Path:
    """Train policy and neural process; every response is embedded once.

    Raises:
        FspoError: see `fspo.training.train.train_policy`.
    """
    from fspo.modeling.embeddings import Embeddings

    config = job.config
    assert isinstance(config, NpDpoSettings)
    parts = [part for part in (job.dataset, job.validation) if part is not None]
    held: list[Embeddings] = []

    def embed(responses: Sequence[Response]) -> Tensor:
        if not held:
            folder = job.embeddings or job.out.parent / "embeddings"
            held.append(Embeddings(_embedder(config.model_dump(), str(job.model)), folder, job.progress))
            held[0].add((row.prompt, text) for part in parts for row in part for text in (row.chosen, row.rejected))
        return held[0].of(responses)

    return train_once(job, ShotProcess(config, job.dataset, embed))


ROWS = (
    Method(
        "np-dpo",
        "NP-DPO",
        "shots",
        ("dpo",),
        None,
        "start",
        "A neural process over the shots conditions every block of the policy; nothing of the user is in the context.",
        {"beta": 0.05, "reference": "none", "shots": 8},
        settings=NpDpoSettings,
        train=_train,
        adaptation=NpDpo,
        trains_on_shots=True,
    ),
)
