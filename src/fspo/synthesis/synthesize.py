"""Synthetic users and preferences by the recipe that the configuration names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fspo.llm.types import LanguageModel
from fspo.progress import Progress, Silent
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.recipe import make as paper
from fspo.synthesis.recipe.config import RecipeConfig
from fspo.synthesis.recipe.domain import load_recipe_domain
from fspo.synthesis.recipe.executors import Executor
from fspo.synthesis.restyled import make as restyled

__all__ = ["Writers", "is_complete", "synthesize"]


@dataclass(frozen=True)
class Writers:
    """The language models of a synthesis, by name and identity alone or ready to be asked.

    Attributes:
        ask: writes questions, viewpoints, portraits and sentences, and judges.
        write: writes the responses; may be the same.
    """

    ask: LanguageModel
    write: LanguageModel


def synthesize(
    config: SynthesisConfig,
    writers: Writers,
    out: str | Path,
    progress: Progress | None = None,
    executor: Executor | None = None,
) -> Path:
    """Make synthetic users and preferences in the folder `out`, going on from what is there.

    The result is a function of the configuration and the models; an interrupted call gives the same as any other, and
    so does every `executor`, who labels in the paper's recipe (by default this process).

    Returns:
        The folder: a dataset, and `splits.json`, which says what is trained on and what is held out.

    Raises:
        ConfigError: more is asked for than the domain has, or the folder holds a finished dataset of another origin.
        DataError: the domain is wrong, or the models' texts were too poor to make a dataset of.
        ModelError: a model failed; what it has answered is kept.
        StorageError: the folder can't be written.
    """
    out, progress = Path(out), progress or Silent()
    if isinstance(config, RecipeConfig):
        return paper.make_dataset(config, writers.ask, writers.write, out, progress, executor)
    restyled.synthesize(config, writers.write, out, progress)
    return out


def is_complete(out: Path, config: SynthesisConfig, writers: Writers) -> bool:
    """Whether the folder holds the finished data of this configuration and these models.

    Raises:
        DataError: the domain is wrong.
    """
    if isinstance(config, RecipeConfig):
        domain = load_recipe_domain(config.domain)
        return paper.is_complete(out, paper.origin_of(config, domain, writers.ask, writers.write))
    return restyled.is_complete(out, restyled.origin_of(config, writers.write))
