"""The reward models that a configuration names, ready to score."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

from fspo.errors import ConfigError
from fspo.evaluation.config import EvaluationConfig, RewardModelConfig
from fspo.evaluation.foreign.protocol import FunctionRewardModel, RewardModel, identity_of
from fspo.evaluation.weights import weights_digest
from fspo.llm.installed import need_client

__all__ = ["Foreign", "given", "obtain"]


class Foreign:
    """A reward model that is obtained when it is first needed, and what tells its scores from another's."""

    def __init__(self, name: str, get: Callable[[], RewardModel], fingerprint: str = "", *, shots: bool = True) -> None:
        """`fingerprint` is by default a digest of what tells the model apart; `shots`: whether it is shown any."""
        self.name, self.shots = name, shots
        self._get = get
        self._held: RewardModel | None = None
        self._fingerprint = fingerprint

    def get(self) -> RewardModel:
        """The model; obtained the first time."""
        if self._held is None:
            self._held = self._get()
        return self._held

    def let_go(self) -> None:
        """Forget the model, so that another one has room."""
        self._held = None

    @property
    def fingerprint(self) -> str:
        """Identifies the model."""
        return self._fingerprint or _digest(identity_of(self.get()))


def given(name: str, model: RewardModel) -> Foreign:
    """A reward model that is there already."""
    return Foreign(name, lambda: model)


def obtain(
    entry: RewardModelConfig, config: EvaluationConfig, folder: Path, say: Callable[[str], None] | None = None
) -> Foreign:
    """The reward model of an entry; `folder` keeps what an endpoint has answered, and `say` shows what is odd there.

    Nothing is loaded or asked yet; what can be known to be missing is told now, and not after the methods are measured.

    Raises:
        ConfigError: the code of a scorer can't be found, or the package that asks endpoints is missing.
        ModelError: a folder holds no model.
    """
    if entry.scorer is not None:
        scorer = _scorer(entry)
        return Foreign(entry.name, lambda: scorer, shots=entry.shots)
    if entry.endpoint is not None:
        need_client()
        identity = json.dumps(entry.endpoint.identity(), sort_keys=True)
        return Foreign(entry.name, lambda: _asked(entry, folder, say), _digest(identity), shots=entry.shots)
    from fspo.evaluation.foreign.classifier import ClassifierRewardModel
    from fspo.modeling.places import locate

    locate(str(entry.model))

    def load() -> RewardModel:
        return ClassifierRewardModel.load(str(entry.model), dtype=config.dtype, max_length=config.max_length)

    read = f"{entry.model}/{config.dtype}/{config.max_length}"
    return Foreign(entry.name, load, weights_digest(read, Path(str(entry.model)).expanduser()), shots=entry.shots)


def _asked(entry: RewardModelConfig, folder: Path, say: Callable[[str], None] | None) -> RewardModel:
    from fspo.evaluation.foreign.rater import RatingRewardModel
    from fspo.llm.cache import RequestCache
    from fspo.llm.endpoint import Endpoint

    assert entry.endpoint is not None
    return RatingRewardModel(Endpoint(entry.endpoint, RequestCache(folder / "answers.sqlite"), say=say))


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


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
