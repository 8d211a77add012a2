"""Answers sampled from a language model: many at once, over shared trunks, with or without guidance by a mirror.

Mirror guidance samples from (1 + g) log p(. | S) - g log p(. | S'), where S' are the shots S with their labels swapped,
among the tokens that are plausible under S: what the labels changed is amplified (as in classifier-free guidance,
arXiv 2306.17806, and contrastive decoding, arXiv 2210.15097).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fspo.errors import ConfigError, ModelError
from fspo.modeling.chat import ChatFormat, TextReader
from fspo.modeling.decoding import Decoder, Stream
from fspo.modeling.rendering import RenderedPrompt

__all__ = [
    "Answer",
    "Sampling",
    "decode_answers",
    "draw",
    "end_tokens",
    "evaluating",
    "generate_ids",
    "guided",
    "noise",
    "nucleus",
    "sampled_ids",
]

_NUCLEUS = 512
"""Most probable tokens looked at first for the nucleus; the whole vocabulary is sorted only where they don't
suffice."""
_COLDEST = 1e-4
"""Lower temperatures take the most probable token: divided by them, scores are no longer finite."""
_WORTH_MOVING = 8
"""Ended answers are dropped from the batch when they are at least one in so many of it."""


@dataclass(frozen=True)
class Answer:
    """The sampled ids, without the token that ended them."""

    ids: tuple[int, ...]
    finished: bool
    """Whether the model ended its turn, rather than running into `max_new_tokens`."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn.

    Raises:
        ConfigError: a setting is out of its range.
    """

    max_new_tokens: int = 128
    temperature: float = 1.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    guidance: float = 0.0
    """g above; 0 is plain sampling."""
    plausibility: float = 0.1
    """Under guidance, tokens less probable under S than this fraction of the most probable one are ruled out."""
    end_ids: Collection[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        ranges = [
            ("max_new_tokens", self.max_new_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature < math.inf, "at least 0 and finite"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("guidance", self.guidance >= 0, "at least 0"),
            ("plausibility", 0 <= self.plausibility <= 1, "between 0 and 1"),
        ]
        for name, fits, wanted in ranges:
            if not fits:
                raise ConfigError(f"{name} must be {wanted}, but it is {getattr(self, name)}.")


def generate_ids(
    model: torch.nn.Module,
    requests: Sequence[RenderedPrompt],
    sampling: Sampling,
    *,
    seed: int = 0,
    batch_size: int = 64,
) -> list[Answer]:
    """Token ids of sampled answers, in the order of `requests`, at most `batch_size` of them decoded side by side."""
    # Requests of one user belong into one batch: there they share their trunk.
    by_trunk = sorted(range(len(requests)), key=lambda i: tuple(requests[i].trunk_ids))
    answers: dict[int, Answer] = {}
    with evaluating(model), torch.no_grad():
        for start in range(0, len(requests), batch_size):
            chosen = by_trunk[start : start + batch_size]
            random = torch.stack([noise(seed, requests[i].seed, i, sampling.max_new_tokens) for i in chosen])
            batch = _Batch(model, [requests[i] for i in chosen], sampling, random)
            answers.update(zip(chosen, batch.run(), strict=True))
    return [answers[i] for i in range(len(requests))]


def sampled_ids(
    enter: Callable[[], AbstractContextManager[torch.nn.Module]],
    request: RenderedPrompt,
    sampling: Sampling,
    *,
    seed: int = 0,
) -> Iterator[int]:
    """The token ids of one sampled answer, one by one; `enter` gives the model while one of them is sampled."""
    random = noise(seed, request.seed, 0, sampling.max_new_tokens)[None]
    batch: _Batch | None = None
    while batch is None or not batch.ended:
        with enter() as model, evaluating(model), torch.no_grad():
            batch = batch or _Batch(model, [request], sampling, random)
            batch.advance()
        if not batch.finished[0]:
            yield batch.sampled[0][-1]


def end_tokens(tokenizer: Any) -> frozenset[int]:
    """The ids that end an answer: the chat format's and the tokenizer's own."""
    ids = {ChatFormat.of(tokenizer).end_of_answer, tokenizer.eos_token_id}
    return frozenset(index for index in ids if index is not None)


def decode_answers(tokenizer: Any, answers: Iterable[Answer]) -> list[str]:
    """The texts of answers, without control tokens, reasoning and outer white space."""
    reader = TextReader(tokenizer)
    return [reader.read(answer.ids).strip() for answer in answers]


def guided(scores: Tensor, mirror: Tensor, guidance: float, plausibility: float) -> Tensor:
    """[B, V]: (1 + g) log p - g log p' of logits `scores` and `mirror`, -inf where p < plausibility * max p."""
    plain, swapped = torch.log_softmax(scores, dim=-1), torch.log_softmax(mirror, dim=-1)
    mixed = (1 + guidance) * plain - guidance * swapped
    if plausibility == 0:
        return mixed
    floor = plain.amax(dim=-1, keepdim=True) + math.log(plausibility)
    return mixed.masked_fill(plain < floor, float("-inf"))


def nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """[B, V]: `probabilities`, not rescaled, but 0 outside the smallest set of top tokens that holds `top_p`."""
    if top_p >= 1:
        return probabilities
    count = min(_NUCLEUS, probabilities.shape[-1])
    best = torch.topk(probabilities, count, dim=-1).values
    flat = best.sum(dim=-1) < top_p
    if bool(flat.any()) and count < probabilities.shape[-1]:
        # Sorting a vocabulary takes long: only the rows that need it.
        probabilities = probabilities.clone()
        probabilities[flat] = _sorted_nucleus(probabilities[flat], top_p)
    floor = _smallest_inside(best, top_p).masked_fill(flat[:, None], 0.0)
    return probabilities.masked_fill(probabilities < floor, 0.0)


