"""`fspo.synthesize` and `fspo.evaluate`: two stages of a run from Python, on objects in memory."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import ValidationError

from fspo.errors import ConfigError
from fspo.files import full_disk_explained
from fspo.paths import expanded
from fspo.printing import command
from fspo.progress import PlainProgress, Progress
from fspo.runs.config import RunConfig, configuration

if TYPE_CHECKING:
    from fspo.evaluation.scoring.reward_models.protocol import RewardModel, Scorer
    from fspo.judging.judge import Judge
    from fspo.modeling.policy import Policy
    from fspo.preferences.dataset import PreferenceDataset
    from fspo.preferences.formats import Table
    from fspo.preferences.splits import SplitDataset
    from fspo.runs.results import Results

    Measured: TypeAlias = Policy | RewardModel | Scorer | str | Path

__all__ = ["evaluate", "evaluate_answers", "synthesize"]

_OF_RUN = ("endpoint", "ensemble", "executor", "model", "name", "seed", "threads")
"""Settings of `synthesize` that stand at the top of a run's configuration."""


@full_disk_explained()
def synthesize(
    domain: str | Path | RunConfig,
    output: str | Path | None = None,
    *,
    on_existing: Literal["resume", "overwrite", "fail"] = "resume",
    progress: Progress | None = None,
    **settings: Any,
) -> SplitDataset:
    """Make synthetic users and their preferences, as `fspo synth` does.

    A second call with the same arguments resumes, or returns the finished dataset at once.

    Args:
        domain: one of fspo's, such as elix-easy or advice; the folder of a domain of your own; or the configuration of
            a run (`fspo.runs.config.load_config`).
        output: folder of the run, whose `data` folder gets the dataset; `runs/NAME` by default.
        on_existing: what to do with data that the folder holds: `resume`, `overwrite` or `fail`.
        progress: shows how far it is; by default a line on standard error every 20 seconds.
        **settings: those of the recipe, such as `judge="measured"` or `users=100`; and of the run: `model` (a name) or
            `endpoint` (a mapping), `ensemble`, `seed`, `threads`, `executor` and `name`.

    Returns:
        The dataset, with the parts to train on and to evaluate on.

    Raises:
        ConfigError: a setting is unknown or wrong, or the folder holds data of other settings.
        DataError: the domain is wrong, or too few texts are usable for a dataset.
        ModelError: a model failed; its answers so far are saved.
        StorageError: the folder can't be written.
    """
    from fspo.preferences.splits import SplitDataset
    from fspo.runs import pipeline
    from fspo.runs.existing import Existing
    from fspo.runs.folder import DATA, RunFolder
    from fspo.runs.preflight import opened

    try:
        policy = Existing(on_existing)
    except ValueError as error:
        raise ConfigError(
            f"on_existing is {on_existing!r}; choose {', '.join(repr(str(one)) for one in Existing)}."
        ) from error
    if isinstance(domain, RunConfig):
        if settings:
            raise ConfigError("The settings of a configuration are in it; leave out the others, or change it first.")
        config = domain if output is None else domain.model_copy(update={"output": Path(expanded(output))})
    else:
        run = {name: settings.pop(name) for name in _OF_RUN if name in settings}
        if other := sorted(settings.keys() & {field.alias or name for name, field in RunConfig.model_fields.items()}):
            raise ConfigError(
                f"synthesize: '{other[0]}' is a setting of a run and not of its data; leave it out, or give the "
                "configuration of a run."
            )
        place = expanded(domain)
        called = Path(place).resolve().name if Path(place).is_dir() else str(domain)
        values = {"name": re.sub(r"[^\w.-]+", "-", called).strip("-") or "run", **run}
        if output is not None:
            values["output"] = str(expanded(output))
        chosen = {"domain": str(place), **settings}
        config = configuration({**values, "synthesis": chosen}, "synthesize")
    folder = RunFolder(config)
    with opened(folder, [DATA], policy):
        pipeline.synth(folder, progress or PlainProgress(sys.stderr))
    return SplitDataset.load(folder.data)


