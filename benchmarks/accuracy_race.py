"""Reward accuracy on held-out users, at equal pairs and at equal wall clock, beside TRL's DPOTrainer.

    python -m benchmarks.accuracy_race runs/reviews-cpu/data --out docs/results/accuracy_race

Both sides train the same adapters from the same start by DPO (sums of log-probabilities, the reference is the model
with its adapters off), on the same pairs in the same order: a step is one user's episode and its mirror, K queries
each. The peer takes every pair as a prompt of its own, with all shots in it, as TRL does, one or two pairs at a time,
whichever was faster on the first step; ours shares the shots.
Queries of one user share their shots on both sides, so that their gradients are as correlated there as here. The clock
runs in training steps only. After every few steps the same held-out episodes are scored, by the same code for both
sides: how often the chosen response has the larger reward, each pair asked with the user's labels and with swapped
ones.

First the peer takes its steps; then ours takes as many, and continues until it has trained for as long as the peer.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.command_line import command_line
from benchmarks.training_step import code_digest, device_name
from fspo.errors import FspoError
from fspo.evaluation.statistics.intervals import clustered_mean
from fspo.files import read_json, write_json, write_text
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.memory import keep_memory
from fspo.modeling.preparing import own_attention_afterwards
from fspo.modeling.rendering import EpisodeRenderer, TokenizedEpisode
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import EpisodeSampler
from fspo.preferences.splits import Splits
from fspo.preferences.types import Split
from fspo.training.adapters import prepare_weights
from fspo.training.config import LoraSettings, TrainingConfig
from fspo.training.losses import figures, means, score, total_loss
from fspo.training.references import reference_of
from fspo.training.steps import StepCollator, Unit

__all__ = ["Settings", "main", "race"]

Step = Callable[[Unit], float]

_COMPARED = (("at_equal_pairs", "equal pairs"), ("at_equal_seconds", "equal wall clock"))


@dataclass(frozen=True)
class Settings:
    """What both sides share."""

    data: str
    model: str = "smollm2-135m"
    shots: int = 4
    queries: int = 4
    steps: int = 24
    """Of the peer."""
    every: int = 6
    """Steps between measurements."""
    episodes: int = 16
    """Held-out ones that are measured."""
    learning_rate: float = 5e-4
    beta: float = 0.1
    rank: int = 16
    seed: int = 0
    limit: int = 20
    """Ours stops after so many times the peer's steps at the latest."""

    def training(self) -> TrainingConfig:
        """The same as settings of fspo."""
        return TrainingConfig(
            objective="dpo",
            beta=self.beta,
            mirror=True,
            shots=self.shots,
            queries=self.queries,
            lora=LoraSettings(r=self.rank, alpha=2 * self.rank),
        )


@dataclass(frozen=True)
class _Episodes:
    """What is trained on, by number, and what is measured on."""

    trained: Callable[[int], Unit]
    measured: Sequence[Unit]


def race(settings: Settings, command: str, *, out: Path | None = None) -> dict[str, Any]:
    """Train both sides and measure them; a side that `out` holds already is not trained again."""
    keep_memory()
    episodes = _episodes(settings)
    record = _begun(settings, out)
    for side in ("peer", "ours"):
        if side in record["sides"]:
            continue
        _say(f"{side}:")
        torch.manual_seed(settings.seed)
        model, step = _ours(settings) if side == "ours" else _peer(settings, episodes.trained(0))
        least = None if side == "peer" else record["sides"]["peer"][-1]["seconds"]
        record["sides"][side] = list(_course(settings, model, step, episodes, least))
        if out is not None:
            write_json(out / "figures.json", record)
    record |= {"command": command, **_findings(settings, record["sides"])}
    if out is not None:
        write_json(out / "figures.json", record)
        write_text(out / "README.md", _page(settings, record))
        write_text(out / "accuracy.svg", _plot(record["sides"]))
    return record


def _course(
    settings: Settings, model: Any, step: Step, episodes: _Episodes, least: float | None
) -> Iterator[dict[str, Any]]:
    """Measurements over a training of `settings.steps` steps that lasts at least so many seconds, if it is to."""
    seconds, taken = 0.0, 0
    losses: list[float] = []
    last = settings.steps * (1 if least is None else settings.limit)
    while True:
        measured = _measured(settings, model, episodes)
        pairs = 2 * taken * settings.queries
        yield {"steps": taken, "pairs": pairs, "seconds": seconds, "loss": losses[-1] if losses else None, **measured}
        done = taken >= settings.steps and (least is None or seconds >= least)
        _say(f"  step {taken}, {seconds:.0f} s of training: accuracy {measured['accuracy']:.1%}")
        if done or taken >= last:
            return
        for _ in range(settings.every):
            start = time.perf_counter()
            losses.append(step(episodes.trained(taken)))
            seconds += time.perf_counter() - start
            taken += 1


