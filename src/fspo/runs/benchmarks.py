"""A benchmark measured in a run's folder: its data obtained, its episodes built, and our rows put beside others'."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fspo.errors import ConfigError, DataError, StorageError
from fspo.evaluation.benchmarks.benchmark import Benchmark, BenchmarkConfig, Protocol, benchmark_of
from fspo.evaluation.benchmarks.comparison import Comparison, comparison_page
from fspo.evaluation.benchmarks.episodes import Episodes, build_episodes
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.provenance import check_unseen, read_provenance
from fspo.files import write_json, write_text
from fspo.methods.table import METHODS
from fspo.paths import expanded
from fspo.preferences.dataset import PreferenceDataset
from fspo.printing import counted
from fspo.progress import Progress
from fspo.runs import pipeline
from fspo.runs.checks import check_instruments, check_synthesis
from fspo.runs.config import readers_of
from fspo.runs.costs import training_costs
from fspo.runs.datasets import Source, read_published
from fspo.runs.existing import Existing
from fspo.runs.folder import DATA, RunFolder, benchmark_part, methods_of
from fspo.runs.preflight import check_model, check_policies, check_services, services
from fspo.runs.readers import fitted_readers
from fspo.runs.threads import use_threads
from fspo.runs.writers import endpoints_of, say_spent
from fspo.synthesis.config import SynthesisConfig

__all__ = ["benchmark_plan", "check_shots", "evaluate_benchmark", "opened", "parts_made"]


@dataclass(frozen=True)
class _Data:
    """Who is held out, and what they prefer."""

    whole: PreferenceDataset
    held_out: PreferenceDataset
    name: str
    """What messages call it."""
    home: RunFolder
    """The folder that knows how it was labelled."""
    left_out: Mapping[str, int]


def evaluate_benchmark(folder: RunFolder, name: str, progress: Progress) -> Comparison:
    """Measure the run's methods and reward models on a benchmark, in `benchmarks/NAME` of the run's folder.

    Raises:
        ConfigError: there is no such benchmark, a setting does not fit it, none of the run's methods can be measured on
            it, or a reader does not take its number of shots.
        DataError: a method has not been trained yet; or the data are missing or wrong, or a user of theirs was trained
            on, naming them.
        StorageError: the hub can't be reached.
    """
    from fspo.evaluation.evaluate import evaluate

    check_shots(folder, name)
    benchmark, settings, protocol = _followed(folder, name)
    policies = pipeline.policies_of(folder)
    data = _obtain(folder, benchmark, settings, progress)
    config = protocol.evaluation(folder.config.evaluation)
    episodes = build_episodes(data.held_out, protocol, config, file=data.name)
    able = _measurable(folder, policies, episodes, config, data.name)
    left = ", ".join(name for name in policies if name not in able)
    unable = [f"Not measured, since users have no descriptions: {left}."] if left else []
    judged = config.answers or benchmark.synthesis
    out = folder.path / benchmark_part(name)
    for line in check_instruments(config, out):
        progress.say(line)
    use_threads(folder, benchmark_part(name), progress)
    with closing(endpoints_of(folder, progress)) as endpoints:
        judge = pipeline.judge_of(data.home, data.whole, data.held_out, endpoints, progress) if judged else None
        metrics = evaluate(
            config,
            data.held_out,
            able,
            model=folder.config.model,
            out=out,
            judge=judge,
            train=_seen(folder),
            trials=episodes.trials,
            reward_models=fitted_readers(folder, data.held_out, progress),
            costs=training_costs(folder),
            adaptations=folder.config.adaptations,
            endpoints=endpoints,
            progress=progress,
        )
        say_spent(folder, endpoints, progress)
    model = expanded(Path(folder.config.model))
    comparison = Comparison(
        benchmark,
        protocol,
        model.resolve().name if model.is_dir() else folder.config.model,  # without where it lies
        metrics,
        _amount(data, episodes),
        [*_notes(benchmark, settings, data, episodes), *unable],
    )
    write_json(out / "comparison.json", comparison.record())
    write_text(out / "README.md", comparison_page(comparison))
    return comparison


def parts_made(folder: RunFolder, name: str) -> list[str]:
    """The parts of the run's folder that are made: the run's data too, where they are the benchmark's and not there."""
    benchmark, settings, _ = _followed(folder, name)
    own = settings.data is None and _is_own(folder, benchmark)
    return [*([DATA] if own and not pipeline.has_data(folder) else []), benchmark_part(name)]


def check_shots(folder: RunFolder, name: str) -> None:
    """Check that every reader of the run takes as many shots as a benchmark shows.

    Raises:
        ConfigError: one does not.
    """
    _, _, protocol = _followed(folder, name)
    for row in readers_of(folder.config):
        try:
            row.check_shots(protocol.evaluation(folder.config.evaluation).shots)
        except ConfigError as error:
            raise ConfigError(f"In the benchmark '{name}': {error}") from error


