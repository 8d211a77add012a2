"""What is to be trained, before it is: the steps of each method and where they are set, its tokens, and its time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from fspo.errors import DataError, FspoError
from fspo.files import read_json
from fspo.methods.round_settings import RoundSettings
from fspo.methods.table import Method, training_order
from fspo.modeling.size import count_weights
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import EpisodeSampler
from fspo.printing import rounded
from fspo.progress import Progress, duration
from fspo.runs.config import EVERY, RunConfig, methods_of
from fspo.runs.folder import RunFolder
from fspo.training.config import TrainingConfig

if TYPE_CHECKING:
    from fspo.training.steps import Unit

__all__ = [
    "PlannedTraining",
    "TimeLeft",
    "is_trained",
    "measure",
    "planned_trainings",
    "remaining",
    "table",
    "too_large",
]

_SAMPLE = 8
"""Episodes that are rendered to count the tokens of a step."""
_TRAINED, _READ = 3, 1
"""Work for each token of a pass with gradients, and of one without: the way back costs twice the way forth."""
_MOST_WORK = 1e12
"""Weights times tokens that a processor gets through in some ten seconds."""


@dataclass(frozen=True)
class PlannedTraining:
    """One training that is still to be done, or was."""

    row: Method
    config: TrainingConfig
    source: str
    """Where the number of steps is set."""
    reason: str
    """Why it is trained although the run does not name it; empty where it does."""
    done: int
    """Steps that an earlier call has done."""
    units: tuple[Unit, ...] = ()
    """Some of its episodes; none where the data or the tokenizer are not there yet."""

    @property
    def step_tokens(self) -> float:
        """Tokens of an average step that go through the policy."""
        return self.config.users_per_step * fmean(unit.tokens for unit in self.units) if self.units else 0.0

    @property
    def work(self) -> float:
        """What the steps that are left cost, in tokens read."""
        return (self.config.total_steps - self.done) * self.step_tokens * _work_of_token(self.config)


def planned_trainings(
    folder: RunFolder,
    names: Iterable[str],
    train: PreferenceDataset | None,
    model: str | Path | None,
    *,
    again: bool = False,
) -> list[PlannedTraining]:
    """The trainings of these methods in their order.

    Their tokens are counted if the training part and the model are there. `again`: what was done is to be removed
    first.
    """
    config, chosen = folder.config, set(names)
    rows = [row for row in training_order(methods_of(config)) if row.name in chosen]
    counted = train is not None and model is not None
    return [
        PlannedTraining(
            row,
            settings := config.training[row.name],
            _source(config, row.name, "steps"),
            _reason(config, row),
            0 if again else _done(folder, row.name, settings),
            _sample(settings, row, train, model) if counted and train is not None and model is not None else (),
        )
        for row in rows
    ]


def table(trainings: Sequence[PlannedTraining], seconds: float | None = None) -> list[str]:
    """Lines on what is to be trained; `seconds` is what one token that is read takes on this machine."""
    rows = [("training", "steps", "tokens", *(["time"] if seconds is not None else []), "steps set by")]
    for each in trainings:
        left = each.config.total_steps - each.done
        steps = f"{left:,}" if not each.done else f"{left:,} of {each.config.total_steps:,} left"
        tokens = f"about {rounded(left * each.step_tokens):,}" if each.units else "?"
        times = [f"about {duration(each.work * seconds)}"] if seconds is not None else []
        rows.append((each.row.name, steps, tokens, *times, each.source))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if place in (0, len(row) - 1) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [*lines, *(f"{each.row.name} {each.reason}" for each in trainings if each.reason)]


def remaining(trainings: Sequence[PlannedTraining], seconds: float) -> str:
    """A sentence on the time that these trainings take, at so many seconds for each token that is read."""
    parts = [f"{each.row.name} {duration(each.work * seconds)}" for each in trainings if each.work]
    total = duration(sum(each.work for each in trainings) * seconds)
    named = f" ({', '.join(parts)})" if len(parts) > 1 else ""
    answers = " The answers that methods write in between are not included." if any(map(_writes, trainings)) else ""
    measured = "an estimate from a short measurement on this machine, as busy as it is now"
    return f"Training takes about {total}{named}, {measured}.{answers}"


class TimeLeft:
    """Says how long the trainings that are left take, once the speed of the first of them is known."""

    def __init__(self, trainings: Sequence[PlannedTraining], progress: Progress) -> None:
        """`trainings` in their order, with the steps done before this call."""
        self._trainings, self._progress, self._current = trainings, progress, 0

    def begin(self, number: int) -> None:
        """Note that the training with this number begins, from 0."""
        self._current = number

    def tell(self, tokens_per_second: float, step: int) -> None:
        """Say how long is left, from the current training's step and speed."""
        now, *later = self._trainings[self._current :]
        seconds = 1 / max(tokens_per_second, 1e-9) / _work_of_token(now.config)  # for a token that is read
        done = max(step, now.done)  # a training in rounds counts the steps of each round from 0
        left = [replace(now, done=done), *later]
        if any(each.work for each in left):
            self._progress.say(remaining(left, seconds))