@full_disk_explained()
def evaluate(
    models: Measured | Mapping[str, Measured],
    dataset: Table,
    output: str | Path,
    *,
    baselines: Sequence[str] = ("base", "few-shot"),
    train: Table | None = None,
    judge: Judge | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Results:
    """Measure policies and reward models on people and questions that they were not trained on, as `fspo eval` does.

    A second call with the same arguments resumes, or returns the finished results.

    Args:
        models: a policy (`Policy` or its folder), a reward model (an object with the methods of `fspo.RewardModel`),
            or a function (shots, prompt, response) -> reward; or a mapping from names to several of these. The name of
            a policy is its method, such as `fspo` or `ipo`. An `AdaptedPolicy` is measured with its own settings.
        dataset: the people, each with enough preferences for `shots` and `queries`.
        output: folder that the results go to.
        baselines: methods without training, measured too, with the policies' base model: base, few-shot, oracle.
        train: the preferences that the policies were trained on, to find leaks.
        judge: says which of two answers a user prefers; without one, policies answer only a few users, to be read, and
            nothing is sampled for reward models alone.
        progress: shows how far it is; by default a line on standard error every 20 seconds.
        **settings: of the evaluation, such as `shots=4`, `queries=2` or `answers=0`; see
            `fspo.evaluation.config.EvaluationConfig`. `layout` is by default that of the policies, and `max_length` the
            one that they were loaded with.

    Raises:
        ConfigError: a setting is unknown or wrong, a name is taken or is not the method of its policy, the policies
            have different base models, layouts or limits of tokens, or `output` is the folder of a run.
        DataError: a leak; or a user has too few preferences.
        ModelError: a model can't be loaded, or it failed; the results so far are saved.
        StorageError: the disk is full.
    """
    from fspo.evaluation.evaluate import evaluate as measure
    from fspo.methods.adapted_policy import AdaptedPolicy
    from fspo.modeling.builtin_model import BUILTIN_MODEL
    from fspo.preferences.formats import from_table
    from fspo.runs.results import Results

    folder = Path(expanded(output))
    if (folder / "settings.json").exists() or (folder / "config.yaml").exists():
        proposed = command("fspo", "eval", folder)
        raise ConfigError(f"{folder} is the folder of a run, which `{proposed}` evaluates; name another folder.")
    policies, reward_models = _sorted_out(models)
    bases = {policy.weights.base_name: name for name, policy in policies.items() if policy.weights is not None}
    if len(bases) > 1:
        raise ConfigError(
            f"The policies are over different models ({', '.join(f'{name}: {base}' for base, name in bases.items())}); "
            "evaluate them one by one, with the same dataset and settings, and compare the results by fspo.compare."
        )
    folders = {name: policy.weights.folder if policy.weights else None for name, policy in policies.items()}
    if policies:
        folders |= {name: None for name in baselines if name not in folders}
    elif judge is None and not settings.get("best_of"):
        settings.setdefault("answers", 0)
    layouts = {policy.renderer.layout: name for name, policy in policies.items()}
    if len(layouts) > 1:
        raise ConfigError(
            f"The policies show shots in different layouts ({', '.join(f'{b}: {a}' for a, b in layouts.items())}); "
            "evaluate them one by one, with the same dataset and settings, and compare the results by fspo.compare."
        )
    if layouts:
        settings.setdefault("layout", next(iter(layouts)))
    limits = {_own_limit(policy) for policy in policies.values()}
    if len(limits) > 1 and "max_length" not in settings:
        known = ", ".join(f"{name}: {policy.renderer.max_length}" for name, policy in policies.items())
        raise ConfigError(f"The policies read different numbers of tokens at most ({known}); set max_length for all.")
    if limits:
        settings.setdefault("max_length", limits.pop())
    measure(
        _settings(settings),
        from_table(dataset, file="dataset"),
        folders,
        model=next(iter(bases), BUILTIN_MODEL),
        out=folder / "evaluation",
        results=folder,
        judge=judge,
        train=None if train is None else from_table(train, file="train"),
        reward_models=reward_models,
        adaptations={name: policy.row for name, policy in policies.items() if isinstance(policy, AdaptedPolicy)},
        progress=progress or PlainProgress(sys.stderr),
    )
    return Results(folder)


@full_disk_explained()
def evaluate_answers(
    answers: Any,
    output: str | Path,
    *,
    data: str | Path | PreferenceDataset | None = None,
    users: str | Path | None = None,
    judge: Judge | None = None,
    baseline: str | None = None,
    systems: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
    model: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Results:
    """Judge answers that you have already, as `fspo eval answers` does; no training is needed.

    A second call with the same arguments resumes, or returns the finished results.

    Args:
        answers: a DataFrame or a list of rows (`user`, `prompt` and a column for each system, or `system` and
            `answer`), or a list of files.
        output: folder that the results go to.
        data: who the users are, and the judge that labelled the data: a dataset, its folder, a run's folder, or a table
            of preferences.
        users: a table of the users: id, description, group, traits.
        judge: the headline judge, as an object.
        baseline: the system whose answers the others' are judged against; by default `base`, or else the last one.
        systems: only these.
        columns: fspo's name of a column -> the table's.
        model: a language model that measures fluency.
        progress: shows how far it is; by default a line on standard error every 20 seconds.
        **settings: `judges`, `floors`, `match` and `match_band` of `fspo.evaluation.config.EvaluationConfig`.

    Raises:
        ConfigError: a setting is wrong, the folder holds something else, or nobody can judge.
        DataError: naming file and row of what is wrong.
        ModelError: a judge failed; what it judged before is saved.
        StorageError: the disk is full.
    """
    from fspo.runs.results import Results
    from fspo.runs.system_answers import SystemsRequest, evaluate_request

    folder = Path(expanded(output))
    given = [answers] if isinstance(answers, str | Path) else answers
    request = SystemsRequest(
        given,
        folder,
        data=Path(expanded(data)) if isinstance(data, str | Path) else data,
        users=None if users is None else Path(expanded(users)),
        baseline=baseline,
        systems=tuple(systems),
        columns=columns,
        model=model,
        settings=settings,
        judge=judge,
    )
    evaluate_request(request, progress or PlainProgress(sys.stderr))
    return Results(folder)


def _settings(settings: Mapping[str, Any]) -> Any:
    from fspo.evaluation.config import EvaluationConfig
    from fspo.pydantic_errors import first_fault

    try:
        return EvaluationConfig.model_validate(settings)
    except ValidationError as error:
        raise ConfigError(f"evaluate: {first_fault(error, EvaluationConfig).sentence}") from error


def _sorted_out(models: Measured | Mapping[str, Measured]) -> tuple[dict[str, Policy], dict[str, RewardModel]]:
    """The policies by method, and the reward models by name.

    Raises:
        ConfigError: a policy is in training, one that adapts to each user has the name of another method, or what is
            given is neither of the two.
        ModelError: there is no policy.
    """
    from fspo.evaluation.scoring.reward_models.protocol import FunctionRewardModel, RewardModel
    from fspo.methods.adapted_policy import AdaptedPolicy
    from fspo.modeling.policy import Policy

    policies: dict[str, Policy] = {}
    reward_models: dict[str, RewardModel] = {}
    for name, given in models.items() if isinstance(models, Mapping) else [("", models)]:
        model = Policy.load(given) if isinstance(given, str | Path) else given
        if isinstance(model, Policy):
            if model.weights is None:
                raise ConfigError("A policy in training has no folder yet; evaluate its output_dir once it is trained.")
            if isinstance(model, AdaptedPolicy) and name not in ("", model.row.name):
                raise ConfigError(
                    f"The policy '{name}' adapts to each user by the method '{model.row.name}'; name it so, or leave "
                    "the name out."
                )
            policies[name or _method_of(model)] = model
        elif isinstance(model, RewardModel):
            reward_models[name or model.name] = model
        elif callable(model):
            reward_models[name or getattr(model, "__name__", "reward")] = FunctionRewardModel(model, name)
        else:
            raise ConfigError(f"A {type(model).__name__} is neither a policy nor a reward model.")
    return policies, reward_models


def _own_limit(policy: Policy) -> int | None:
    """The `max_length` that a policy was loaded with; None if that is its training's, or what the model can read."""
    from fspo.modeling.loading import context_length

    weights, limit = policy.weights, policy.renderer.max_length
    assert weights is not None, "a policy in training is refused"
    training = (weights.card.details.get("training") if weights.card else None) or {}
    return None if limit == (training.get("max_length") or context_length(weights.name)) else limit


def _method_of(policy: Policy) -> str:
    """The method that a policy is of: its own, the one on record, or the one that shows and has learned the same."""
    from fspo.methods.adapted_policy import AdaptedPolicy
    from fspo.methods.table import METHODS

    if isinstance(policy, AdaptedPolicy):
        return policy.row.name
    card = policy.weights.card if policy.weights else None
    if card is not None and card.method:
        return card.method
    objective = card.details.get("training", {}).get("objective") if card else None
    for row in METHODS.values():
        learned = row.objectives[-1] if row.objectives else None
        alike = learned == objective or (None not in (learned, objective) and "pref-ft" not in (learned, objective))
        if (
            row.adaptation is None
            and row.context == policy.renderer.context
            and row.describes == policy.describes
            and alike
        ):
            return row.name
    return "few-shot" if card is None else "fspo"
