"""What of the recipe for written domains helps: each row changes a part of it, at equal tokens of training.

    python -m benchmarks.learning_ablation --out docs/results/learning_ablation            # some hours on 2 cores
    python -m benchmarks.learning_ablation --tokens 30000 --rows recipe,pairs

Every row trains `fspo` on the same data and is measured on the same held-out users and questions; `few-shot` is the
model without training. A part can be several settings: `pairs` changes five, `squared` three of these. `constant
target` and `ipo` change `pairs` further, so compare them with `pairs`. A row's number of steps is what its tokens
allow. The rows are runs below `--work`, and the same command resumes. What the rows have in common is in
`benchmarks/learning_ablation.yaml`.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.command_line import command_line
from fspo.errors import ConfigError, FspoError
from fspo.evaluation.metrics.items import Items
from fspo.evaluation.scoring.eval_episodes import build_trials
from fspo.evaluation.statistics.comparing import Values, paired_difference
from fspo.evaluation.statistics.intervals import clustered_mean
from fspo.files import write_json, write_text, writing
from fspo.identity import digest, weights_identity
from fspo.modeling.policy import Policy
from fspo.modeling.quiet import quiet
from fspo.preferences.splits import SplitDataset, Splits
from fspo.preferences.types import Episode
from fspo.progress import PlainProgress, Progress
from fspo.records import KeyedLog
from fspo.runs import pipeline
from fspo.runs.config import RunConfig, load_config
from fspo.runs.existing import Existing
from fspo.runs.folder import RunFolder
from fspo.runs.training_plan import planned_trainings

__all__ = ["ROWS", "configured", "fewer_users", "main"]

COMMON = Path(__file__).with_suffix(".yaml")
RECIPE = "recipe"
LABELLED = "labelled layout"
TWELVE = "twelve users"
POOLED = "pooled"
UNTRAINED = "untrained"

_SQUARED = ("training.fspo.contrast=squared", "training.fspo.observer_scale=2.5", "training.fspo.bias_weight=0.1")
_PAIRS = (*_SQUARED, "training.fspo.responses=2", "training.fspo.queries=8")
ROWS: Mapping[str, tuple[str, ...]] = {
    RECIPE: (),
    LABELLED: ("layout=labelled",),
    TWELVE: (),
    "pairs": _PAIRS,
    "constant target": (*_PAIRS, "training.fspo.target=6.0"),
    "ipo": (
        *_PAIRS,
        "training.fspo.target=2.0",
        "training.fspo.objective=ipo",
        "training.fspo.reference=shots",
        "training.fspo.mirror=true",
        "training.fspo.beta=0.0833",
    ),
    "attention only": ("training.fspo.lora.target_modules=[q_proj, k_proj, v_proj, o_proj]",),
    POOLED: (),
    "all layers": ("training.fspo.lora.last_layers=null",),
    "squared": _SQUARED,
    "no bias weight": ("training.fspo.bias_weight=0",),
    "no likelihood": ("training.fspo.pref_ft_weight=0",),
}
"""Row -> what is set for it besides. `pooled` reads the policies of `recipe`, trained and not, shot by shot."""

_ACCURACY = "reward_accuracy"
_SHOWN = {_ACCURACY: "reward_accuracy/antisymmetric", "label_flip_rate": "label_flip_rate"}
"""Measure -> what its values are called item by item."""

Measured: TypeAlias = Mapping[str, Values]
"""Measure -> its value of each item."""


def configured(row: str, data: Path, work: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a row that learns from the dataset in `data`.

    Raises:
        ConfigError: there is no such row, or a setting is wrong.
    """
    if row not in ROWS:
        raise ConfigError(f"There is no row '{row}' here; choose from {', '.join(ROWS)}.")
    name = (RECIPE if row == POOLED else row).replace(" ", "-")
    untrained = [] if row in (RECIPE, LABELLED, POOLED) else ["methods=[fspo]"]
    return load_config(COMMON, [f"name={name}", f"data={data}", *untrained, *overrides, *ROWS[row]], work / name)


def fewer_users(data: Path, out: Path, count: int, seed: int) -> Path:
    """The dataset with only so many users in its training part; nothing else differs."""
    if (out / "judge.json").exists():
        return out
    whole = SplitDataset.load(data)
    stay = frozenset(random.Random(seed).sample(sorted(whole.splits.users["train"]), count))
    splits = Splits({**whole.splits.users, "train": stay}, whole.splits.questions)
    users = [user for part in splits.users.values() for user in part]
    SplitDataset(whole.whole.select(users=users), splits).save(out)
    with writing(out / "judge.json") as copy:
        shutil.copyfile(data / "judge.json", copy)
    return out


