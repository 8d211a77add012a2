"""The models that answer for the arms of a study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from fspo.errors import ConfigError, FspoError
from fspo.llm.endpoint_config import EndpointConfig
from fspo.paths import expanded
from fspo.serving.engine import Engine
from fspo.study.config import Arm, StudyConfig

if TYPE_CHECKING:
    from fspo.modeling.policy import Policy

__all__ = [
    "ArmModel",
    "check_endpoints",
    "check_shots",
    "layout_notes",
    "load_models",
    "open_engines",
    "weights_of_arms",
]

ArmModel: TypeAlias = "Policy | EndpointConfig"


def load_models(config: StudyConfig) -> Mapping[str, ArmModel]:
    """The model of each arm, without its weights; arms on the same policy share it.

    Raises:
        ConfigError: an arm's policy or endpoint can't be used; names the arm.
        ModelError: there is no such policy or model.
    """
    models: dict[str, ArmModel] = {}
    shared: dict[str, ArmModel] = {}
    for name, arm in config.arms.items():
        key = arm.model_dump_json(exclude={"personalised"})
        if key not in shared:
            try:
                shared[key] = _model(arm)
            except FspoError as error:
                raise type(error)(f"The arm '{name}': {error}") from error
        models[name] = shared[key]
    return models


def check_endpoints(models: Mapping[str, ArmModel]) -> None:
    """Ask the endpoint of each arm whether it can answer.

    Raises:
        ConfigError: an endpoint refuses the key or the model's name; names the arm.
        ModelError: an endpoint can't be reached.
    """
    from fspo.llm.reach import check_endpoint

    for name, model in models.items():
        if isinstance(model, EndpointConfig):
            try:
                check_endpoint(model)
            except FspoError as error:
                raise type(error)(f"The arm '{name}': {error}") from error


def check_shots(config: StudyConfig, models: Mapping[str, ArmModel]) -> None:
    """Check that each personalised policy reads as many labels as its answers are to be written with.

    A policy shows at most as many shots as it was trained with; with more it would not be the trained policy. A policy
    that reads none at all, such as one of IPO, may be an arm too.

    Raises:
        ConfigError: a policy reads fewer; names the arm.
    """
    most = max(config.comparisons.shots or (config.labels.count,))
    for name, model in models.items():
        reads = most if isinstance(model, EndpointConfig) else model.shots
        if config.arms[name].personalised and 0 < reads < most:
            raise ConfigError(
                f"The arm '{name}': its policy was trained with {reads} shots and reads no more, but answers are to be "
                f"written with {most} labels. Set comparisons.shots to [{reads}], or to smaller numbers."
            )


def layout_notes(config: StudyConfig) -> list[str]:
    """A sentence on each arm whose policy was trained with shots in another layout than the arm's."""
    from fspo.modeling.model_names import layout_note, policy_in

    arms = [(name, str(arm.policy), arm.layout) for name, arm in config.arms.items() if arm.personalised]
    notes = {name: layout_note(policy_in(place) or place, layout) for name, place, layout in arms if layout}
    return [f"The arm '{name}': {note}" for name, note in notes.items() if note]


def open_engines(config: StudyConfig, models: Mapping[str, ArmModel]) -> Mapping[str, Engine]:
    """An engine for each arm; arms with the same model share one. A policy's weights are loaded at the first answer.

    Raises:
        ConfigError: a key or package of an endpoint is missing.
    """
    first = {id(model): name for name, model in reversed(list(models.items()))}
    engines = {own: _engine(models[name], config.arms[name]) for own, name in first.items()}
    return {name: engines[id(model)] for name, model in models.items()}


def weights_of_arms(config: StudyConfig) -> dict[str, str | None]:
    """What identifies the weights of each arm; None for an endpoint, and for a model that is not on this machine yet.

    Raises:
        ModelError: a policy's record is not what training writes.
        StorageError: a file can't be read.
    """
    from fspo.modeling.model_names import policy_in, weights_of

    found = {arm.policy: weights_of(policy_in(arm.policy) or arm.policy) for arm in config.arms.values() if arm.policy}
    return {name: found.get(arm.policy) if arm.policy else None for name, arm in config.arms.items()}


def _model(arm: Arm) -> ArmModel:
    if arm.endpoint is not None:
        if arm.endpoint.lacks_key:
            raise ConfigError(
                f"the environment variable {arm.endpoint.key_variable} is not set; put the endpoint's key into it."
            )
        return arm.endpoint
    from fspo.modeling.policy import Policy

    place = expanded(str(arm.policy))
    return Policy.load(Path(place) if Path(place).is_dir() else str(arm.policy), layout=arm.layout, dtype=arm.dtype)


def _engine(model: ArmModel, arm: Arm) -> Engine:
    if isinstance(model, EndpointConfig):
        from fspo.serving.engines.upstream import UpstreamEngine

        return UpstreamEngine(model, cache_salt=arm.cache_salt)
    from fspo.serving.engines.local import LocalEngine

    return LocalEngine(model)
