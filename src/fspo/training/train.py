"""Training a policy from a dataset: one call, which continues or returns at once when it is repeated."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from fspo.errors import ConfigError, DataError, StorageError, TrainingError
from fspo.files import check_unclaimed, full_disk_explained, locked, read_json, storage_error, write_json, write_text
from fspo.identity import digest, same
from fspo.modeling.fitting import AROUND_DESCRIPTION, Fitted, Room, fitted
from fspo.modeling.folders import ADAPTERS, MODEL, TOKENIZER_FILES, has_tokenizer
from fspo.modeling.generation import evaluating
from fspo.modeling.loading import context_length, fast_dtype, reading_limit
from fspo.modeling.memory import out_of_memory_explained
from fspo.modeling.model_names import POLICY_FILE, is_hub_id, layout_note
from fspo.modeling.policies import is_policy, load_policy, save_policy
from fspo.modeling.preparing import prepare_model
from fspo.modeling.rendering import REMEMBERED_TEXTS, Context, EpisodeRenderer
from fspo.paths import expanded
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import EpisodeSampler, short_users_said
from fspo.preferences.types import Episode, Preference
from fspo.printing import counted
from fspo.progress import Progress, Silent
from fspo.training.adapters import frozen_copy, prepare_weights
from fspo.training.arguments import check_trackers
from fspo.training.callbacks import FirstEffect
from fspo.training.checkpoints import newest_checkpoint, read_record
from fspo.training.companion import COMPANION, Companion, attach, save_companion
from fspo.training.config import SMOOTHED, TrainingConfig
from fspo.training.losses import Reference
from fspo.training.policy_card import SEES, may_be_replaced, policy_card
from fspo.training.precomputing import REFERENCE_FILE, precompute
from fspo.training.processes import agreed, joined, whole_state
from fspo.training.rationalization import Rationalizer, closeness_named
from fspo.training.references import reference_of
from fspo.training.selection import Course, forget_best, remove_all
from fspo.training.start import Start
from fspo.training.steps import (
    Episodes,
    EpisodeStream,
    GivenEpisodes,
    Observer,
    StepBatch,
    StepCollator,
    Unit,
    known_responses,
)
from fspo.training.trainer import CHECKPOINTS_FOLDER, LOGS_FOLDER, METRICS_FILE, PolicyTrainer, trim_metrics

__all__ = [
    "MEMORY_ADVICE",
    "TRAINING_FILE",
    "Loop",
    "Training",
    "check_record",
    "fitted_for",
    "left_out_of",
    "max_length_of",
    "move_policy",
    "time_episode",
    "train_policy",
]

MEMORY_ADVICE = (
    "set gradient_checkpointing to true or lower row_tokens, after which the training continues from its last "
    "checkpoint, or begin again with fewer queries, shots or users_per_step, or a smaller max_length"
)
"""What to do where a device has too little memory for a training."""

TRAINING_FILE = "training.json"
"""What was trained on what, and whether it is finished."""

_LOCK = ".lock"

_WRITES = (
    *(POLICY_FILE, "adapter_*", ADAPTERS, *MODEL.needs, "model*.safetensors.index.json", "generation_config.json"),
    *(pattern for pattern in TOKENIZER_FILES if "/" not in pattern),
    f"{COMPANION}.*",
    *("additional_chat_templates", CHECKPOINTS_FOLDER, LOGS_FOLDER, METRICS_FILE, REFERENCE_FILE),
)
"""What a training writes into its folder, after `training.json`."""


def train_policy(
    config: TrainingConfig,
    dataset: PreferenceDataset,
    *,
    model: str | Path,
    out: Path,
    context: Context = "shots",
    progress: Progress | None = None,
    validation: PreferenceDataset | None = None,
    method: str = "",
    observer: Observer | None = None,
    callbacks: Sequence[TrainerCallback | type[TrainerCallback]] = (),
    episodes: Sequence[Episode] = (),
    companion: Companion | None = None,
    row_number: Callable[[Preference], int] | None = None,
) -> Path:
    """Train a policy and write it to `out`, beside `training.json` and `metrics.jsonl`.

    Repeated with the same arguments it goes on from the newest complete checkpoint, to the same weights as without the
    interruption, or returns at once when it is finished. Called by all processes that `accelerate launch` started, it
    trains one policy with all of them, and the first of them writes.

    Args:
        config: the settings.
        dataset: the training part of a dataset.
        model: name of a model, or the folder of a policy to start from, whose weights are then the reference.
        out: folder of the policy; made if it is missing.
        context: what the model is told of the user.
        progress: told of every step.
        validation: other people's preferences, measured every `config.evaluate_every` steps and never trained on.
        method: noted in the policy.
        observer: says which effects a `target: observer` aims at.
        callbacks: of transformers; called at every event of the loop.
        episodes: train on these again and again, shuffled, and not on episodes drawn from `dataset`. The model must be
            able to read their queries whole.
        companion: weights of a method's own, trained beside the adapters.
        row_number: gives the row of a preference in its file, to say what is left out.

    Returns:
        `out`, which holds a `policy.json`.

    Raises:
        ConfigError: the settings contradict each other, or `out` holds another training.
        DataError: a user has too few preferences.
        ModelError: the model can't be had.
        TrainingError: the loss is not a number.
        StorageError: the disk is full, or another training is at work in `out`.
    """
    out = expanded(out)
    training = Training(
        config,
        dataset,
        Start(expanded(model), out),
        out,
        context,
        validation,
        method,
        observer,
        tuple(callbacks),
        tuple(episodes),
        companion,
        row_number,
    )
    if not training.is_finished():
        training.run(training.loop(), progress or Silent())
    return out


@dataclass(frozen=True)
class Loop:
    """A policy in memory, what renders for it, and the trainer around both."""

    trainer: PolicyTrainer
    renderer: EpisodeRenderer
    reference: Reference | None
    """Enters the model that training started from; None where all weights are trained and nothing needs it."""
    sampler: Episodes
    """Has the episodes that are trained on."""
    read: Fitted
    """The dataset, and what of it the model can't read whole."""

    @property
    def policy(self) -> Any:
        """The policy itself, without what a device or several processes put around it."""
        return self.trainer.accelerator.unwrap_model(self.trainer.model)