@contextmanager
def opened(folder: RunFolder, name: str, policy: Existing) -> Iterator[RunFolder]:
    """Hold a run's folder for measuring on a benchmark, once all that this needs is known to be there.

    Raises:
        FspoError: something is missing or wrong, and nothing has been written or removed; or as `RunFolder.opened`.
    """
    parts = parts_made(folder, name)
    with folder.opened(parts, policy, lambda: _check_inputs(folder, name, policy, dry=False)):
        yield folder


def _check_inputs(folder: RunFolder, name: str, policy: Existing, *, dry: bool) -> str:
    """Check all that measuring on a benchmark needs, see `fspo.runs.preflight`, and say where its data come from."""
    benchmark, settings, protocol = _followed(folder, name)
    parts = parts_made(folder, name)
    check_shots(folder, name)
    check_model(folder.config.model, fetch=not dry)
    check_policies(folder, parts, policy)
    evaluation = protocol.evaluation(folder.config.evaluation)
    check_instruments(evaluation, folder.path / benchmark_part(name))
    for entry in evaluation.reward_models:
        if entry.model is not None:
            check_model(entry.model, fetch=not dry, rewards=True)
    home, making = folder, False
    loses = not dry and policy is Existing.OVERWRITE and bool(folder.removed(parts))
    if settings.data is None and benchmark.synthesis:
        home = folder if _is_own(folder, benchmark) else _home(folder, benchmark)
        check_synthesis(home.config)
        making = not pipeline.has_data(home) or (policy is Existing.OVERWRITE and home is not folder)
        source = f"the held-out part of {home.data}" + (", still to be made" if making else "")
    else:
        source = _source(benchmark, settings)
        if not source.startswith("hub:") and not Path(source).exists():
            raise _missing(benchmark, source)
        if loses or (dry and not source.startswith("hub:")):
            _check_episodes(folder, _published(folder, benchmark, source), protocol, evaluation)
    if loses or (not dry and folder.is_new):
        config = home.config.model_copy(update={"evaluation": evaluation})
        check_services(services(config, synthesizes=making, evaluates=True), answers=loses)
    return source


def _check_episodes(folder: RunFolder, data: _Data, protocol: Protocol, config: EvaluationConfig) -> None:
    """Check that some method can be measured on these data, and none was trained on them."""
    episodes = build_episodes(data.held_out, protocol, config, file=data.name)
    policies = pipeline.policies_of(folder)
    _measurable(folder, policies, episodes, config, data.name)
    seen = _seen(folder)
    if seen is not None:
        check_unseen(read_provenance(policies), seen, data.held_out)


def benchmark_plan(folder: RunFolder, name: str, policy: Existing) -> list[str]:
    """What would be done, line by line, after checking what can be checked without fetching or making anything.

    Raises:
        ConfigError: there is no such benchmark, a setting does not fit it, or the folder's state does not allow it.
        DataError: the data are missing, or a policy.
    """
    benchmark, settings, protocol = _followed(folder, name)
    folder.check(parts_made(folder, name), policy)
    source = _check_inputs(folder, name, policy, dry=True)
    return [
        benchmark.title,
        f"Data: {source}.",
        _told(protocol),
        *(f"- {line}" for line in (*_departures(benchmark, settings), *benchmark.differences)),
        f"Would measure {', '.join(folder.config.methods)} in {folder.path / benchmark_part(name)}.",
    ]


def _followed(folder: RunFolder, name: str) -> tuple[Benchmark, BenchmarkConfig, Protocol]:
    benchmark = benchmark_of(name)
    settings = folder.config.benchmarks.get(name, BenchmarkConfig())
    protocol = benchmark.protocol.changed(settings)
    if protocol.parted and protocol.episodes > 1:
        raise ConfigError(
            f"benchmarks.{name}.episodes: its rows say which pairs are shots and which are queries, so every user has "
            "one episode; leave the setting out."
        )
    return benchmark, settings, protocol


def _obtain(folder: RunFolder, benchmark: Benchmark, settings: BenchmarkConfig, progress: Progress) -> _Data:
    if settings.data is not None or not benchmark.synthesis:
        return _published(folder, benchmark, _source(benchmark, settings))
    home = folder if _is_own(folder, benchmark) else _home(folder, benchmark)
    pipeline.synth(home, progress)
    whole = pipeline.dataset_of(home)
    return _Data(whole, pipeline.splits_of(home).part(whole, "test"), str(home.data), home, {})


def _source(benchmark: Benchmark, settings: BenchmarkConfig) -> str:
    """Where the data come from that are not made here."""
    if settings.data is not None:
        return settings.data
    assert benchmark.rows is not None
    return benchmark.rows.hub


def _is_own(folder: RunFolder, benchmark: Benchmark) -> bool:
    """Whether the run's own data are of this domain, so that its held-out part is the benchmark's."""
    synthesis = folder.config.synthesis
    return folder.config.data is None and synthesis.domain == benchmark.name


def _home(folder: RunFolder, benchmark: Benchmark) -> RunFolder:
    """The run as one whose data are this domain's, beside what is measured on them."""
    made = SynthesisConfig.model_validate(dict(benchmark.synthesis))
    home = RunFolder(folder.config.model_copy(update={"data": None, "synthesis": made}))
    home.data = folder.path / benchmark_part(benchmark.name) / "data"
    return home