def _sorted_nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    best = torch.sort(probabilities, dim=-1, descending=True).values
    return probabilities.masked_fill(probabilities < _smallest_inside(best, top_p), 0.0)


def _smallest_inside(best: Tensor, top_p: float) -> Tensor:
    """[B, 1]: the least probable token of the nucleus, from probabilities in descending order."""
    inside = (best.cumsum(dim=-1) - best < top_p).sum(dim=-1, keepdim=True)
    # A `top_p` below the precision of the probabilities has nothing inside: the most probable token stays.
    return best.gather(-1, inside.clamp(min=1) - 1)


def draw(scores: Tensor, noise: Tensor, temperature: float, top_p: float) -> Tensor:
    """[B]: a token for each row of logits [B, V] and each uniform number [B], by the inverse of the distribution.

    A temperature below 0.0001 takes the most probable token.

    Raises:
        ModelError: the logits are not numbers.
    """
    if scores.isnan().any():
        raise ModelError(
            "The model's scores are not numbers, so nothing can be drawn from them; use float32 or bfloat16, or look "
            "at how its weights were trained."
        )
    if temperature < _COLDEST:
        return scores.argmax(dim=-1)
    probabilities = nucleus(torch.softmax(scores.float() / temperature, dim=-1), top_p)
    # In the order of the vocabulary, not of the probabilities: rounding can't exchange two tokens' places.
    cumulated = probabilities.cumsum(dim=-1, dtype=torch.float64)
    points = noise.to(cumulated)[:, None] * cumulated[:, -1:]
    return torch.searchsorted(cumulated, points, right=True)[:, 0].clamp(max=scores.shape[-1] - 1)


class _Batch:
    """One batch of requests: each is a stream, or two of them under guidance."""

    def __init__(
        self, model: torch.nn.Module, requests: Sequence[RenderedPrompt], sampling: Sampling, noise: Tensor
    ) -> None:
        self.sampling = sampling
        self.noise = noise
        streams = [Stream(tuple(r.trunk_ids), tuple(r.prompt_ids)) for r in requests]
        self.owners = list(range(len(requests)))
        self.mirrored = [False] * len(requests)
        for index, request in enumerate(requests):
            if sampling.guidance and request.mirror_trunk_ids is not None:
                streams.append(Stream(tuple(request.mirror_trunk_ids), tuple(request.prompt_ids)))
                self.owners.append(index)
                self.mirrored.append(True)
        self.decoder = Decoder(model, streams, sampling.max_new_tokens)
        self.sampled: list[list[int]] = [[] for _ in requests]
        self.finished = [False] * len(requests)
        self._ends = frozenset(sampling.end_ids)
        self._active = list(range(len(requests)))
        self._steps = 0
        self._tokens: Tensor | None = None
        """The tokens sampled last, which the decoder has not read yet."""

    def run(self) -> list[Answer]:
        """Decode until every answer ended or is as long as it may be."""
        while not self.ended:
            self.advance()
        return [Answer(tuple(ids), done) for ids, done in zip(self.sampled, self.finished, strict=True)]

    @property
    def ended(self) -> bool:
        """Whether there is nothing left to sample."""
        return all(self.finished) or self._steps == self.sampling.max_new_tokens

    def advance(self) -> None:
        """Sample the next token of every answer that has not ended."""
        if self._tokens is not None:
            self._active, tokens = self._retain(self._active, self._tokens)
            row_of = {index: row for row, index in enumerate(self._active)}
            self.decoder.step(tokens[[row_of[self.owners[stream]] for stream in self.decoder.order]])
        self._tokens = self._next(self._active, self._steps)
        self._steps += 1
        for index, token in zip(self._active, self._tokens.tolist(), strict=True):
            self.finished[index] = self.finished[index] or token in self._ends
            if not self.finished[index]:
                self.sampled[index].append(token)

    def _next(self, active: Sequence[int], step: int) -> Tensor:
        scores = self.decoder.scores
        places = {(self.owners[stream], self.mirrored[stream]): row for row, stream in enumerate(self.decoder.order)}
        main = scores[[places[index, False] for index in active]]
        pairs = [(row, places[index, True]) for row, index in enumerate(active) if (index, True) in places]
        if pairs:
            rows, mirrors = map(list, zip(*pairs, strict=True))
            main[rows] = guided(main[rows], scores[mirrors], self.sampling.guidance, self.sampling.plausibility)
        noise = self.noise[list(active), step].to(main.device)
        return draw(main, noise, self.sampling.temperature, self.sampling.top_p)

    def _retain(self, active: list[int], tokens: Tensor) -> tuple[list[int], Tensor]:
        """Forget the streams of ended answers, once there are enough of them to be worth moving the others."""
        places = [place for place, index in enumerate(active) if not self.finished[index]]
        if (len(active) - len(places)) * _WORTH_MOVING < len(active):
            return active, tokens
        kept = [active[place] for place in places]
        rows = [row for row, stream in enumerate(self.decoder.order) if not self.finished[self.owners[stream]]]
        self.decoder.keep(torch.tensor(rows, device=tokens.device))
        return kept, tokens[places]


def noise(seed: int, draw: int | None, place: int, count: int) -> Tensor:
    """[count]: the uniform numbers of one answer, by the number of its draw, or else by its place in a list."""
    name = f"{seed}:place {place}" if draw is None else f"{seed}:draw {draw}"
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1
    return torch.rand(count, generator=torch.Generator().manual_seed(number))


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """`model`, in evaluation mode while inside."""
    was_training = model.training
    model.eval()
    try:
        yield model
    finally:
        model.train(was_training)