@dataclass(frozen=True)
class Training:
    """One training: what is learned from what, and where it is kept.

    Raises:
        ConfigError: the settings don't fit the context.
        DataError: a user has too few preferences.
    """

    config: TrainingConfig
    dataset: PreferenceDataset
    start: Start
    out: Path
    context: Context = "shots"
    validation: PreferenceDataset | None = None
    method: str = ""
    observer: Observer | None = None
    callbacks: tuple[TrainerCallback | type[TrainerCallback], ...] = ()
    """Of transformers, as its Trainer takes them; they are no part of the identity."""
    episodes: tuple[Episode, ...] = ()
    """To be trained on in the place of episodes drawn from the dataset."""
    companion: Companion | None = None
    """Weights of a method's own, trained beside the adapters."""
    row_number: Callable[[Preference], int] | None = None
    """Gives the row of a preference in its file, to say what is left out."""
    sampler: Episodes = field(init=False)
    identity: dict[str, Any] = field(init=False)
    """What decides which weights come out, ready for JSON; taken before training changes a model in memory."""

    def __post_init__(self) -> None:
        """Refuse what can't be trained before anything is written."""
        if self.config.dtype == "auto":
            object.__setattr__(self, "config", self.config.model_copy(update={"dtype": fast_dtype()}))
        check_trackers(self.config)
        if self.config.mirrors and not self.shown:
            raise ConfigError(
                f"A mirror swaps the labels of the shots, but with context '{self.context}' the model sees none; "
                "turn the mirror off and choose an objective without one, or put the shots into the context."
            )
        if self.config.describe != "none":
            self._check_descriptions()
        for row in self.dataset if self.config.objective in SMOOTHED else ():
            _ = row.label_noise  # raises where it is no probability
        if self.config.follows_observer and self.observer is None:
            raise ConfigError(
                "target: there is no observer to follow; give FSPOTrainer one (observer), or set a number of nats."
            )
        object.__setattr__(self, "sampler", self._episodes(self.dataset))
        if self.config.selects and not self.validation:
            raise ConfigError(
                "keep_best and patience go by evaluations on other people's preferences, and there are none; give a "
                "validation part (eval_dataset in Python), or leave both out."
            )
        adapters = self.start.adapters
        identity = {
            "config": self.config.identity(),
            "dataset": self.dataset.fingerprint,
            **self.start.identity(),
            "context": self.context,
            **({"companion": dict(self.companion.identity())} if self.companion else {}),
            **({"episodes": digest([asdict(episode) for episode in self.episodes])} if self.episodes else {}),
            # Each pass draws its own dropout, so that with it the passes decide too.
            **({"row_tokens": self.config.row_tokens} if adapters is not None and adapters.lora_dropout else {}),
            **({"observer": self.observer.identity} if self.observer and self.config.follows_observer else {}),
            **({"validation": self.validation.fingerprint} if self.validation and self.config.selects else {}),
        }
        object.__setattr__(self, "identity", identity)

    def _check_descriptions(self) -> None:
        if self.context != "both":
            raise ConfigError(
                f"describe: a description stands beside the shots, but the context is '{self.context}'; use a method "
                "that shows both, such as fspo-rat."
            )
        silent = sorted(name for name, user in self.dataset.users.items() if not user.description)
        if silent:
            raise DataError(
                f"User '{silent[0]}' has no description to learn from ({len(silent)} such users); give every user of "
                "the training part one, or set describe to none."
            )

    @property
    def shown(self) -> bool:
        """Whether the shots matter: the model is shown them, or its companion reads them."""
        return self.context in ("shots", "both") or (self.companion is not None and self.companion.reads_shots)

    def is_finished(self) -> bool:
        """Whether `out` holds the policy that this training makes.

        Raises:
            ConfigError: `out` holds another training.
            StorageError: `out` holds something else.
        """
        if not (self.out / TRAINING_FILE).exists():
            check_unclaimed(self.out, (), _WRITES)
            return False
        return self._recorded() and is_policy(self.out)

    def _recorded(self) -> bool:
        """Whether the training on record, which must be this one, is finished."""
        return check_record(self.out, self.identity, self.config)

    def _know_weights(self) -> None:
        """Note which weights of a hub's model were loaded; only now are they sure to be on this machine.

        Raises:
            ConfigError: the training on record has begun with others.
        """
        object.__setattr__(self, "identity", {**self.identity, **self.start.hub_weights()})
        if (self.out / TRAINING_FILE).exists():
            self._recorded()

    @out_of_memory_explained(TrainingError, MEMORY_ADVICE)
    def loop(self, *, finished: bool = False) -> Loop:
        """The policy as it is before the first step, or as a finished training left it, ready to be used.

        Raises:
            ModelError: the model can't be had, can't be trained by trunk and branches, or does not know all tokens of
                its tokenizer.
            DataError: preferences are too long and `long_rows` refuses these, or too few are left.
            ConfigError: the processes can't share the users of a step, or shard the weights in the way that is asked
                for; or a hub's model has other weights than those that the training began with.
        """
        joined()  # a process has its device before a model is put on it
        self.start.check_vocabulary()
        lora = self.start.adapters or self.config.lora
        frozen = None
        if finished:
            policy: Any = load_policy(self.out, adapters="switchable" if lora else "merged")
            frozen = None if lora else self.start.load()
            if frozen is not None and self.start.in_memory:  # the user's own, which stays as it is
                frozen = frozen_copy(frozen)
        else:
            model = self.start.load()
            self._know_weights()
            prepare_model(model)  # while it is whole: sharded, it could not be tried
            policy = prepare_weights(model, lora, seed=self.config.seed)
            if self.companion is not None:
                attach(self.companion, policy, self.config.seed)
            if lora is None and self.config.needs_reference and not self.config.precompute_reference:
                frozen = frozen_copy(policy)
        reference = reference_of(policy, frozen) if lora or frozen is not None else None
        max_length = max_length_of(self.config, context_length(policy))
        renderer = EpisodeRenderer(
            self.start.load_tokenizer(),
            context=self.context,
            max_length=max_length,
            layout=self.config.layout,
            remembered=REMEMBERED_TEXTS,
        )
        read = fitted_for(self.config, self.dataset, renderer, number=self.row_number)
        with read.explaining("the training part"):
            sampler = self._episodes(read.dataset) if read.left_out else self.sampler
        measured = self.validation if self.config.evaluate_every else None
        units = () if measured is None else self.units(measured, renderer)
        trainer = PolicyTrainer(
            policy,
            config=self.config,
            stream=EpisodeStream(sampler, self.config.steps * self.config.users_per_step, fixed=self._fixed),
            collator=self._collator(renderer, read.dataset),
            folder=self.out,
            reference=reference if self.config.needs_reference else None,
            validation=units,
            rationalizer=self._rationalizer(renderer, units),
            companion=self.companion,
            callbacks=self.callbacks,
        )
        return Loop(trainer, renderer, reference, sampler, read)

    def units(self, dataset: PreferenceDataset, renderer: EpisodeRenderer) -> Sequence[Unit]:
        """The episodes of `dataset` that are measured, always the same ones, each with both sides and its mirror.

        Raises:
            DataError: nobody has enough preferences, or some are too long and `long_rows` refuses these.
        """
        read = fitted_for(self.config, dataset, renderer)
        with read.explaining("the validation part"):
            sampler = self._sampler(read.dataset, skip_short_users=True)
        collator = self._measuring(renderer)
        episodes = ((index, sampler.episode(index)) for index in range(self.config.evaluate_episodes))
        return [unit for index, episode in episodes for unit in collator.units(index, episode)]

    @full_disk_explained()
    @out_of_memory_explained(TrainingError, MEMORY_ADVICE)
    def run(self, loop: Loop, progress: Progress) -> bool:
        """Train from the newest complete checkpoint on, and write the policy.

        Returns:
            Whether the loop was trained; another call may have finished the training while the loop was made.

        Raises:
            ConfigError: another call has begun another training in the folder.
            TrainingError: the loss is not a number.
            StorageError: the disk is full, or another training is at work in the folder.
        """
        with self._alone():
            finished = self.is_finished()
            if not finished:
                self._run(loop, progress)
        return not finished

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lock the folder against other trainings; of several processes that train together, the first does."""
        with ExitStack() as held:
            why = ""
            if joined().is_main_process:
                busy = f"Another training is at work in {self.out}; wait for it, or name another folder."
                try:
                    held.enter_context(locked(self.out / _LOCK, busy=busy))
                except StorageError as error:
                    why = str(error)
            if why := agreed(why):
                raise StorageError(why)
            yield

    def _run(self, loop: Loop, progress: Progress) -> None:
        process = joined()
        process.wait_for_everyone()
        if process.is_main_process:
            write_json(self.out / TRAINING_FILE, {"identity": self.identity, "finished": False})
        else:
            progress = Silent()
        if self.config.dtype == "bfloat16":
            progress.say("The model computes in bfloat16; its weights stay in float32.")
        if self.start.policy is not None and (note := layout_note(self.start.policy, self.config.layout)):
            progress.say(note)
        for line in (
            *loop.read.said("the training part"),
            *short_users_said(loop.sampler.skipped, "the training part"),
        ):
            progress.say(line)
        if self.config.precompute_reference and self.config.needs_reference:
            self._precompute(loop, progress)
        self._steps(loop.trainer, progress)
        kept: dict[str, Any] = {"left_out": len(loop.read.left_out)} if loop.read.left_out else {}
        if self.config.keep_best:
            loop.trainer.restore_best()
            kept["kept_step"] = loop.trainer.course.best
            progress.say(f"Kept the weights of step {loop.trainer.course.best}, the best on held-out people.")
        self._write(loop.policy)
        if process.is_main_process:
            write_json(self.out / TRAINING_FILE, {"identity": self.identity, "finished": True, **kept})
            remove_all(self.out / CHECKPOINTS_FOLDER)
            (self.out / REFERENCE_FILE).unlink(missing_ok=True)
        process.wait_for_everyone()

    def save(self, policy: Any, folder: Path, *, home: Path | None = None) -> Path:
        """Write the policy alone into `folder`, which is replaced; see `save_policy` for `home`.

        Raises:
            StorageError: the disk is full.
        """
        weights = whole_state(policy)
        details = {"context": self.context, "layout": self.config.layout, "training": self.identity["config"]}
        details |= {COMPANION: True} if self.companion is not None else {}
        if joined().is_main_process:
            replaceable = may_be_replaced((home or folder) / "README.md")
            save_policy(
                policy,
                folder,
                base=str(self.start.name),
                method=self.method,
                start=self.start.policy,
                details=details,
                home=home,
                tokenizer=self.start.tokenizer,
                weights=weights,
            )
            if replaceable:
                write_text(folder / "README.md", self._card(own_tokenizer=has_tokenizer(folder)))
            if self.companion is not None:
                save_companion(self.companion, policy, folder)
        return folder

    def _card(self, *, own_tokenizer: bool) -> str:
        """The model card; no folder of this machine stands in it, since cards are published."""
        base, start = str(self.start.name), self.start.policy
        model = base if is_hub_id(base) or "/" not in base else Path(base).name
        facts = [
            f"{'Starts from the policy' if start else 'Base model'}: `{model}`, whose licence applies",
            f"Sees of the user: {SEES[self.context]}",
            f"Trained on: {counted(len(self.dataset), 'preferences')} of {counted(len(self.dataset.users), 'users')}",
        ]
        about = "A policy that adapts to a person from a few of their labelled preferences, trained with fspo."
        return policy_card(
            self.method or "Personalised policy",
            about,
            facts,
            self.context,
            self.config,
            peft_config=self.start.peft_settings(),
            own_tokenizer=own_tokenizer,
        )

    def _measuring(self, renderer: EpisodeRenderer) -> StepCollator:
        # The user's own description would contradict mirrored labels.
        mirror = self.shown and self.config.shots > 0 and self.config.describe != "gold"
        measured = self.config.model_copy(update={"mirror": mirror, "ladder": None, "responses": 2})
        return StepCollator(renderer, measured, both_sides=True, observer=self.observer, companion=self.companion)

    def _collator(self, renderer: EpisodeRenderer, dataset: PreferenceDataset | None = None) -> StepCollator:
        known = known_responses(dataset or self.dataset, self.config)
        return StepCollator(renderer, self.config, observer=self.observer, known=known, companion=self.companion)

    def _rationalizer(self, renderer: EpisodeRenderer, validation: Sequence[Unit]) -> Rationalizer | None:
        if self.config.describe != "own":
            return None
        collator, closeness = self._collator(renderer), closeness_named(self.config.closeness)
        return Rationalizer(collator, closeness, measuring=self._measuring(renderer), validation=validation)

    def _precompute(self, loop: Loop, progress: Progress) -> None:
        """Ask the reference about all fixed episodes, also the validation ones; nothing has been trained yet."""
        collator = self._collator(loop.renderer)
        units = loop.trainer.validation
        settings: dict[str, Any] = {"config": self.config, "folder": self.out, "progress": progress}
        # Before the first step, a policy without a frozen copy is its own reference.
        reference = loop.reference or partial(evaluating, loop.policy)
        settings |= {"accelerator": loop.trainer.accelerator, "reference": reference}
        loop.trainer.remember(
            precompute(
                unit=lambda number: collator.unit(number, loop.sampler.episode(number)),
                count=self._fixed or 0,
                part=f"train {self.dataset.fingerprint}",
                **settings,
            ),
            precompute(
                unit=units.__getitem__,
                count=len(units),
                part=f"validation {self.validation.fingerprint if self.validation else ''}",
                **settings,
            ),
        )

    @property
    def _fixed(self) -> int | None:
        """How many episodes there are; None: every step draws new ones."""
        return len(self.episodes) or self.config.episodes

    def _episodes(self, dataset: PreferenceDataset) -> Episodes:
        """The episodes that are trained on."""
        if self.episodes:
            return GivenEpisodes(self.episodes, self.config.seed)
        return self._sampler(dataset, self.config.skip_short_users)

    def _sampler(self, dataset: PreferenceDataset, skip_short_users: bool) -> EpisodeSampler:
        config = self.config
        return EpisodeSampler(
            dataset,
            shots=config.shots if self.shown else 0,
            queries=config.queries,
            seed=config.seed,
            skip_short_users=skip_short_users,
        )

    def _steps(self, trainer: PolicyTrainer, progress: Progress) -> None:
        checkpoint = agreed(newest_checkpoint(self.out / CHECKPOINTS_FOLDER))
        done = int(read_record(checkpoint, "trainer_state")["global_step"]) if checkpoint else 0
        if trainer.is_world_process_zero():
            trim_metrics(self.out, done)
            forget_best(self.out / CHECKPOINTS_FOLDER, done)
        trainer.course = Course.read(self.out / METRICS_FILE, done)
        if (target := self.config.constant_target) is not None:
            trainer.add_callback(FirstEffect(progress.say, target))
        name = f"Training {self.method or self.config.objective}"
        with progress.task(name, self.config.steps, done) as task, self._logs():
            trainer.listener = task
            if checkpoint is not None and trainer.course.is_over(self.config.patience):
                trainer.restore(checkpoint)
            elif done < self.config.steps or checkpoint is not None:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)

    @contextmanager
    def _logs(self) -> Iterator[None]:
        """Let wandb keep its files beside the policy, unless the environment names a place."""
        if "wandb" not in self.config.trackers or "WANDB_DIR" in os.environ:
            yield
            return
        folder = self.out / LOGS_FOLDER
        folder.mkdir(parents=True, exist_ok=True)  # wandb takes another folder if it is missing
        os.environ["WANDB_DIR"] = str(folder)
        try:
            yield
        finally:
            del os.environ["WANDB_DIR"]

    def _write(self, policy: Any) -> None:
        """Write the policy into `out`, beside what is there; `policy.json` comes last."""
        out = self.out
        staged = self.save(policy, out / ".policy", home=out)
        if not joined().is_main_process:
            return
        move_policy(staged, out)


def check_record(out: Path, identity: Mapping[str, Any], config: TrainingConfig) -> bool:
    """Whether the training on record in the policy's folder `out` is finished.

    Raises:
        ConfigError: it is another training.
        StorageError: the record is damaged.
    """
    path = out / TRAINING_FILE
    found = read_json(path)
    if not isinstance(found, dict) or "identity" not in found:
        raise StorageError(f"{path} is not the record of a training; delete {out} and run the command again.")
    then, now = (
        {
            **{name: value for name, value in each.get("config", {}).items() if name not in config.idle},
            **{name: value for name, value in each.items() if name != "config"},
        }
        for each in (found["identity"], identity)
    )
    compared = same(then, now, known=["weights", "tokenizer_files"], usual=type(config).usual())
    if not compared:
        raise ConfigError(
            f"{out} holds a training with {compared.then}, and now {compared.now}; choose another output folder, or "
            "delete this one to train again."
        )
    return bool(found["finished"])


def move_policy(staged: Path, out: Path) -> None:
    """Move a policy into `out`, beside what is there; `policy.json` comes last.

    Raises:
        StorageError: the folder can't be written.
    """
    try:
        for part in sorted(staged.iterdir(), key=lambda path: path.name == POLICY_FILE):
            if (out / part.name).is_dir():
                shutil.rmtree(out / part.name)
            part.rename(out / part.name)
        staged.rmdir()
    except OSError as error:
        raise storage_error(out, error) from error


def time_episode(config: TrainingConfig, model: str | Path, unit: Unit, folder: Path) -> float:
    """Seconds that one episode takes through a model, forth and back, as in a step of a training with these settings.

    The settings have one user in a step. The folder is empty, for what a trainer may write.

    Raises:
        ModelError: the model can't be loaded, or can't be trained by trunk and branches.
    """
    if config.dtype == "auto":
        config = config.model_copy(update={"dtype": fast_dtype()})
    joined()
    loaded = Start(model, folder).load()
    prepare_model(loaded)
    policy = prepare_weights(loaded, config.lora, seed=config.seed)
    frozen = frozen_copy(policy) if config.lora is None and config.needs_reference else None
    reference = reference_of(policy, frozen) if config.needs_reference else None
    nothing: Any = []
    trainer = PolicyTrainer(policy, config=config, stream=nothing, collator=nothing, folder=folder, reference=reference)
    trained: Any = trainer.model
    taken: list[float] = []
    while len(taken) < 2 and sum(taken) < 2:  # the first pass also pays for what is made once
        started = time.monotonic()
        trainer.training_step(trained, {"step": StepBatch(((unit,),))})
        taken.append(time.monotonic() - started)
    return min(taken)


def left_out_of(policy: Path) -> int:
    """How many preferences a training left out because its model can't read them whole, as its record says."""
    path = policy / TRAINING_FILE
    record = read_json(path) if path.is_file() else {}
    return int(record.get("left_out", 0)) if isinstance(record, dict) else 0


def fitted_for(config: TrainingConfig, dataset: PreferenceDataset, renderer: EpisodeRenderer, **named: Any) -> Fitted:
    """The preferences of `dataset` that a training can read whole; `named` as for `fitted`.

    Raises:
        DataError: there are others, and `long_rows` refuses these.
    """
    room = Room(
        renderer,
        drafted=config.description_tokens + AROUND_DESCRIPTION if config.describe == "own" else 0,
        learns_description=config.describe == "gold",
    )
    return fitted(dataset, [room], config.long_rows, **{"setting": "long_rows", "file": "The training part", **named})


def max_length_of(config: TrainingConfig, context: int | None) -> int | None:
    """Most tokens before and in a response, for a model that reads so many; None for no limit.

    Raises:
        ConfigError: the settings ask for more than the model reads.
    """
    return reading_limit(config.max_length, context, "training ")
