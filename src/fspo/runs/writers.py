"""The language models of a run's synthesis: who is asked, who writes responses, where their answers are kept."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fspo.judging.pairwise import PairwiseJudge
from fspo.llm.batching import CachedModel
from fspo.llm.cache import RequestCache
from fspo.llm.cache_shards import absorb_shards
from fspo.llm.endpoint import Endpoint
from fspo.llm.endpoint_config import EndpointConfig
from fspo.llm.ensemble import Ensemble, Member, MemberConfig
from fspo.llm.pool import ModelSource
from fspo.llm.types import Completion, CompletionRequest, LanguageModel
from fspo.modeling.chat import takes_system
from fspo.modeling.model_names import local_identity, place_here
from fspo.modeling.size import count_weights
from fspo.progress import Progress
from fspo.runs.config import RunConfig
from fspo.runs.folder import RunFolder
from fspo.synthesis.config import asks_models
from fspo.synthesis.domain import load_domain
from fspo.synthesis.domain_files import production_of
from fspo.synthesis.executors import Executor, InProcessExecutor
from fspo.synthesis.judges import pairwise_judge
from fspo.synthesis.ray_executor import RayExecutor
from fspo.synthesis.synthesize import NOBODY, Writers

__all__ = [
    "ANSWERS",
    "executor_of",
    "judges_by_language_model",
    "language_judge",
    "named_writers",
    "say_spent",
    "template_lines",
    "writer_lines",
    "writers_of",
]

ANSWERS = "answers.sqlite"
"""What was answered, in a run's folder: the data may be made anew, and what was paid for is not asked again."""

_SMALL = 1_000_000_000
"""Weights below which a model is not expected to judge by what a description says."""


def writers_of(folder: RunFolder, progress: Progress) -> Writers:
    """The models, ready to be asked; what is odd about an endpoint is shown by `progress`.

    Raises:
        ConfigError: the package that asks endpoints is missing.
        ModelError: a model can't be obtained.
    """
    config = folder.config
    if not asks_models(config.synthesis):
        return NOBODY
    ask = _asked_of(folder, progress)
    if not config.ensemble:
        return Writers(ask, ask)
    opened: dict[str, LanguageModel] = {}  # a model named twice, such as for two temperatures, has one account
    if config.endpoint is not None:
        opened[_key(config.endpoint, "")] = ask
    members = [
        Member(_member(folder, member, opened, progress), member.weight, member.temperature)
        for member in config.ensemble
    ]
    return Writers(ask, Ensemble(members))


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
    ask = _Named.of(config.model, config.endpoint)
    if not config.ensemble:
        return Writers(ask, ask)
    members = [
        Member(_Named.of(member.model or "", member.endpoint), member.weight, member.temperature)
        for member in config.ensemble
    ]
    return Writers(ask, Ensemble(members))


def say_spent(folder: RunFolder, writers: Writers, progress: Progress) -> None:
    """Say what the endpoints have given, to this process and to the workers of its executor."""
    for model in _asked(writers):
        if isinstance(model, Endpoint):
            account = model
            if model is writers.ask and folder.config.endpoint is not None and folder.config.executor.kind == "ray":
                account = _endpoint(
                    folder.config.endpoint, folder.path / ANSWERS, progress
                )  # with what workers were given
            spent = account.spent
            dollars = f", {account.dollars:.2f} dollars" if account.dollars else ""
            progress.say(
                f"{model.name} gave {spent.requests:,} answers in all calls of this run: {spent.prompt_tokens:,} "
                f"tokens of prompts, {spent.tokens:,} of answers{dollars}; {model.reused:,} requests were answered "
                "from what was kept."
            )
            if account.replies:
                odd = ", ".join(f"{kind} {count:,}" for kind, count in account.replies.items())
                progress.say(f"Odd replies of {model.name} in all calls of this run: {odd}.")


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
        return [f"Responses written by people; pairs judged by {by_traits}."]
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
    return f"{model} on this machine" if endpoint is None else _name(model, endpoint)


