"""Which step's weights are kept, and when training stops early: also where it was killed on the way."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError, StorageError
from fspo.files import read_json
from fspo.modeling.policies import is_policy
from fspo.training import resumable_training, selection, trainer
from fspo.training.checkpoints import save_checkpoint, steps_of
from fspo.training.selection import Course
from fspo.training.train import train_policy
from fspo.training.training_folder import TRAINING_FILE
from tests.training.helpers import small_dataset
from tests.training.test_train import figures, interrupted_after, same, weights
from tests.training.train_tiny import tiny_settings

STEPS = 8


def run(model: Path, out: Path, **changes: Any) -> Path:
    """A training on people who contradict each other, told of nobody, so that it gets better and worse."""
    settings = {
        "objective": "ipo",
        "bias_weight": 0.0,
        "shots": 0,
        "queries": 4,
        "users_per_step": 1,
        "beta": 0.1,
        "steps": STEPS,
        "schedule": "constant",
        "warmup": 0,
        "learning_rate": 0.02,
        "seed": 3,
        "evaluate_every": 1,
        "evaluate_episodes": 4,
        "keep_best": True,
        **changes,
    }
    people = small_dataset(users=6)
    mine, held_out = people.select(users=["u0", "u1", "u2", "u3"]), people.select(users=["u4"])
    return train_policy(tiny_settings(**settings), mine, model=model, out=out, validation=held_out)


def copied_on_the_way(model: Path, out: Path, **changes: Any) -> Path:
    """The same; beside `out` are copies of it, each as a kill at that moment leaves it.

    `before-STEP` and `after-STEP` are those around the keeping of a best step's weights; `unwritten` is the one before
    the policy is written.
    """
    keep, write = trainer.save_best, resumable_training.save_policy

    def copy(name: str) -> None:
        shutil.copytree(out, out.parent / name)

    def keep_and_copy(folder: Path, step: int, tensors: Any) -> None:
        copy(f"before-{step}")
        keep(folder, step, tensors)
        copy(f"after-{step}")

    def copy_and_write(*given: Any, **named: Any) -> Path:
        copy("unwritten")
        return write(*given, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "save_best", keep_and_copy)
        patch.setattr(resumable_training, "save_policy", copy_and_write)
        return run(model, out, **changes)


def unmeasured(model: Path, out: Path, steps: int) -> Path:
    """The same training for so many steps, which measures nothing."""
    return run(model, out, steps=steps, keep_best=False, evaluate_every=0)


def evaluations(out: Path) -> dict[int, tuple[float, float]]:
    return {r["step"]: (r["eval_margin_accuracy"], r["eval_margin"]) for r in figures(out) if "eval_margin" in r}


def course(*evaluations: tuple[int, float, float]) -> Course:
    made = Course()
    for step, accuracy, margin in evaluations:
        assert made.add(step, {"loss": 1.0, "eval_margin_accuracy": accuracy, "eval_margin": margin})
    return made


@pytest.fixture(scope="module")
def kept(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied_on_the_way(tiny_model_path, tmp_path_factory.mktemp("kept") / "policy")


def test_the_best_step_is_the_most_accurate_and_of_equals_the_one_with_the_larger_margin() -> None:
    assert course((2, 0.5, 9.0), (4, 0.8, 1.0), (6, 0.8, 1.0)).best == 4
    assert course((2, 0.5, 9.0), (4, 0.8, 1.0), (6, 0.8, 1.1)).best == 6
    assert course((2, 0.5, 9.0), (4, float("nan"), 1.0), (6, None, 1.0)).best == 2  # type: ignore[arg-type]
    assert Course().best is None
    assert not Course().add(3, {"loss": 1.0})


def test_patience_counts_evaluations_since_the_best() -> None:
    before = [(2, 0.8, 1.0), (4, 0.5, 2.0)]
    assert [course(*before).is_over(patience) for patience in (0, 1, 2)] == [False, True, False]
    assert course(*before, (6, 0.8, 1.0)).is_over(2)
    assert not course(*before, (6, 0.8, 1.0), (8, 0.8, 1.1)).is_over(1)
    assert not Course().is_over(1)


def test_the_weights_of_the_best_evaluation_are_the_policy(kept: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    measured = evaluations(kept)
    best = read_json(kept / TRAINING_FILE)["kept_step"]
    assert best == min(step for step in measured if measured[step] == max(measured.values()))
    assert 1 < best < STEPS, "else the test would show little"
    assert same(weights(kept), weights(unmeasured(tiny_model_path, tmp_path / "short", best)))
    assert not same(weights(kept), weights(unmeasured(tiny_model_path, tmp_path / "last", STEPS)))
    assert not (kept / "checkpoints").exists()


@pytest.mark.parametrize("after", [2, 6])
def test_interrupted_and_continued_it_keeps_the_same_step(
    kept: Path, tiny_model_path: Path, tmp_path: Path, after: int
) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted_after(patch, after)
        run(tiny_model_path, tmp_path / "cut")
    run(tiny_model_path, tmp_path / "cut")
    assert same(weights(tmp_path / "cut"), weights(kept))
    assert figures(tmp_path / "cut") == figures(kept)
    assert read_json(tmp_path / "cut" / TRAINING_FILE) == read_json(kept / TRAINING_FILE)


@pytest.mark.parametrize("where", ["before-{}", "after-{}", "unwritten"])
def test_killed_where_it_hurts_most_it_keeps_the_same_step(
    kept: Path, tiny_model_path: Path, tmp_path: Path, where: str
) -> None:
    """Between the figures and the weights of the best step; right after these; and before the policy is written."""
    best = read_json(kept / TRAINING_FILE)["kept_step"]
    shutil.copytree(kept.parent / where.format(best), tmp_path / "cut")
    assert not is_policy(tmp_path / "cut")
    run(tiny_model_path, tmp_path / "cut")
    assert same(weights(tmp_path / "cut"), weights(kept))
    assert figures(tmp_path / "cut") == figures(kept)


@pytest.mark.parametrize("keep_best", [True, False])
def test_it_stops_when_nothing_gets_better(tiny_model_path: Path, tmp_path: Path, keep_best: bool) -> None:
    settings = {"patience": 2, "keep_best": keep_best, "steps": 40, "save_every": 5}
    whole = copied_on_the_way(tiny_model_path, tmp_path / "whole", **settings)
    measured = evaluations(whole)
    best = max(measured, key=lambda step: measured[step])
    assert max(measured) == len(figures(whole)) == best + 2 < 40
    kept_step = best if keep_best else best + 2
    assert same(weights(whole), weights(unmeasured(tiny_model_path, tmp_path / "plain", kept_step)))
    # Killed after it stopped, before the policy was written, it takes no further step.
    cut = tmp_path / "unwritten"
    assert not is_policy(cut)
    with pytest.MonkeyPatch.context() as patch:
        interrupted_after(patch, 0)
        run(tiny_model_path, cut, **settings)
    assert same(weights(cut), weights(whole))
    assert figures(cut) == figures(whole)


def test_killed_before_its_policy_is_written_a_plain_training_keeps_what_it_learned(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    settings = {"keep_best": False, "evaluate_every": 0, "steps": 4}
    whole = copied_on_the_way(tiny_model_path, tmp_path / "whole", **settings)
    with pytest.MonkeyPatch.context() as patch:
        interrupted_after(patch, 0)
        run(tiny_model_path, tmp_path / "unwritten", **settings)
    assert same(weights(tmp_path / "unwritten"), weights(whole))


def test_what_is_evaluated_is_part_of_such_a_training(kept: Path, tiny_model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="evaluate_every = 1, and now"):
        run(tiny_model_path, kept, evaluate_every=2)
    plain = run(tiny_model_path, tmp_path / "plain", keep_best=False, steps=1)
    assert run(tiny_model_path, plain, keep_best=False, steps=1, evaluate_every=0) == plain
    people = small_dataset()
    config = tiny_settings(keep_best=True, evaluate_every=1)
    with pytest.raises(ConfigError, match="there are none"):
        train_policy(config, people, model=tiny_model_path, out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_best_weights_that_are_gone_are_told(tmp_path: Path) -> None:
    import torch

    selection.save_best(tmp_path / "checkpoints", 3, {"a": torch.zeros(1)})
    assert selection.best_weights(tmp_path / "checkpoints", 3).is_dir()
    with pytest.raises(StorageError, match="weights of step 4"):
        selection.best_weights(tmp_path / "checkpoints", 4)
    selection.forget_best(tmp_path / "checkpoints", 3)
    assert selection.best_weights(tmp_path / "checkpoints", 3).is_dir()
    selection.forget_best(tmp_path / "checkpoints", 2)
    with pytest.raises(StorageError, match="weights of step 3"):
        selection.best_weights(tmp_path / "checkpoints", 3)


def test_the_best_at_every_checkpoint_stays_until_that_checkpoint_goes(tmp_path: Path) -> None:
    import torch

    folder, tensors = tmp_path / "checkpoints", {"a": torch.zeros(1)}

    def checkpoint(step: int) -> None:
        save_checkpoint(folder, step, tensors={"weights": tensors}, records={}, keep=1)
        selection.prune_best(folder)

    selection.save_best(folder, 4, tensors)
    selection.save_best(folder, 8, tensors)
    assert list(steps_of(folder / "best")) == [8]
    checkpoint(10)
    selection.save_best(folder, 12, tensors)
    selection.save_best(folder, 14, tensors)
    selection.forget_best(folder, 10)  # killed here, the training goes on from step 10
    assert selection.best_weights(folder, 8).is_dir()
    selection.save_best(folder, 12, tensors)
    checkpoint(20)
    assert list(steps_of(folder / "best")) == [12]


def test_killed_after_two_bests_since_the_checkpoint_it_has_the_one_before(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time, nothing after the checkpoint is as good as what was the best before it."""

    def better_each_step(self: trainer.PolicyTrainer) -> dict[str, float]:
        return dict.fromkeys(selection._FIGURES, float(self.state.global_step))

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer.PolicyTrainer, "evaluate_episodes", better_each_step)
        interrupted_after(patch, 5)
        run(tiny_model_path, tmp_path / "cut", save_every=3)
    monkeypatch.setattr(trainer.PolicyTrainer, "evaluate_episodes", lambda _: dict.fromkeys(selection._FIGURES, -1.0))
    run(tiny_model_path, tmp_path / "cut", save_every=3)
    assert read_json(tmp_path / "cut" / TRAINING_FILE)["kept_step"] == 3
    assert same(weights(tmp_path / "cut"), weights(unmeasured(tiny_model_path, tmp_path / "short", 3)))
