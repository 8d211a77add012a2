"""The judges that a configuration names, ready to judge."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from fspo.errors import ConfigError, DataError
from fspo.evaluation.config import HEADLINE, EvaluationConfig, JudgeConfig
from fspo.identity import digest
from fspo.judging.by_topic import OWN, TopicJudge, weights_on
from fspo.judging.declared import DeclaredJudge
from fspo.judging.judge import AttributeJudge, Judge
from fspo.judging.pairwise import ANSWER_TOKENS, PairwiseJudge, Prompt
from fspo.judging.verdicts import Preferred
from fspo.judging.weighted import LETTER_TOKENS, WeightedJudge, letter_prompt
from fspo.llm.endpoint_config import need_client
from fspo.llm.pool import EndpointPool
from fspo.llm.types import LanguageModel
from fspo.preferences.types import User
from fspo.progress import Progress

__all__ = [
    "MeasuredJudge",
    "answer_judge",
    "endpoint_of",
    "impersonal_judge",
    "judge_by",
    "jury_of",
    "obtain_judges",
    "prompt_from",
]

_VARIABLES = ("description", "question", "first", "second")
_IMPERSONAL = _VARIABLES[1:]
_IMPERSONAL_PROMPT = """\
Two responses to a request are to be compared.

Request: {question}

Response A:
{first}

Response B:
{second}

Which of the two serves better whoever asks this, whoever that is? Go by whether it does what is asked, is right and \
can be understood, not by which is longer. """
_AS_JSON = """\
Answer with JSON only: {{"preferred": "A"}} or {{"preferred": "B"}}, or {{"preferred": "unclear"}} if neither is \
better."""
_AS_LETTER = "Answer with one letter only, A or B."


@dataclass(frozen=True)
class MeasuredJudge:
    """Judges by measured attributes with other weights than the users' own."""

    measured: AttributeJudge
    likes: Mapping[str, float]
    """The weights for everybody; empty for the users' own."""
    attributes: tuple[str, ...] = ()
    """Of the users' own weights, those that count."""
    topics: Mapping[str, str] = field(default_factory=dict)
    """Prompt -> its topic, for users who want something else on some."""

    @cached_property
    def identity(self) -> str:
        """Distinguishes judges whose verdicts can differ."""
        said: list[Any] = [self.measured.record(), dict(self.likes), list(self.attributes)]
        if self.topics and self.attributes:
            said.append(digest(sorted(self.topics.items()), 64))
        return json.dumps(said, sort_keys=True)

    def has_weights(self, user: User, prompt: str) -> bool:
        """Whether the user has a weight for any of the attributes; without one, every comparison is a tie."""
        return bool(self.likes) or any(self._weights(user, prompt).values())

    def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
        """Which answer these weights prefer; a tie for users without any."""
        weights = dict(self.likes) or self._weights(user, prompt)
        return self.measured.compare(replace(user, traits=weights), prompt, first, second)

    def _weights(self, user: User, prompt: str) -> dict[str, float]:
        traits = weights_on(user, self.topics.get(prompt, "")).traits
        return {name: traits[name] for name in self.attributes if name in traits}


def answer_judge(judge: Judge | None) -> Judge | None:
    """Who judges answers where `judge` labelled the data.

    That is the same judge, or, since answers declare no traits, the one that reads traits in texts.
    """
    return judge.answers if isinstance(judge, DeclaredJudge) else judge


def jury_of(
    config: EvaluationConfig,
    judge: Judge | None,
    others: Mapping[str, Judge],
    texts: Iterable[str],
    users: Iterable[User],
    endpoints: EndpointPool,
    progress: Progress,
    *,
    impersonal: bool = False,
) -> dict[str, Judge]:
    """All judges of an evaluation, the headline first; none where no answers are drawn.

    The headline is `judge`, which labelled the data, or else the first of the further ones: those that `config` names,
    and `others`. For `texts`, `users` and `impersonal` see `obtain_judges`.

    Raises:
        ConfigError: a name is taken, or the package that asks endpoints is missing.
        DataError: see `obtain_judges`.
    """
    if not config.answers:
        return {}
    topics = judge.topics if isinstance(judge, TopicJudge) else {}
    found = obtain_judges(config.judges, texts, users, endpoints, topics, impersonal=impersonal)
    for name in others:
        if name == HEADLINE or name in found:
            raise ConfigError(f"The judge '{name}' has a name that is taken; call it otherwise.")
    found |= others
    if judge is not None:
        return {HEADLINE: judge} | found
    if not found:
        return {}
    first = next(iter(found))
    progress.say(f"No judge comes with these users' data, so '{first}' judges for the headline.")
    return {HEADLINE: found.pop(first)} | found


