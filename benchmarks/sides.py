"""One side of `training_step` in a process of its own, so that its peak memory is its own.

    python -m benchmarks.sides '{"side": "ours", "model": "smollm2-135m", "shots": 4, "queries": 1, ...}'

Both sides load the same policy and reference, read what they occupy by then, and take the same step: IPO on mean
log-probs per token (TRL's reduction), reference included, gradients of all weights clipped to 1, fused AdamW (with a
learning rate of 0, so that every step sees the same weights). Both keep freed memory (`fspo.modeling.memory`), which
TRL by itself does not: it would gain from that as well, and what is compared is how the step is computed. The last line
printed is the side's figures as JSON.
"""

from __future__ import annotations

import json
import math
import re
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from benchmarks.models import load_episode, load_pair, load_words
from benchmarks.naive import reduced_apart, response_logprobs
from benchmarks.theory import STEP, Costs
from fspo.modeling.logprobs import BranchLogprobs, branch_logprobs
from fspo.modeling.memory import keep_memory
from fspo.modeling.rendering import TokenizedEpisode
from fspo.training.objectives import ipo, margins

__all__ = ["BETA", "Job", "matmul_rate", "run"]

BETA = 0.3
"""For means per token: a margin of 1.7 nats per token is aimed at."""

_CLIP = 1.0
_OPTIMIZER: dict[str, Any] = {"lr": 0.0, "weight_decay": 0.0, "fused": True}

Measure = Callable[["_Memory"], dict[str, Any]]
Score = Callable[[Any, TokenizedEpisode], BranchLogprobs]


@dataclass(frozen=True)
class Job:
    """What one process is to measure."""

    side: Literal["ours", "peer"]
    model: str
    shots: int
    queries: int
    response_tokens: int
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    repeats: int = 1
    """Timed steps of ours, after one that is not timed."""
    pairs_at_once: int = 1
    """Pairs in each micro-batch of the peer."""
    micro_batches: int = 1
    """Timed micro-batches of the peer, after one of the same size that is not timed."""
    attributed: bool = False
    """Whether ours also takes apart where its speed comes from."""


def run(job: Job) -> dict[str, Any]:
    """The figures of a side."""
    kept = keep_memory()
    episode = load_episode(
        job.model, shots=job.shots, queries=job.queries, response_tokens=job.response_tokens, seed=job.seed
    )
    policy, reference = load_pair(job.model, dtype=job.dtype, device=job.device, seed=job.seed)
    costs = Costs.of(policy)
    everywhere = torch.device(job.device).type == "cpu"  # TRL's head scores responses only where it has Triton
    figures: dict[str, Any] = {
        "trunk_tokens": len(episode.trunk_ids),
        "tokens": episode.tokens,
        "memory_kept": kept,
        "matmul_flops_per_second": matmul_rate(policy),
        "flops": STEP * costs.ours(episode),
        "flops_peer": STEP * costs.peer(episode, every_position=everywhere),
        "flops_peer_responses_scored": STEP * costs.peer(episode, every_position=False),
    }
    measure = (_ours if job.side == "ours" else _peer)(job, policy, reference, episode)
    with torch.no_grad():  # what libraries take at first use is not a step's
        branch_logprobs(policy, [replace(episode, trunk_ids=episode.trunk_ids[:8], branches=(_short(episode),))])
    return figures | measure(_Memory(job.device))


def matmul_rate(model: Any) -> float:
    """Operations a second of the best of some matrix products of the model's own shape and precision."""
    config = model.config.get_text_config()
    left = torch.randn(2048, config.hidden_size, device=model.device, dtype=model.dtype)
    right = torch.randn(config.hidden_size, config.intermediate_size, device=model.device, dtype=model.dtype)
    best = math.inf
    for _ in range(20):
        start = _now(model.device)
        for _ in range(5):
            torch.mm(left, right)
        best = min(best, (_now(model.device) - start) / 5)
    return 2 * left.numel() * right.shape[1] / best


class _Memory:
    """Memory above what the two models, loaded, occupy."""

    def __init__(self, device: str) -> None:
        self._cuda = torch.device(device).type == "cuda"
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
        else:
            _forget_peak()
            self._before = _status("VmRSS")

    def above(self) -> int:
        """Bytes, at the highest so far."""
        return (torch.cuda.max_memory_allocated() if self._cuda else _status("VmHWM")) - self._before


def _ours(job: Job, policy: Any, reference: Any, episode: TokenizedEpisode) -> Measure:
    optimizer = torch.optim.AdamW(policy.parameters(), **_OPTIMIZER)

    def step(score: Score, some: TokenizedEpisode, frozen_B: torch.Tensor | None = None) -> tuple[float, Any]:
        start = _now(job.device)
        if frozen_B is None:
            with torch.no_grad():
                frozen_B = _margins(score(reference, some))
        losses_B = ipo(_margins(score(policy, some)) - frozen_B, BETA)
        losses_B.mean().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(policy.parameters(), _CLIP)
        optimizer.step()
        optimizer.zero_grad()
        return _now(job.device) - start, losses_B.detach()

    def measure(memory: _Memory) -> dict[str, Any]:
        step(_shared, episode)
        seconds, losses_B, cpu = [], torch.empty(0), time.process_time()
        for _ in range(job.repeats):
            taken, losses_B = step(_shared, episode)
            seconds.append(taken)
        cpu_seconds = (time.process_time() - cpu) / job.repeats
        figures = {
            "seconds": math.fsum(seconds) / len(seconds),
            "seconds_each": seconds,
            "cpu_seconds": cpu_seconds,
            "losses": losses_B.tolist(),
            "memory": memory.above(),
        }
        if job.attributed:
            with torch.no_grad():
                frozen_B = _margins(_shared(reference, episode))
            # Apart, every pair costs the same: one of them stands for all.
            one = replace(episode, branches=episode.branches[:1])
            figures |= {
                "seconds_without_reference": step(_shared, episode, frozen_B)[0],
                "seconds_unshared": step(_unshared, one)[0] * len(episode.branches),
                "seconds_unshared_every_position": step(_unshared_every_position, one)[0] * len(episode.branches),
            }
        return figures

    return measure


