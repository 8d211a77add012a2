"""What is checked of a run's settings and data before anything is made of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fspo.errors import ConfigError, DataError
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.scoring.eval_episodes import build_trials, short_users
from fspo.evaluation.scoring.long_rows import rooms_of
from fspo.evaluation.scoring.reward_models.loading import load_reward_model
from fspo.llm.endpoint_config import EndpointConfig, need_client
from fspo.llm.pool import EndpointPool
from fspo.methods.table import Method, training_order
from fspo.modeling.fitting import Fitted, fitted
from fspo.modeling.rendering import EpisodeRenderer
from fspo.paths import expanded
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.hub import HUB
from fspo.preferences.sampling import EpisodeSampler, TooFewPreferences, check_no_leak, short_users_said
from fspo.preferences.splits import Splits
from fspo.preferences.types import Split
from fspo.runs.config import RunConfig, training_endpoints
from fspo.runs.datasets import EpisodeSize, larger_test
from fspo.runs.folder import RunFolder, methods_of
from fspo.runs.training_data import TrainingPart, merged, row_numbers, training_parts
from fspo.synthesis.domain import load_domain
from fspo.synthesis.synthesize import check_plan
from fspo.training.config import SMOOTHED, TrainingConfig

__all__ = [
    "check_benchmark_data",
    "check_episodes",
    "check_instruments",
    "check_synthesis",
    "episode_sizes",
    "warn_of_keys",
]


def check_synthesis(config: RunConfig) -> None:
    """Check that the domain is valid and large enough, and that the package for endpoints is installed.

    No endpoint is asked.

    Raises:
        ConfigError: naming the setting, or the package.
        DataError: the domain is invalid.
    """
    check_plan(config.synthesis, load_domain(config.synthesis.domain))
    asked = [config.endpoint, *(member.endpoint for member in config.ensemble)]
    if any(endpoint is not None for endpoint in asked):
        need_client()
    if config.executor.kind == "ray" and find_spec("ray") is None:
        raise ConfigError("The executor ray needs the package ray; install fspo[ray].")


def check_instruments(config: EvaluationConfig, out: Path) -> list[str]:
    """Check that the judges and reward models of an evaluation in the folder `out` are there.

    Nothing is asked; a scorer's module is imported.

    Returns:
        a line for each key that is not set, and one for answers in `out` that are not read.

    Raises:
        ConfigError: a scorer can't be found, or the package that asks endpoints is missing.
        ModelError: a folder holds no model.
    """
    for entry in config.reward_models:
        load_reward_model(entry, config, EndpointPool(out))
    asked = config.endpoints()
    if asked:
        need_client()
    return [*_keys_not_set(asked), *_answers_not_read(out)]


def check_training_endpoints(config: RunConfig, names: Iterable[str]) -> list[str]:
    """A line for each key of these trainings' endpoints that is not set.

    Raises:
        ConfigError: the package that asks endpoints is missing.
    """
    asked = training_endpoints(config, names)
    if asked:
        need_client()
    return _keys_not_set(asked)


def _answers_not_read(out: Path) -> list[str]:
    """A line on answers of judges and reward models where only earlier versions kept them, in another format."""
    found = sorted(out.rglob("*.sqlite"))
    if not found:
        return []
    return [
        f"{found[0]} holds answers of an earlier version of fspo, which this version does not read: judges and reward "
        "models are asked again for what has no result yet. Delete it, or finish the evaluation with that version."
    ]


def check_benchmark_data(config: RunConfig) -> None:
    """Check that the files of benchmarks that the configuration names are there; a hub is not asked.

    Raises:
        DataError: one is missing.
    """
    for name, settings in config.benchmarks.items():
        source = settings.data
        if source is not None and not source.startswith(HUB) and not Path(expanded(source)).exists():
            raise DataError(
                f"benchmarks.{name}.data: there is no file or folder {source}; name the benchmark's files, or leave "
                "it out to fetch them from the hub."
            )


def warn_of_keys(config: RunConfig) -> list[str]:
    """A line for each variable that is to hold an endpoint's key and is not set."""
    return _keys_not_set([config.endpoint, *(member.endpoint for member in config.ensemble)])


def _keys_not_set(asked: Iterable[EndpointConfig | None]) -> list[str]:
    missing = {endpoint.key_variable: endpoint for endpoint in asked if endpoint is not None and endpoint.lacks_key}
    return [
        f"Warning: {variable}, which key_variable names for {endpoint.base_url}, is not set in the environment; "
        "requests go there without a key."
        for variable, endpoint in missing.items()
    ]


