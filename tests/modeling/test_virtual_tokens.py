"""Tokens whose embeddings are given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fspo.modeling.decoding import Decoder, Stream
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.rendering import EpisodeRenderer
from fspo.modeling.virtual_tokens import first_virtual_id, virtual_tokens
from fspo.preferences.types import Episode, Preference

PAIR = Preference("ann", "What is a monad?", "A box.", "A monoid of endofunctors.")
EPISODE = Episode("ann", (), (PAIR,))


@pytest.fixture
def model(tiny_model_path: Path) -> Any:
    loaded: Any = load_model(tiny_model_path)
    return loaded.eval()


@pytest.mark.parametrize("layout", ["conversation", "labelled"])
@pytest.mark.parametrize("context", ["none", "shots"])
def test_embeddings_of_real_tokens_give_what_these_tokens_give(
    model: Any, tiny_model_path: Path, layout: Any, context: Any
) -> None:
    renderer = EpisodeRenderer(load_tokenizer(tiny_model_path), context=context, layout=layout)
    real, episode = (7, 8, 9), EPISODE if context == "none" else replace(EPISODE, shots=(PAIR, PAIR))
    vectors = model.get_input_embeddings().weight[list(real)].detach().clone().requires_grad_(True)
    (expected,) = branch_logprobs(model, [renderer.with_prefix(real).render(episode)])
    with virtual_tokens(model, vectors) as ids:
        assert ids[0] == first_virtual_id(model)
        (found,) = branch_logprobs(model, [renderer.with_prefix(ids).render(episode)])
    assert torch.allclose(found.sums, expected.sums, atol=1e-4)
    found.sums[0, 0].backward()
    assert vectors.grad is not None
    assert float(vectors.grad.abs().min(dim=1).values.max()) > 0


def test_answers_follow_them(model: Any, tiny_model_path: Path) -> None:
    renderer = EpisodeRenderer(load_tokenizer(tiny_model_path), context="none", layout="conversation")

    def next_token(prefix: tuple[int, ...]) -> torch.Tensor:
        shown = renderer.with_prefix(prefix).render_prompt((), "What is a monad?")
        with torch.no_grad():
            return Decoder(model, [Stream(shown.trunk_ids, shown.prompt_ids)], 1).scores

    plain = next_token((7, 8))
    with virtual_tokens(model, model.get_input_embeddings().weight[[7, 8]].detach()) as ids:
        assert torch.allclose(next_token(ids), plain, atol=1e-5)
    with virtual_tokens(model, model.get_input_embeddings().weight[[9, 10]].detach()) as ids:
        assert not torch.allclose(next_token(ids), plain, atol=1e-3)


def test_the_model_is_as_before_afterwards(model: Any) -> None:
    embedding = model.get_input_embeddings()
    before = embedding(torch.tensor([1, 2]))
    with pytest.raises(ZeroDivisionError), virtual_tokens(model, torch.zeros(1, 32)):
        raise ZeroDivisionError
    assert torch.equal(embedding(torch.tensor([1, 2])), before)
    assert "forward" not in vars(embedding)


def test_a_prefix_takes_no_room_from_the_shots(tiny_model_path: Path) -> None:
    episode = replace(EPISODE, shots=(PAIR,) * 4)
    tokenizer = load_tokenizer(tiny_model_path)
    longest = EpisodeRenderer(tokenizer, layout="conversation").render(episode).longest
    renderer = EpisodeRenderer(tokenizer, layout="conversation", max_length=longest)
    assert renderer.render(episode).dropped_shots == 0
    assert renderer.with_prefix((7,) * 40).render(episode).dropped_shots == 0
    assert renderer.with_prefix((7,) * 40).with_prefix(()).max_length == longest
