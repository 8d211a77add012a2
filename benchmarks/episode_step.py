"""One training step on one episode: trunk and branches in one pass, beside two sequences per pair.

Both sides take the same step on the same pairs: IPO loss on summed log-probs, gradients of all weights, AdamW (with a
learning rate of 0, so that both see the same weights). The naive side runs every sequence by itself: it has no padding
and no masks, puts only response positions through the LM head, and goes backward after each pair. The reference's
log-probs are constants on both sides, as when they are computed beforehand. What is measured is sharing alone.

    python -m benchmarks.episode_step                          # the built-in model, about three minutes on 2 cores
    python -m benchmarks.episode_step --model FOLDER --out docs/results/episode_step
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.naive import naive_logprobs
from fspo.files import write_json
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.rendering import EpisodeRenderer, TokenizedEpisode
from fspo.preferences.types import Episode, Preference
from fspo.training.objectives import ipo

__all__ = ["make_episode", "measure"]

_BETA = 0.01
_SUBJECTS = ("The plot", "The cast", "The camera work", "The music", "Its ending", "The second half", "Every scene")
_VERBS = ("surprised me with", "falls short in", "stands out for", "is remembered for", "never finds", "relies on")
_OBJECTS = ("its pace and its warmth", "a slow and careful rhythm", "jokes that rarely land", "real feeling", "colour")


@dataclass(frozen=True)
class _Step:
    seconds: float
    cpu_seconds: float
    """Of all threads: what other programs on the machine can't stretch as much as the clock."""
    logprobs: torch.Tensor


def measure(model: Any, episode: TokenizedEpisode, *, repeats: int = 2) -> dict[str, Any]:
    """Seconds and gradients of both ways, warm: the shared step `repeats` times, the naive one once over all pairs."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
    single = replace(episode, branches=episode.branches[:1])
    # Warm-up: memory is touched, optimiser states exist, both kernels have run.
    _step(model, optimizer, lambda: _shared(model, episode))
    _step(model, optimizer, lambda: _naive(model, single))
    shared = [_step(model, optimizer, lambda: _shared(model, episode)) for _ in range(repeats)]
    gradient = _gradient(model)
    naive = _step(model, optimizer, lambda: _naive(model, episode))
    naive_gradient = _gradient(model)
    seconds = statistics.fmean(step.seconds for step in shared)
    cpu_seconds = statistics.fmean(step.cpu_seconds for step in shared)
    tokens_naive = sum(
        branch.boundary + len(branch.prompt_ids) + len(response)
        for branch in episode.branches
        for response in branch.responses
    )
    return {
        "speedup": naive.seconds / seconds,
        "speedup_cpu": naive.cpu_seconds / cpu_seconds,
        "gradient_difference": float((gradient - naive_gradient).norm() / naive_gradient.norm()),
        "logprob_difference": float((shared[-1].logprobs - naive.logprobs).abs().max()),
        "seconds_shared": seconds,
        "seconds_shared_each": [step.seconds for step in shared],
        "seconds_naive": naive.seconds,
        "cpu_seconds_shared": cpu_seconds,
        "cpu_seconds_naive": naive.cpu_seconds,
        "tokens_shared": episode.tokens,
        "tokens_naive": tokens_naive,
        "tokens_ratio": tokens_naive / episode.tokens,
        "tokens_trunk": len(episode.trunk_ids),
        "tokens_response": statistics.fmean(len(r) for branch in episode.branches for r in branch.responses),
        "pairs": len(episode.branches),
    }


def make_episode(
    renderer: EpisodeRenderer, *, shots: int, queries: int, shot_tokens: int, response_tokens: int, seed: int
) -> TokenizedEpisode:
    """An episode of made-up reviews; responses have about `shot_tokens` tokens, and `response_tokens` in queries."""
    rng = random.Random(seed)
    long = [
        Preference(
            "user",
            f"Write a short review of film number {number}.",
            _text(renderer, rng, shot_tokens if number < shots else response_tokens),
            _text(renderer, rng, shot_tokens if number < shots else response_tokens),
        )
        for number in range(shots + queries)
    ]
    return renderer.render(Episode("user", tuple(long[:shots]), tuple(long[shots:])))


def _text(renderer: EpisodeRenderer, rng: random.Random, tokens: int) -> str:
    wanted = max(1, round(tokens * rng.uniform(0.85, 1.15)))
    words: list[str] = []
    while len(renderer.render_response(" ".join(words))) <= wanted:
        sentence = f"{rng.choice(_SUBJECTS)} {rng.choice(_VERBS)} {rng.choice(_OBJECTS)}."
        words += sentence.split()
    while len(words) > 1 and len(renderer.render_response(" ".join(words))) > wanted:
        words.pop()
    return " ".join(words)


def _shared(model: Any, episode: TokenizedEpisode) -> torch.Tensor:
    logprobs = branch_logprobs(model, [episode])[0].sums
    ipo(logprobs[:, 0] - logprobs[:, 1], _BETA).mean().backward()  # type: ignore[no-untyped-call]
    return logprobs.detach()


def _naive(model: Any, episode: TokenizedEpisode) -> torch.Tensor:
    rows = []
    for pair in _pairs(episode):
        logprobs = naive_logprobs(model, [pair])[0].sums
        loss = ipo(logprobs[:, 0] - logprobs[:, 1], _BETA).sum() / len(episode.branches)
        loss.backward()  # type: ignore[no-untyped-call]
        rows.append(logprobs.detach())
    return torch.cat(rows)


def _pairs(episode: TokenizedEpisode) -> Iterator[TokenizedEpisode]:
    for branch in episode.branches:
        yield replace(episode, branches=(branch,))


def _step(model: Any, optimizer: torch.optim.Optimizer, run: Callable[[], torch.Tensor]) -> _Step:
    optimizer.zero_grad(set_to_none=False)
    start, cpu_start = time.perf_counter(), time.process_time()
    logprobs = run()
    optimizer.step()
    return _Step(time.perf_counter() - start, time.process_time() - cpu_start, logprobs)


def _gradient(model: Any) -> torch.Tensor:
    return torch.cat([weight.grad.flatten().clone() for weight in model.parameters() if weight.grad is not None])


def _machine() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.episode_step", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m", help="the built-in model's name, a folder, or a hub id")
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--queries", type=int, default=8)
    parser.add_argument("--shot-tokens", type=int, default=49, help="tokens of each response of a shot")
    parser.add_argument("--response-tokens", type=int, default=60, help="tokens of each response of a query")
    parser.add_argument("--repeats", type=int, default=2, help="timed runs of the shared step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for figures.json")
    options = parser.parse_args(arguments)
    model, tokenizer = load_model(options.model, device="cpu").train(), load_tokenizer(options.model)
    episode = make_episode(
        EpisodeRenderer(tokenizer),
        shots=options.shots,
        queries=options.queries,
        shot_tokens=options.shot_tokens,
        response_tokens=options.response_tokens,
        seed=options.seed,
    )
    print(f"{options.model}: trunk of {len(episode.trunk_ids)} tokens, {len(episode.branches)} pairs", file=sys.stderr)
    figures = {"benchmark": "episode_step", "model": str(options.model), "shots": options.shots}
    figures |= measure(model, episode, repeats=options.repeats) | _machine()
    if options.out is not None:
        write_json(options.out / "figures.json", figures)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
