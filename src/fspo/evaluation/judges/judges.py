"""The judges that a configuration names, ready to judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fspo.errors import ConfigError, DataError
from fspo.evaluation.config import HEADLINE, EvaluationConfig, JudgeConfig
from fspo.evaluation.judges.judgement_store import Comparer
from fspo.identity import digest
from fspo.judging.by_topic import OWN, TopicJudge, weights_on
from fspo.judging.judge import AttributeJudge, Verdict
from fspo.judging.pairwise import ANSWER_TOKENS, PairwiseJudge
from fspo.judging.weighted import LETTER_TOKENS, WeightedJudge, letter_prompt
from fspo.llm.installed import need_client
from fspo.llm.types import LanguageModel
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import User
from fspo.progress import Progress

__all__ = ["MeasuredJudge", "asked_judge", "jury_of", "obtain_judges"]

Prompt = Callable[[User, str, str, str], str]


@dataclass(frozen=True)
class MeasuredJudge:
    """Judges by measured attributes with other weights than the users' own.

    Attributes:
        measured: measures, with its scales and its margin.
        likes: the weights of everybody; empty for the users' own.
        attributes: where it goes by the users' own weights, those it goes by.
        topics: prompt -> its topic, for users who want something else on some.
    """

    measured: AttributeJudge
    likes: Mapping[str, float]
    attributes: tuple[str, ...] = ()
    topics: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def identity(self) -> str:
        """Tells judges of different words apart."""
        said: list[Any] = [self.measured.record(), dict(self.likes), list(self.attributes)]
        if self.topics and self.attributes:
            said.append(digest(sorted(self.topics.items()), 64))
        return json.dumps(said, sort_keys=True)

    def minds(self, user: User, prompt: str) -> bool:
        """Whether it has anything to go by: whoever minds none of the attributes would be indifferent to everything."""
        return bool(self.likes) or any(self._weights(user, prompt).values())

    def compare(self, user: User, prompt: str, a: str, b: str) -> Verdict:
        """Which answer these weights prefer; a tie for users who mind none of the attributes."""
        weights = dict(self.likes) or self._weights(user, prompt)
        return self.measured.compare(replace(user, traits=weights), prompt, a, b)

    def _weights(self, user: User, prompt: str) -> dict[str, float]:
        traits = weights_on(user, self.topics.get(prompt, "")).traits
        return {name: traits[name] for name in self.attributes if name in traits}


def jury_of(
    config: EvaluationConfig,
    judge: Comparer | None,
    others: Mapping[str, Comparer],
    dataset: PreferenceDataset,
    folder: Path,
    progress: Progress,
) -> dict[str, Comparer]:
    """All judges of an evaluation, the headline first: `judge`, or else the first of the further ones.

    None where no answers are drawn.

    Args:
        config: names further judges.
        judge: the one that labelled the data, where it can judge.
        others: name -> further judge that is given as it is.
        dataset: whose answers are judged.
        folder: keeps what endpoints have answered.
        progress: told where a further judge becomes the headline.

    Raises:
        ConfigError: a name is taken, or the package that asks endpoints is missing.
        DataError: see `obtain_judges`.
    """
    if not config.answers:
        return {}
    texts = (text for row in dataset for text in (row.chosen, row.rejected))
    topics = judge.topics if isinstance(judge, TopicJudge) else {}
    found = obtain_judges(config.judges, texts, dataset.users.values(), folder, topics, progress.say)
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
    folder: Path,
    topics: Mapping[str, str] = MappingProxyType({}),
    say: Callable[[str], None] | None = None,
) -> dict[str, Comparer]:
    """Name -> judge. Nothing is asked yet; what can be known to be wrong is told now.

    Args:
        entries: as configured.
        texts: responses to the evaluated prompts, which the scales of measured attributes are taken from.
        users: those who are judged for.
        folder: keeps what endpoints have answered, one file a judge.
        topics: prompt -> its topic, where users' weights depend on it.
        say: shows what there is to say of endpoints while they are asked.

    Raises:
        ConfigError: the package that asks endpoints is missing.
        DataError: an attribute is the same in all texts, a judge that reads descriptions finds a user without one, or
            one of attributes a user whose weights depend on topics that are not known.
    """
    texts, users = list(dict.fromkeys(texts)), list(users)
    return {entry.name: _obtain(entry, texts, users, folder, topics, say) for entry in entries}


def _obtain(
    entry: JudgeConfig,
    texts: list[str],
    users: list[User],
    folder: Path,
    topics: Mapping[str, str],
    say: Callable[[str], None] | None,
) -> Comparer:
    if entry.endpoint is None:
        _check_topics(entry, users, topics)
        names = entry.attributes or tuple(entry.likes)
        return MeasuredJudge(AttributeJudge.fit(texts, names, entry.margin), entry.likes, entry.attributes, topics)
    for user in users:
        if not user.description:
            raise DataError(
                f"The judge '{entry.name}' goes by descriptions of users, and user '{user.id}' has none; describe the "
                "users in the data, or leave the judge out."
            )
    from fspo.llm.cache import RequestCache
    from fspo.llm.endpoint import Endpoint

    need_client()
    return asked_judge(entry, Endpoint(entry.endpoint, RequestCache(folder / f"{entry.name}.sqlite"), say=say))


def _check_topics(entry: JudgeConfig, users: Iterable[User], topics: Mapping[str, str]) -> None:
    own = {f"{name}{OWN}" for name in entry.attributes}
    for user in users if not topics else ():
        for trait in user.traits:
            if any(trait.startswith(name) for name in own):
                raise DataError(
                    f"The judge '{entry.name}' goes by users' own weights, and user '{user.id}' has '{trait}' on a "
                    "topic, but no judge came with the data that knows the topics of prompts; leave it out."
                )


def asked_judge(entry: JudgeConfig, llm: LanguageModel) -> PairwiseJudge | WeightedJudge:
    """The judge of an entry by whoever answers."""
    setting = f"max_tokens of the judge '{entry.name}'"
    if entry.weighted:
        prompt = _prompt(entry.prompt) if entry.prompt is not None else letter_prompt
        return WeightedJudge(llm, prompt, max_tokens=entry.max_tokens or LETTER_TOKENS, setting=setting)
    prompt = _prompt(entry.prompt if entry.prompt is not None else _usual())
    return PairwiseJudge(llm, prompt, max_tokens=entry.max_tokens or ANSWER_TOKENS, setting=setting)


def _prompt(text: str) -> Prompt:
    from fspo.synthesis.recipe.domain import PROMPTS
    from fspo.synthesis.recipe.templates import Template

    template = Template(text, PROMPTS["judge"], "the prompt of a judge")

    def prompt(user: User, question: str, first: str, second: str) -> str:
        return template.fill(description=user.description, question=question, first=first, second=second)

    return prompt


def _usual() -> str:
    """What labelling judges are asked too."""
    from fspo.synthesis.recipe.files import read_yaml

    return str(read_yaml(files("fspo.synthesis").joinpath("recipe"), "prompts.yaml")["judge"])
