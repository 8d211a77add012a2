"""Check first, then remove: what a verb needs is checked before it writes or removes anything.

`--dry-run` makes the same checks, but fetches nothing. It asks a hub whether a model exists, and no other server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fspo.errors import ConfigError, ModelError
from fspo.llm.endpoint_config import EndpointConfig
from fspo.llm.reach import check_endpoint
from fspo.methods.table import training_order
from fspo.modeling import builtin_model
from fspo.modeling.chat import need_chat_template
from fspo.modeling.model_names import INSTEAD, check_folder, instead_of, layout_note, locate, place_here
from fspo.modeling.quiet import quiet
from fspo.preferences.dataset import PreferenceDataset
from fspo.printing import counted
from fspo.runs.checks import (
    check_benchmark_data,
    check_episodes,
    check_instruments,
    check_synthesis,
    check_training_endpoints,
    episode_sizes,
)
from fspo.runs.config import RunConfig, readers_of, training_endpoints
from fspo.runs.datasets import few_held_out, few_trained_on
from fspo.runs.existing import Existing
from fspo.runs.folder import DATA, EVALUATION, RunFolder, method_part, methods_of
from fspo.runs.pipeline import dataset_of, has_data, own_data, policy_of, splits_of, unchanged
from fspo.runs.readers import check_fitted
from fspo.runs.training_data import other_parts
from fspo.runs.unused_settings import check_unused_settings, unused_writers
from fspo.runs.writers import judges_by_language_model

__all__ = [
    "check_inputs",
    "check_model",
    "check_policies",
    "check_services",
    "data_at_hand",
    "opened",
    "services",
    "synthesizes",
]


@contextmanager
def opened(
    folder: RunFolder,
    parts: Sequence[str],
    policy: Existing,
    confirm: Callable[[Sequence[str], Sequence[str]], object] = lambda *_: None,
) -> Iterator[RunFolder]:
    """Hold a run's folder for making these parts, once all that this needs is known to be there.

    If something that was made from these parts would be removed with them, `confirm` gets the parts and the names of
    the others; where it raises, nothing is written or removed.

    Raises:
        FspoError: as `check_inputs`, and nothing has been written or removed; or as `RunFolder.opened`.
    """

    def check() -> None:
        check_inputs(folder, parts, policy)
        if policy is Existing.OVERWRITE and (others := folder.made_from(parts)):
            confirm(parts, others)

    with folder.opened(parts, policy, check):
        yield folder


def check_inputs(folder: RunFolder, parts: Sequence[str], policy: Existing, *, dry: bool = False) -> list[str]:
    """Check all that making these parts of a run needs: data, models, policies, judges, reward models, endpoints.

    Endpoints are asked only if the folder is new, or something would be removed: otherwise nothing is lost if one does
    not answer. A `dry` check fetches nothing, and asks no server but a hub whether it has a model.

    Returns what to know of the data and the models, one line each.

    Raises:
        ConfigError: a setting, a key or a package is wrong or missing.
        DataError: the data are missing, damaged or too few; or a policy is missing that something starts from.
        ModelError: a model can't be loaded, or an endpoint does not answer.
    """
    config, loses = folder.config, policy is Existing.OVERWRITE and bool(folder.removed(parts))
    making = synthesizes(folder, parts, policy)
    goes_on = any(part != DATA for part in parts)
    lines = unused_writers(config) if DATA in parts else []
    if making:
        check_synthesis(config)
    for name in _models(config, synthesizes=making, goes_on=goes_on):
        lines += check_model(name, fetch=not dry)
    if goes_on and (note := layout_note(config.model, config.layout)):
        lines.append(note)
    check_policies(folder, parts, policy)
    trained = [name for name in config.training if method_part(name) in parts]
    if trained:
        lines += check_training_endpoints(config, trained)
        _check_trackers(config)
        begun = policy is not Existing.OVERWRITE and any(folder.begun(method_part(name)) for name in trained)
        lines += check_unused_settings(config, trained, begun=begun)
    if EVALUATION in parts:
        lines += check_instruments(config.evaluation, folder.evaluation)
        for entry in config.evaluation.reward_models:
            if entry.model is not None:
                lines += check_model(entry.model, fetch=not dry, rewards=True)
    if dry or folder.is_new:
        check_benchmark_data(config)
    if dry or loses or folder.is_new:
        lines += _check_data(folder, parts, policy, dry=dry)
    if not dry and (loses or folder.is_new):
        asked = services(config, synthesizes=making, evaluates=EVALUATION in parts)
        check_services([*asked, *training_endpoints(config, trained)], answers=loses)
    return lines


def check_model(name: str, *, fetch: bool = False, rewards: bool = False) -> list[str]:
    """Check that a model and its tokenizer can be loaded, without reading the weights.

    What is not on this machine is fetched with `fetch`; otherwise the hub is only asked whether it has the model. With
    `rewards` it is to give rewards, and not text. Returns a line on a model that is still to be fetched.

    Raises:
        ModelError: it can't be loaded, has no chat template, or does not know all tokens of its tokenizer.
    """
    from fspo.modeling.loading import check_loadable, load_tokenizer, pull
    from fspo.modeling.vocabulary import check_vocabulary, rows_of

    if fetch or name != builtin_model.BUILTIN_MODEL:
        locate(name)
    check_folder(name)
    quiet()
    if fetch:
        pull(name, newest=False)
    place = place_here(name)
    if place is None:
        return [_to_be_fetched(name)]
    check_loadable(place, rewards=rewards)
    tokenizer = load_tokenizer(place)
    if not rewards:
        need_chat_template(tokenizer)
        check_vocabulary(tokenizer, rows_of(place), name)
    return []


def _check_trackers(config: RunConfig) -> None:
    """Check that the trackers of all trainings are known and installed.

    Raises:
        ConfigError: naming the one that is not, and where it stands.
    """
    from fspo.training.arguments import check_trackers

    for name, training in config.training.items():
        try:
            check_trackers(training)
        except ConfigError as error:
            key = config.training_key(name, "report_to")
            raise ConfigError(f"{config.written_in.where(key)}: {'.'.join(key[:-1])}.{error}") from error


def _to_be_fetched(name: str) -> str:
    """A line on a model that is not on this machine.

    Raises:
        ModelError: it is nowhere.
    """
    from fspo.modeling import hub

    there = True if name == builtin_model.BUILTIN_MODEL else hub.exists(name)
    if there is False:
        raise ModelError(f"There is no model {name}, neither here nor on the hub for this HF_TOKEN. {instead_of(name)}")
    if there is None and instead_of(name) != INSTEAD:
        raise ModelError(
            f"There is no model {name} here, and the hub can't be asked whether it has one. {instead_of(name)}"
        )
    unknown = " The hub can't be reached now, so it is not known whether the model exists." if there is None else ""
    return f"The model {name} is not on this machine; the command fetches it.{unknown}"


def check_policies(folder: RunFolder, parts: Iterable[str], policy: Existing) -> None:
    """Check that every policy is there that one of these parts starts from or measures, and that is not made with it.

    Raises:
        ConfigError: one would be removed, since the data that it was trained on are made again.
        DataError: one has not been trained yet.
    """
    parts = list(parts)
    gone = set(folder.removed(parts)) if policy is Existing.OVERWRITE else set()
    made, rows = set(parts), training_order(methods_of(folder.config))
    starts = [row.starts_from for row in rows if method_part(row.name) in made and row.starts_from]
    measures = any(part != DATA and not part.startswith(method_part("")) for part in made)
    measured = [row.policy for row in methods_of(folder.config) if row.policy and measures]
    for name in dict.fromkeys([*starts, *measured]):
        if method_part(name) in made:
            continue
        if method_part(name) in gone:
            raise ConfigError(
                f"Generating the data in {folder.data} again removes the policy of '{name}', which this command needs "
                "and does not train, so nothing is overwritten; use `fspo run --on-existing overwrite`, or bring back "
                "the data that it was trained on."
            )
        policy_of(folder, name)
    for row in readers_of(folder.config) if measures else ():
        if method_part(row.name) not in made:
            if method_part(row.name) in gone:
                raise ConfigError(
                    f"Generating the data in {folder.data} again removes the reader '{row.name}', which this command "
                    "needs and does not fit, so nothing is overwritten; use `fspo run --on-existing overwrite`."
                )
            check_fitted(folder, row)


def check_services(endpoints: Iterable[EndpointConfig], *, answers: bool) -> None:
    """Check that each endpoint can be reached, and if `answers`, that it knows its model.

    Raises:
        ConfigError: one refuses the key or the model's name.
        ModelError: one can't be reached, or is no such server.
    """
    for endpoint in {endpoint.model_dump_json(): endpoint for endpoint in endpoints}.values():
        check_endpoint(endpoint, answers=answers)


def synthesizes(folder: RunFolder, parts: Iterable[str], policy: Existing) -> bool:
    """Whether synthetic data are made, or finished."""
    if DATA not in parts or folder.config.data is not None:
        return False
    return policy is Existing.OVERWRITE or not has_data(folder)


def _models(config: RunConfig, *, synthesizes: bool, goes_on: bool) -> list[str]:
    """The models on this machine that are needed."""
    writers = [member.model or config.model for member in config.ensemble if member.endpoint is None]
    asked = [config.model] if config.endpoint is None else []
    return list(dict.fromkeys([*([config.model] if goes_on else []), *([*asked, *writers] if synthesizes else [])]))


def services(config: RunConfig, *, synthesizes: bool, evaluates: bool) -> list[EndpointConfig]:
    """The endpoints that a run asks while it makes data, or evaluates."""
    judged = evaluates and config.evaluation.answers and judges_by_language_model(config)
    found = [config.endpoint] if synthesizes or judged else []
    if synthesizes:
        found += [member.endpoint for member in config.ensemble]
    if evaluates:
        evaluation = config.evaluation
        found += [judge.endpoint for judge in evaluation.judges if evaluation.answers]
        found += [judge.endpoint for judge in (evaluation.tax.judges if evaluation.tax is not None else ())]
        found += [model.endpoint for model in evaluation.reward_models]
        found += [evaluation.conversations.endpoint] if evaluation.conversations is not None else []
    return [endpoint for endpoint in found if endpoint is not None]


def data_at_hand(folder: RunFolder, parts: Sequence[str], policy: Existing) -> tuple[PreferenceDataset, Any] | None:
    """The data that making these parts would begin with, and their splits; None where they are still to be made.

    Raises:
        ConfigError: the data have changed since the run took them over.
        DataError: they are missing or damaged.
    """
    if DATA in parts and folder.config.data is not None:
        return own_data(folder) if policy is Existing.OVERWRITE else unchanged(folder)
    if synthesizes(folder, parts, policy) or all(part == DATA for part in parts):
        return None
    return dataset_of(folder), splits_of(folder)


def _check_data(folder: RunFolder, parts: Sequence[str], policy: Existing, *, dry: bool) -> Iterator[str]:
    """Check the data, and that there are enough for the episodes of training and evaluation."""
    goes_on = any(part != DATA for part in parts)
    if goes_on:
        other_parts(folder.config)
    found = data_at_hand(folder, parts, policy)
    if found is not None and DATA in parts and folder.config.data is not None:
        dataset, splits = found
        held_out = splits.part(dataset, "test")
        yield (
            f"Data: {counted(len(dataset), 'preferences')} of {counted(len(dataset.users), 'users')}; held out: "
            f"{counted(len(held_out), 'preferences')} of {counted(len(splits.users['test']), 'users')}."
        )
        few = few_held_out(folder.config.data, dataset, splits, episode_sizes(folder.config))
        yield from filter(None, (few, few_trained_on(splits)))
    if found is not None and goes_on:
        model = place_here(folder.config.model)
        trained = [name for name in folder.config.training if method_part(name) in parts]
        yield from check_episodes(folder, *found, trained=trained, evaluated=EVALUATION in parts, model=model)
