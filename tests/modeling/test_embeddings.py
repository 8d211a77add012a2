"""Embeddings of responses by frozen models, and their store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fspo.errors import DataError, StorageError
from fspo.modeling.embeddings import Embeddings, HiddenStates, Response, embedder_of

RESPONSES = [("How was it?", "Good."), ("How was it?", "It was far too long, and dull."), ("Why?", "Good.")]


def embedder(model: Path, **settings: object) -> HiddenStates:
    found = embedder_of("backbone", str(model), **settings)  # type: ignore[arg-type]
    assert isinstance(found, HiddenStates)
    return found


def vectors(of: HiddenStates, responses: Sequence[Response] = RESPONSES) -> Tensor:
    found = dict(of.embed(responses))
    return torch.stack([found[place] for place in range(len(responses))])


def test_a_vector_is_the_mean_over_the_tokens_of_the_response(tiny_model_path: Path) -> None:
    own = embedder(tiny_model_path, layer=-1)
    model = own.load()
    found = vectors(own)
    for response, vector in zip(RESPONSES, found, strict=True):
        before, tokens = own._ids(*response)
        with torch.inference_mode():
            hidden = model.model(torch.tensor([[*before, *tokens]])).last_hidden_state[0]
        assert torch.allclose(vector, hidden[len(before) :].mean(0), atol=1e-5)
        last = vectors(embedder(tiny_model_path, pooling="last", layer=-1), [response])[0]
        assert torch.allclose(last, hidden[-1], atol=1e-5)
    assert not torch.allclose(found[0], found[2], atol=1e-3), "the same words after another prompt"


def test_layers_are_counted_from_the_embeddings_of_the_tokens(tiny_model_path: Path) -> None:
    first, middle, last = (vectors(embedder(tiny_model_path, layer=layer)) for layer in (0, 1, 2))
    assert torch.allclose(last, vectors(embedder(tiny_model_path, layer=-1)), atol=1e-5)
    assert torch.allclose(middle, vectors(embedder(tiny_model_path)), atol=1e-5), "two thirds of two layers"
    assert torch.allclose(first[0], first[2], atol=1e-6), "embeddings of tokens know no prompt"
    with pytest.raises(DataError, match="hidden states 0 to 2, and no layer 7"):
        vectors(embedder(tiny_model_path, layer=7))


def test_of_what_is_too_long_the_response_stays(tiny_model_path: Path) -> None:
    own = embedder(tiny_model_path)
    before, tokens = own._ids(*RESPONSES[1])
    for longest, kept in ((len(tokens) + 3, 3), (len(tokens), 0), (4, 0)):
        own.longest = longest
        found = own._ids(*RESPONSES[1])
        assert found == (before[len(before) - kept :], tokens[:longest])
        assert torch.isfinite(vectors(own)).all()


def test_embedders_that_differ_have_other_identities(tiny_model_path: Path) -> None:
    settings: list[dict[str, object]] = [{}, {"pooling": "last"}, {"layer": -1}]
    names = {embedder(tiny_model_path, **one).identity for one in settings}
    assert len(names | {embedder_of("sentence", str(tiny_model_path)).identity}) == 4
    assert embedder(tiny_model_path).identity in names


class Counting:
    """Counts how many letters a response has, and how often it is asked."""

    name = identity = "counting"

    def __init__(self) -> None:
        self.asked: list[Response] = []

    def embed(self, responses: Sequence[Response]) -> Iterator[tuple[int, Tensor]]:
        for place in reversed(range(len(responses))):
            self.asked.append(responses[place])
            yield place, torch.tensor([float(len(part)) for part in responses[place]])


def test_every_response_is_embedded_once(tmp_path: Path) -> None:
    first = Embeddings(Counting(), tmp_path)
    first.add([*RESPONSES[:2], *RESPONSES[:2]])
    assert first.of(RESPONSES).tolist() == [[float(len(part)) for part in row] for row in RESPONSES]
    assert sorted(first.embedder.asked) == sorted(RESPONSES)  # type: ignore[attr-defined]
    again = Embeddings(Counting(), tmp_path)
    assert torch.equal(again.of(RESPONSES), first.of(RESPONSES))
    assert again.embedder.asked == []  # type: ignore[attr-defined]


def test_embedders_do_not_share_vectors(tmp_path: Path) -> None:
    Embeddings(Counting(), tmp_path).add(RESPONSES)
    other = Counting()
    other.identity = "another"
    Embeddings(other, tmp_path).add(RESPONSES)
    assert len(other.asked) == len(RESPONSES)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    Embeddings(Counting(), tmp_path).add(RESPONSES)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(StorageError, match=f"{path.name} holds no vectors; delete it"):
        Embeddings(Counting(), tmp_path).add(RESPONSES)
