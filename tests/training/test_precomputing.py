"""Fixed episodes, and the reference asked about them once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from fspo.errors import ConfigError
from fspo.files import read_jsonl
from fspo.preferences.sampling import EpisodeSampler
from fspo.progress import Silent
from fspo.training import losses, resumable_training
from fspo.training.precomputing import REFERENCE_FILE
from fspo.training.resumable_training import Training
from fspo.training.start import Start
from fspo.training.steps import EpisodeStream
from fspo.training.train import train_policy
from fspo.training.trainer import METRICS_FILE, PolicyTrainer
from fspo.training.training_folder import save_record
from tests.training.helpers import small_dataset
from tests.training.train_tiny import tiny_settings, train_tiny

FIXED: dict[str, Any] = {"episodes": 5, "steps": 8, "objective": "ipo", "beta": 0.1}
WAYS: list[dict[str, Any]] = [
    {"lora": None, "mirror": True, "evaluate_every": 4, "evaluate_episodes": 3},
    {"lora": {"r": 4}, "reference": "none", "ladder": [1, 2], "rungs_per_query": "one"},
    {"lora": {"r": 4}, "objective": "mirrored-contrast", "bias_weight": 0.1, "reduction": "mean"},
]


def figures(out: Path) -> list[dict[str, Any]]:
    clocks = {"seconds", "tokens_per_second"}
    return [{k: v for k, v in record.items() if k not in clocks} for record in read_jsonl(out / METRICS_FILE)]


def run(model: Path, out: Path, **settings: Any) -> list[dict[str, Any]]:
    """Train with a validation part of other people on other questions."""
    everything = small_dataset(users=7, questions=14)
    people = sorted(everything.users)
    data = everything.select(users=people[:4], questions=[f"q{n}" for n in range(8)])
    held_out = everything.select(users=people[4:], questions=[f"q{n}" for n in range(8, 14)])
    train_policy(tiny_settings(**FIXED | settings), data, model=model, out=out, validation=held_out)
    return figures(out)


def passes_of_the_reference(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of units whenever the reference is asked."""
    original, asked = losses._reference_margins, []

    def counted(frozen: torch.nn.Module, units: Sequence[Any], *rest: Any) -> Any:
        asked.append(len(units))
        return original(frozen, units, *rest)

    monkeypatch.setattr(losses, "_reference_margins", counted)
    return asked


def test_fixed_episodes_come_again_each_lap_once_in_another_order() -> None:
    sampler = EpisodeSampler(small_dataset(), shots=2, queries=2, seed=3)
    stream = EpisodeStream(sampler, 40, fixed=10)
    laps = [[stream[index][0] for index in range(first, first + 10)] for first in range(0, 40, 10)]
    assert all(sorted(lap) == list(range(10)) for lap in laps)
    assert len(set(map(tuple, laps))) > 1
    assert stream[3] == (laps[0][3], sampler.episode(laps[0][3]))  # any of them, at any time
    assert [EpisodeStream(sampler, 40)[index][0] for index in range(40)] == list(range(40))


@pytest.mark.parametrize("way", WAYS, ids=["all-weights", "bare-reference", "contrast"])
def test_asked_before_or_in_every_step_training_is_the_same(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: dict[str, Any]
) -> None:
    asked = passes_of_the_reference(monkeypatch)
    usual = run(tiny_model_path, tmp_path / "usual", **way)
    assert sum(asked) >= 16
    asked.clear()
    known = run(tiny_model_path, tmp_path / "known", precompute_reference=True, **way)
    assert asked == [1] * (5 + way.get("evaluate_episodes", 0))
    assert len(usual) == len(known) == 8
    for one, other in zip(usual, known, strict=True):
        assert one.keys() == other.keys()
        assert all(one[name] == pytest.approx(other[name], rel=1e-4, abs=1e-4) for name in one)
    assert not (tmp_path / "known" / REFERENCE_FILE).exists()