def _measured(settings: Settings, model: Any, episodes: _Episodes) -> dict[str, float]:
    config, reference = settings.training(), reference_of(model, None)
    model.eval()
    # The peer trains with the attention that transformers gives it.
    with torch.no_grad(), own_attention_afterwards(model.get_base_model()):
        rows = [figures(score(model, [unit], config, reference), config) for unit in episodes.measured]
    model.train()
    found = clustered_mean([row["margin_accuracy"] for row in rows], [unit.user for unit in episodes.measured])
    assert found.low is not None and found.high is not None
    return {"accuracy": found.value, "low": found.low, "high": found.high, "margin": means(rows)["margin"]}


def _start(settings: Settings) -> Any:
    model = load_model(settings.model, device="cpu")
    return prepare_weights(model, settings.training().lora, seed=settings.seed).train()


def _ours(settings: Settings) -> tuple[Any, Step]:
    model, config = _start(settings), settings.training()
    reference = reference_of(model, None)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=0.0)

    def step(unit: Unit) -> float:
        loss = total_loss(score(model, [unit], config, reference), config)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return model, step


def _peer(settings: Settings, first: Unit) -> tuple[Any, Step]:
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    with tempfile.TemporaryDirectory() as folder:
        trainer = _trl_trainer(settings, folder)
    collate = DataCollatorForPreference(pad_token_id=trainer.processing_class.pad_token_id)
    weights = [weight for weight in trainer.model.parameters() if weight.requires_grad]

    def gradients(unit: Unit, at_once: int) -> float:
        rows = _rows(unit)
        trainer.current_gradient_accumulation_steps = len(rows) // at_once  # as `train` would set it
        groups = [rows[place : place + at_once] for place in range(0, len(rows), at_once)]
        return math.fsum(trainer.training_step(trainer.model, collate(group)).item() for group in groups)

    def seconds(at_once: int) -> float:
        start = time.perf_counter()
        gradients(first, at_once)
        taken = time.perf_counter() - start
        trainer.optimizer.zero_grad()
        _say(f"  {at_once} pairs at once: {taken:.0f} s")
        return taken

    trainer.model.train()
    gradients(first, 2)  # what libraries do at first use is not a step's
    fastest = min((1, 2), key=seconds)

    def step(unit: Unit) -> float:
        loss = gradients(unit, fastest)
        trainer.accelerator.clip_grad_norm_(weights, 1.0)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        return loss

    return trainer.model, step


def _rows(unit: Unit) -> list[dict[str, list[int]]]:
    """Each pair by itself, as TRL takes it; under the mirrored shots the rejected response is the chosen one."""

    def of(episode: TokenizedEpisode, chosen: int) -> Iterator[dict[str, list[int]]]:
        for branch in episode.branches:
            yield {
                "prompt_ids": [*episode.trunk_ids[: branch.boundary], *branch.prompt_ids],
                "chosen_ids": list(branch.responses[chosen]),
                "rejected_ids": list(branch.responses[1 - chosen]),
            }

    assert unit.mirrored is not None
    return [*of(unit.plain, 0), *of(unit.mirrored, 1)]


def _trl_trainer(settings: Settings, folder: str) -> Any:
    from datasets import Dataset, disable_progress_bars
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    disable_progress_bars()
    options: dict[str, Any] = {
        "output_dir": folder,
        "loss_type": ["sigmoid"],
        "beta": settings.beta,
        "max_length": None,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "per_device_train_batch_size": 1,
        "gradient_checkpointing": False,
        "bf16": False,
        "optim": "adamw_torch",
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
    }
    # The trainer wants texts to begin with; the steps get the episodes' own tokens.
    texts = Dataset.from_dict({"prompt": ["a"], "chosen": [" b"], "rejected": [" a"]})
    start = _start(settings)
    adapters = {name: weight.detach() for name, weight in start.named_parameters() if weight.requires_grad}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer: Any = DPOTrainer(
            model=load_model(settings.model, device="cpu"),
            args=DPOConfig(**options),
            train_dataset=texts,
            processing_class=load_tokenizer(settings.model),
            peft_config=start.peft_config["default"],
        )
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            if weight.requires_grad:
                weight.copy_(adapters[name])
    trainer.create_optimizer()
    return trainer


def _episodes(settings: Settings) -> _Episodes:
    whole = PreferenceDataset.load(settings.data)
    splits = Splits.load(Path(settings.data) / "splits.json")
    renderer = EpisodeRenderer(load_tokenizer(settings.model))
    collator = StepCollator(renderer, settings.training(), both_sides=True)

    def sampler(part: Split) -> EpisodeSampler:
        rows = splits.part(whole, part)
        return EpisodeSampler(rows, shots=settings.shots, queries=settings.queries, seed=settings.seed)

    train, test = sampler("train"), sampler("test")
    measured = [collator.unit(number, test.episode(number)) for number in range(settings.episodes)]
    return _Episodes(lambda number: collator.unit(number, train.episode(number)), measured)