def measure(
    rows: Sequence[str],
    tokens: int,
    work: Path,
    overrides: Sequence[str],
    progress: Progress,
    out: Path | None,
    command: str,
) -> dict[str, Any]:
    """Go through the rows; with `out`, the page is written after each of them."""
    data = _data(work, overrides, progress)
    record: dict[str, Any] = {"benchmark": "learning_ablation", "command": command, "rows": []}
    untrained: Measured = {}
    for number, row in enumerate(rows, start=1):
        own = fewer_users(data, work / "twelve-users-data", 12, 0) if row == TWELVE else data
        tokens_each = _step_tokens(configured(row, own, work, overrides))
        steps = max(1, round(tokens / tokens_each))
        config = configured(row, own, work, [*overrides, f"training.fspo.steps={steps}"])
        counted = round(steps * tokens_each)
        progress.say(f"{number} of {len(rows)}: {row}, {steps} steps")
        _make(config, progress)
        if row in (RECIPE, POOLED):
            untrained = _values(config, "few-shot")
        record["rows"] += _rows(row, config, counted, untrained, progress)
        if out is not None:
            write_json(out / "learning_ablation.json", record)
            write_text(out / "README.md", _page(record))
    return record


def _data(work: Path, overrides: Sequence[str], progress: Progress) -> Path:
    """The dataset that all rows share."""
    folder = RunFolder(load_config(COMMON, ["name=data", *overrides], work / "data"))
    with folder.opened(folder.parts(), Existing.RESUME):
        pipeline.synth(folder, progress)
    return folder.data


def _step_tokens(config: RunConfig) -> float:
    """Tokens of an average step."""
    train = SplitDataset.load(Path(str(config.data))).train
    (planned,) = planned_trainings(RunFolder(config), ["fspo"], train, config.model)
    return planned.step_tokens


def _make(config: RunConfig, progress: Progress) -> None:
    folder = RunFolder(config)
    with folder.opened(folder.parts(), Existing.RESUME):
        pipeline.synth(folder, progress)
        pipeline.train(folder, progress)
        pipeline.evaluate(folder, progress)


def _rows(
    row: str, config: RunConfig, tokens: int, untrained: Measured, progress: Progress
) -> Iterator[dict[str, Any]]:
    """What a finished run of a row was measured to be."""
    if row == POOLED:
        yield from _pooled_rows(config, tokens, untrained, progress)
        return
    if "few-shot" in config.methods:
        yield _row(UNTRAINED if row == RECIPE else f"{UNTRAINED}, {row}", config, "few-shot", 0, untrained)
    yield _row(row, config, "fspo", tokens, untrained)


def _values(config: RunConfig, method: str) -> Measured:
    items = Items.read(RunFolder(config).evaluation)
    return {measure: items.values(method, name) for measure, name in _SHOWN.items()}


def _row(name: str, config: RunConfig, method: str, tokens: int, untrained: Measured) -> dict[str, Any]:
    metrics = pipeline.need_results(RunFolder(config))[method]
    curve = {f"{_ACCURACY}@{shots}": metrics.get(f"{_ACCURACY}@{shots}") for shots in (1, *config.evaluation.ladder)}
    known = {key: value.to_json() for key, value in curve.items() if value is not None}
    shown = {key: metrics[key].to_json() if key in metrics else None for key in _SHOWN}
    over = {} if name == UNTRAINED else _over(_values(config, method), untrained)
    return {**_described(name, config, tokens, known), **shown, "over_untrained": over}


def _over(own: Measured, untrained: Measured) -> dict[str, Any]:
    """The paired difference to the untrained model, of what both were measured by."""
    both = [measure for measure in own if own[measure] and untrained.get(measure)]
    return {measure: paired_difference(own[measure], untrained[measure]).to_json() for measure in both}


def _described(name: str, config: RunConfig, tokens: int, curve: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "domain": config.synthesis.domain, "tokens": tokens, "curve": curve}


@dataclass(frozen=True)
class _Margins:
    """How much more a user would like the chosen response of each pair, in nats."""

    margins: list[float]


