"""The stages of a run, joined to one another through the files of its folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from fspo.errors import ConfigError, DataError
from fspo.evaluation.artifacts import AGAIN, Estimates, read_details
from fspo.evaluation.metrics.summary import variants_of
from fspo.evaluation.report.page import write_report
from fspo.files import read_json, replace_folder, write_json, write_text
from fspo.judging.judge import Judge
from fspo.llm.pool import EndpointPool
from fspo.methods.method import Job
from fspo.methods.reader_table import READERS
from fspo.methods.table import METHODS, training_order
from fspo.preferences.dataset import DATASET, PreferenceDataset, load_once
from fspo.preferences.splits import Splits
from fspo.printing import option
from fspo.progress import Progress
from fspo.records import read_record
from fspo.runs import processes
from fspo.runs.checks import check_episodes, check_instruments, warn_of_keys
from fspo.runs.costs import training_costs
from fspo.runs.data_judges import judge_of_data
from fspo.runs.folder import DATA, EVALUATION, RunFolder, method_part, methods_of
from fspo.runs.model_cards import model_card
from fspo.runs.readers import fit_readers, fitted_readers
from fspo.runs.threads import use_threads
from fspo.runs.training_data import merged, observer_of, row_numbers, training_parts
from fspo.runs.training_plan import TimeLeft, planned_trainings, table
from fspo.runs.unused_settings import check_unused_settings, unused_writers
from fspo.runs.writers import (
    endpoints_of,
    executor_of,
    judges_by_language_model,
    language_judge,
    named_writers,
    say_spent,
    template_lines,
    writer_lines,
    writers_of,
)
from fspo.synthesis.synthesize import is_complete, synthesize

__all__ = [
    "data_to_take_over",
    "dataset_of",
    "details_of",
    "evaluate",
    "has_data",
    "judge_of",
    "need_results",
    "no_data",
    "own_data",
    "policies_of",
    "policy_of",
    "report",
    "splits_of",
    "synth",
    "train",
    "trained_methods",
    "trained_on",
    "unchanged",
]


def synth(folder: RunFolder, progress: Progress) -> Mapping[str, Any]:
    """Make the run's dataset, or take over the one of `data`.

    Returns what `dataset.json` says of it, such as how many `users`, `preferences` and `questions` there are: the
    dataset itself may be larger than memory.
    """
    if folder.config.data is not None:
        _take_over(folder, progress)
    elif not has_data(folder):
        for warning in warn_of_keys(folder.config):
            progress.say(warning)
        if folder.config.endpoint is None or any(member.model for member in folder.config.ensemble):
            use_threads(folder, DATA, progress)
        with closing(endpoints_of(folder, progress)) as endpoints:
            executor, writers = executor_of(folder, progress), writers_of(folder, endpoints)
            for line in (*writer_lines(folder.config), *template_lines(folder.config)):
                progress.say(line)
            synthesize(folder.config.synthesis, writers, folder.data, progress, executor)
            say_spent(folder, endpoints, progress)
    manifest: Mapping[str, Any] = read_json(folder.data / "dataset.json")
    return manifest


def train(
    folder: RunFolder,
    progress: Progress,
    names: Iterable[str] | None = None,
    record: Callable[[PreferenceDataset, Path], None] | None = None,
) -> list[Path]:
    """Train the named methods (by default all that the run needs): readers first, each policy after its start.

    `record` is called before each training, with what it is trained on and the policy's folder.
    """
    from fspo.training.callbacks import FirstSteps

    whole, splits = dataset_of(folder), splits_of(folder)
    chosen = set(trained_methods(folder) if names is None else names)
    _check_training(folder, whole, splits, chosen, progress, evaluated=names is None)
    parts, validation = training_parts(folder, whole, splits), splits.part(whole, "validation")
    dataset, row_number = merged(parts), row_numbers(*(part.whole for part in parts))
    follow = [name for name, each in folder.config.training.items() if name in chosen and each.follows_observer]
    observer = observer_of(parts, follow[0], folder.config.seed) if follow else None
    trainings = planned_trainings(folder, chosen, dataset, folder.config.model)
    if any(each.done < each.config.total_steps for each in trainings):
        for line in table(trainings):
            progress.say(line)
    made = list(fit_readers(folder, dataset, chosen, progress, record))
    time_left = TimeLeft(trainings, progress)
    first_steps = FirstSteps(time_left.tell)  # of the first training that is not finished; one callback for all
    with closing(endpoints_of(folder, progress)) as endpoints:
        for number, row in enumerate(each.row for each in trainings):
            time_left.begin(number)
            out = folder.method(row.name)
            use_threads(folder, method_part(row.name), progress)
            if record is not None:
                record(dataset, out)
            policy = row.train(
                Job(
                    row,
                    folder.config.training[row.name],
                    dataset,
                    folder.config.model if row.starts_from is None else policy_of(folder, row.starts_from),
                    out,
                    progress,
                    validation=validation if len(validation) else None,
                    observer=observer,
                    judge=partial(_measuring_judge, folder, whole),
                    callbacks=(first_steps,),
                    embeddings=folder.embeddings,
                    endpoints=endpoints,
                    row_number=row_number,
                )
            )
            if processes.is_first():
                write_text(policy / "README.md", model_card(row, folder.config, {}, policy=policy))
            made.append(policy)
        if processes.is_first():
            say_spent(folder, endpoints, progress)
    return made


def _check_training(
    folder: RunFolder,
    dataset: PreferenceDataset,
    splits: Splits,
    names: set[str],
    progress: Progress,
    *,
    evaluated: bool,
) -> None:
    """Find faults before the first training; say which settings have no effect.

    Raises:
        FspoError: see `check_episodes`.
    """
    # Each stage says itself what it leaves out.
    check_episodes(folder, dataset, splits, trained=names, evaluated=evaluated, model=folder.config.model)
    for line in check_unused_settings(folder.config, names, begun=True):
        progress.say(line)


def _measuring_judge(folder: RunFolder, dataset: PreferenceDataset) -> Judge | None:
    """The judge of answers to these users that asks no model, if there is one."""
    from fspo.evaluation.judges.judges import answer_judge

    texts = (text for row in dataset for text in (row.chosen, row.rejected))
    return answer_judge(judge_of_data(folder.data / "judge.json", texts, dataset.users.values(), folder.data)[0])


def evaluate(folder: RunFolder, progress: Progress) -> dict[str, Any]:
    """Measure the run's methods on held-out users and questions; write metrics.json and samples.jsonl."""
    from fspo.evaluation.evaluate import evaluate as measure

    dataset, splits = dataset_of(folder), splits_of(folder)
    for warning in check_instruments(folder.config.evaluation, folder.evaluation):
        progress.say(warning)
    test = splits.part(dataset, "test")
    use_threads(folder, EVALUATION, progress)
    with closing(endpoints_of(folder, progress)) as endpoints:
        metrics = measure(
            folder.config.evaluation,
            test,
            policies_of(folder),
            model=folder.config.model,
            out=folder.evaluation,
            results=folder.path,
            judge=judge_of(folder, dataset, test, endpoints, progress),
            train=trained_on(folder),
            reward_models=fitted_readers(folder, test, progress),
            costs=training_costs(folder),
            adaptations=folder.config.adaptations,
            endpoints=endpoints,
            row_number=row_numbers(dataset),
            progress=progress,
        )
        say_spent(folder, endpoints, progress)
    for name in ("metrics.json", "samples.jsonl"):  # earlier versions had copies there
        (folder.evaluation / name).unlink(missing_ok=True)
    return metrics


