"""One training of a policy: what is learned from what, the loop that learns it, and how that resumes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from fspo.errors import ConfigError, DataError, TrainingError
from fspo.files import full_disk_explained, write_text
from fspo.identity import digest
from fspo.modeling.fitting import Fitted
from fspo.modeling.folders import has_tokenizer
from fspo.modeling.generation import evaluating
from fspo.modeling.loading import context_length, fast_dtype
from fspo.modeling.memory import out_of_memory_explained
from fspo.modeling.model_names import is_hub_id, layout_note
from fspo.modeling.policies import is_policy, load_policy, save_policy
from fspo.modeling.preparing import prepare_model
from fspo.modeling.rendering import REMEMBERED_TEXTS, Context, EpisodeRenderer
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
from fspo.training.long_rows import fitted_for, max_length_of
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
    StepCollator,
    Unit,
    known_responses,
)
from fspo.training.trainer import CHECKPOINTS_FOLDER, LOGS_FOLDER, METRICS_FILE, PolicyTrainer, trim_metrics
from fspo.training.training_folder import TRAINING_FILE, alone_in, check_record, has_record, move_policy, save_record

__all__ = ["MEMORY_ADVICE", "Loop", "Training"]

MEMORY_ADVICE = (
    "set gradient_checkpointing to true or lower row_tokens, after which the training continues from its last "
    "checkpoint, or begin again with fewer queries, shots or users_per_step, or a smaller max_length"
)
"""What to do where a device has too little memory for a training."""


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
            ConfigError: `out` holds another training, or something else that training would overwrite.
            StorageError: the record of the training is damaged.
        """
        return has_record(self.out) and self._recorded() and is_policy(self.out)

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
        with alone_in(self.out):
            finished = self.is_finished()
            if not finished:
                self._run(loop, progress)
        return not finished

    def _run(self, loop: Loop, progress: Progress) -> None:
        process = joined()
        process.wait_for_everyone()
        if process.is_main_process:
            save_record(self.out, self.identity, finished=False)
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
            save_record(self.out, self.identity, finished=True, **kept)
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