def test_no_frozen_copy_is_made(tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resumable_training, "frozen_copy", lambda _: pytest.fail("a whole copy of the model"))
    run(tiny_model_path, tmp_path / "out", precompute_reference=True, lora=None)


def test_killed_in_the_middle_it_asks_about_the_rest_only(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"precompute_reference": True, "lora": None}
    whole = run(tiny_model_path, tmp_path / "whole", **settings)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        original, seen = losses._reference_margins, []

        def interrupted(*arguments: Any) -> Any:
            if len(seen) == 3:
                raise KeyboardInterrupt
            seen.append(1)
            return original(*arguments)

        patch.setattr(losses, "_reference_margins", interrupted)
        run(tiny_model_path, tmp_path / "cut", **settings)
    assert len(read_jsonl(tmp_path / "cut" / REFERENCE_FILE)) == 3
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        asked, step = passes_of_the_reference(patch), PolicyTrainer.training_step

        def killed(self: PolicyTrainer, *arguments: Any, **more: Any) -> torch.Tensor:
            if self.state.global_step == 5:
                raise KeyboardInterrupt
            return step(self, *arguments, **more)

        patch.setattr(PolicyTrainer, "training_step", killed)
        run(tiny_model_path, tmp_path / "cut", **settings)
    assert asked == [1, 1]
    asked = passes_of_the_reference(monkeypatch)
    assert run(tiny_model_path, tmp_path / "cut", **settings) == whole
    assert asked == []


def test_margins_of_other_data_or_of_another_part_are_not_taken(tiny_model_path: Path, tmp_path: Path) -> None:
    data = small_dataset()
    settings = tiny_settings(**FIXED, precompute_reference=True, evaluate_every=4, evaluate_episodes=2)
    # The same data measured too: there each episode is rendered with its mirror.
    training = Training(settings, data, Start(tiny_model_path, tmp_path), tmp_path, validation=data)
    save_record(tmp_path, training.identity, finished=False)
    (tmp_path / REFERENCE_FILE).write_text('{"key": "train of another/0", "plain": [999, 999], "mirrored": null}\n')
    loop = training.loop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Training, "_steps", lambda *_: None)
        training.run(loop, Silent())
    unit = loop.trainer.data_collator([(0, training.sampler.episode(0))])["step"].passes[0][0]
    assert unit.margins is not None
    assert max(map(abs, unit.margins.plain)) < 99 and len(unit.margins.plain) == 2
    assert unit.margins.mirrored is None
    assert all(one.margins is not None and one.margins.mirrored for one in loop.trainer.validation)


def test_objectives_without_a_reference_need_nothing_beforehand(tiny_model_path: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resumable_training, "precompute", lambda *_, **__: pytest.fail("nothing to ask"))
        train_tiny(tiny_model_path, tmp_path, steps=1, objective="pref-ft", episodes=2, precompute_reference=True)


def test_what_can_not_be_known_beforehand_is_refused() -> None:
    with pytest.raises(ValueError, match="every step draws new episodes; set episodes"):
        tiny_settings(precompute_reference=True)
    with pytest.raises(ValueError, match="every step drafts new descriptions"):
        tiny_settings(precompute_reference=True, episodes=4, describe="own")


def test_sharded_weights_are_refused(tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = Training(
        tiny_settings(**FIXED, precompute_reference=True), small_dataset(), Start(tiny_model_path, tmp_path), tmp_path
    )
    monkeypatch.setattr(PolicyTrainer, "create_accelerator_and_postprocess", _sharding)
    with pytest.raises(ConfigError, match="can't score episodes beforehand"):
        training.loop()


def test_the_number_of_episodes_is_part_of_what_is_learned() -> None:
    base = tiny_settings(**FIXED)
    assert base.identity() != base.model_copy(update={"episodes": 6}).identity()
    assert base.identity() == base.model_copy(update={"precompute_reference": True}).identity()


_ORIGINAL = PolicyTrainer.create_accelerator_and_postprocess


def _sharding(self: PolicyTrainer) -> None:
    _ORIGINAL(self)
    self.is_fsdp_enabled = True