def _pooled_rows(config: RunConfig, tokens: int, untrained: Measured, progress: Progress) -> list[dict[str, Any]]:
    """The accuracy of the sum of the antisymmetric rewards under each shot alone, on the items of the evaluation."""
    folder = RunFolder(config)
    test = pipeline.splits_of(folder).part(pipeline.dataset_of(folder), "test")
    trials = build_trials(test, config.evaluation)
    items = [(trial.user, trial.item(number)) for trial in trials for number in range(len(trial.own.queries))]
    trained, dtype = pipeline.policy_of(folder, "fspo"), config.evaluation.dtype
    rows = []
    for name, policy, weights, spent in (
        (UNTRAINED, Policy.load(config.model, context="shots", layout=config.layout, dtype=dtype), config.model, 0),
        (RECIPE, Policy.load(trained, dtype=dtype), weights_identity(trained), tokens),
    ):
        wanted = {
            digest([weights, dtype, config.layout, *map(repr, (*trial.own.shots, *trial.own.queries))]): trial.own
            for trial in trials
        }
        found = KeyedLog(folder.path / "pooled.jsonl", _Margins).complete(
            wanted,
            partial(_shot_by_shot, policy),
            title=f"Reading {name} shot by shot",
            progress=progress,
        )
        right = [float(margin > 0) for result in found for margin in result.margins]
        accuracy = clustered_mean(right, [user for user, _ in items]).to_json()
        over = _over({_ACCURACY: dict(zip(items, right, strict=True))}, untrained)
        shown = {**dict.fromkeys(_SHOWN), _ACCURACY: accuracy}
        rows.append({**_described(f"{name}, {POOLED}", config, spent, {}), **shown, "over_untrained": over})
    return rows


def _shot_by_shot(policy: Policy, trials: Sequence[Episode]) -> Iterator[_Margins]:
    """The margins of each trial's queries under each shot alone, summed over the shots."""
    for trial in trials:
        each = [policy.margins([shot], trial.queries) for shot in trial.shots]
        yield _Margins([sum(margins) for margins in zip(*each, strict=True)])


def _page(record: Mapping[str, Any]) -> str:
    curve = record["rows"][0]["curve"]
    counts = {key: f"at {key.partition('@')[2]} ({value['items']} pairs)" for key, value in curve.items()}
    titles = ("row", "tokens", "reward accuracy", "over untrained", "label flip", "over untrained", *counts.values())
    lines = [
        "# What of the recipe helps",
        "",
        f"```sh\n{record['command']}\n```",
        "",
        "The recipe is that of `configs/written.yaml` without its reduction. Each row changes a part of it, at equal "
        "tokens of training. `pairs` changes five settings (`ROWS` in the program); `constant target` and `ipo` change "
        "`pairs` further, so compare them with `pairs`. All rows are measured on the same held-out users and "
        "questions. Antisymmetric reward, percent, with 95% intervals clustered by user; what is over the "
        "untrained model are paired differences in points. The last columns have the accuracy by number of shots.",
        "",
        f"| {' | '.join(titles)} |",
        "|---" * len(titles) + "|",
    ]
    for row in record["rows"]:
        measures = [cell for key in _SHOWN for cell in (_cell(row[key]), _cell(row["over_untrained"].get(key)))]
        rungs = [_cell(row["curve"].get(key)) for key in counts]
        lines.append(f"| {' | '.join([row['name'], format(row['tokens'], ','), *measures, *rungs])} |")
    return "\n".join(lines) + "\n"


def _cell(estimate: Mapping[str, Any] | None) -> str:
    if estimate is None:
        return "-"
    value = f"{100 * estimate['value']:.1f}"
    if estimate["low"] is None:
        return value
    return f"{value} ({100 * estimate['low']:.1f} to {100 * estimate['high']:.1f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="benchmarks.learning_ablation", description=about)
    parser.add_argument("--rows", default=",".join(ROWS), help="some of them, with commas between")
    parser.add_argument("--tokens", type=int, default=80_000, help="tokens of each training")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all rows")
    parser.add_argument("--work", type=Path, default=Path("runs/learning_ablation"), help="where the runs are")
    parser.add_argument("--out", type=Path, help="folder for learning_ablation.json and README.md")
    options = parser.parse_args(arguments)
    command = command_line("learning_ablation", arguments)
    rows = options.rows.split(",")
    try:
        for row in rows:
            configured(row, options.work / "data" / "data", options.work, options.set)
        quiet()
        progress = PlainProgress(sys.stderr)
        record = measure(rows, options.tokens, options.work, options.set, progress, options.out, command)
    except FspoError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
