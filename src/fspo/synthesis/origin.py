"""What a synthetic dataset was made from, kept beside it: settings, domain and models; no addresses, no folders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fspo.errors import ConfigError
from fspo.files import read_json
from fspo.identity import Sameness, same
from fspo.llm.types import LanguageModel, models_digests
from fspo.printing import option

__all__ = ["Origin", "difference", "refuse_finished"]

_FORMAT = 3
"""Before 3 there were two recipes, and settings and domains had other forms."""
_LATER = ("weights",)
"""What may be unknown: weights that are not on this machine."""
_OTHERS = {
    "domain": "from another domain, or from other files of this one",
    "models": "by other models, or with other settings of them",
    "weights": "by models with other weights",
    "format": "by another version of fspo",
    "prompts": "by another version of fspo, which puts its prompts together in another way",
}
"""Key of what is kept -> how data were made that differ in it."""


@dataclass(frozen=True)
class Origin:
    """What decides a synthetic dataset.

    `decided` has settings and domain, ready for JSON, and `usual` the defaults in the same form, see
    `fspo.identity.same`. `write` writes the responses and `ask` all else, and judges; both may be known by name and
    identity alone.
    """

    decided: Mapping[str, Any]
    ask: LanguageModel
    write: LanguageModel
    usual: Mapping[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """What is kept."""
        return {"format": _FORMAT, **self.decided, **models_digests(self.ask, self.write)}

    def compared(self, path: Path) -> Sameness:
        """Whether this is what was kept in `path`; what is not known, then or now, is left aside.

        Raises:
            StorageError: the file can't be read.
        """
        then, now = dict(read_json(path)), self.record()
        if then.get("format") != _FORMAT:
            return Sameness("format", str(then.get("format")), str(_FORMAT))
        written = models_digests(self.ask, self.write, as_written=True)
        if then.get("models") == written["models"]:
            now |= written  # data of earlier versions
        return same(then, now, known=_LATER, usual=self.usual)


def difference(found: Sameness) -> str:
    """How data of another origin were made, in words, by the first difference."""
    top, _, setting = found.key.partition(".")
    return _OTHERS.get(top) or f"with {found.then.replace(found.key, f'synthesis.{setting}', 1)}"


def refuse_finished(out: Path, splits: Path, found: Sameness | None) -> None:
    """Check that a folder holds no finished dataset of another origin.

    `splits` is written last into it; `found` says how the dataset in it compares, None where nothing tells.

    Raises:
        ConfigError: it does, naming the first difference.
    """
    if splits.exists() and found is not None and not found:
        raise ConfigError(
            f"{out} holds a finished dataset that was made {difference(found)}; choose "
            f"{option('on-existing', 'overwrite')} to generate it again, name another folder with {option('output')}, "
            "or change that back."
        )
