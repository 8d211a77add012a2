"""The language models of a run's synthesis: who is asked, who writes responses, where their answers are kept."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from fspo.files import read_json, write_json
from fspo.judging.pairwise import PairwiseJudge
from fspo.llm.batching import CachedModel
from fspo.llm.cache_shards import absorb_shards
from fspo.llm.endpoint_config import EndpointConfig
from fspo.llm.ensemble import Ensemble, Member
from fspo.llm.pool import EndpointPool, ModelSource, answers_file
from fspo.llm.types import LanguageModel, NamedModel
from fspo.modeling.chat import takes_system
from fspo.modeling.model_names import local_identity, place_here
from fspo.modeling.size import count_weights
from fspo.progress import Progress, Silent
from fspo.runs.config import RunConfig, training_endpoints
from fspo.runs.folder import RunFolder
from fspo.synthesis.config import asks_models
from fspo.synthesis.domain import load_domain
from fspo.synthesis.domain_files import production_of
from fspo.synthesis.judges import pairwise_judge
from fspo.synthesis.labels import Executor, InProcessExecutor
from fspo.synthesis.ray_executor import RayExecutor
from fspo.synthesis.synthesize import NOBODY, Writers

__all__ = [
    "SPENDING",
    "endpoints_of",
    "executor_of",
    "judges_by_language_model",
    "language_judge",
    "named_writers",
    "say_spent",
    "template_lines",
    "writer_lines",
    "writers_of",
]

SPENDING = "spending.json"
"""What was spent at the endpoints of a run, by the file of their answers."""

_SMALL = 1_000_000_000
"""Weights below which a model is not expected to judge by what a description says."""


def endpoints_of(folder: RunFolder, progress: Progress) -> EndpointPool:
    """The endpoints of a run, which `progress` speaks for; the caller closes the pool."""
    config = folder.config
    members = [member.endpoint for member in config.ensemble if member.endpoint is not None]
    others = [*members, *config.evaluation.endpoints(), *training_endpoints(config)]
    return EndpointPool(folder.path, others, own=config.endpoint, say=progress.say)


def writers_of(folder: RunFolder, endpoints: EndpointPool) -> Writers:
    """The models, ready to be asked.

    Raises:
        ConfigError: the package that asks endpoints is missing.
        ModelError: a model can't be obtained.
    """
    if not asks_models(folder.config.synthesis):
        return NOBODY
    ask = _asked_of(folder, endpoints)
    # A model named twice, such as for two temperatures, is loaded once.
    local = {folder.config.model: ask} if folder.config.endpoint is None else {}
    members = []
    for member in folder.config.ensemble:
        name = member.model or ""
        if member.endpoint is None:
            local[name] = local.get(name) or _local(folder, name, endpoints)
        model = local[name] if member.endpoint is None else endpoints.open(member.endpoint)
        members.append(Member(model, member.weight, member.temperature))
    return Writers(ask, Ensemble(members) if members else ask)


def executor_of(folder: RunFolder, progress: Progress) -> Executor:
    """Who labels the run's data; `progress` shows what the workers of a cluster have to say."""
    config = folder.config
    if config.executor.kind == "local":
        return InProcessExecutor()
    where = Path(config.model).resolve() if Path(config.model).is_dir() else None
    source = ModelSource(config.model, where, config.endpoint)
    return RayExecutor(
        source,
        _answers_of_asked(folder),
        address=config.executor.address,
        workers=config.executor.workers,
        say=progress.say,
    )


def named_writers(config: RunConfig) -> Writers:
    """Who is asked and who writes the responses, by name and identity, without loading or asking anybody."""
    if not asks_models(config.synthesis):
        return NOBODY
    ask = _named(config.model, config.endpoint)
    members = [
        Member(_named(member.model or "", member.endpoint), member.weight, member.temperature)
        for member in config.ensemble
    ]
    return Writers(ask, Ensemble(members) if members else ask)


def say_spent(folder: RunFolder, endpoints: EndpointPool, progress: Progress) -> None:
    """Say what was spent at the endpoints, and write it into the run's folder."""
    for line in endpoints.spent():
        progress.say(line)
    found = endpoints.spending()
    if found:
        path = folder.path / SPENDING
        before = read_json(path) if path.exists() else {}
        now = {one.file: {"model": one.title, **asdict(one.spent), "dollars": one.dollars} for one in found}
        write_json(path, {**before, **now})


