"""The judge of measured attributes for users with other weights on a topic of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fspo.errors import DataError
from fspo.files import read_json
from fspo.identity import digest
from fspo.judging.declared import DeclaredJudge
from fspo.judging.judge import AttributeJudge
from fspo.judging.utility_judge import UtilityJudge
from fspo.preferences.types import User

__all__ = ["OWN", "TopicJudge", "load_judge", "weights_on"]

OWN = "@"
"""Between an attribute and the topic that its weight is for, as in `rarity@physics`."""


def weights_on(user: User, topic: str) -> User:
    """The user with the weights that hold on a topic: those for it alone if there are any, else the general ones."""
    own = {
        name.removesuffix(OWN + topic): weight
        for name, weight in user.traits.items()
        if topic and name.endswith(OWN + topic)
    }
    general = {name: weight for name, weight in user.traits.items() if OWN not in name}
    return replace(user, traits=own or general)


@dataclass(frozen=True)
class TopicJudge(UtilityJudge):
    """Judges by measured attributes, with weights that depend on what the prompt is about.

    `topics` is prompt -> its topic; the general weights hold for any other prompt.
    """

    attributes: AttributeJudge
    topics: Mapping[str, str]

    @property
    def identity(self) -> str:
        """Distinguishes judges whose verdicts on some prompt can differ."""
        return digest(self.record())

    def identity_on(self, prompt: str) -> str:
        """Distinguishes judges whose verdicts on responses to a prompt can differ."""
        return f"{self.attributes.identity} on {self.topics.get(prompt, '')!r}"

    def knows(self, attributes: Iterable[str]) -> bool:
        """Whether the judge has a scale for each of these attributes."""
        return self.attributes.knows(attributes)

    def utility(self, user: User, text: str, prompt: str = "") -> float:
        """How much `user` likes `text` as a response to `prompt`; only differences on one prompt mean something.

        Raises:
            DataError: the user has a weight for an attribute that the judge has no scale for.
        """
        return self.attributes.utility(self._on(user, prompt), text)

    @property
    def margin(self) -> float:
        """Utilities that differ by less are a tie."""
        return self.attributes.margin

    def _on(self, user: User, prompt: str) -> User:
        return weights_on(user, self.topics.get(prompt, ""))

    def record(self) -> dict[str, Any]:
        """The attribute judge's record, and "prompts": {prompt: topic}."""
        return {**self.attributes.record(), "prompts": dict(self.topics)}


def load_judge(path: str | Path) -> AttributeJudge | TopicJudge | DeclaredJudge:
    """Read a judge of any kind.

    Raises:
        DataError: the file does not have the form that `save` writes.
        StorageError: the file is missing or is not JSON.
    """
    record = read_json(Path(path))
    if isinstance(record, dict) and "declared" in record:
        return DeclaredJudge.of_record(record, Path(path))
    judge = AttributeJudge.load(path)
    prompts = record.get("prompts")
    if prompts is None:
        return judge
    if not isinstance(prompts, dict):
        raise DataError(f"{path}: 'prompts' must say the topic of each prompt.")
    return TopicJudge(judge, {str(prompt): str(topic) for prompt, topic in prompts.items()})