def _findings(settings: Settings, sides: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    peer = sides["peer"][-1]
    same_pairs = next(row for row in sides["ours"] if row["steps"] >= settings.steps)
    same_time = [row for row in sides["ours"] if row["seconds"] <= peer["seconds"]][-1]
    if sides["ours"][-1]["seconds"] < peer["seconds"]:
        _say(f"ours stopped after {same_time['steps']} steps, before the peer's time was up")
    return {
        "speedup": peer["seconds"] / same_pairs["seconds"],
        "at_equal_pairs": {"peer": peer, "ours": same_pairs},
        "at_equal_seconds": {"peer": peer, "ours": same_time},
    }


def _begun(settings: Settings, out: Path | None) -> dict[str, Any]:
    from importlib.metadata import version

    figures: dict[str, Any] = {
        "benchmark": "accuracy_race",
        "settings": asdict(settings),
        "machine": {"processors": os.cpu_count(), "device": device_name("cpu")},
        "dataset": PreferenceDataset.load(settings.data).fingerprint,
        "code": code_digest(),
        "versions": {name: version(name) for name in ("torch", "transformers", "trl", "peft")},
    }
    begun = read_json(out / "figures.json") if out is not None and (out / "figures.json").exists() else {}
    same = all(begun.get(name) == value for name, value in figures.items())
    return figures | {"sides": begun["sides"] if same else {}}


def _page(settings: Settings, figures: dict[str, Any]) -> str:
    lines = [
        "# Reward accuracy beside TRL's DPOTrainer, at equal pairs and at equal wall clock",
        "",
        f"`{figures['command']}`: {settings.model}, adapters of rank {settings.rank} on "
        f"all linear layers, DPO with beta {settings.beta}, learning rate {settings.learning_rate}, {settings.shots} "
        f"shots, {settings.queries} queries and their mirror a step, {figures['machine']['processors']} processors; "
        f"TRL {figures['versions']['trl']} with `max_length=None` and neither gradient checkpointing nor bf16. Same "
        f"start, same pairs, same order; accuracy is on {settings.episodes} episodes of held-out users on held-out "
        "questions, with 95% intervals clustered by user. All figures are in `figures.json`.",
        "",
        "| | pairs, TRL | pairs, fspo | seconds, TRL | seconds, fspo | accuracy, TRL | accuracy, fspo |",
        "|---|---|---|---|---|---|---|",
        *(_line(title, figures[name]) for name, title in _COMPARED),
        "",
        f"The same pairs took TRL {figures['speedup']:.1f} times as long.",
        "",
        "![Accuracy over seconds of training, both sides.](accuracy.svg)",
    ]
    return "\n".join(lines) + "\n"


def _line(title: str, compared: dict[str, dict[str, float]]) -> str:
    sides = [compared["peer"], compared["ours"]]
    accuracies = (f"{one['accuracy']:.1%} ({one['low']:.1%} to {one['high']:.1%})" for one in sides)
    cells = [*(f"{one['pairs']:.0f}" for one in sides), *(f"{one['seconds']:.0f}" for one in sides), *accuracies]
    return f"| {title} | {' | '.join(cells)} |"


def _plot(sides: dict[str, list[dict[str, float]]]) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for name, label, marker in (("peer", "TRL's DPOTrainer", "s"), ("ours", "fspo", "o")):
        rows = sides[name]
        axes.plot([row["seconds"] for row in rows], [100 * row["accuracy"] for row in rows], marker=marker, label=label)
    axes.axhline(50, color="grey", linewidth=0.8)
    axes.set(xlabel="seconds of training", ylabel="reward accuracy, held out (%)")
    axes.legend()
    text = io.StringIO()
    with rc_context({"svg.hashsalt": "accuracy_race"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    usual = Settings(data="")
    parser = argparse.ArgumentParser(prog="benchmarks.accuracy_race", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", help="a dataset with its splits, such as runs/reviews-cpu/data")
    parser.add_argument("--model", default=usual.model, help="the built-in model's name, a folder, or a hub id")
    for name in ("shots", "queries", "steps", "every", "episodes", "rank", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(usual, name))
    parser.add_argument("--learning-rate", type=float, default=usual.learning_rate)
    parser.add_argument("--beta", type=float, default=usual.beta)
    parser.add_argument("--out", type=Path, help="folder for figures.json, README.md and accuracy.svg")
    options = vars(parser.parse_args(arguments))
    out = options.pop("out")
    warnings.simplefilter("ignore", FutureWarning)  # names on their way out, between trl and transformers
    try:
        figures = race(Settings(**options), command_line("accuracy_race", arguments), out=out)
    except FspoError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
