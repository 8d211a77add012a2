"""The judge of declared traits: it knows each response by what its writer declared of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fspo.errors import ConfigError, DataError
from fspo.identity import digest
from fspo.judging.trait_readers import ReaderJudge
from fspo.judging.traits import Value, feature_names, features_of
from fspo.judging.utility_judge import UtilityJudge
from fspo.preferences.types import User

__all__ = ["DeclaredJudge"]


@dataclass(frozen=True)
class DeclaredJudge(UtilityJudge):
    """Judges by declared traits, weighted by the user's own; needs no model and no network.

    A user's utility of a text is sum_f w_f * x_f, with w the user's traits and x the features of the text
    (`features_of`). It knows the texts of its domain alone.

    Attributes:
        values: trait -> its values, from one end to the other.
        texts: text -> trait -> its value.
        margin: utilities that differ by less are a tie. A user's traits have length 1, and the ends of a feature are 2
            apart.
        answers: judges texts that declare no traits, such as a model's answers; None where their traits can't be read.
    """

    values: Mapping[str, tuple[Value, ...]]
    texts: Mapping[str, Mapping[str, Value]]
    margin: float = 0.5
    answers: ReaderJudge | None = None
    _features: dict[str, dict[str, float]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse an impossible margin, and values that are not known.

        Raises:
            ConfigError: the margin is negative.
            DataError: a text has no value of a trait, or an unknown one.
        """
        if not self.margin >= 0:
            raise ConfigError(f"The judge's margin must be zero or more, not {self.margin}.")
        try:
            self._features.update((text, features_of(traits, self.values)) for text, traits in self.texts.items())
        except (KeyError, ValueError) as error:
            raise DataError(f"A text declares no known value of each trait ({error}).") from error
        object.__setattr__(self, "values", MappingProxyType(dict(self.values)))

    @property
    def identity(self) -> str:
        """The same for judges that judge all declared texts alike."""
        return digest(self._own_record())

    def knows(self, attributes: Iterable[str]) -> bool:
        """Whether users may have weights for all of these."""
        return set(feature_names(self.values)) >= set(attributes)

    def utility(self, user: User, text: str, prompt: str = "") -> float:
        """How much `user` likes `text`, for any prompt; only differences have a meaning.

        Raises:
            DataError: the traits of this text are not declared, or the user has no weight for any feature.
        """
        known = self._features.get(text)
        if known is None:
            raise DataError(
                f"The traits of the text '{' '.join(text.split())[:80]}' are not declared, so that the judge of "
                "declared traits can't judge it; its `answers` judges such texts."
            )
        try:
            return sum([weight * known[name] for name, weight in user.traits.items() if weight])
        except KeyError:
            missing = min(name for name, weight in user.traits.items() if weight and name not in known)
            raise DataError(
                f"User '{user.id}' has a weight for '{missing}', which no text declares; "
                f"declared are {', '.join(feature_names(self.values))}."
            ) from None

    def record(self) -> dict[str, Any]:
        """{"declared": {trait: [value]}, "margin": number, "texts": [[text, {trait: value}]]}, and "answers" if any."""
        return self._own_record() | ({} if self.answers is None else {"answers": self.answers.record()})

    def _own_record(self) -> dict[str, Any]:
        return {
            "declared": {name: list(known) for name, known in self.values.items()},
            "margin": self.margin,
            "texts": [[text, dict(traits)] for text, traits in self.texts.items()],
        }

    @classmethod
    def of_record(cls, record: Mapping[str, Any], path: Path) -> DeclaredJudge:
        """The judge of a record that was read from `path`.

        Raises:
            DataError: it does not have the form that `record` gives.
        """
        answers = ReaderJudge.of_record(record["answers"], path) if "answers" in record else None
        try:
            values = {str(name): tuple(known) for name, known in record["declared"].items()}
            texts = {str(text): dict(traits) for text, traits in record["texts"]}
            return cls(values, texts, float(record["margin"]), answers)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is not a judge of declared traits; generate the data again.") from error
