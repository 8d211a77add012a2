"""A language model by its settings, for a process anywhere to open; a key stays in that process's environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from fspo.llm.batching import CachedModel
from fspo.llm.budget import Budget
from fspo.llm.cache import RequestCache, Spent
from fspo.llm.endpoint import Endpoint
from fspo.llm.endpoint_config import EndpointConfig
from fspo.llm.types import LanguageModel

__all__ = ["ModelSource", "Opener", "Source"]

Opener = Callable[[RequestCache, float, Callable[[str], None]], LanguageModel]
"""(where answers are kept, share of the budget, what shows a line) -> the model, ready to be asked."""


class Source(Protocol):
    """Opens a model in any process; it can be pickled."""

    def divided(self, workers: int, spent: Spent) -> Source:
        """For one of several workers who ask at once, after so much was spent."""

    def opener(self) -> Opener:
        """Load what is needed once; what it gives is for one piece of work after the other."""


@dataclass(frozen=True)
class ModelSource:
    """An endpoint, or a model on the machine that opens it.

    Attributes:
        model: its name, as in the settings.
        where: its folder, where it is one: another process may start elsewhere.
        endpoint: where to ask, in place of a model on the machine.
        left: what the endpoint may still cost; None for all of its budget.
    """

    model: str
    where: Path | None = None
    endpoint: EndpointConfig | None = None
    left: Budget | None = None

    def divided(self, workers: int, spent: Spent) -> ModelSource:
        """A worker's part of the requests in flight, and what is left of the budget for all of them."""
        if self.endpoint is None:
            return self
        in_flight = max(1, self.endpoint.requests_in_flight // workers)
        endpoint = self.endpoint.model_copy(update={"requests_in_flight": in_flight})
        return replace(self, endpoint=endpoint, left=_left(self.endpoint.budget, spent))

    def opener(self) -> Opener:
        """The model, with each piece of work's share of the budget.

        Raises:
            ModelError: the model can't be obtained.
        """
        endpoint = self.endpoint
        if endpoint is None:
            local = self._loaded()
            return lambda cache, share, say: CachedModel(local, cache)
        left = self.left or endpoint.budget
        return lambda cache, share, say: Endpoint(
            endpoint.model_copy(update={"budget": _share(left, share)}), cache, say=say
        )

    def _loaded(self) -> LanguageModel:
        from fspo.llm.local import LocalModel
        from fspo.modeling.loading import load_model, load_tokenizer
        from fspo.modeling.model_names import local_identity

        where = str(self.where or self.model)
        model, tokenizer = load_model(where), load_tokenizer(where)
        identity = {**local_identity(where), "model": self.model}
        return LocalModel(model, tokenizer, self.model, identity=identity)


def _left(budget: Budget, spent: Spent) -> Budget:
    tokens, dollars = budget.tokens, budget.dollars
    return budget.model_copy(
        update={
            "tokens": None if tokens is None else max(0, tokens - spent.prompt_tokens - spent.tokens),
            "dollars": None if dollars is None else max(0.0, dollars - budget.cost(spent.prompt_tokens, spent.tokens)),
        }
    )


def _share(budget: Budget, share: float) -> Budget:
    tokens, dollars = budget.tokens, budget.dollars
    return budget.model_copy(
        update={
            "tokens": None if tokens is None else int(tokens * share),
            "dollars": None if dollars is None else dollars * share,
        }
    )