def obtain_judges(
    entries: Iterable[JudgeConfig],
    texts: Iterable[str],
    users: Iterable[User],
    endpoints: EndpointPool,
    topics: Mapping[str, str] = MappingProxyType({}),
    *,
    impersonal: bool = False,
) -> dict[str, Judge]:
    """Name -> judge of these users. Nothing is asked yet; what can be known to be wrong is an error now.

    `texts` are responses to the evaluated prompts, which the scales of measured attributes are taken from, and `topics`
    are prompt -> its topic, where users' weights depend on it. `impersonal`: the answers are for nobody in particular,
    so endpoints are asked without a description.

    Raises:
        ConfigError: the package that asks endpoints is missing.
        DataError: an attribute is the same in all texts, a judge that reads descriptions finds a user without one, or
            one of attributes a user whose weights depend on topics that are not known.
    """
    texts, users = list(dict.fromkeys(texts)), list(users)
    return {entry.name: _obtain(entry, texts, users, endpoints, topics, impersonal) for entry in entries}


def _obtain(
    entry: JudgeConfig,
    texts: list[str],
    users: list[User],
    endpoints: EndpointPool,
    topics: Mapping[str, str],
    impersonal: bool,
) -> Judge:
    if entry.endpoint is None:
        _check_topics(entry, users, topics)
        names = entry.attributes or tuple(entry.likes)
        return MeasuredJudge(AttributeJudge.fit(texts, names, entry.margin), entry.likes, entry.attributes, topics)
    if impersonal:
        return impersonal_judge(entry, endpoint_of(entry, endpoints))
    for user in users:
        if not user.description:
            raise DataError(
                f"The judge '{entry.name}' reads descriptions of users, and user '{user.id}' has none; describe the "
                "users in the data, or leave the judge out."
            )
    return judge_by(endpoint_of(entry, endpoints), entry)


def _check_topics(entry: JudgeConfig, users: Iterable[User], topics: Mapping[str, str]) -> None:
    own = {f"{name}{OWN}" for name in entry.attributes}
    for user in users if not topics else ():
        for trait in user.traits:
            if any(trait.startswith(name) for name in own):
                raise DataError(
                    f"The judge '{entry.name}' uses the users' own weights, and user '{user.id}' has '{trait}' on a "
                    "topic, but no judge came with the data that knows the topics of prompts; leave it out."
                )


def endpoint_of(entry: JudgeConfig, endpoints: EndpointPool) -> LanguageModel:
    """The language model at the endpoint of an entry.

    Raises:
        ConfigError: the package that asks endpoints is missing.
    """
    assert entry.endpoint is not None
    need_client()
    return endpoints.open(entry.endpoint)


def judge_by(
    llm: LanguageModel,
    entry: JudgeConfig,
    usual: Prompt | None = None,
    *,
    variables: Sequence[str] = _VARIABLES,
    place: str = "",
) -> PairwiseJudge:
    """The judge of an entry by a language model.

    It is asked by the entry's own prompt, which may show `variables`, or else by `usual`: by default as the judges of
    users' preferences are. `place` says in messages which judges it is among.
    """
    kind, limit = (WeightedJudge, LETTER_TOKENS) if entry.weighted else (PairwiseJudge, ANSWER_TOKENS)
    what = f"the judge '{entry.name}'{place}"
    if entry.prompt is not None:
        prompt = prompt_from(entry.prompt, variables, f"the prompt of {what}")
    elif usual is not None:
        prompt = usual
    else:
        prompt = letter_prompt if entry.weighted else prompt_from(_labelling_prompt(), variables, "the usual prompt")
    return kind(llm, prompt, max_tokens=entry.max_tokens or limit, setting=f"max_tokens of {what}")


def impersonal_judge(entry: JudgeConfig, llm: LanguageModel, *, place: str = "") -> PairwiseJudge:
    """The judge of an entry by a language model that knows no user; `place` as for `judge_by`."""
    text = _IMPERSONAL_PROMPT + (_AS_LETTER if entry.weighted else _AS_JSON)
    usual = prompt_from(text, _IMPERSONAL, f"the usual prompt{place}")
    return judge_by(llm, entry, usual, variables=_IMPERSONAL, place=place)


def prompt_from(text: str, variables: Sequence[str], what: str) -> Prompt:
    """The prompt of a template with these variables.

    Raises:
        DataError: the template has another variable, or is damaged.
    """
    from fspo.synthesis.templates import Template

    template = Template(text, frozenset(variables), what)

    def prompt(user: User, question: str, first: str, second: str) -> str:
        texts = {"description": user.description, "question": question, "first": first, "second": second}
        return template.fill(**{name: texts[name] for name in variables})

    return prompt


def _labelling_prompt() -> str:
    """What judges that label are asked too."""
    from fspo.synthesis.domain_files import read_yaml

    return str(read_yaml(files("fspo.synthesis").joinpath("prompts.yaml"))["judge"])
