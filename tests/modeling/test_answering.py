from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from fspo.errors import DataError
from fspo.modeling.answering import Prompt, answer, stream_answer
from fspo.modeling.chat import ChatFormat
from fspo.modeling.generation import Sampling, decode_answers, end_tokens, generate_ids
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.rendering import EpisodeRenderer, RenderedPrompt
from fspo.preferences.types import Preference

SHOTS = tuple(Preference("ann", f"Review film {n}.", f"Good {n}!", f"It was bad, number {n}.") for n in range(3))


@pytest.fixture(scope="module")
def model(speaking_model_path: Path) -> Any:
    return load_model(speaking_model_path, device="cpu")


@pytest.fixture(scope="module")
def renderer(speaking_model_path: Path) -> EpisodeRenderer:
    return EpisodeRenderer(load_tokenizer(speaking_model_path), max_length=512)


def test_a_reply_is_what_the_parts_alone_make(model: Any, renderer: EpisodeRenderer) -> None:
    """Rendering, sampling and decoding by hand give the same text."""
    sampling = Sampling(12, temperature=0.8, guidance=0.5, end_ids=end_tokens(renderer.tokenizer))
    shown = renderer.render_prompt(SHOTS, "Review the series.", reserve=12)
    request = RenderedPrompt(shown.trunk_ids, shown.prompt_ids, shown.mirror_trunk_ids, seed=7)
    (expected,) = decode_answers(renderer.tokenizer, generate_ids(model, [request], sampling, seed=3))
    (reply,) = answer(model, renderer, [Prompt("Review the series.", SHOTS, seed=7)], sampling, seed=3)
    assert reply.text == expected
    assert end_tokens(renderer.tokenizer) == {ChatFormat.of(renderer.tokenizer).end_of_answer, 2}


def test_replies_do_not_depend_on_each_other(model: Any, renderer: EpisodeRenderer) -> None:
    prompts = [Prompt("What of it?", SHOTS, seed=1), Prompt("What of it?", SHOTS, seed=2), Prompt("And?", seed=1)]
    replies = answer(model, renderer, prompts, Sampling(9, top_p=0.9), seed=3)
    assert [answer(model, renderer, [one], Sampling(9, top_p=0.9), seed=3)[0] for one in prompts] == replies
    assert replies[0].text != replies[1].text
    assert all(reply.text == reply.text.strip() and "<|im_" not in reply.text for reply in replies)


def test_an_answer_that_is_cut_off_says_so(model: Any, renderer: EpisodeRenderer) -> None:
    (cut,) = answer(model, renderer, [Prompt("What of it?")], Sampling(2, temperature=0))
    (whole,) = answer(model, renderer, [Prompt("What of it?")], Sampling(200, temperature=0))
    assert (cut.finished, whole.finished) == (False, True)
    assert whole.text.startswith(cut.text)


def test_shots_without_room_are_counted_and_a_prompt_without_room_is_refused(
    model: Any, speaking_model_path: Path
) -> None:
    narrow = EpisodeRenderer(load_tokenizer(speaking_model_path), max_length=90)
    (reply,) = answer(model, narrow, [Prompt("What of it?", SHOTS)], Sampling(20))
    assert 0 < reply.dropped_shots <= 3
    with pytest.raises(DataError, match="shorten the prompt to 70 tokens, or ask for a shorter answer"):
        answer(model, narrow, [Prompt("What of it? " * 20)], Sampling(20))
    with pytest.raises(DataError, match=r"90 for the answer; ask for a shorter answer\."):
        answer(model, narrow, [Prompt("What of it?")], Sampling(90))


@pytest.mark.parametrize("guidance", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_a_stream_joined_is_the_reply(model: Any, renderer: EpisodeRenderer, seed: int, guidance: float) -> None:
    prompt, sampling = Prompt("Review the series.", SHOTS, seed=0), Sampling(40, temperature=1.2, guidance=guidance)
    (whole,) = answer(model, renderer, [prompt], sampling, seed=seed)
    parts = list(stream_answer(lambda: nullcontext(model), renderer, prompt, sampling, seed=seed))
    assert "".join(parts) == whole.text
    assert len(parts) > 3


def test_between_two_parts_the_caller_may_do_anything(model: Any, renderer: EpisodeRenderer) -> None:
    prompt, sampling = Prompt("Review the series.", SHOTS, seed=0), Sampling(12, temperature=1.0)
    (whole,) = answer(model, renderer, [prompt], sampling)
    parts = []
    for part in stream_answer(lambda: nullcontext(model), renderer, prompt, sampling):
        parts.append(part)
        assert torch.is_grad_enabled()
        answer(model, renderer, [Prompt("Another one?")], Sampling(2))
    assert "".join(parts) == whole.text


class _Letters:
    """A renderer's tokenizer that writes one given text, a character a token."""

    def __init__(self, inner: Any, text: str) -> None:
        self.inner, self.text = inner, text

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def decode(self, ids: Any, **_: Any) -> str:
        return self.text[: len(ids)]


def test_reasoning_is_never_streamed(renderer: EpisodeRenderer, monkeypatch: pytest.MonkeyPatch) -> None:
    from fspo.modeling import answering

    for text, parts in (
        ("<think>Hm, no.</think>Yes. ", ["Y", "e", "s", "."]),
        ("<think>Hm", []),
        ("<b>a", ["<b>", "a"]),
        (" a  b\n", ["a", "  b"]),
        ("a\N{REPLACEMENT CHARACTER}", ["a", "\N{REPLACEMENT CHARACTER}"]),
    ):
        letters = EpisodeRenderer(renderer.tokenizer)
        letters.tokenizer = _Letters(renderer.tokenizer, text)
        monkeypatch.setattr(answering, "sampled_ids", lambda *_, text=text, **__: iter([5] * len(text)))
        found = list(stream_answer(lambda: nullcontext(torch.nn.Identity()), letters, Prompt("Hi"), Sampling(99)))
        assert found == parts
