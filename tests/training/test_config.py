"""The settings of a training."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from fspo.training.config import LoraSettings, TrainingConfig


def test_every_field_is_documented() -> None:
    for model in (TrainingConfig, LoraSettings):
        assert all(field.description for field in model.model_fields.values())


def test_defaults_hold_together_and_survive_json() -> None:
    config = TrainingConfig()
    assert TrainingConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rat": 1e-3}, "learning_rat"),
        ({"beta": 0}, "greater than 0"),
        ({"seed": 2**32}, "less than or equal to 4294967295"),
        ({"objective": "kto"}, "pref-ft"),
        ({"lora": {"rank": 4}}, "rank"),
        ({"ladder": []}, "empty list"),
        ({"shots": 2, "ladder": [1, 3]}, "only 2 shots"),
        ({"shots": 0, "mirror": True}, "no labels to swap"),
        ({"objective": "mirrored-contrast", "ladder": [0, 4]}, "start the ladder at 1"),
        ({"label_smoothing": 0.5}, "less than 0.5"),
        ({"objective": "ipo", "label_smoothing": 0.1}, "ipo has none; choose dpo, robust-dpo, simpo"),
        ({"objective": "simpo", "length_weight": 0.1}, "simpo has none; choose dpo, hinge, ipo, robust-dpo"),
        ({"objective": "simpo", "reduction": "sum"}, "means per token"),
        ({"objective": "mirrored-contrast", "contrast": "direction"}, "direction needs target: observer"),
        ({"responses": 3}, "only the observer knows"),
        ({"keep_best": True}, "keep_best: nothing is evaluated within 100 steps"),
        ({"patience": 2, "evaluate_every": 101}, "patience: nothing is evaluated within 100 steps"),
    ],
)
def test_mistakes_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingConfig.model_validate(settings)


@pytest.mark.parametrize(
    ("settings", "mirrors", "reference"),
    [
        ({"objective": "pref-ft"}, False, False),
        ({"objective": "ipo"}, False, True),
        ({"objective": "dpo", "mirror": True}, True, True),
        ({"objective": "robust-dpo", "label_smoothing": 0.1}, False, True),
        ({"objective": "hinge"}, False, True),
        ({"objective": "simpo"}, False, False),
        ({"objective": "mirrored-contrast"}, True, False),
        ({"objective": "mirrored-contrast", "bias_weight": 0.1}, True, True),
    ],
)
def test_what_an_objective_needs(settings: dict[str, Any], mirrors: bool, reference: bool) -> None:
    config = TrainingConfig.model_validate(settings)
    assert (config.mirrors, config.needs_reference) == (mirrors, reference)


def test_simpo_is_of_means() -> None:
    assert TrainingConfig.model_validate({"objective": "simpo"}).reduction == "mean"
    assert TrainingConfig(objective="dpo").reduction == "sum"


@pytest.mark.parametrize("settings", [{"objective": "ipo"}, {"objective": "mirrored-contrast", "contrast": "logistic"}])
def test_only_a_squared_contrast_follows_an_observer(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="target: only a squared"):
        TrainingConfig.model_validate({"target": "observer", **settings})


def test_the_scale_of_an_observer_counts_only_where_one_is_followed() -> None:
    constant, other = (TrainingConfig(objective="mirrored-contrast", observer_scale=scale) for scale in (1.0, 2.0))
    assert constant.identity() == other.identity()
    assert constant.identity() != TrainingConfig(objective="mirrored-contrast", target="observer").identity()
