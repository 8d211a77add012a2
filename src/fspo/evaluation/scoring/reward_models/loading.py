"""The reward models that a configuration names, ready to score."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, cast

from fspo.errors import ConfigError
from fspo.evaluation.config import EvaluationConfig, RewardModelConfig
from fspo.evaluation.scoring.reward_models.protocol import FunctionRewardModel, RewardModel, identity_of
from fspo.identity import Unidentified, digest
from fspo.llm.endpoint_config import need_client
from fspo.llm.pool import EndpointPool

if TYPE_CHECKING:
    from fspo.evaluation.scoring.reward_models.rater import RatingRewardModel
    from fspo.llm.types import LanguageModel

__all__ = ["ExternalRewardModel", "given_reward_model", "load_reward_model"]


class ExternalRewardModel:
    """A reward model that is obtained when it is first needed, and what tells its scores from another's."""

    def __init__(
        self,
        name: str,
        get: Callable[[], RewardModel],
        identity: Callable[[], str | None] | None = None,
        *,
        shots: bool = True,
        loads: bool = False,
    ) -> None:
        """`identity` tells the model apart without loading it, where it can; `shots`: whether it is shown any.

        `loads`: whether `get` reads weights into memory.
        """
        self.name, self.shots, self.loads = name, shots, loads
        self._get, self._identity = get, identity or (lambda: None)
        self._held: RewardModel | None = None
        self.not_kept = ""
        """Why its scores are not used again by another evaluation, known with the fingerprint; empty if they are."""

    def get(self) -> RewardModel:
        """The model; obtained the first time."""
        if self._held is None:
            self._held = self._get()
        return self._held

    def let_go(self) -> None:
        """Forget the model, so that another one has room."""
        self._held = None

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the model; one that can't be identified has one of its own each time."""
        try:
            return digest(self._identity() or identity_of(self.get()))
        except Unidentified as error:
            self.not_kept = (
                f"No later evaluation uses the scores of the reward model '{self.name}' again, because nothing tells "
                f"whether it has changed: {error}. Give it an attribute `identity`, a text that changes whenever its "
                "scores may."
            )
            return f"unidentified {uuid.uuid4().hex}"


def given_reward_model(name: str, model: RewardModel) -> ExternalRewardModel:
    """A reward model that is there already."""
    return ExternalRewardModel(name, lambda: model)


def load_reward_model(
    entry: RewardModelConfig,
    config: EvaluationConfig,
    endpoints: EndpointPool,
    say: Callable[[str], None] | None = None,
) -> ExternalRewardModel:
    """The reward model of an entry; `endpoints` opens its endpoint, and `say` shows what is odd about its ratings.

    Nothing is loaded or asked yet; what can be known to be missing is told now, and not after the methods are measured.

    Raises:
        ConfigError: the code of a scorer can't be found, or the package that asks endpoints is missing.
        ModelError: a folder holds no model.
    """
    if entry.scorer is not None:
        scorer = _scorer(entry)
        return ExternalRewardModel(entry.name, lambda: scorer, shots=entry.shots)
    if entry.endpoint is not None:
        from fspo.llm.endpoint import Endpoint

        need_client()
        asked = entry.endpoint
        return ExternalRewardModel(
            entry.name,
            lambda: _rater(entry, endpoints.open(asked), say),
            lambda: _rater(entry, Endpoint(asked)).identity,
            shots=entry.shots,
        )
    from fspo.evaluation.scoring.reward_models.classifier import ClassifierRewardModel, classifier_identity
    from fspo.modeling.model_names import locate

    locate(str(entry.model))

    def load() -> RewardModel:
        return ClassifierRewardModel.load(str(entry.model), dtype=config.dtype, max_length=config.max_length)

    def identity() -> str | None:
        return classifier_identity(str(entry.model), dtype=config.dtype, max_length=config.max_length)

    return ExternalRewardModel(entry.name, load, identity, shots=entry.shots, loads=True)


def _rater(entry: RewardModelConfig, llm: LanguageModel, say: Callable[[str], None] | None = None) -> RatingRewardModel:
    from fspo.evaluation.scoring.reward_models.rater import RATING_TOKENS, RatingRewardModel

    setting = f"max_tokens of the reward model '{entry.name}'"
    return RatingRewardModel(llm, max_tokens=entry.max_tokens or RATING_TOKENS, setting=setting, say=say)


def _scorer(entry: RewardModelConfig) -> RewardModel:
    place = str(entry.scorer)
    module, colon, name = place.partition(":")
    try:
        if not (module and colon and name):
            raise ImportError("it must be written as module:name")
        found = getattr(importlib.import_module(module), name)
        found = found() if isinstance(found, type) else found
    except Exception as error:  # whatever somebody else's code does when it is read
        what = str(error) if isinstance(error, ImportError | AttributeError) else f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"The scorer '{place}' of the reward model '{entry.name}' can't be imported ({what}); name it as "
            "module:name, with the module where Python finds it (PYTHONPATH)."
        ) from error
    if isinstance(found, RewardModel):
        return found
    if not callable(found):
        raise ConfigError(
            f"The scorer '{place}' of the reward model '{entry.name}' is neither a function of (shots, prompt, "
            "response) nor has it a name and a score method."
        )
    return FunctionRewardModel(cast("Callable[..., float]", found))