def report(folder: RunFolder, benchmark: str = "") -> Path:
    """Write summary.json, the model cards and report.html from what is on disk; on a benchmark, report.html alone."""
    if benchmark:
        return write_report(folder.path, folder.report_on(benchmark), benchmark=benchmark)
    metrics, details = need_results(folder), details_of(folder)
    for row in training_order(methods_of(folder.config)):
        if (folder.method(row.name) / "policy.json").is_file():
            place = folder.method(row.name)
            card = model_card(row, folder.config, metrics, variants_of(details, row.name), policy=place)
            write_text(place / "README.md", card)
    headline = ("reward_accuracy", "label_flip_rate", "user_swap_drop", "win_rate")
    write_json(
        folder.path / "summary.json",
        {
            "name": folder.config.name,
            "model": folder.config.model,
            "methods": {
                method: {name: row[name].value for name in headline if name in row} for method, row in metrics.items()
            },
            "variants": {method: variants_of(details, method) for method in metrics},
        },
    )
    return write_report(folder.path, folder.report)


def need_results(folder: RunFolder, benchmark: str = "") -> Estimates:
    """The contents of metrics.json, or of that of a benchmark.

    Raises:
        DataError: the run has not been evaluated.
        StorageError: the file is damaged or of another version.
    """
    place = folder.measured(benchmark) if benchmark else folder.path
    metrics = read_record(place / "metrics.json", Estimates, AGAIN)
    if metrics is None:
        command = f"`fspo eval --benchmark {benchmark}`" if benchmark else "`fspo eval` or `fspo run`"
        raise DataError(f"{place} has no metrics.json; run {command} first.")
    return metrics