def judges_by_language_model(config: RunConfig) -> bool:
    """Whether a language model labels the run's data, so that it has to judge the answers too."""
    synthesis = config.synthesis
    return config.data is None and synthesis.judge == "llm"


def language_judge(folder: RunFolder, progress: Progress) -> PairwiseJudge:
    """The judge that labelled the run's data, ready to be asked.

    Raises:
        ModelError: the model can't be obtained.
    """
    config = folder.config.synthesis
    return pairwise_judge(config, load_domain(config.domain), _asked_of(folder, progress))


class _Named:
    """Stands for a model by its name and its identity; it answers nothing."""

    def __init__(self, name: str, identity: Any) -> None:
        self.name, self.identity = name, identity

    @classmethod
    def of(cls, model: str, endpoint: EndpointConfig | None) -> _Named:
        """The model at an endpoint, or else the one on this machine."""
        return cls(_name(model, endpoint), local_identity(model) if endpoint is None else endpoint.identity())

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """Refuse."""
        raise NotImplementedError


def _asked_of(folder: RunFolder, progress: Progress) -> LanguageModel:

    absorb_shards(_answers_of_asked(folder))
    endpoint = folder.config.endpoint
    return _local(folder, "") if endpoint is None else _endpoint(endpoint, folder.path / ANSWERS, progress)


def _answers_of_asked(folder: RunFolder) -> Path:
    """Where the answers of the model that is asked are kept."""
    config = folder.config
    return folder.path / (_file_of(config.model) if config.endpoint is None else ANSWERS)


def _asked(writers: Writers) -> Iterator[LanguageModel]:

    yield writers.ask
    if isinstance(writers.write, Ensemble):
        members = {id(member.model): member.model for member in writers.write.members}
        yield from (model for model in members.values() if model is not writers.ask)


def _member(
    folder: RunFolder, member: MemberConfig, opened: dict[str, LanguageModel], progress: Progress
) -> LanguageModel:
    key = _key(member.endpoint, member.model or "")
    if key not in opened and member.endpoint is None:
        opened[key] = _local(folder, member.model or "")
    elif key not in opened and member.endpoint is not None:
        opened[key] = _endpoint(member.endpoint, _answers_of_member(folder, member.endpoint), progress)
    return opened[key]


def _answers_of_member(folder: RunFolder, endpoint: EndpointConfig) -> Path:
    """Where a member's answers are kept: by its model, since its server may move; earlier versions named that too.

    Of several servers that know their models by the same name, each but the first has its number besides.
    """
    endpoints = [member.endpoint for member in folder.config.ensemble if member.endpoint is not None]
    servers = dict.fromkeys(one.base_url for one in endpoints if _file_of(one.model) == _file_of(endpoint.model))
    number = list(servers).index(endpoint.base_url) + 1
    path, earlier = (folder.path / _file_of(name) for name in (endpoint.model, _name("", endpoint)))
    path = path if number == 1 else path.with_name(f"{path.stem}.{number}.sqlite")
    return earlier if earlier.exists() and not path.exists() else path


def _key(endpoint: EndpointConfig | None, model: str) -> str:
    return model if endpoint is None else endpoint.model_dump_json()


def _endpoint(config: EndpointConfig, path: Path, progress: Progress) -> Endpoint:

    return Endpoint(config, RequestCache(path), say=progress.say)


def _local(folder: RunFolder, name: str) -> LanguageModel:
    from fspo.llm.local import LocalModel

    model = LocalModel.load(name or folder.config.model)
    return CachedModel(model, RequestCache(folder.path / _file_of(model.name)))


def _name(model: str, endpoint: EndpointConfig | None) -> str:

    return model if endpoint is None else Endpoint(endpoint).name


def _file_of(name: str) -> str:
    """A file of answers for one model, so that each has its own account."""
    return f"answers-{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-').lower()}.sqlite"
