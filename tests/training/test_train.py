"""Training from end to end: what it leaves behind, repeated, interrupted and continued."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl

from fspo.errors import ConfigError, DataError, StorageError, TrainingError
from fspo.files import read_json, read_jsonl
from fspo.modeling.policies import is_policy
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import EpisodeSampler
from fspo.preferences.types import Episode
from fspo.training import checkpoints
from fspo.training.callbacks import SaveByTime
from fspo.training.train import train_policy
from fspo.training.trainer import METRICS_FILE, PolicyTrainer
from fspo.training.training_folder import TRAINING_FILE
from tests.progress_lines import Lines
from tests.training.helpers import small_dataset
from tests.training.train_tiny import tiny_settings, train_tiny


def weights(policy: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.relative_to(policy)}/{name}": tensor
        for path in sorted(policy.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def figures(out: Path) -> list[dict[str, Any]]:
    clocks = {"seconds", "tokens_per_second"}
    return [{k: v for k, v in record.items() if k not in clocks} for record in read_jsonl(out / METRICS_FILE)]


def test_a_device_without_enough_memory_is_explained(
    tmp_path: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(*arguments: Any, **more: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of 24 GiB.")

    monkeypatch.setattr(PolicyTrainer, "training_step", step)
    said = r"^The device is out of memory \(Tried to allocate 2\.00 GiB\); set .*\.$"
    with pytest.raises(TrainingError, match=said) as caught:
        train_policy(tiny_settings(steps=1), small_dataset(), model=tiny_model_path, out=tmp_path / "out")
    for setting in ("gradient_checkpointing", "row_tokens", "queries", "users_per_step", "max_length"):
        assert setting in str(caught.value)


def interrupted_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let training be interrupted when it begins the step after `steps`."""
    original = PolicyTrainer.training_step

    def step(self: PolicyTrainer, *arguments: Any, **more: Any) -> torch.Tensor:
        if self.state.global_step == steps:
            raise KeyboardInterrupt
        return original(self, *arguments, **more)

    monkeypatch.setattr(PolicyTrainer, "training_step", step)