def details_of(folder: RunFolder, benchmark: str = "") -> dict[str, Any]:
    """The contents of details.json, or of that of a benchmark; empty where there is none.

    Raises:
        StorageError: the file is damaged or of another version.
    """
    return read_details(folder.measured(benchmark))


def trained_methods(folder: RunFolder, names: Iterable[str] | None = None) -> list[str]:
    """The methods to train: those named, or all that the run's methods need.

    Raises:
        ConfigError: a named method trains nothing or does not belong to the run.
    """
    order = [part.removeprefix(method_part("")) for part in folder.parts() if part.startswith(method_part(""))]
    for name in names or ():
        if name not in order:
            why = "trains nothing" if name in METHODS else "does not exist"
            if name in READERS or (name in METHODS and METHODS[name].trains):
                why = "is not among the run's methods"
            raise ConfigError(f"{option('method', name)}: this method {why}; choose from {', '.join(order)}.")
    return [name for name in order if not names or name in names]


def policies_of(folder: RunFolder) -> dict[str, Path | None]:
    """Method -> its trained policy, None where it uses the base model's weights.

    Raises:
        DataError: a method has not been trained yet.
    """
    return {row.name: policy_of(folder, row.policy) if row.policy else None for row in methods_of(folder.config)}


def trained_on(folder: RunFolder) -> PreferenceDataset:
    """All that the run's methods are trained on.

    Raises:
        DataError: the run's data are not finished, or those of `also_train` can't be read.
    """
    return merged(training_parts(folder, dataset_of(folder), splits_of(folder)))


def splits_of(folder: RunFolder) -> Any:
    """The splits of the run's dataset."""
    return Splits.load(folder.data / "splits.json")


def policy_of(folder: RunFolder, name: str) -> Path:
    """The trained policy of a method.

    Raises:
        DataError: it has not been trained yet.
    """
    path = folder.method(name)
    if not (path / "policy.json").is_file():
        raise DataError(f"{path} holds no trained policy yet; run `fspo train` or `fspo run` first.")
    return path


def dataset_of(folder: RunFolder) -> PreferenceDataset:
    """The run's dataset.

    Raises:
        DataError: it is not finished.
    """
    if not has_data(folder):
        raise no_data(folder)
    return load_once(folder.data)