def writer_lines(config: RunConfig) -> list[str]:
    """Who writes responses, who judges pairs, who writes everything else; empty for own data.

    Nobody is asked, and nothing is loaded.
    """
    synthesis = config.synthesis
    if config.data is not None:
        return []
    judges = {"measured": "measured attributes", "declared": "the traits that they declare"}
    by_traits = f"{judges.get(synthesis.judge, '')}, and no language model"
    if not asks_models(synthesis):
        return [f"Responses that come with the domain; pairs judged by {by_traits}."]
    asked = _in_words(config.model, config.endpoint)
    writers = " + ".join(
        f"{member.weight:g} x {_in_words(member.model or '', member.endpoint)}" for member in config.ensemble
    )
    judge = by_traits if synthesis.by_traits else asked
    production = production_of(synthesis.domain)
    by = "people" if production == "written" else writers or asked
    by += ", restyled by rule" if production == "restyled" else ""
    lines = [f"Responses by {by}; pairs judged by {judge}; any other text by {asked}."]
    if synthesis.judge == "llm" and config.endpoint is None:
        lines += _warning(config.model)
    return lines


def template_lines(config: RunConfig) -> list[str]:
    """A line on each model on this machine that writes in synthesis and whose chat template takes no system role.

    Models that are not here yet are passed over: nothing is fetched.
    """
    from fspo.modeling.loading import load_tokenizer

    if config.data is not None or not asks_models(config.synthesis):
        return []
    asked = [config.model] if config.endpoint is None else []
    writers = [member.model or config.model for member in config.ensemble if member.endpoint is None]
    places = {name: place_here(name) for name in dict.fromkeys([*asked, *writers])}
    return [
        f"The chat template of {name} takes no system role: what the system says goes in front of the first user's "
        "text."
        for name, place in places.items()
        if place is not None and not takes_system(load_tokenizer(place))
    ]


def _warning(model: str) -> list[str]:
    count = count_weights(model)
    if not count or count >= _SMALL:
        return []
    size = f"{count / 1e6:,.0f} million" if count >= 1e6 else f"{count:,}"
    return [
        f"Warning: {model} has {size} weights, and a model of under a billion hardly judges by what a description "
        "says; most pairs may be left undecided, and labels be little better than chance. Set "
        "synthesis.judge=measured, or endpoint.base_url and endpoint.model."
    ]


def _in_words(model: str, endpoint: EndpointConfig | None) -> str:
    return f"{model} on this machine" if endpoint is None else endpoint.name


def judges_by_language_model(config: RunConfig) -> bool:
    """Whether a language model labels the run's data, so that it has to judge the answers too."""
    synthesis = config.synthesis
    return config.data is None and synthesis.judge == "llm"


def language_judge(folder: RunFolder, endpoints: EndpointPool) -> PairwiseJudge:
    """The judge that labelled the run's data, ready to be asked.

    Raises:
        ModelError: the model can't be obtained.
    """
    config = folder.config.synthesis
    return pairwise_judge(config, load_domain(config.domain), _asked_of(folder, endpoints))


def _named(model: str, endpoint: EndpointConfig | None) -> NamedModel:
    """The model at an endpoint, or else the one on this machine."""
    if endpoint is None:
        return NamedModel(model, local_identity(model))
    return NamedModel(endpoint.name, endpoint.identity())


def _asked_of(folder: RunFolder, endpoints: EndpointPool) -> LanguageModel:
    absorb_shards(_answers_of_asked(folder))
    endpoint = folder.config.endpoint
    return _local(folder, folder.config.model, endpoints) if endpoint is None else endpoints.open(endpoint)


def _answers_of_asked(folder: RunFolder) -> Path:
    """Where the answers of the model that is asked are kept."""
    endpoint = folder.config.endpoint
    if endpoint is None:
        return folder.path / answers_file(folder.config.model)
    return folder.path / endpoints_of(folder, Silent()).file(endpoint)


def _local(folder: RunFolder, name: str, endpoints: EndpointPool) -> LanguageModel:
    from fspo.llm.local import LocalModel

    model = LocalModel.load(name)
    return CachedModel(model, endpoints.cache(answers_file(model.name)))
