"""The judges that a configuration names, ready to judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import files
from pathlib import Path

from fspo.errors import ConfigError, DataError
from fspo.evaluation.annotations import Comparer
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.judge_config import HEADLINE, JudgeConfig
from fspo.judging.judge import AttributeJudge, Verdict
from fspo.judging.pairwise import PairwiseJudge
from fspo.judging.weighted import WeightedJudge, letter_prompt
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
    """

    measured: AttributeJudge
    likes: Mapping[str, float]
    attributes: tuple[str, ...] = ()

    @cached_property
    def identity(self) -> str:
        """Tells judges of different words apart."""
        return json.dumps([self.measured.record(), dict(self.likes), list(self.attributes)], sort_keys=True)

    def compare(self, user: User, prompt: str, a: str, b: str) -> Verdict:
        """Which answer these weights prefer; a tie for users who mind none of the attributes."""
        own = {name: user.traits[name] for name in self.attributes if name in user.traits}
        return self.measured.compare(replace(user, traits=dict(self.likes) or own), prompt, a, b)


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
    found = obtain_judges(config.judges, texts, dataset.users.values(), folder)
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
    entries: Iterable[JudgeConfig], texts: Iterable[str], users: Iterable[User], folder: Path
) -> dict[str, Comparer]:
    """Name -> judge. Nothing is asked yet; what can be known to be wrong is told now.

    Args:
        entries: as configured.
        texts: responses to the evaluated prompts, which the scales of measured attributes are taken from.
        users: those who are judged for.
        folder: keeps what endpoints have answered, one file a judge.

    Raises:
        ConfigError: the package that asks endpoints is missing.
        DataError: an attribute is the same in all texts, or a judge that reads descriptions finds a user without one.
    """
    texts, users = list(dict.fromkeys(texts)), list(users)
    return {entry.name: _obtain(entry, texts, users, folder) for entry in entries}


def _obtain(entry: JudgeConfig, texts: list[str], users: list[User], folder: Path) -> Comparer:
    if entry.endpoint is None:
        names = entry.attributes or tuple(entry.likes)
        return MeasuredJudge(AttributeJudge.fit(texts, names, entry.margin), entry.likes, entry.attributes)
    for user in users:
        if not user.description:
            raise DataError(
                f"The judge '{entry.name}' goes by descriptions of users, and user '{user.id}' has none; describe the "
                "users in the data, or leave the judge out."
            )
    from fspo.llm.cache import RequestCache
    from fspo.llm.endpoint import Endpoint

    return asked_judge(entry, Endpoint(entry.endpoint, RequestCache(folder / f"{entry.name}.sqlite")))


def asked_judge(entry: JudgeConfig, llm: LanguageModel) -> PairwiseJudge | WeightedJudge:
    """The judge of an entry by whoever answers."""
    if entry.weighted:
        return WeightedJudge(llm, _prompt(entry.prompt) if entry.prompt is not None else letter_prompt)
    return PairwiseJudge(llm, _prompt(entry.prompt if entry.prompt is not None else _usual()))


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