@pytest.fixture(scope="module")
def finished(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_tiny(tiny_model_path, tmp_path_factory.mktemp("finished") / "tiny", steps=4)


def test_it_leaves_a_policy_its_figures_and_its_record(finished: Path) -> None:
    assert (finished / "policy.json").is_file()
    assert read_json(finished / TRAINING_FILE)["finished"] is True
    assert [record["step"] for record in figures(finished)] == [1, 2, 3, 4]
    assert not (finished / "checkpoints").exists()
    assert not [path for path in finished.rglob("*") if path.suffix in (".pt", ".pth", ".bin", ".pkl")]
    assert weights(finished)


def test_a_finished_training_is_not_repeated(
    finished: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted_after(monkeypatch, 0)
    assert train_tiny(tiny_model_path, finished, steps=4, save_every=7) == finished


def test_interrupted_and_continued_it_reaches_the_same_weights(tiny_model_path: Path, tmp_path: Path) -> None:
    """Before the first checkpoint, which comes after step 3, and then after a step that it does not hold."""
    settings = {"steps": 5, "lora": None, "objective": "ipo"}
    whole = train_tiny(tiny_model_path, tmp_path / "whole", **settings)
    for after in (2, 4):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            interrupted_after(patch, after)
            train_tiny(tiny_model_path, tmp_path / "cut", **settings)
        assert read_json(tmp_path / "cut" / TRAINING_FILE)["finished"] is False
        assert bool(list((tmp_path / "cut" / "checkpoints").glob("checkpoint-*"))) == (after > 3)
    cut = train_tiny(tiny_model_path, tmp_path / "cut", **settings)
    assert same(weights(whole), weights(cut))
    assert figures(whole) == figures(cut)


def test_checkpoints_come_by_time_too(tiny_model_path: Path, tmp_path: Path) -> None:
    saved: dict[float, list[int]] = {}
    settings = {"steps": 4, "save_every": 3, "users_per_step": 1, "queries": 1}
    for minutes in (0, 1e-9, 60):
        steps = saved[minutes] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(checkpoints, "save_checkpoint", lambda _, step, steps=steps, **__: steps.append(step))
            train_tiny(tiny_model_path, tmp_path / str(minutes), save_minutes=minutes, **settings)
    assert saved == {0: [3, 4], 1e-9: [1, 2, 3, 4], 60: [3, 4]}


def test_the_time_since_the_last_checkpoint_counts() -> None:
    now, control = [0.0], TrainerControl()
    every: Any = SaveByTime(2, clock=lambda: now[0])
    asked = []
    every.on_train_begin(None, None, control)
    for minute, saved_by_steps in ((1, False), (2, False), (3, False), (3.5, True), (5, False), (5.5, False)):
        now[0], control.should_save = 60 * minute, saved_by_steps
        every.on_step_end(None, None, control)
        asked.append(control.should_save)
        if control.should_save:
            every.on_save(None, None, control)
    assert asked == [False, True, False, True, False, True]


def test_a_second_training_in_the_folder_of_one_under_way_is_refused(tiny_model_path: Path, tmp_path: Path) -> None:
    settings = tiny_settings(steps=2)
    refused: list[StorageError] = []

    class Second(TrainerCallback):
        def on_step_end(self, *arguments: Any, **more: Any) -> None:
            with pytest.raises(StorageError, match=r"Another training is at work in .*out;") as caught:
                train_policy(settings, small_dataset(), model=tiny_model_path, out=tmp_path / "out")
            refused.append(caught.value)

    train_policy(settings, small_dataset(), model=tiny_model_path, out=tmp_path / "out", callbacks=[Second])
    assert (len(refused), len(figures(tmp_path / "out"))) == (2, 2)
    assert is_policy(tmp_path / "out")


def test_another_training_in_the_folder_is_not_overwritten(finished: Path, tiny_model_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"with beta = 0\.01, and now beta = 0\.5;"):
        train_tiny(tiny_model_path, finished, steps=5, beta=0.5)
    with pytest.raises(ConfigError, match="with dataset = "):
        train_policy(tiny_settings(steps=4), small_dataset(users=5), model=tiny_model_path, out=finished)
    assert train_tiny(tiny_model_path, finished, steps=4, gamma=0.9) == finished  # mirrored-contrast has no use for it


@pytest.mark.parametrize("lora", [{"r": 4}, None])
def test_a_policy_is_trained_on_from_another(
    tiny_model_path: Path, tmp_path: Path, lora: dict[str, Any] | None
) -> None:
    first = train_tiny(tiny_model_path, tmp_path / "first", objective="pref-ft", steps=4, lora=lora, learning_rate=0.05)
    second = train_tiny(first, tmp_path / "second", objective="ipo", beta=0.1, steps=1, warmup=0, lora=lora)
    [start] = figures(second)
    # The reference is the policy it started from, so that the first margins are zero and IPO's loss is (1/(2 beta))^2.
    assert start["loss"] == pytest.approx(25, rel=1e-3)
    assert abs(start["margin"]) < 1e-2
    plain = train_tiny(tiny_model_path, tmp_path / "plain", objective="pref-ft", steps=1, warmup=0, lora=lora)
    assert figures(plain)[0]["nll"] != pytest.approx(start["nll"], rel=1e-3)


def test_a_training_in_another_layout_than_the_policy_that_it_starts_from_says_so(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    def said(start: Path, name: str, layout: str) -> list[str]:
        lines = Lines()
        settings = tiny_settings(steps=1, warmup=0, layout=layout)
        train_policy(settings, small_dataset(), model=start, out=tmp_path / name, progress=lines)
        return [line for line in lines.lines if "layout" in line]

    assert said(tiny_model_path, "first", "labelled") == []
    assert said(tmp_path / "first", "second", "labelled") == []
    (line,) = said(tmp_path / "first", "third", "conversation")
    assert "first was trained with shots in the layout 'labelled'" in line


def test_validation_is_measured_and_not_trained_on(tiny_model_path: Path, tmp_path: Path) -> None:
    config = tiny_settings(steps=4, evaluate_every=2, evaluate_episodes=3)
    people = small_dataset(users=6)
    train, held_out = people.select(users=["u0", "u1", "u2", "u3"]), people.select(users=["u4", "u5"])
    with_it = train_policy(config, train, model=tiny_model_path, out=tmp_path / "a", validation=held_out)
    without = train_policy(config, train, model=tiny_model_path, out=tmp_path / "b")
    measured = [record["step"] for record in figures(with_it) if "eval_direction_accuracy" in record]
    assert measured == [2, 4]
    assert same(weights(with_it), weights(without))


def test_population_training_sees_no_shots(tiny_model_path: Path, tmp_path: Path) -> None:
    config = tiny_settings(objective="ipo", steps=1, queries=8)
    dataset = small_dataset(questions=8)
    train_policy(config, dataset, model=tiny_model_path, out=tmp_path / "ipo", context="none")
    with pytest.raises(DataError, match="2 shots and 8 queries"):
        train_policy(config, dataset, model=tiny_model_path, out=tmp_path / "fspo", context="shots")


def test_a_mirror_without_shots_in_the_context_is_refused(tiny_model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="context 'none'"):
        train_policy(tiny_settings(), small_dataset(), model=tiny_model_path, out=tmp_path / "x", context="none")
    assert not (tmp_path / "x").exists()


def test_a_diverging_training_says_so_and_keeps_its_checkpoints(tiny_model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not a number"):
        train_tiny(tiny_model_path, tmp_path / "x", learning_rate=1e30, lora=None, schedule="constant", warmup=0)
    assert not (tmp_path / "x" / "policy.json").exists()
    assert json.loads((tmp_path / "x" / TRAINING_FILE).read_text())["finished"] is False


def test_a_local_model_is_known_by_its_weights_and_not_by_its_place(tiny_model_path: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model_path, tmp_path / "model")
    out = train_tiny(model, tmp_path / "out", steps=2)
    moved = model.rename(tmp_path / "moved")
    assert train_tiny(moved, out, steps=2) == out
    path = moved / "model.safetensors"
    tensors = load_file(path)
    save_file({name: tensor + 1e-3 for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    with pytest.raises(ConfigError, match="with model = "):
        train_tiny(moved, out, steps=2)


class FixedObserver:
    """Says the same of every query."""

    def __init__(self, odds: float) -> None:
        self.odds, self.identity = odds, f"always {odds}"

    def log_odds(self, episode: Episode, k: int, responses: Sequence[Sequence[str]] = ()) -> list[list[float]]:
        return [[self.odds] * (len(texts) * (len(texts) - 1) // 2) for texts in responses]


def test_the_effects_aimed_at_are_the_scaled_log_odds_of_the_observer(tiny_model_path: Path, tmp_path: Path) -> None:
    """Log-odds times the scale are the target: an observer of 2 nats aims where a constant of 2 x 1.5 does."""
    train = small_dataset(users=4)
    contrast = tiny_settings(steps=4).model_copy(update={"objective": "mirrored-contrast", "shots": 2})
    follows = contrast.model_copy(update={"target": "observer", "observer_scale": 1.5})
    made = {
        name: train_policy(config, train, model=tiny_model_path, out=tmp_path / name, observer=observer)
        for name, config, observer in (
            ("observer", follows, FixedObserver(2.0)),
            ("constant", contrast.model_copy(update={"target": 3.0}), None),
            ("unsure", follows, FixedObserver(0.0)),
        )
    }
    assert same(weights(made["observer"]), weights(made["constant"]))
    assert not same(weights(made["observer"]), weights(made["unsure"]))
    with pytest.raises(ConfigError, match="observer"):
        train_policy(follows, train, model=tiny_model_path, out=tmp_path / "observer", observer=FixedObserver(0.0))
    with pytest.raises(ConfigError, match="no observer to follow"):
        train_policy(follows, train, model=tiny_model_path, out=tmp_path / "none")


def test_a_training_of_one_step_learns_although_the_warm_up_is_longer(tiny_model_path: Path, tmp_path: Path) -> None:
    lora = {"r": 4, "alpha": 8}
    one = train_tiny(tiny_model_path, tmp_path / "one", objective="pref-ft", steps=1, warmup=5, lora=lora)
    assert [row["learning_rate"] > 0 for row in figures(one)] == [True]
    assert any(tensor.abs().sum() > 0 for name, tensor in weights(one).items() if "lora_B" in name)


def test_given_episodes_are_trained_on_like_those_that_were_drawn(tiny_model_path: Path, tmp_path: Path) -> None:
    data, settings = small_dataset(), tiny_settings(steps=4, episodes=3)
    sampler = EpisodeSampler(data, shots=2, queries=2, seed=settings.seed)
    given = [sampler.episode(number) for number in range(3)]
    without = settings.model_copy(update={"episodes": None})
    drawn = train_policy(settings, data, model=tiny_model_path, out=tmp_path / "drawn")
    out = train_policy(without, data, model=tiny_model_path, out=tmp_path / "given", episodes=given)
    assert same(weights(out), weights(drawn))
    assert figures(out) == figures(drawn)
    with pytest.raises(ConfigError, match="episodes"):
        train_policy(without, data, model=tiny_model_path, out=out, episodes=[one.mirror() for one in given])


def test_a_label_that_is_wrong_more_often_than_right_is_named_before_training(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    people = small_dataset()
    rows = [replace(row, source={"label_noise": 0.7}) if number == 9 else row for number, row in enumerate(people)]
    data = PreferenceDataset(people.users.values(), rows)
    with pytest.raises(DataError, match=r"has label_noise 0\.7"):
        train_policy(tiny_settings(objective="dpo", bias_weight=0), data, model=tiny_model_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
