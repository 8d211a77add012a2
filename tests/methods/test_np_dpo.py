"""NP-DPO on a tiny random model: what its policy learns from the shots, and what it can't."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from transformers import TrainerCallback

from fspo.files import read_jsonl
from fspo.methods.adaptation import Adaptation, AdaptationInput, AdaptationWork
from fspo.methods.features import FeatureSpace
from fspo.methods.method import Job
from fspo.methods.neural_process import Film, NeuralProcess, blocks_of
from fspo.methods.policies.np_dpo import NpDpo, NpDpoSettings, ShotProcess
from fspo.methods.table import METHODS
from fspo.modeling.loading import load_tokenizer
from fspo.modeling.policies import load_policy
from fspo.modeling.rendering import EpisodeRenderer, TokenizedEpisode
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Episode, Preference, User
from fspo.progress import Silent
from fspo.training.steps import Unit
from tests.methods.adaptation_worlds import counted_tokens
from tests.methods.text_worlds import Taste, accuracy, likes, rewards, users

SMALL: dict[str, Any] = {
    "steps": 40, "users_per_step": 4, "queries": 2, "shots": 4, "hidden": 16, "heads": 2, "components": 8,
    "learning_rate": 1e-2, "beta": 0.1, "warmup": 0, "lora": {"r": 4, "alpha": 8}, "layout": "conversation",
}  # fmt: skip
BOTH = [likes(True), likes(False)]
NOTHING = TokenizedEpisode((), (), ())


def people(tastes: Sequence[Taste], prefix: str = "train") -> PreferenceDataset:
    """As many users as tastes, with 16 preferences each."""
    rows = []
    for place, episode in enumerate(users(tastes, shots=16, queries=0, seed=7)):
        rows += [
            replace(shot, user=f"{prefix}-{place}", question=f"{prefix}-{place}-{number}")
            for number, shot in enumerate(episode.shots)
        ]
    return PreferenceDataset({row.user: User(row.user) for row in rows}, rows)


def job(model: Path, out: Path, tastes: Sequence[Taste], **settings: Any) -> Job:
    method = METHODS["np-dpo"]
    return Job(method, method.training({**SMALL, **settings}), people(tastes), str(model), out, Silent())


def trained(model: Path, out: Path, tastes: Sequence[Taste], **settings: Any) -> Adaptation:
    method = METHODS["np-dpo"]
    folder = method.train(job(model, out, tastes, **settings))
    renderer = EpisodeRenderer(load_tokenizer(model), context="none", layout="conversation")
    loaded: Any = load_policy(folder, adapters="switchable")
    return NpDpo(NpDpo.Settings(), loaded, renderer, folder)


@pytest.fixture(scope="module")
def learned(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Adaptation:
    """Trained on users of two opposite tastes."""
    return trained(tiny_model_path, tmp_path_factory.mktemp("np-dpo") / "policy", BOTH * 4, steps=24)


def test_film_is_the_identity_at_the_start_and_then_a_factor_and_a_shift() -> None:
    film, block, states = Film(1, hidden=2, width=3), nn.Identity(), torch.ones(1, 2, 3)
    with film.on([block], torch.ones(1, 2)):
        assert torch.equal(block(states), states)
    with torch.no_grad():
        film.maps[0].weight.copy_(torch.tensor([[1.0, 0], [0, 0], [0, 2], [0, 0], [3, 0], [0, 0]]))
    z = torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    with film.on([block], z, owners_T=torch.tensor([0, 1])):  # the first token is the first episode's
        given = block(states)
    # z = (1, 1): factors 1 + (1, 0, 2), shifts (0, 3, 0). z = (0, 1): factors 1 + (0, 0, 2), shifts 0.
    assert given.tolist() == [[[2.0, 4.0, 3.0], [1.0, 1.0, 3.0]]]
    assert torch.equal(block(states), states)


def test_the_encoding_goes_by_labels_and_not_by_order() -> None:
    torch.manual_seed(0)
    space = FeatureSpace(4, 4)
    space.projection.copy_(torch.eye(4))
    process = NeuralProcess(space, hidden=8, heads=2, blocks=1, width=4)
    chosen, rejected = torch.randn(2, 3, 4)
    with torch.no_grad():
        z = process.encode(chosen, rejected)
        torch.testing.assert_close(process.encode(chosen.flip(0), rejected.flip(0)), z)
        assert (process.encode(rejected, chosen) - z).abs().max() > 1e-3
        assert process.encode(chosen[:0], rejected[:0]).shape == z.shape


def test_the_shots_decide_what_the_policy_likes(learned: Adaptation) -> None:
    new = users(BOTH * 4, shots=4, queries=4, seed=1)
    assert accuracy(learned, new) > 0.9
    assert accuracy(learned, new, flipped=True) < 0.1


def test_the_work_of_an_encoding_is_one_pass_over_the_responses(learned: Adaptation) -> None:
    (new,) = users(BOTH[:1], shots=4, queries=0, seed=3)
    with counted_tokens() as found:
        learned.state(new.shots)
    work = NpDpo.work(AdaptationInput(learned.settings, learned.renderer, new.shots))
    assert work.learned == found["learned"] == 0
    assert 0.8 * found["read"] < work.read <= found["read"]  # what is read has padding
    sentences: Any = METHODS["np-dpo"].training({**SMALL, "embedding": "sentence"})
    assert NpDpo.work(AdaptationInput(learned.settings, learned.renderer, new.shots, sentences)) == AdaptationWork()


def test_where_all_like_the_same_only_the_mirror_makes_the_labels_matter(tiny_model_path: Path, tmp_path: Path) -> None:
    alike = [likes(True)] * 6
    new = users([likes(True)] * 4, shots=4, queries=4, seed=1)
    drifted = trained(tiny_model_path, tmp_path / "plain", alike)
    assert accuracy(drifted, new) > 0.9
    assert accuracy(drifted, new, flipped=True) > 0.9  # the taste of the majority, whatever the labels say
    mirrored = trained(tiny_model_path, tmp_path / "mirrored", alike, mirror=True, steps=28)
    assert accuracy(mirrored, new, flipped=True) < 0.1


def test_what_the_shots_say_nothing_of_is_not_learned(tiny_model_path: Path, tmp_path: Path) -> None:
    def coin(prompt: str, number: int) -> bool:
        return sum(map(ord, prompt)) % 2 == 0  # by the prompt alone, which no shot shares with a query

    policy = trained(tiny_model_path, tmp_path / "policy", [coin] * 6, steps=15)
    assert 0.25 < accuracy(policy, users([coin] * 6, shots=4, queries=4, seed=1)) < 0.75


def test_a_killed_training_ends_with_the_same_weights(tiny_model_path: Path, tmp_path: Path) -> None:
    method, settings = METHODS["np-dpo"], {"steps": 6, "save_every": 2}
    whole = method.train(job(tiny_model_path, tmp_path / "whole" / "policy", BOTH * 2, **settings))

    class Kill(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 5:
                raise KeyboardInterrupt

    begun = job(tiny_model_path, tmp_path / "killed" / "policy", BOTH * 2, **settings)
    with pytest.raises(KeyboardInterrupt):
        method.train(replace(begun, callbacks=(Kill(),)))
    resumed = method.train(begun)
    for name in ("companion.safetensors", "adapter-0/adapter_model.safetensors"):
        assert (resumed / name).read_bytes() == (whole / name).read_bytes()
    assert [row["step"] for row in read_jsonl(resumed / "metrics.jsonl")] == list(range(1, 7))


def test_every_episode_measured_with_its_mirror_has_a_label_to_swap() -> None:
    config = NpDpoSettings(objective="dpo", reference="none", shots=2)
    (episode,) = users(BOTH[:1], shots=2, queries=1)
    process = ShotProcess(config, people(BOTH), embed=torch.empty)  # type: ignore[arg-type]

    def shots(mirror: bool) -> set[int]:
        collator: Any = SimpleNamespace(
            config=config.model_copy(update={"mirror": mirror}), unit=lambda index, shown: Unit(index, "u", NOTHING)
        )
        return {len(unit.episode.shots) for n in range(30) for unit in process.units(collator, n, episode)}  # type: ignore[union-attr]

    assert shots(mirror=False) == {0, 1, 2}
    assert shots(mirror=True) == {1, 2}


def test_the_loss_of_the_first_step_is_that_of_no_margin(learned: Adaptation) -> None:
    assert learned.folder is not None
    first = read_jsonl(learned.folder / "metrics.jsonl")[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_a_user_costs_z_and_a_prompt_no_tokens(learned: Adaptation) -> None:
    shots = users(BOTH, shots=4, queries=1)[0].shots
    assert learned.state(shots).bytes == 4 * 16
    query = (Preference("u", "What now?", "a", "b"),)
    with learned.for_user(shots) as user:
        assert user.renderer.render(Episode("u", shots, query)) == user.renderer.render(Episode("u", (), query))


def test_an_unknown_user_has_the_z_of_no_shots(learned: Adaptation) -> None:
    none = learned.state(()).tensors["z"]
    assert none.shape == (16,)
    assert not torch.equal(none, learned.state(users(BOTH, shots=1, queries=0)[0].shots).tensors["z"])
    assert rewards(learned, users(BOTH, shots=0, queries=1)).abs().max() > 0


def test_the_base_model_embeds_whatever_the_policy_has_learned(learned: Any, tiny_model_path: Path) -> None:
    from fspo.modeling.embeddings import embedder_of

    responses = [("What about film 3?", "wonderful film"), ("What?", "dull")]
    expected = dict(embedder_of("backbone", str(tiny_model_path)).embed(responses))
    torch.testing.assert_close(learned.embed(responses), torch.stack([expected[0], expected[1]]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, "heads: 3 do not divide hidden"),
        ({"lora": None}, "lora: .*adapters"),
        ({"ladder": [1, 2]}, "fewest_shots"),
        ({"shots": 0}, "conditioned on shots"),
        ({"fewest_shots": 5}, "at most 4"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        NpDpoSettings(objective="dpo", **{"shots": 4, **settings})


def test_more_blocks_than_the_model_has_are_refused(learned: Adaptation) -> None:
    from fspo.errors import ConfigError

    with pytest.raises(ConfigError, match="last_blocks: 3, but the model has only 2 blocks"):
        blocks_of(learned.model, 3)