def _writes(training: PlannedTraining) -> bool:
    return isinstance(training.config, RoundSettings) and training.work > 0


def measure(folder: RunFolder, trainings: Sequence[PlannedTraining]) -> tuple[float | None, str]:
    """What one token takes that is read on this machine, and why it is not known where it is not.

    One real episode of the largest training goes through the model, forth and back. Nothing is kept.

    Raises:
        FspoError: the model can't be loaded or trained.
    """
    largest = max((each for each in trainings if each.units), key=lambda each: each.work, default=None)
    if largest is None or not largest.work:
        return None, ""
    tokens, copies = fmean(unit.tokens for unit in largest.units), 1 if largest.config.lora is not None else 4
    why = too_large(folder.config.model, tokens, copies, "training takes")
    return (None, why) if why else (_seconds(folder, largest), "")


def _seconds(folder: RunFolder, training: PlannedTraining) -> float:
    from fspo.modeling.quiet import quiet
    from fspo.runs.threads import use_free_threads
    from fspo.training.timing import time_episode

    quiet()
    use_free_threads(folder.config)
    unit = sorted(training.units, key=lambda unit: unit.tokens)[len(training.units) // 2]
    with TemporaryDirectory(prefix="fspo-measure-") as temporary:
        seconds = time_episode(_measured(training.config), folder.config.model, unit, Path(temporary))
    return seconds / unit.tokens / _work_of_token(training.config)


def too_large(model: str, tokens: float, copies: int, what: str) -> str:
    """Why one episode can't be measured in some seconds; empty where it can. `what` begins a sentence on the memory.

    There are 4 copies of the weights in memory with gradients and the optimizer's state, else 1.
    """
    import torch

    weights = count_weights(model) or 0
    gib = 4 * weights * copies / 2**30
    if torch.accelerator.is_available():
        free = torch.cuda.mem_get_info()[0] / 2**30 if torch.cuda.is_available() else float("inf")
    else:
        free = _free_memory() / 2**30
        if weights * tokens > _MOST_WORK:
            return "No estimate of the time: on a processor one episode of this length takes minutes with this model."
    if gib > 0.7 * free:
        return f"No estimate of the time: {what} about {gib:.1f} GiB, and {free:.1f} GiB are free."
    return ""


def _free_memory() -> float:
    """Bytes that this machine can give; infinite where it does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith("MemAvailable"))) * 1024
    except (OSError, StopIteration, ValueError):
        return float("inf")


def _measured(config: TrainingConfig) -> TrainingConfig:
    """The same work for an episode without what needs more than the episode."""
    return _counted(config).model_copy(
        update={
            "users_per_step": 1,
            "steps": 1,
            "episodes": None,
            "precompute_reference": False,
            "evaluate_every": 0,
            "keep_best": False,
            "patience": 0,
            "report_to": [],
        }
    )


def _counted(config: TrainingConfig) -> TrainingConfig:
    """The same texts without what an observer or the policy itself would have to add."""
    return config.model_copy(
        update={
            "target": 1.0 if config.target == "observer" else config.target,
            "describe": "none" if config.describe == "own" else config.describe,
        }
    )


def _work_of_token(config: TrainingConfig) -> float:
    reads = config.needs_reference and not config.precompute_reference and config.reference == "shots"
    return _TRAINED + _READ * reads


def _sample(config: TrainingConfig, row: Method, train: PreferenceDataset, model: str | Path) -> tuple[Unit, ...]:
    """Some episodes of a training, rendered."""
    from fspo.modeling.loading import context_length, load_tokenizer
    from fspo.modeling.rendering import EpisodeRenderer
    from fspo.training.long_rows import max_length_of
    from fspo.training.steps import StepCollator, known_responses

    limit = max_length_of(config, context_length(model))
    renderer = EpisodeRenderer(load_tokenizer(model), context=row.shown, max_length=limit, layout=config.layout)
    collator = StepCollator(renderer, _counted(config), known=known_responses(train, config))
    shots = config.shots if row.draws_shots else 0
    found: list[Unit] = []
    try:
        sampler = EpisodeSampler(train, shots=shots, queries=config.queries, seed=config.seed, skip_short_users=True)
    except DataError:  # nobody has enough preferences, which the check of the data says better
        return ()
    for index in range(_SAMPLE):
        try:
            found.append(collator.unit(index, sampler.episode(index)))
        except DataError:  # a preference that is too long, and left out of the training
            continue
    return tuple(found)


def _done(folder: RunFolder, name: str, config: TrainingConfig) -> int:
    """Steps that an earlier call has done, as far as the next one can continue from them."""
    from fspo.methods.round_setup import ROUNDS_FOLDER
    from fspo.training.training_folder import TRAINING_FILE

    place, steps = folder.method(name), config.total_steps
    if is_trained(place):
        return steps
    inside = [record.parent for record in sorted((place / ROUNDS_FOLDER).rglob(TRAINING_FILE))]
    return min(steps, sum(map(_done_in, [place, *inside])))


def is_trained(place: Path) -> bool:
    """Whether a method's folder holds a finished training, or a fitted reader."""
    from fspo.methods.reader_fitting import READER_FILE
    from fspo.training.training_folder import TRAINING_FILE

    try:
        return (place / READER_FILE).is_file() or bool(read_json(place / TRAINING_FILE)["finished"])
    except (FspoError, KeyError, TypeError):
        return False


def _done_in(place: Path) -> int:
    """Steps of one training loop."""
    from fspo.training.checkpoints import newest_checkpoint
    from fspo.training.trainer import CHECKPOINTS_FOLDER
    from fspo.training.training_folder import TRAINING_FILE

    if is_trained(place):
        return int(read_json(place / TRAINING_FILE)["identity"]["config"]["steps"])
    try:
        read_json(place / TRAINING_FILE)
    except FspoError:  # checkpoints without a record belong to no training
        return 0
    newest = newest_checkpoint(place / CHECKPOINTS_FOLDER)
    return 0 if newest is None else int(newest.name.rpartition("-")[2])


def _source(config: RunConfig, method: str, setting: str) -> str:
    """Where a setting of a training is given, and what it overrides."""
    given = config.given_training
    sections = [section for section in (method, EVERY) if setting in given.get(section, {})]
    if not sections:
        return f"the default; set training.{method}.{setting}"
    names = [f"training.{section}.{setting}" for section in sections]
    where = config.written_in.where(("training", sections[0], setting))
    differs = len(names) > 1 and given[EVERY][setting] != given[method][setting]
    over = f", over {names[1]} = {given[EVERY][setting]}" if differs else ""
    return f"{names[0]} ({where}){over}"


def _reason(config: RunConfig, row: Method) -> str:
    """Why a method is trained that the run does not name."""
    if row.name in config.methods:
        return ""
    needing = [other.name for other in methods_of(config) if other.starts_from == row.name]
    needing = needing or [other.name for other in training_order(methods_of(config)) if other.starts_from == row.name]
    verb = "starts" if len(needing) == 1 else "start"
    skipping = f"[{','.join(dict.fromkeys([*config.from_base, *needing]))}]"
    return (
        f"is not among the run's methods, but {' and '.join(needing)} {verb} from it. To skip it, write `from_base: "
        f"{skipping}` at the top level of the configuration, beside `methods`, or add `--set 'from_base={skipping}'`."
    )
