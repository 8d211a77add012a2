"""Descriptions in the model's own words: drafts, their ranking, and trainings that go on where they stopped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from benchmarks.naive import naive_logprobs
from fspo.errors import ConfigError, DataError
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import EpisodeSampler
from fspo.training import processes
from fspo.training.config import TrainingConfig
from fspo.training.losses import (
    add_figures,
    description_losses,
    figures,
    losses,
    means,
    partial_loss,
    score,
    total_loss,
)
from fspo.training.objectives import ipo
from fspo.training.rationalization import CommonWords, Rationalizer
from fspo.training.steps import Drafts, StepBatch, StepCollator
from fspo.training.train import train_policy
from tests.training.helpers import small_dataset
from tests.training.test_train import figures as recorded
from tests.training.test_train import interrupted_after, same, weights

OWN = {"shots": 2, "queries": 2, "describe": "own", "closeness": "words", "drafts": 3, "description_tokens": 6}


def config(**changes: Any) -> TrainingConfig:
    return TrainingConfig.model_validate({**OWN, **changes})


def collator(model: Path, settings: TrainingConfig, **how: Any) -> StepCollator:
    return StepCollator(EpisodeRenderer(load_tokenizer(model), context="both", **how), settings)


def waiting(made: StepCollator, count: int = 2) -> StepBatch:
    sampler = EpisodeSampler(small_dataset(), shots=2, queries=2, seed=0)
    step = made([(index, sampler.episode(index)) for index in range(count)])["step"]
    assert isinstance(step, StepBatch)
    return step


def test_drafts_stand_beside_the_shots_and_the_mirror_has_its_own(tiny_model_path: Path) -> None:
    made = collator(tiny_model_path, config(mirror=True))
    model, tokenizer = load_model(tiny_model_path), load_tokenizer(tiny_model_path)
    rationalizer = Rationalizer(made, CommonWords())
    step = waiting(made)
    drafts = rationalizer.drafts(model, [(unit, unit.episode) for unit in step.units if unit.episode])
    units = list(rationalizer.step(model, step).units)
    assert list(rationalizer.step(model, step).units) == units
    assert [unit.index for unit in units] == [0, 1]
    for unit, own in zip(units, drafts, strict=True):
        assert unit.episode is None
        assert own.plain == own.closer
        shown = tokenizer.decode(unit.plain.trunk_ids)
        assert own.plain in shown
        assert unit.mirrored is not None
        assert own.mirrored in tokenizer.decode(unit.mirrored.trunk_ids)
        if own.closer != own.farther:
            assert unit.described is not None
            [branch] = unit.described.branches
            assert own.closer in tokenizer.decode(branch.responses[0])
            assert own.farther in tokenizer.decode(branch.responses[1])
            assert "About me" not in tokenizer.decode(unit.described.trunk_ids)


class Scripted:
    """Finds longer texts closer."""

    def closeness(self, texts: Sequence[str], wanted: str) -> list[float]:
        assert wanted.startswith("Likes ending")
        return [float(len(text)) for text in texts]


def test_the_closest_is_preferred_to_the_farthest(tiny_model_path: Path) -> None:
    made = collator(tiny_model_path, config(drafts=5, description_tokens=9))
    model = load_model(tiny_model_path)
    step = waiting(made)
    [first, _] = Rationalizer(made, Scripted()).drafts(model, [(u, u.episode) for u in step.units if u.episode])
    assert len(first.closer) > len(first.farther)

    class Indifferent(Scripted):
        def closeness(self, texts: Sequence[str], wanted: str) -> list[float]:
            return [1.0 for _ in texts]

    [unit, _] = Rationalizer(made, Indifferent()).step(model, step).units
    assert unit.described is None


def test_common_words() -> None:
    close, far = CommonWords().closeness(["Likes long, warm reviews.", "A bus"], "likes LONG reviews")
    assert (close, far) == (0.75, 0.0)
    assert CommonWords().closeness([""], "") == [0.0]


def test_losses_on_descriptions_are_those_of_the_formulas(tiny_model_path: Path) -> None:
    settings = config(objective="ipo", beta=0.2, description_beta=0.25, description_weight=3.0)
    made = collator(tiny_model_path, settings)
    model, other = load_model(tiny_model_path), load_model(tiny_model_path)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    units = list(Rationalizer(made, CommonWords()).step(model, waiting(made)).units)
    units = [
        replace(unit, described=made.renderer.render_descriptions("u0", (), "Likes it.", "Bus.")) for unit in units
    ]
    with torch.no_grad():
        scores = score(model, units, settings, lambda: nullcontext(other))
        own, reference = (naive_logprobs(m, [u.described for u in units if u.described]) for m in (model, other))
        margins = torch.stack(
            [(p.sums[0, 0] - p.sums[0, 1]) - (r.sums[0, 0] - r.sums[0, 1]) for p, r in zip(own, reference, strict=True)]
        )
        expected = ipo(margins, 0.25)
        assert torch.allclose(description_losses(scores, settings), expected, rtol=1e-3)
        alone = score(model, [replace(unit, described=None) for unit in units], settings, lambda: nullcontext(other))
        assert total_loss(scores, settings).item() == pytest.approx(
            total_loss(alone, settings).item() + 3.0 * expected.mean().item(), rel=1e-3
        )
        assert "description_accuracy" in figures(scores, settings)
        assert "description_accuracy" not in figures(alone, settings)


def test_descriptions_weigh_the_same_in_whichever_passes_they_are(tiny_model_path: Path) -> None:
    settings = config(objective="dpo", beta=0.2, description_beta=0.25, description_weight=3.0)
    made = collator(tiny_model_path, settings)
    model = load_model(tiny_model_path)
    units = list(Rationalizer(made, CommonWords()).step(model, waiting(made, 3)).units)
    told = [made.renderer.render_descriptions("u0", (), text, "Bus.") for text in ("Likes it.", "Likes good things.")]
    units = [replace(unit, described=one) for unit, one in zip(units, [*told, None], strict=True)]
    step = StepBatch((tuple(units),))
    with torch.no_grad():
        whole = score(model, units, settings)
        passes = [(part, score(model, part, settings)) for part in ([units[1]], [units[0], units[2]])]
        parts = [
            partial_loss(scores, settings, pairs=step.pairs, descriptions=step.descriptions) for _, scores in passes
        ]
        assert sum(parts).item() == pytest.approx(total_loss(whole, settings).item(), rel=1e-5)  # type: ignore[union-attr]
        sums: dict[str, float] = {}
        for part, scores in passes:
            add_figures(sums, figures(scores, settings), part, step)
        assert sums == pytest.approx(figures(whole, settings), rel=1e-5)


def test_a_sharded_model_drafts_nothing(tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "setup_sharding", lambda accelerator: True)
    with pytest.raises(ConfigError, match="can't draft descriptions; launch with"):
        train_policy(config(steps=1), small_dataset(), model=tiny_model_path, out=tmp_path, context="both")


def test_gold_is_learned_by_likelihood_and_shown(tiny_model_path: Path) -> None:
    settings = config(objective="pref-ft", describe="gold")
    made = collator(tiny_model_path, settings, layout="labelled")
    tokenizer, model = load_tokenizer(tiny_model_path), load_model(tiny_model_path)
    units = list(waiting(made).units)
    for unit in units:
        assert unit.described is not None
        [branch] = unit.described.branches
        assert len(branch.responses) == 1
        assert "Likes ending" in tokenizer.decode(branch.responses[0])
        assert "About me: Likes ending" in tokenizer.decode(unit.plain.trunk_ids)
    with torch.no_grad():
        scores = score(model, units, settings)
        [first, second] = naive_logprobs(model, [unit.described for unit in units if unit.described])
        expected = -torch.stack([first.means[0, 0], second.means[0, 0]])
        assert torch.allclose(description_losses(scores, settings), expected, rtol=1e-4)


def train(model: Path, out: Path) -> Path:
    course = {"users_per_step": 2, "steps": 4, "save_every": 1, "warmup": 0, "lora": {"r": 4}}
    settings = config(objective="mirrored-contrast", bias_weight=0.1, **course)
    return train_policy(settings, small_dataset(), model=model, out=out, context="both")


def test_a_training_on_policy_that_was_interrupted_reaches_the_same_weights(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fspo.training.resumable_training.closeness_named", lambda _: Scripted())
    whole = train(tiny_model_path, tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted_after(patch, 2)
        train(tiny_model_path, tmp_path / "cut")
    cut = train(tiny_model_path, tmp_path / "cut")
    assert same(weights(cut), weights(whole))
    assert recorded(cut) == recorded(whole)
    assert all("description_nll" in line for line in recorded(whole))


def test_drafts_are_measured_on_other_people_too(tiny_model_path: Path, tmp_path: Path) -> None:
    settings = config(mirror=True, users_per_step=1, steps=1, warmup=0, evaluate_every=1, evaluate_episodes=2)
    out = train_policy(
        settings, small_dataset(), model=tiny_model_path, out=tmp_path / "a", context="both",
        validation=small_dataset(users=2),
    )  # fmt: skip
    [line] = recorded(out)
    assert "eval_margin_accuracy" in line


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shots": 0}, "describe: a description follows from all shots"),
        ({"ladder": [1, 2]}, "describe: a description follows from all shots"),
        ({"describe": "gold", "mirror": True}, "contradicts the mirrored labels"),
        ({"objective": "pref-ft"}, "pref-ft has no preference between drafts"),
    ],
)
def test_settings_that_contradict_each_other(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        config(**changes)


def test_a_description_needs_its_context_and_its_gold(tiny_model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the context is 'shots'"):
        train_policy(config(), small_dataset(), model=tiny_model_path, out=tmp_path / "a")
    known = small_dataset()
    silent = PreferenceDataset([replace(known.users["u0"], description=""), *list(known.users.values())[1:]], known)
    with pytest.raises(DataError, match=r"User 'u0' has no description to learn from \(1 such users\)"):
        train_policy(config(), silent, model=tiny_model_path, out=tmp_path / "b", context="both")


def test_pairs_of_an_objective_without_reference_know_none(tiny_model_path: Path) -> None:
    settings = config(objective="simpo", beta=2.0)
    made, model = collator(tiny_model_path, settings), load_model(tiny_model_path)
    units = list(Rationalizer(made, CommonWords()).step(model, waiting(made)).units)
    drafts = made.renderer.render_descriptions("u0", (), "Likes it.", "Bus.")
    units = [replace(unit, described=drafts) for unit in units]
    other = load_model(tiny_model_path)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.1)
        alone = score(model, units, settings)
        beside = score(model, units, settings, lambda: nullcontext(other))
        assert torch.allclose(losses(beside, settings), losses(alone, settings))
        assert not torch.allclose(description_losses(beside, settings), description_losses(alone, settings))


def test_a_bare_reference_is_told_no_description(tiny_model_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_model_path)
    [unit, _] = waiting(collator(tiny_model_path, config(reference="none", objective="ipo"))).units
    assert unit.reference is not None
    assert "About me" not in tokenizer.decode(unit.reference.trunk_ids)


def test_twins_whose_drafts_differ_in_length_lose_the_same_shots(tiny_model_path: Path) -> None:
    made = collator(tiny_model_path, config(mirror=True))
    episode = EpisodeSampler(small_dataset(), shots=2, queries=2, seed=0).episode(0)
    drafts = Drafts("short", "other", plain="short", mirrored="a much longer description " * 8)
    whole = made.unit(0, episode, drafts)
    assert whole.mirrored is not None
    narrow = replace(made, renderer=replace(made.renderer, max_length=whole.mirrored.longest - 1))
    unit = narrow.unit(0, episode, drafts)
    assert unit.mirrored is not None
    assert unit.plain.dropped_shots == unit.mirrored.dropped_shots > 0
    assert len(unit.plain.boundaries) == len(unit.mirrored.boundaries) == 3 - unit.plain.dropped_shots


def test_measuring_shows_the_first_draft_and_not_the_closest_to_gold(tiny_model_path: Path) -> None:
    settings = config(mirror=True, drafts=5, description_tokens=9)
    made = collator(tiny_model_path, settings)
    measuring = replace(made, both_sides=True)
    model = load_model(tiny_model_path)
    step = waiting(made)
    asked = [(unit, unit.episode) for unit in step.units if unit.episode]
    rationalizer = Rationalizer(made, Scripted(), measuring=measuring, validation=list(step.units))
    [trained, _] = rationalizer.drafts(model, asked)
    [measured, _] = rationalizer.drafts(model, asked, measuring=True)
    assert trained.plain == trained.closer == measured.closer
    assert measured.plain != measured.closer
    [unit, _] = rationalizer.measured(model)
    assert measured.plain in load_tokenizer(tiny_model_path).decode(unit.plain.trunk_ids)


def test_a_figure_is_the_mean_of_the_units_that_have_it() -> None:
    assert means([{"a": 1.0, "b": 1.0}, {"a": 0.0}]) == {"a": 0.5, "b": 1.0}
