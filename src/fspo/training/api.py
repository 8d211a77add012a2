"""`FSPOTrainer`: training from Python, in the terms of TRL's trainers.

A thin layer: model, preferences and settings become a `Training`, which is what `fspo train` runs.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, Unpack

import torch
from peft import LoraConfig
from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer_utils import TrainOutput

from fspo.errors import ConfigError, DataError, TrainingError
from fspo.files import read_jsonl
from fspo.modeling.chat import ChatFormat
from fspo.modeling.generation import evaluating
from fspo.modeling.memory import out_of_memory_explained
from fspo.modeling.policies import is_policy
from fspo.modeling.policy import Policy, RewardAgainst, SamplingOptions, check_against
from fspo.modeling.preparing import own_attention_afterwards, prepare_model
from fspo.paths import expanded
from fspo.preferences.dataset import unknown
from fspo.preferences.formats import from_table
from fspo.preferences.sampling import check_no_leak
from fspo.preferences.types import PromptLike
from fspo.progress import PlainProgress, Progress
from fspo.training.config import LoraSettings
from fspo.training.losses import Reference, mean_figures
from fspo.training.references import reference_of
from fspo.training.resumable_training import MEMORY_ADVICE, Loop, Training
from fspo.training.settings import FSPOConfig, unknown_argument
from fspo.training.start import Start
from fspo.training.trainer import METRICS_FILE

if TYPE_CHECKING:
    from fspo.preferences.formats import PersonLike, Table
    from fspo.training.steps import Observer

__all__ = ["FSPOTrainer"]


class FSPOTrainer:
    """Trains a model to adapt to a person from a few of their preferences.

    The preferences are a pandas DataFrame, a `datasets.Dataset`, a list of rows or a `PreferenceDataset`, with the
    columns `user`, `prompt`, `chosen`, `rejected` and, if you like, `question`; text or TRL's messages.

    Attributes:
        args: the settings.
        processing_class: the tokenizer.
    """

    def __init__(
        self,
        model: str | Path | PreTrainedModel,
        args: FSPOConfig,
        train_dataset: Table,
        eval_dataset: Table | None = None,
        processing_class: Any = None,
        peft_config: LoraConfig | LoraSettings | None = None,
        *,
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]] = (),
        compute_metrics: Callable[[Policy], Mapping[str, float]] | None = None,
        observer: Observer | None = None,
        progress: Progress | None = None,
        **unknown_arguments: Never,
    ) -> None:
        """Check everything that can be checked before the model is needed.

        Args:
            model: a model's name or folder, a policy's folder, or a transformers model in memory. The last one is
                trained in place: it gets the adapters or, with `lora=None`, float32 weights, and a line says so. Its
                attention implementation is fspo's while it is used here, and its own again afterwards.
            args: the settings.
            train_dataset: the preferences to train on.
            eval_dataset: the preferences to evaluate on, of other people and on other questions.
            processing_class: the tokenizer; the model's own by default.
            peft_config: the adapters, in the place of `args.lora`.
            callbacks: of transformers, as its Trainer takes them: instances or classes of `TrainerCallback`.
            compute_metrics: gets the policy as it is now and returns metrics of your own, by name. It is called at
                every evaluation (`args.evaluate_every`, with or without an eval_dataset) and by `evaluate`; its
                metrics are named `eval_NAME` in `metrics.jsonl` and in the trackers, and can't have the name of one
                that fspo measures in the same evaluation, such as `margin_accuracy` on an eval_dataset.
            observer: gives the effects that `target="observer"` aims at, such as `fspo.judging.observer.Observer`.
            progress: shows every step; by default a line on standard error every 20 seconds.
            **unknown_arguments: refused, naming what to give instead.

        Raises:
            ConfigError: an argument is unknown or of the wrong kind, or the folder holds another training.
            DataError: naming table, row and column of what is wrong, or the user with too few preferences; or a user
                or a question is in both tables.
            ModelError: the tokenizer can't be obtained, has no chat template, or has tokens that the model does
                not know.
        """
        for name in unknown_arguments:
            known = set(inspect.signature(FSPOTrainer).parameters) - {"unknown_arguments"}
            raise unknown_argument("FSPOTrainer", name, sorted(known))
        model = expanded(model) if isinstance(model, str | Path) else model
        _check_kinds(model, args, peft_config)
        _check_callbacks(callbacks)
        self.args = args
        self._progress = progress or PlainProgress(sys.stderr)
        dataset = from_table(train_dataset, file="train_dataset")
        self._held_out = None if eval_dataset is None else from_table(eval_dataset, file="eval_dataset")
        if self._held_out is not None:
            check_no_leak(dataset, self._held_out, name="evaluation")
        folder = Path(args.output_dir)
        adapters = peft_config if isinstance(peft_config, LoraConfig) else None
        start = Start(model, folder, processing_class, adapters)
        lora = args.lora if peft_config is None else peft_config if isinstance(peft_config, LoraSettings) else None
        self._training = Training(
            args.training(lora),
            dataset,
            start,
            folder,
            validation=self._held_out,
            observer=observer,
            callbacks=tuple(callbacks),
        )
        self._compute_metrics = compute_metrics
        self.processing_class = start.load_tokenizer()
        ChatFormat.of(self.processing_class)
        start.check_vocabulary()
        self._finished = self._training.is_finished()
        self._held: Loop | None = None
        self._begun = False
        self._attention_is_ours = False
        if lora is None and adapters is None and start.in_memory and start.model.dtype != torch.float32:
            self._progress.say(
                f"All weights of the model are trained in place, and in float32, which they keep: they are "
                f"{str(start.model.dtype).removeprefix('torch.')} now."
            )

    @property
    def model(self) -> Any:
        """The policy in memory: as it is before training, or as training left it."""
        return self._loop.policy

    def train(self) -> TrainOutput:
        """Train, and write the policy to `args.output_dir`.

        A second call, in this process or another one, resumes an interrupted training; after a finished one it returns
        at once.

        Raises:
            ConfigError: the folder holds another training.
            TrainingError: the loss is not a number.
            StorageError: the disk is full, or another training is at work in the folder.
        """
        if not self._finished and self._training.is_finished():  # by another process in the meantime
            self._held, self._finished = None, True
        if not self._finished:
            if self._begun:
                self._forget_what_was_begun()
            loop, self._begun = self._loop, True
            with self._own_attention():
                trained = self._training.run(loop, self._progress)
            self._held, self._finished = self._held if trained else None, True
        records = read_jsonl(Path(self.args.output_dir) / METRICS_FILE)
        loss = sum(record["loss"] for record in records) / max(1, len(records))
        return TrainOutput(len(records), loss, records[-1] if records else {})

    @out_of_memory_explained(TrainingError, MEMORY_ADVICE)
    def evaluate(self, eval_dataset: Table | None = None) -> dict[str, float]:
        """Metrics on `args.evaluate_episodes` episodes of held-out people, such as `eval_margin_accuracy`.

        Raises:
            ConfigError: `compute_metrics` returned something else than names and numbers, or the name of a metric of
                fspo.
            DataError: there is no held-out table, it shares a user or a question with the training's, or none of its
                users has enough preferences.
        """
        held_out = self._held_out
        if eval_dataset is not None:
            held_out = from_table(eval_dataset, file="eval_dataset")
            check_no_leak(self._training.dataset, held_out, name="evaluation")
        if held_out is None and self._compute_metrics is not None:
            return self._loop.trainer.with_own_metrics({})
        if held_out is None:
            raise DataError(
                "There is nothing to evaluate on; give an eval_dataset of other people and other questions."
            )
        loop = self._loop
        reference = self._reference if self._training.config.needs_reference else None
        units = self._training.units(held_out, loop.renderer)
        with self._entered():
            figures = mean_figures(loop.policy, units, self._training.config, reference)
        return loop.trainer.with_own_metrics({f"eval_{name}": value for name, value in figures.items()})

    @property
    def policy(self) -> Policy:
        """The policy in memory, as it is now, ready to answer people and to rank answers for them."""
        loop, config = self._loop, self._training.config
        return Policy(
            self._entered,
            loop.renderer,
            reference=self._entered_reference,
            training=config.model_dump(),
            shots=config.shots,
        )

    def reward(
        self,
        user: str | PersonLike,
        prompt: PromptLike,
        responses: Sequence[str],
        *,
        against: RewardAgainst = "reference",
    ) -> list[float]:
        """How much a person would like each of `responses` to `prompt`; only differences between them mean something.

        Args:
            user: id of a user of either table, or a person as for `Policy.reward`, such as a table of their own
                preferences.
            prompt: what is answered.
            responses: the texts to compare.
            against: `reference` (the paper's reward), `mirror` or `pooled`, see `Policy.reward`.

        Raises:
            ConfigError: `against` is unknown.
            TrainingError: the policy is not trained, so that it is its own reference.
            DataError: there is no such user, no preference to swap, or no response.
        """
        check_against(against)
        if against == "reference" and not (self._is_trained or self._training.config.objective == "pref-ft"):
            raise TrainingError(
                "The policy is not trained yet, so it equals its reference and every reward would be 0; call train() "
                "first. Policy.load(folder) reads a policy that was trained before."
            )
        return self.policy.reward(self._person(user), prompt, responses, against=against)

    def generate(
        self, user: str | PersonLike, prompt: PromptLike, *, seed: int = 0, **sampling: Unpack[SamplingOptions]
    ) -> str:
        """An answer for one person.

        `user` is as for `reward`; the same seed gives the same answer. `sampling` is as in `SamplingOptions`, such as
        `max_new_tokens`, `temperature` and `guidance`.

        Raises:
            DataError: there is no such user, or the prompt is too long.
            ConfigError: a setting is out of its range.
        """
        return self.policy.generate(self._person(user), prompt, seed=seed, **sampling)

    def save_model(self, output_dir: str | Path | None = None) -> None:
        """Write the policy to another folder; `train` has written it to `args.output_dir` already.

        Raises:
            ConfigError: the folder holds something else.
            TrainingError: nothing is trained yet; or, for `args.output_dir`, the training is not finished.
            StorageError: the disk is full.
        """
        folder = Path(self.args.output_dir if output_dir is None else expanded(output_dir))
        if not self._is_trained:
            raise TrainingError("The policy is not trained yet; call train() first, which writes it to output_dir.")
        if folder.resolve() == Path(self.args.output_dir).resolve():
            if not self._finished:
                raise TrainingError(f"The training of {folder} is not finished; train() writes its policy there.")
            return
        if folder.exists() and not is_policy(folder) and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} holds something that is no policy; name an empty or a new folder.")
        self._training.save(self.model, folder)

    @property
    def _is_trained(self) -> bool:
        """Whether a step at least was made."""
        stepped = self._begun and self._held is not None and self._held.trainer.state.global_step > 0
        return self._finished or stepped

    @property
    def _loop(self) -> Loop:
        if self._held is None:
            with self._own_attention():
                self._held = self._training.loop(finished=self._finished)
            if (compute := self._compute_metrics) is not None:
                self._held.trainer.measure = lambda: compute(self.policy)
        return self._held

    @property
    def _reference(self) -> Reference:
        loop = self._loop
        if loop.reference is None:
            # All weights were trained with an objective that needed no reference, so that none was kept.
            again = self._training.start.load_again().requires_grad_(False)
            self._held = loop = replace(loop, reference=reference_of(loop.policy, again))
        assert loop.reference is not None
        return loop.reference

    def _person(self, user: str | PersonLike) -> PersonLike:
        """The preferences of a user of either table, or the person that was given; descriptions are not shown."""
        if not isinstance(user, str):
            return user
        tables = [self._training.dataset, *([] if self._held_out is None else [self._held_out])]
        for table in tables:
            if user in table.users:
                return table.person(user)
        raise unknown("user", user, [known for table in tables for known in table.users])

    @contextmanager
    def _entered(self) -> Iterator[Any]:
        """Inside, the policy drops nothing out and computes in the precision of the training."""
        loop = self._loop
        with self._own_attention():
            prepare_model(loop.policy)
            with evaluating(loop.policy) as policy, loop.trainer.accelerator.autocast():
                yield policy

    @contextmanager
    def _entered_reference(self) -> Iterator[Any]:
        with self._entered(), self._reference() as frozen:
            yield frozen

    @contextmanager
    def _own_attention(self) -> Iterator[None]:
        """Afterwards, a model that the caller has in memory computes attention as it did before.

        Inside another such block, such as that of a training under way, nothing changes.
        """
        start = self._training.start
        if self._attention_is_ours or not start.in_memory:
            yield
            return
        self._attention_is_ours = True
        try:
            with own_attention_afterwards(start.model):
                yield
        finally:
            self._attention_is_ours = False

    def _forget_what_was_begun(self) -> None:
        """A training under way goes on from its checkpoint, with weights that are as they were at the start."""
        if self._training.start.in_memory:
            raise TrainingError(
                "The interrupted training has changed the model in memory; load the model again and make a new "
                "FSPOTrainer with it, which goes on from the last checkpoint."
            )
        self._held = None


def _check_callbacks(callbacks: object) -> None:
    if not isinstance(callbacks, Sequence) or not all(
        issubclass(each if isinstance(each, type) else type(each), TrainerCallback) for each in callbacks
    ):
        raise ConfigError(f"callbacks must be a list of transformers' TrainerCallback, not {callbacks!r}.")


def _check_kinds(model: object, args: object, peft_config: object) -> None:
    if not isinstance(model, str | Path | PreTrainedModel):
        raise ConfigError(
            f"model must be a name, a folder or a transformers model, not {type(model).__name__}; of a model with "
            "adapters, pass the model below them, or fold them in with merge_and_unload()."
        )
    if getattr(model, "peft_config", None):
        raise ConfigError("The model carries adapters already; fold them in with merge_and_unload(), or load it again.")
    if not isinstance(args, FSPOConfig):
        raise ConfigError(f"args must be an FSPOConfig, not {type(args).__name__}.")
    if args.describe != "none":
        raise ConfigError(
            "FSPOTrainer shows the model shots alone, so describe must be none; `fspo train` trains descriptions, as "
            "the method fspo-rat."
        )
    if peft_config is None:
        return
    if not isinstance(peft_config, LoraConfig | LoraSettings):
        raise ConfigError(
            f"peft_config must be peft's LoraConfig or fspo's LoraSettings, not {type(peft_config).__name__}."
        )
    if "lora" in args.model_fields_set:
        raise ConfigError("The adapters are described twice, by peft_config and by lora in args; leave one out.")