def no_data(folder: RunFolder) -> DataError:
    """The error where a run has no dataset yet."""
    source = folder.config.data
    if source is not None:
        return DataError(f"{folder.data} does not hold the data of {source} yet; run `fspo run` or `fspo train` first.")
    return DataError(f"{folder.data} holds no finished dataset; run `fspo synth` or `fspo run` first.")


def data_to_take_over(folder: RunFolder) -> list[str]:
    """The part `data`, if the run has data of its own and does not hold them yet."""
    return [DATA] if folder.config.data is not None and not has_data(folder) else []


def has_data(folder: RunFolder) -> bool:
    """Whether the run's dataset is finished."""
    if folder.config.data is not None:
        return (folder.data / "splits.json").is_file()  # the folder comes whole
    return is_complete(folder.data, folder.config.synthesis, named_writers(folder.config))


def _take_over(folder: RunFolder, progress: Progress) -> None:
    dataset, splits = unchanged(folder)
    if not has_data(folder):
        for line in unused_writers(folder.config):
            progress.say(line)
        if not (Path(str(folder.config.data)) / "splits.json").exists():
            progress.say(
                f"{folder.config.data} has no splits.json, so a fifth of its users and of its questions are drawn to "
                "be held out; `fspo data split` divides it otherwise."
            )
        for kind, ids in (("users", dataset.users), ("questions", dataset.questions())):
            unused = len(set(ids).difference(*getattr(splits, kind).values()))
            if unused:
                progress.say(f"{unused} of {len(ids)} {kind} belong to no split and are left out.")
        with replace_folder(folder.data, DATASET, alone=True) as staging:
            dataset.save(staging)
            splits.save(staging / "splits.json")
            judge = Path(str(folder.config.data)) / "judge.json"
            if judge.is_file():
                shutil.copyfile(judge, staging / judge.name)


def unchanged(folder: RunFolder) -> tuple[PreferenceDataset, Any]:
    """The dataset named by `data` and its splits, the same as when the run began.

    Raises:
        ConfigError: they have changed since the run took them over.
    """
    dataset, splits = own_data(folder)
    if has_data(folder) and (dataset_of(folder).fingerprint, splits_of(folder)) != (dataset.fingerprint, splits):
        raise ConfigError(
            f"The data in {folder.config.data} have changed since {folder.data} was made from them; choose "
            f"{option('on-existing', 'overwrite')} to generate everything again, or name another folder with "
            f"{option('output')}."
        )
    return dataset, splits


def own_data(folder: RunFolder) -> tuple[PreferenceDataset, Any]:
    """The dataset named by `data`, with its splits or new ones."""
    source = folder.config.data
    assert source is not None
    try:
        dataset = PreferenceDataset.load(source)
    except DataError as error:
        if source.is_dir():
            raise
        raise DataError(f"{folder.config.written_in.where(('data',))}: data: {error}") from error
    path = source / "splits.json"
    return dataset, Splits.load(path) if path.exists() else dataset.split(seed=folder.config.seed).splits


def judge_of(
    folder: RunFolder,
    dataset: PreferenceDataset,
    test: PreferenceDataset,
    endpoints: EndpointPool,
    progress: Progress,
) -> Judge | None:
    """The judge that labelled the data, or one fitted to it; None where it can't judge for the users, which is said."""
    if judges_by_language_model(folder.config):
        return language_judge(folder, endpoints)
    path = folder.data / "judge.json"
    if not path.exists() and folder.config.data is not None:  # taken over before the judge was
        path = folder.config.data / "judge.json"
    texts = (text for row in dataset for text in (row.chosen, row.rejected))
    judge, why = judge_of_data(path, texts, test.users.values(), folder.data)
    if why and not folder.config.evaluation.judges:  # else the first of these takes the place
        said = f"Nobody can judge answers for these users ({why}), so win rates and the ideal observer are left out."
        progress.say(said + (" The report shows a few answers." if folder.config.evaluation.answers else ""))
    return judge