def _published(folder: RunFolder, benchmark: Benchmark, source: str) -> _Data:
    from fspo.preferences.hub import HUB

    rows = benchmark.rows
    drawn, group = (rows.drawn, rows.group) if rows is not None else (None, "")
    if not source.startswith(HUB) and not Path(source).exists():
        raise _missing(benchmark, source)
    if (Path(source) / "preferences.parquet").is_file():
        dataset, left_out = PreferenceDataset.load(source), {}
    elif rows is None:
        raise DataError(f"{source} is no dataset; '{benchmark.name}' was not published, so name a dataset's folder.")
    else:
        try:
            named = {} if drawn is None else vars(drawn)
            imported = read_published(source, Source(rows.kind), part=rows.part, **named)
        except StorageError as error:
            raise StorageError(f"{str(error).partition(';')[0].rstrip('.')}; {_how(benchmark)}") from error
        dataset, left_out = imported.dataset, dict(imported.left_out)
    if drawn is not None:
        dataset = _renamed(dataset)
    grouped = {user.id for user in dataset.users.values() if group and user.group == group}
    home = RunFolder(folder.config.model_copy(update={"data": Path(source)}))
    home.data = folder.path / benchmark_part(benchmark.name)
    return _Data(dataset, dataset.select(users=grouped) if grouped else dataset, source, home, left_out)


def _renamed(dataset: PreferenceDataset) -> PreferenceDataset:
    """Drawn users under other names than those that a run may have been trained on: they are other people."""
    users = [replace(user, id=f"unseen-{user.id}") for user in dataset.users.values()]
    return PreferenceDataset(users, [replace(row, user=f"unseen-{row.user}") for row in dataset])


def _missing(benchmark: Benchmark, source: str) -> DataError:
    return DataError(f"There is no file or folder {source} with the data of '{benchmark.name}'; {_how(benchmark)}")


def _how(benchmark: Benchmark) -> str:
    if benchmark.rows is None:
        return "name the folder of a dataset, or leave --data out to make the data."
    name = benchmark.rows.hub.removeprefix("hub:")
    return f"fetch {name} where the hub can be reached, and name its files here with --data."


def _measurable(
    folder: RunFolder,
    policies: Mapping[str, Path | None],
    episodes: Episodes,
    config: EvaluationConfig,
    source: str,
) -> dict[str, Path | None]:
    """The policies that can be measured: without descriptions of the users, none that sees only these.

    Raises:
        ConfigError: no method can be measured.
    """
    described = all(trial.own.description for trial in episodes.trials)
    able = {
        name: policy
        for name, policy in policies.items()
        if described or METHODS[name].describes or METHODS[name].context != "description"
    }
    if not able and not config.reward_models and not readers_of(folder.config):
        raise ConfigError(f"The users of {source} have no descriptions, and the run's methods see nothing else.")
    return able


def _seen(folder: RunFolder) -> PreferenceDataset | None:
    """What the run's methods were trained on; None where they were not."""
    if not any(row.trains for row in methods_of(folder.config)) and not readers_of(folder.config):
        return None
    return pipeline.trained_on(folder)


def _amount(data: _Data, episodes: Episodes) -> dict[str, Any]:
    trials = episodes.trials
    return {
        "source": data.name,
        "fingerprint": data.held_out.fingerprint,
        "users": len({trial.user for trial in trials}),
        "pairs": sum(len(trial.own.queries) for trial in trials),
        "short_users": episodes.short,
        "users_beyond_the_limit": episodes.limited,
        "left_out": dict(data.left_out),
    }


def _notes(benchmark: Benchmark, settings: BenchmarkConfig, data: _Data, episodes: Episodes) -> Iterator[str]:
    yield from _departures(benchmark, settings)
    users = len({trial.user for trial in episodes.trials})
    if benchmark.users is not None and users != benchmark.users:
        yield f"The published figures are of {benchmark.users:,} users, those of this run of {users:,}."
    if data.left_out:
        yield f"Left out: {', '.join(f'{count:,} {why}' for why, count in data.left_out.items())}."
    if episodes.short:
        yield f"Left out: {counted(episodes.short, 'users')} with too few pairs."
    if episodes.limited:
        yield f"{episodes.limited:,} users more have enough pairs and are not evaluated."


def _departures(benchmark: Benchmark, settings: BenchmarkConfig) -> Iterator[str]:
    for setting, (theirs, ours) in benchmark.protocol.departures(settings).items():
        usual = {"users": "all", "queries": "all", "answers": "those of evaluation.answers"}.get(setting, "none")
        yield (
            f"This run departs from the protocol: {setting} {ours} instead of {usual if theirs is None else theirs} "
            f"(benchmarks.{benchmark.name}.{setting})."
        )


def _told(protocol: Protocol) -> str:
    asked = "all held-out pairs" if protocol.queries is None else f"up to {protocol.queries} queries"
    users = "all users" if protocol.users is None else f"up to {protocol.users} users"
    return f"Protocol: {users}, {protocol.shots} shots, {asked} in each of {protocol.episodes} episode(s) a user."