def _peer(job: Job, policy: Any, reference: Any, episode: TokenizedEpisode) -> Measure:
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    with tempfile.TemporaryDirectory() as folder:
        trainer = _trl_trainer(job, policy, reference, folder)
    collate = DataCollatorForPreference(pad_token_id=trainer.processing_class.pad_token_id)
    rows = [
        {
            "prompt_ids": [*episode.trunk_ids[: branch.boundary], *branch.prompt_ids],
            "chosen_ids": list(branch.responses[0]),
            "rejected_ids": list(branch.responses[1]),
        }
        for branch in episode.branches
    ]

    def measure(memory: _Memory) -> dict[str, Any]:
        size, groups = job.pairs_at_once, len(rows) // job.pairs_at_once
        losses: list[list[float]] = []
        seconds, cpu_seconds, optimizer_seconds = [], [], []
        for number in range(1 + job.micro_batches):  # the first one is not timed
            place = number % groups
            start, cpu = _now(job.device), time.process_time()
            loss = trainer.training_step(trainer.model, collate(rows[place * size : (place + 1) * size]))
            seconds.append(_now(job.device) - start)
            cpu_seconds.append(time.process_time() - cpu)
            losses.append([place, loss.item() * trainer.args.gradient_accumulation_steps])
        for _ in range(2):  # the first one makes the optimiser's states
            start = _now(job.device)
            trainer.accelerator.clip_grad_norm_(policy.parameters(), _CLIP)
            trainer.optimizer.step()
            optimizer_seconds.append(_now(job.device) - start)
        return {
            "seconds": math.fsum(seconds[1:]) / job.micro_batches * groups + optimizer_seconds[-1],
            "seconds_each": seconds[1:],
            "cpu_seconds": math.fsum(cpu_seconds[1:]) / job.micro_batches * groups,
            "seconds_optimizer": optimizer_seconds[-1],
            "losses": losses,
            "memory": memory.above(),
        }

    return measure


def _trl_trainer(job: Job, policy: Any, reference: Any, folder: str) -> Any:
    from datasets import Dataset, disable_progress_bars
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    disable_progress_bars()
    settings: dict[str, Any] = {
        "output_dir": folder,
        "loss_type": ["ipo"],
        "beta": BETA,
        "max_length": None,
        "learning_rate": 0.0,
        "per_device_train_batch_size": job.pairs_at_once,
        "gradient_accumulation_steps": job.queries // job.pairs_at_once,
        "gradient_checkpointing": False,
        "bf16": False,
        "optim": "adamw_torch_fused",
        "use_cpu": torch.device(job.device).type == "cpu",
        "report_to": "none",
        "disable_tqdm": True,
    }
    # The trainer wants texts to begin with; the steps get the episode's own tokens.
    texts = Dataset.from_dict({"prompt": ["a"], "chosen": [" b"], "rejected": [" a"]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = DPOTrainer(
            model=policy,
            ref_model=reference,
            args=DPOConfig(**settings),
            train_dataset=texts,
            processing_class=load_words(job.model),
        )
        trainer.create_optimizer()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps  # as `train` would
    return trainer


def _shared(model: Any, episode: TokenizedEpisode) -> BranchLogprobs:
    return branch_logprobs(model, [episode])[0]


def _unshared(model: Any, episode: TokenizedEpisode) -> BranchLogprobs:
    return _apart(episode, lambda before, response: response_logprobs(model, before, response))


def _unshared_every_position(model: Any, episode: TokenizedEpisode) -> BranchLogprobs:
    def score(before: Sequence[int], response: Sequence[int]) -> torch.Tensor:
        return response_logprobs(model, before[:1], [*before[1:], *response])[-len(response) :]

    return _apart(episode, score)


def _apart(episode: TokenizedEpisode, score: Callable[[Sequence[int], Sequence[int]], torch.Tensor]) -> BranchLogprobs:
    return reduced_apart(
        [
            [score((*episode.trunk_ids[: b.boundary], *b.prompt_ids), response) for response in b.responses]
            for b in episode.branches
        ]
    )


def _margins(logprobs: BranchLogprobs) -> torch.Tensor:
    logps_BR = logprobs.means
    return margins(logps_BR[:, 0], logps_BR[:, 1])


def _short(episode: TokenizedEpisode) -> Any:
    branch = episode.branches[0]
    return replace(branch, boundary=8, responses=tuple(response[:8] for response in branch.responses))


def _now(device: Any) -> float:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _forget_peak() -> None:
    """Let the peak begin at what is occupied now: loading may have needed more for a moment."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        warnings.warn("The peak includes the loading of the models.", stacklevel=2)


def _status(name: str) -> int:
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 2**10
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return 0 if found is None else int(found[1]) * 2**10


if __name__ == "__main__":
    warnings.simplefilter("ignore", FutureWarning)  # names on their way out, between trl and transformers
    print(json.dumps(run(Job(**json.loads(sys.argv[1])))))