def episode_sizes(config: RunConfig, trained: Collection[str] | None = None) -> list[EpisodeSize]:
    """The episodes of the trainings of a run, or of these methods, without repetitions."""
    rows = [row for row in training_order(methods_of(config)) if trained is None or row.name in trained]
    trainings = [(row, config.training[row.name]) for row in rows]
    return list(
        dict.fromkeys(
            EpisodeSize(each.shots if row.draws_shots else 0, each.queries, each.skip_short_users)
            for row, each in trainings
        )
    )


def check_episodes(
    folder: RunFolder,
    dataset: PreferenceDataset,
    splits: Splits,
    *,
    trained: Collection[str] | None = None,
    evaluated: bool,
    model: str | Path | None = None,
) -> list[str]:
    """Look for leaks and draw the episodes of training and evaluation once, to find faults before training.

    By default all methods are trained that the run needs. Where nothing is evaluated now, there need not be anything
    held out. The tokenizer of `model` counts what it can't read whole; None passes over that.

    Returns:
        a line for each part that preferences are left out of, because they are too long.

    Raises:
        DataError: naming the user, and the settings to change; or what is in two parts; or a row that is too long.
        ModelError: the model can't be obtained.
    """
    validation, test = splits.part(dataset, "validation"), splits.part(dataset, "test")
    parts = training_parts(folder, dataset, splits)
    train = merged(parts)
    for part, held_out in (("validation", validation), ("test", test)):
        check_no_leak(train, held_out, name=part)
    readings = [None if model is None else _Reading(folder, part.folder, part.whole, model) for part in parts]
    rows = training_order(methods_of(folder.config))
    chosen = [row for row in rows if trained is None or row.name in trained]
    checks: list[Callable[[], list[str]]] = [
        partial(_check_training_parts, folder, chosen, readings, parts, validation, _drawn(folder, splits, "train"))
    ]
    if len(test) or evaluated:
        larger = partial(_larger_test, folder, dataset, splits, episode_sizes(folder.config, trained))
        checks.append(partial(_check_test_part, folder, splits, test, readings[0], larger))
    lines, faults = [], []
    for check in checks:
        try:
            lines += check()
        except DataError as error:
            faults.append(error)
    if faults:
        raise DataError(" ".join(map(str, faults))) from faults[0]
    return list(dict.fromkeys([*(line for one in readings if one is not None for line in one.lines), *lines]))


def _check_training_parts(
    folder: RunFolder,
    rows: Iterable[Method],
    readings: Sequence[_Reading | None],
    parts: Sequence[TrainingPart],
    validation: PreferenceDataset,
    drawn: str,
) -> list[str]:
    """Check that training and validation part have enough for the episodes of each method; `drawn` is as below."""
    lines: list[str] = []
    for row in rows:
        config = folder.config.training[row.name]
        if config.selects and not len(validation):
            raise DataError(
                f"training.{row.name}: keep_best and patience need a validation part, and there is none; make one "
                "(synthesis.validation, or `fspo data split --validation`), or leave both out."
            )
        named = partial(_named, folder.config, row.name)
        lines += _check_training(row, config, readings, parts, drawn, named)
        if config.evaluate_every and len(validation):
            try:
                _sampler(validation, row, config, skip=True)
            except DataError as error:
                raise DataError(
                    f"In the validation part: {error} Set {named('evaluate_every')} to 0, or make that part larger "
                    "(synthesis.validation)."
                ) from error
    return lines


def _check_test_part(
    folder: RunFolder,
    splits: Splits,
    test: PreferenceDataset,
    reading: _Reading | None,
    larger: Callable[[TooFewPreferences], str],
) -> list[str]:
    """Check that the test part has enough for the trials of the evaluation; `larger` says how to enlarge it."""
    config = folder.config.evaluation
    read = reading.evaluated(test) if reading is not None and len(test) else Fitted(test)
    try:
        with read.explaining("the test part"):
            build_trials(read.dataset, config.model_copy(update={"user_swap": False}))
            return short_users_said(short_users(read.dataset, config), "the test part")
    except TooFewPreferences as error:
        skip = "" if error.everybody else ", or set evaluation.skip_short_users to leave them out"
        remedy = f"Lower evaluation.shots or evaluation.queries{skip}{larger(error)}."
        raise DataError(f"In the test part{_drawn(folder, splits, 'test')}: {error.facts} {remedy}") from error
    except DataError as error:
        raise DataError(f"In the test part: {error}") from error


def _drawn(folder: RunFolder, splits: Splits, part: Split) -> str:
    """How a part comes about that nobody has made; empty where the data are divided, or made by the run."""
    source = folder.config.data
    if source is None or (source / "splits.json").exists():
        return ""
    users, questions = (
        f"{len(ids[part]):,} of {sum(map(len, ids.values())):,}" for ids in (splits.users, splits.questions)
    )
    return f" that the run draws from {source}, which has no splits.json ({users} users on {questions} questions)"


