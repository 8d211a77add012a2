"""Training a policy from a dataset: one call, which continues or returns at once when it is repeated."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fspo.errors import ConfigError, StorageError
from fspo.files import read_json, storage_error, write_json
from fspo.modeling.embedded import EMBEDDED_MODEL
from fspo.modeling.loading import POLICY_FILE, context_length, load_model, load_tokenizer
from fspo.modeling.policies import is_policy, load_policy, save_policy
from fspo.modeling.rendering import Context, EpisodeRenderer
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import EpisodeSampler
from fspo.progress import Progress, Silent
from fspo.training.adapters import frozen_copy, prepare_weights
from fspo.training.checkpoints import newest_checkpoint, read_record
from fspo.training.config import TrainingConfig
from fspo.training.steps import EpisodeStream, StepCollator, Unit
from fspo.training.trainer import CHECKPOINTS_FOLDER, PolicyTrainer, reference_of, trim_metrics

__all__ = ["TRAINING_FILE", "train_policy"]

TRAINING_FILE = "training.json"
"""What was trained on what, and whether it is finished."""


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
) -> Path:
    """Train a policy and write it to `out`, beside `training.json` and `metrics.jsonl`.

    Repeated with the same arguments it goes on from the newest complete checkpoint, to the same weights as without the
    interruption, or returns at once when it is finished.

    Args:
        config: the settings.
        dataset: the training part of a dataset.
        model: name of a model, or the folder of a policy to start from, whose weights are then the reference.
        out: folder of the policy; made if it is missing.
        context: what the model is told of the user.
        progress: told of every step.
        validation: other people's preferences, measured every `config.evaluate_every` steps and never trained on.
        method: noted in the policy.

    Returns:
        `out`, which holds a `policy.json`.

    Raises:
        ConfigError: the settings contradict each other, or `out` holds another training.
        DataError: a user has too few preferences.
        ModelError: the model can't be had.
        TrainingError: the loss is not a number.
        StorageError: the disk is full.
    """
    progress = progress or Silent()
    _check_context(config, context)
    identity = _identity(config, dataset, model, context)
    if _is_finished(out, identity):
        return out
    write_json(out / TRAINING_FILE, {"identity": identity, "finished": False})
    trainer, dropped = _trainer(config, dataset, model, out, context, validation)
    if dropped:
        progress.say(f"{dropped} users have too few preferences for an episode and are left out.")
    _run(trainer, config, out, progress, f"Training {method or config.objective}")
    policy = trainer.accelerator.unwrap_model(trainer.model)
    if trainer.is_world_process_zero():
        _write_policy(policy, out, model, method, identity)
        write_json(out / TRAINING_FILE, {"identity": identity, "finished": True})
        shutil.rmtree(out / CHECKPOINTS_FOLDER, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    return out


def _check_context(config: TrainingConfig, context: Context) -> None:
    if config.mirrors and context not in ("shots", "both"):
        raise ConfigError(
            f"A mirror swaps the labels of the shots, but with context '{context}' the model sees none; "
            "turn the mirror off and choose an objective without one, or put the shots into the context."
        )


def _identity(
    config: TrainingConfig, dataset: PreferenceDataset, model: str | Path, context: Context
) -> dict[str, Any]:
    return {
        "config": config.identity(),
        "dataset": dataset.fingerprint,
        "model": _model_identity(model),
        "context": context,
    }


def _model_identity(model: str | Path) -> str:
    """The contents of a local folder, wherever it lies; the name of any other model."""
    folder = Path(model)
    if str(model) == EMBEDDED_MODEL or not folder.is_dir():
        return str(model)
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        if CHECKPOINTS_FOLDER not in path.relative_to(folder).parts:
            with path.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
    return f"weights sha256:{digest.hexdigest()}"


def _is_finished(out: Path, identity: dict[str, Any]) -> bool:
    path = out / TRAINING_FILE
    if not path.exists():
        return False
    found = read_json(path)
    if not isinstance(found, dict) or "identity" not in found:
        raise StorageError(f"{path} is not the record of a training; delete {out} and run the command again.")
    differing = _differences(found["identity"], identity)
    if differing:
        raise ConfigError(
            f"{out} holds a training with another {', '.join(differing)}; choose another output folder, or delete this "
            "one to train anew."
        )
    return bool(found["finished"]) and is_policy(out)


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    def flat(identity: dict[str, Any]) -> dict[str, Any]:
        return {**identity.get("config", {}), **{key: value for key, value in identity.items() if key != "config"}}

    one, other = flat(found), flat(wanted)
    return sorted(key for key in one.keys() | other.keys() if one.get(key) != other.get(key))


def _trainer(
    config: TrainingConfig,
    dataset: PreferenceDataset,
    model: str | Path,
    out: Path,
    context: Context,
    validation: PreferenceDataset | None,
) -> tuple[PolicyTrainer, int]:
    """The trainer, and how many users were left out."""
    shots = config.shots if context in ("shots", "both") else 0
    sampler = EpisodeSampler(
        dataset, shots=shots, queries=config.queries, seed=config.seed, skip_short_users=config.skip_short_users
    )
    start: Any = load_policy(Path(model)) if is_policy(model) else load_model(model)
    max_length = _max_length(config, start)
    renderer = EpisodeRenderer(load_tokenizer(model), context=context, max_length=max_length)
    weights = prepare_weights(start, config.lora, seed=config.seed)
    reference = None
    if config.needs_reference:
        reference = reference_of(weights, frozen_copy(weights) if config.lora is None else None)
    trainer = PolicyTrainer(
        weights,
        config=config,
        stream=EpisodeStream(sampler, config.steps * config.users_per_step),
        collator=StepCollator(renderer, config),
        folder=out,
        reference=reference,
        validation=_validation_units(config, validation, renderer, shots),
    )
    return trainer, len(sampler.skipped)


def _max_length(config: TrainingConfig, model: Any) -> int | None:
    context = context_length(model)
    if config.max_length is not None and context is not None and config.max_length > context:
        raise ConfigError(
            f"training max_length is {config.max_length}, and the model reads at most {context} tokens; lower it or "
            "leave it out."
        )
    return config.max_length or context


def _validation_units(
    config: TrainingConfig, validation: PreferenceDataset | None, renderer: EpisodeRenderer, shots: int
) -> Sequence[Unit]:
    if validation is None or not config.evaluate_every:
        return ()
    sampler = EpisodeSampler(validation, shots=shots, queries=config.queries, seed=config.seed, skip_short_users=True)
    measured = config.model_copy(update={"mirror": shots > 0, "ladder": None})
    collator = StepCollator(renderer, measured, both_sides=True)
    return [collator.unit(index, sampler.episode(index)) for index in range(config.evaluate_episodes)]


def _run(trainer: PolicyTrainer, config: TrainingConfig, out: Path, progress: Progress, title: str) -> None:
    checkpoint = newest_checkpoint(out / CHECKPOINTS_FOLDER)
    done = int(read_record(checkpoint, "trainer_state")["global_step"]) if checkpoint else 0
    if trainer.is_world_process_zero():
        trim_metrics(out, done)
    with progress.task(title, config.steps, done) as task:
        trainer.listener = task
        if done < config.steps or checkpoint is not None:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)


def _write_policy(policy: Any, out: Path, model: str | Path, method: str, identity: dict[str, Any]) -> None:
    """Write the policy into `out`, beside what is there; `policy.json` comes last."""
    staged = save_policy(
        policy,
        out / ".policy",
        base=str(model),
        method=method,
        start=Path(model) if is_policy(model) else None,
        details={"context": identity["context"], "training": identity["config"]},
        home=out,
    )
    try:
        for part in sorted(staged.iterdir(), key=lambda path: path.name == POLICY_FILE):
            if (out / part.name).is_dir():
                shutil.rmtree(out / part.name)
            part.rename(out / part.name)
        staged.rmdir()
    except OSError as error:
        raise storage_error(out, error) from error
