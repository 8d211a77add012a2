"""The table of methods."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fspo.errors import ConfigError
from fspo.methods.method import train_once
from fspo.methods.table import METHODS, USUAL, Method, method, training_order
from fspo.training.config import TrainingConfig

USUAL_ROWS = [METHODS[name] for name in USUAL]


def test_names_are_those_of_the_figures() -> None:
    plain = [name for name, row in METHODS.items() if row.train is train_once and row.adaptation is None]
    assert plain == ["base", "few-shot", "pref-ft", "ipo", "fspo", "pref-ft-cot", "fspo-rat", "oracle"]
    assert tuple(name for name in plain if not METHODS[name].describes) == USUAL
    assert list(METHODS)[: len(plain)] == plain
    assert all(row.name == name and row.title and row.description for name, row in METHODS.items())


@pytest.mark.parametrize("row", METHODS.values(), ids=lambda row: row.name)
def test_rows_hold_together(row: Method) -> None:
    if row.starts_from is not None:
        start = METHODS[row.starts_from]
        assert row.objectives[:-1] == start.objectives
        assert row.context == start.context
    if row.trains:
        assert row.training() == row.settings(objective=row.objectives[-1], **row.defaults)
        assert not (row.training().mirrors and row.context == "none")
        assert row.describes == (row.training().describe != "none") == (row.context == "both")


def test_only_the_population_baseline_trains_without_a_user() -> None:
    assert [row.name for row in USUAL_ROWS if row.trains and row.context == "none"] == ["ipo"]


def test_overrides_come_after_the_methods_own_settings() -> None:
    config = method("fspo").training({"objective": "mirrored-contrast", "steps": 3})
    assert (config.objective, config.steps, config.mirror) == ("mirrored-contrast", 3, True)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("fspo", {"learning_rat": 1}, "did you mean 'learning_rate'"),
        ("ipo", {"beta": -1}, "'beta': .*greater than 0.*-1"),
        ("fspo", {"shots": 0}, "no labels to swap"),
        ("base", {"steps": 3}, "trains nothing"),
    ],
)
def test_wrong_settings_are_named(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        method(name).training(settings)


def test_unknown_method_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'few-shot'"):
        method("fewshot")


def test_a_reader_can_not_answer() -> None:
    with pytest.raises(ConfigError, match=r"'ridge' scores responses and writes none.*evaluation.best_of"):
        method("ridge")


def test_a_method_comes_after_what_it_starts_from() -> None:
    everything = training_order(METHODS.values())
    names = [row.name for row in everything]
    assert set(names) == {row.name for row in METHODS.values() if row.trains}
    assert all(names.index(row.starts_from) < names.index(row.name) for row in everything if row.starts_from)
    assert [row.name for row in training_order([method("fspo")])] == ["pref-ft", "fspo"]
    assert [row.name for row in training_order([method("fspo").from_base()])] == ["fspo"]
    assert training_order([method("base")]) == ()


def test_a_method_cannot_start_from_nothing_or_itself() -> None:
    with pytest.raises(ConfigError, match="trains nothing"):
        training_order([replace(method("fspo"), starts_from="base")])
    with pytest.raises(ConfigError, match="from itself"):
        training_order([replace(method("fspo"), starts_from="fspo")])


def test_from_base_keeps_only_the_last_objective() -> None:
    alone = method("fspo").from_base()
    assert (alone.starts_from, alone.objectives) == (None, ("ipo",))


def test_rows_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        METHODS["fspo"].defaults["mirror"] = False  # type: ignore[index]


def test_a_method_can_have_settings_of_its_own() -> None:
    class Settings(TrainingConfig):
        laps: int = 2

    row = replace(method("fspo"), settings=Settings)
    assert isinstance(row.training({"laps": 3}), Settings)
    with pytest.raises(ConfigError, match="did you mean 'laps'"):
        row.training({"lap": 3})