def _larger_test(
    folder: RunFolder,
    dataset: PreferenceDataset,
    splits: Splits,
    sizes: Sequence[EpisodeSize],
    error: TooFewPreferences,
) -> str:
    """The end of a sentence: the share of questions that is enough for these users, where more can be held out."""
    source = folder.config.data
    command = "" if source is None else larger_test(source, dataset, splits, error, sizes)
    return f", or hold out more questions: `{command}`" if command else ""


def _check_training(
    row: Method,
    config: TrainingConfig,
    readings: Sequence[_Reading | None],
    parts: Sequence[TrainingPart],
    drawn: str,
    named: Callable[[str], str],
) -> list[str]:
    """Check that each training part has enough for the episodes of a method, and labels that its objective can read.

    `drawn` says how the first part came about, and `named` is what the run's file calls a setting of the training.
    Returns a line for each part that users are left out of.
    """
    lines: list[str] = []
    for reading, part in zip(readings, parts, strict=True):
        read = Fitted(part.train) if reading is None else reading.trained(part.train, row, config)
        of = f" of {part.folder}" if part is not parts[0] else drawn
        if config.objective in SMOOTHED:
            _check_labels(part)
        try:
            with read.explaining("the training part"):
                sampler = _sampler(read.dataset, row, config, skip=config.skip_short_users)
        except TooFewPreferences as error:
            skip = "" if error.everybody else f", or set {named('skip_short_users')} to leave them out"
            fewer = f"{named('shots')} or {named('queries')}" if row.draws_shots and config.shots else named("queries")
            raise DataError(f"In the training part{of}: {error.facts} Lower {fewer}{skip}.") from error
        except DataError as error:
            raise DataError(f"In the training part{of}: {error}") from error
        where = "the training part" if part is parts[0] else f"the training part of {part.folder}"
        lines += short_users_said(sampler.skipped, where)
    return lines


def _check_labels(part: TrainingPart) -> None:
    """Check that every preference says with a probability, or not at all, how likely its label is wrong.

    Raises:
        DataError: naming the first row that does not.
    """
    number = row_numbers(part.whole)
    for row in part.train:
        try:
            _ = row.label_noise
        except DataError as error:
            raise DataError(f"{part.folder / 'preferences.parquet'}, row {number(row)}: {error}") from error


def _named(config: RunConfig, method: str, setting: str) -> str:
    """The key of a setting of a method's training, in the section that has it."""
    return ".".join(config.training_key(method, setting))


def _sampler(dataset: PreferenceDataset, row: Method, config: TrainingConfig, *, skip: bool) -> EpisodeSampler:
    shots = config.shots if row.draws_shots else 0
    return EpisodeSampler(dataset, shots=shots, queries=config.queries, seed=config.seed, skip_short_users=skip)


class _Reading:
    """What a run's model can't read whole of a dataset, by the row in its file."""

    def __init__(self, folder: RunFolder, data: Path, dataset: PreferenceDataset, model: str | Path) -> None:
        from fspo.modeling.loading import context_length, load_tokenizer

        self._config, self._file = folder.config, str(data / "preferences.parquet")
        self._number = row_numbers(dataset)
        self._tokenizer, self._context = load_tokenizer(model), context_length(model)
        self.lines: list[str] = []

    def trained(self, train: PreferenceDataset, row: Method, config: TrainingConfig) -> Fitted:
        """The training part without what a method can't read whole.

        Raises:
            DataError: there is such a preference, and the settings refuse it.
        """
        from fspo.training.long_rows import fitted_for, max_length_of

        limit = max_length_of(config, self._context)
        named: dict[str, Any] = {"setting": _named(self._config, row.name, "long_rows")}
        named |= {"file": self._file, "number": self._number}
        read = fitted_for(config, train, self._renderer(row.shown, limit), **named)
        return self._left(read, "the training part")

    def evaluated(self, test: PreferenceDataset) -> Fitted:
        """The test part without what some method can't read whole.

        Raises:
            DataError: there is such a preference, and the settings refuse it.
        """
        config = self._config.evaluation
        limit = config.max_length or self._context
        rooms = rooms_of(
            config, [row.name for row in methods_of(self._config)], lambda context, _: self._renderer(context, limit)
        )
        named: dict[str, Any] = {"setting": "evaluation.long_rows", "file": self._file, "number": self._number}
        return self._left(fitted(test, rooms, config.long_rows, **named), "the test part")

    def _renderer(self, context: Any, limit: int | None) -> EpisodeRenderer:
        return EpisodeRenderer(self._tokenizer, context=context, max_length=limit, layout=self._config.layout)

    def _left(self, read: Fitted, of: str) -> Fitted:
        self.lines += [line for line in read.said(of) if line not in self.lines]
        return read
