"""Vectors of responses from frozen models: hidden states of a language model, or a sentence embedder's vectors.

Every text is embedded once: vectors are stored on disk by the text and by what identifies the embedder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from fspo.errors import DataError, StorageError
from fspo.files import storage_error, writing
from fspo.identity import digest
from fspo.modeling.lm_head import hidden_states
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.types import Episode, Preference
from fspo.progress import Progress, Silent

__all__ = [
    "Embedder",
    "Embeddings",
    "HiddenStates",
    "Pooling",
    "Response",
    "SentenceVectors",
    "embedder_of",
    "read_tokens",
]

Response: TypeAlias = tuple[str, str]
"""A prompt and a response to it."""

Pooling = Literal["mean", "last"]
"""The mean over the tokens of the response, or its last token, which ends the assistant's turn."""

_TOGETHER = 16
"""Responses of similar length that go through a model at once."""
_A_FILE = 256
"""Responses in one file of the store; an interrupted call loses at most so many."""


class Embedder(Protocol):
    """Turns responses into vectors of one length."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def identity(self) -> str:
        """A text that differs for embedders that give different vectors."""

    def embed(self, responses: Sequence[Response]) -> Iterator[tuple[int, Tensor]]:
        """The place of each response and its vector [d] in float32, in any order."""


@dataclass
class HiddenStates:
    """The hidden states of a causal language model over a response, given its prompt in the chat template.

    Attributes:
        name: the model.
        load: gives the model.
        renderer: turns a prompt and a response into tokens; it shows nothing of a user.
        weights: identifies the weights.
        pooling: how the vectors of the tokens become one.
        layer: which hidden states: 0 are the embeddings of the tokens, -1 the ones before the LM head, None those
            after two thirds of the layers, which say more of how a text is written than the last ones.
        longest: tokens that the model reads at once; None: any number.
    """

    name: str
    load: Callable[[], Any]
    renderer: EpisodeRenderer
    weights: str
    pooling: Pooling = "mean"
    layer: int | None = None
    longest: int | None = None

    @property
    def identity(self) -> str:
        """Of the weights, the rendering and the pooling."""
        return f"{self.name} {digest([self.weights, self.renderer.identity, self.pooling, self.layer], 64)}"

    def embed(self, responses: Sequence[Response]) -> Iterator[tuple[int, Tensor]]:
        """The place of each response and its vector, the short ones first.

        Where prompt and response are longer than the model reads, the start of the prompt is left out; where the
        response alone is, its end is too.

        Raises:
            DataError: the model has no such layer.
        """
        rows = [self._ids(*response) for response in responses]
        order = sorted(range(len(rows)), key=lambda place: len(rows[place][0]) + len(rows[place][1]))
        for at in range(0, len(order), _TOGETHER):
            places = order[at : at + _TOGETHER]
            yield from zip(places, self._pooled([rows[place] for place in places]), strict=True)

    def _ids(self, prompt: str, response: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The tokens before the response, and its own, together no more than the model reads."""
        shown = self.renderer.render(Episode("", (), (Preference("", prompt, response, response),)))
        (branch,) = shown.branches
        own = branch.responses[0][: self.longest]
        before = (*shown.trunk_ids[: branch.boundary], *branch.prompt_ids)
        room = len(before) if self.longest is None else self.longest - len(own)
        return before[max(0, len(before) - room) :], own

    def _pooled(self, rows: Sequence[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[Tensor]:
        """Pad on the right, where no token of a causal model attends to the padding."""
        model = self.load()
        ids_BS = torch.zeros(len(rows), max(len(before) + len(own) for before, own in rows), dtype=torch.long)
        mask_BS = torch.zeros_like(ids_BS)
        for place, (before, own) in enumerate(rows):
            ids_BS[place, : len(before) + len(own)] = torch.tensor([*before, *own])
            mask_BS[place, : len(before) + len(own)] = 1
        with torch.inference_mode():
            hidden_BSd = self._states(model, ids_BS.to(model.device), mask_BS.to(model.device)).float().cpu()
        found = []
        for hidden, (before, own) in zip(hidden_BSd, rows, strict=True):
            states = hidden[len(before) : len(before) + len(own)]
            found.append(states.mean(0) if self.pooling == "mean" else states[-1].clone())
        return found

    def _states(self, model: Any, ids_BS: Tensor, mask_BS: Tensor) -> Tensor:
        if self.layer == -1:
            return hidden_states(model, input_ids=ids_BS, attention_mask=mask_BS)
        found = model.get_decoder()(
            use_cache=False, input_ids=ids_BS, attention_mask=mask_BS, output_hidden_states=True
        ).hidden_states
        layer = round(2 / 3 * (len(found) - 1)) if self.layer is None else self.layer
        if not -len(found) <= layer < len(found):
            raise DataError(
                f"The model {self.name} has hidden states 0 to {len(found) - 1}, and no layer {self.layer}; set layer "
                "to one of them, or to -1 for the last."
            )
        states: Tensor = found[layer]
        return states


@dataclass
class SentenceVectors:
    """The vectors of the sentence embedder, of responses without their prompts."""

    load: Callable[[], Any]
    """Gives a `SentenceEmbedder`."""
    name: str = "the sentence embedder"

    @property
    def identity(self) -> str:
        """Of the embedder's file."""
        from fspo.modeling.sentences import EMBEDDER

        return f"sentences {EMBEDDER.sha256}"

    def embed(self, responses: Sequence[Response]) -> Iterator[tuple[int, Tensor]]:
        """The place of each response and its vector, of length 1."""
        embedder = self.load()
        for at in range(0, len(responses), _TOGETHER):
            texts = [text for _, text in responses[at : at + _TOGETHER]]
            yield from enumerate(embedder.embed(texts).float(), start=at)


def embedder_of(
    kind: Literal["backbone", "sentence"], model: str, *, pooling: Pooling = "mean", layer: int | None = None
) -> Embedder:
    """The hidden states of the language model of that name, or the sentence embedder. Nothing is loaded yet.

    Raises:
        ModelError: the model's tokenizer can't be loaded.
    """
    if kind == "sentence":
        from fspo.modeling.sentences import SentenceEmbedder

        return SentenceVectors(_once(SentenceEmbedder.load))
    from fspo.modeling.loading import context_length, load_model, load_tokenizer, pull
    from fspo.modeling.model_names import weights_of

    weights = weights_of(model)
    if weights is None:
        pull(model, newest=False)
        weights = weights_of(model) or model
    renderer = EpisodeRenderer(load_tokenizer(model), context="none", layout="conversation")
    load = _once(lambda: load_model(model))
    return HiddenStates(model, load, renderer, weights, pooling, layer, context_length(model))


def read_tokens(renderer: EpisodeRenderer, preferences: Iterable[Preference]) -> int:
    """How many tokens a model reads to embed both responses of each, each after its prompt alone."""
    shown = (
        renderer.render(Episode("", (), (Preference("", row.prompt, row.chosen, row.rejected),))) for row in preferences
    )
    return sum(
        2 * (branch.boundary + len(branch.prompt_ids)) + sum(map(len, branch.responses))
        for one in shown
        for branch in one.branches
    )


def _once(load: Callable[[], Any]) -> Callable[[], Any]:
    """The same, called at most once."""
    held: list[Any] = []

    def get() -> Any:
        if not held:
            held.append(load())
        return held[0]

    return get


@dataclass
class Embeddings:
    """The vectors of one embedder, in memory and in a folder of safetensors files."""

    embedder: Embedder
    folder: Path
    """Holds the files of any number of embedders."""
    progress: Progress = field(default_factory=Silent)

    def add(self, responses: Iterable[Response]) -> None:
        """Embed the responses that are not there yet.

        Raises:
            DataError: a response can't be embedded.
            StorageError: the folder can't be written, or a file in it is damaged.
        """
        missing = [row for row in dict.fromkeys(responses) if _key(row) not in self._known]
        if not missing:
            return
        with self.progress.task(f"Embedding with {self.embedder.name}", len(missing), 0) as task:
            for at in range(0, len(missing), _A_FILE):
                some = missing[at : at + _A_FILE]
                found: dict[str, Tensor] = {}
                for place, vector in self.embedder.embed(some):
                    found[_key(some[place])] = vector
                    task.advance(1)
                self._save(found)

    def of(self, responses: Sequence[Response]) -> Tensor:
        """[N, d]: the vectors of responses, in order; those that are missing are embedded first."""
        self.add(responses)
        return torch.stack([self._known[_key(row)] for row in responses])

    @cached_property
    def _prefix(self) -> str:
        return digest(self.embedder.identity)

    @cached_property
    def _known(self) -> dict[str, Tensor]:
        """Key -> vector."""
        known: dict[str, Tensor] = {}
        for path in sorted(self.folder.glob(f"{self._prefix}-*.safetensors")):
            known |= _read(path)
        return known

    def _save(self, found: Mapping[str, Tensor]) -> None:
        from safetensors.torch import save_file

        keys = sorted(found)
        path = self.folder / f"{self._prefix}-{digest(keys)}.safetensors"
        with writing(path) as temporary:
            save_file({"vectors": torch.stack([found[key] for key in keys])}, temporary, {"keys": json.dumps(keys)})
        self._known.update(found)


def _key(response: Response) -> str:
    return digest(list(response), 32)


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            keys, vectors = json.loads(file.metadata()["keys"]), file.get_tensor("vectors")
        return dict(zip(keys, vectors, strict=True))
    except OSError as error:
        raise storage_error(path, error) from error
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path} holds no vectors; delete it and run the command again.") from error
