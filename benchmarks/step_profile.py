"""Where the time of our own training step goes, before and after what was done about it, in one process.

    python -m benchmarks.step_profile                                    # SmolLM2-135M cut to 3 of its 30 layers
    python -m benchmarks.step_profile --layers 30 --rows 8x8x250

Three ways run the same step (forward and back of the policy, IPO, no optimiser) after one step each to warm up:
`masked`, a masked attention for each branch over a copy of its keys of the trunk; `pieces`, mask-free pieces
(`fspo.modeling.rectangle_attention`); `kept`, the same with freed memory kept (`fspo.modeling.memory`), which can't be
undone and so comes last. `cpu_seconds` are those of all threads, which other programs stretch less than the clock;
`faults` are pages first touched. `shares` are from torch's profiler: of the time inside operators, by what they do.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.models import load_episode, load_pair
from benchmarks.sides import BETA, matmul_rate
from benchmarks.theory import Costs
from benchmarks.training_step import Row
from fspo.files import write_json
from fspo.modeling import attention
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.memory import keep_memory
from fspo.modeling.rendering import TokenizedEpisode
from fspo.training.objectives import ipo

__all__ = ["main"]

_GROUPS = (
    ("attention", ("scaled_dot_product", "flash_attention")),
    ("matmul", ("aten::mm", "aten::bmm", "aten::addmm")),
    ("softmax of the head", ("log_softmax", "nll_loss")),
    ("copies and zeros", ("aten::cat", "aten::copy_", "aten::fill_", "aten::zero_", "aten::clone")),
)


def _measure(model: Any, episode: TokenizedEpisode) -> dict[str, Any]:
    _step(model, episode)
    before, start, cpu = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter(), time.process_time()
    _step(model, episode)
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    flops = 3 * Costs.of(model).ours(episode)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        _step(model, episode)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "system_seconds": after.ru_stime - before.ru_stime,
        "faults": after.ru_minflt - before.ru_minflt,
        "flops_per_second": flops / seconds,
        "flops_per_cpu_second": flops / cpu_seconds,
        "shares": _shares(recorded),
    }


def _step(model: Any, episode: TokenizedEpisode) -> None:
    logps_BR = branch_logprobs(model, [episode])[0].means
    ipo(logps_BR[:, 0] - logps_BR[:, 1], BETA).mean().backward()  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=False)


def _shares(recorded: Any) -> dict[str, float]:
    times: dict[str, float] = {}
    for event in recorded.key_averages():
        group = next(
            (name for name, parts in _GROUPS if any(part in event.key for part in parts)), "elementwise, other"
        )
        times[group] = times.get(group, 0.0) + event.self_cpu_time_total
    whole = sum(times.values())
    return {name: spent / whole for name, spent in sorted(times.items(), key=lambda item: -item[1])}


@contextmanager
def _masked() -> Iterator[None]:
    with mock.patch.object(attention, "pieces_apply", return_value=False):
        yield


def _cut(model: Any, layers: int) -> None:
    decoder = model.get_decoder()
    decoder.layers = decoder.layers[:layers]
    model.config.get_text_config().num_hidden_layers = len(decoder.layers)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the profile from the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.step_profile", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layers", type=int, default=3, help="only so many of the model's layers")
    parser.add_argument("--rows", type=Row.of, nargs="+", default=[Row(8, 8, 60), Row(8, 8, 250)])
    parser.add_argument("--out", type=Path, help="folder for figures.json")
    options = parser.parse_args(arguments)
    model, _ = load_pair(options.model, dtype="float32", device="cpu", seed=0)
    _cut(model, options.layers)
    figures: dict[str, Any] = {
        "benchmark": "step_profile",
        "model": options.model,
        "layers": options.layers,
        "threads": torch.get_num_threads(),
        "matmul_flops_per_second": matmul_rate(model),
        "rows": [{**asdict(row), "ways": {}} for row in options.rows],
    }
    episodes = [load_episode(options.model, **asdict(row), seed=0) for row in options.rows]
    for way in ("masked", "pieces", "kept"):
        if way == "kept" and not keep_memory():
            print("Memory can't be kept here.", file=sys.stderr)
            break
        for row, episode in zip(figures["rows"], episodes, strict=True):
            print(f"{way}: {row['shots']} shots, {row['response_tokens']} tokens", file=sys.stderr)
            if way == "masked":
                with _masked():
                    row["ways"][way] = _measure(model, episode)
            else:
                row["ways"][way] = _measure(model, episode)
    if options.out is not None:
        write_json(options.out / "figures.json", figures)
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
