"""P-RLHF on a tiny random model: two camps of users with opposite tastes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from fspo.errors import ConfigError
from fspo.files import read_jsonl
from fspo.methods.adaptation import AdaptationInput
from fspo.methods.adapted_policy import AdaptedPolicy
from fspo.methods.method import Job
from fspo.methods.policies.p_rlhf import UserTokens, user_table
from fspo.methods.table import method
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.policies import read_card
from fspo.modeling.policy import Policy
from fspo.modeling.rendering import EpisodeRenderer
from fspo.modeling.virtual_tokens import virtual_tokens
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Episode, Preference, User
from fspo.progress import Silent
from fspo.training.adapters import prepare_weights
from fspo.training.companion import attach, load_companion
from fspo.training.losses import partial_loss, score
from fspo.training.references import reference_of
from fspo.training.steps import StepCollator
from tests.methods.adaptation_worlds import accuracy, adapting, counted_tokens, liking_marks, margins

# peft finds what is left of a merged adapter.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a .peft_config. attribute")

SHOTS, QUERIES = liking_marks(6, start=40), liking_marks(12, start=60)
SETTINGS: dict[str, Any] = {
    "tokens": 4,
    "steps": 20,
    "users_per_step": 4,
    "queries": 2,
    "learning_rate": 0.05,
    "layout": "conversation",
    "lora": {"r": 4, "alpha": 8},
    "save_minutes": 0,
    "save_every": 10,
}
FIT = {"fit_steps": 14, "learning_rate": 0.05}


def camps(*signs: int) -> PreferenceDataset:
    """A user for each sign, who likes (1) or dislikes (-1) exclamation marks."""
    users = [User(f"user-{number}") for number in range(len(signs))]
    rows = []
    for user, sign in zip(users, signs, strict=True):
        for pair in liking_marks(8):
            chosen, rejected = (pair.chosen, pair.rejected)[::sign]
            rows.append(Preference(user.id, pair.prompt, chosen, rejected))
    return PreferenceDataset(users, rows)


def trained(
    model: Path, out: Path, dataset: PreferenceDataset, callbacks: tuple[Any, ...] = (), **settings: Any
) -> Path:
    """The policy of P-RLHF in `out`."""
    row = method("p-rlhf")
    job = Job(row, row.training({**SETTINGS, **settings}), dataset, model, out, Silent(), callbacks=callbacks)
    return row.train(job)


@pytest.fixture(scope="module")
def two_camps(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_model_path, tmp_path_factory.mktemp("individual") / "p-rlhf", camps(1, 1, -1, -1))


def soft(policy: Path, **settings: Any) -> Any:
    return adapting(policy, "p-rlhf", policy, **settings)


def test_training_users_have_tokens_of_their_own_taste(two_camps: Path) -> None:
    tensors, record = load_companion(two_camps)
    found, table = soft(two_camps), user_table(tensors)
    assert record["people"] == ["user-0", "user-1", "user-2", "user-3"]
    liking = []
    for row in range(len(table)):
        found.generic = table[row]
        liking.append(sum(margins(found, (), QUERIES)))
    assert min(liking[1:3]) > liking[0] > max(liking[3:])


def test_a_new_user_is_fitted_on_the_shots(two_camps: Path) -> None:
    found = soft(two_camps, **FIT)
    assert accuracy(found, SHOTS, QUERIES) == 1.0
    state = found.state(SHOTS)
    assert state.numbers == 4 * 32
    assert state.bytes == 4 * state.numbers


def test_the_policy_of_a_folder_answers_and_ranks(two_camps: Path) -> None:
    policy = AdaptedPolicy.adapt(two_camps, settings=FIT)
    assert policy.row.name == "p-rlhf"
    query = QUERIES[0]
    for shots, sign in ((SHOTS, 1), ([shot.swap() for shot in SHOTS], -1)):
        chosen, rejected = policy.reward(shots, query.prompt, [query.chosen, query.rejected])
        assert sign * (chosen - rejected) > 0
    assert policy.reward(None, query.prompt, [query.chosen])[0] != 0  # the generic user is no longer the base model
    how: dict[str, Any] = {"max_new_tokens": 4, "temperature": 0.0}
    policy.generate(SHOTS, query.prompt, **how)
    base = Policy.load(read_card(two_camps).base)
    assert policy.base.generate(None, query.prompt, **how) == base.generate(None, query.prompt, **how)


def test_the_work_of_a_fit_is_the_tokens_of_its_steps(two_camps: Path) -> None:
    found = soft(two_camps, fit_steps=3)
    found.state(SHOTS[:2])  # which pays for what a model does once
    with counted_tokens() as read:
        found.state(SHOTS)
    work = found.work(AdaptationInput(found.settings, found.renderer, SHOTS, method("p-rlhf").training(SETTINGS)))
    assert read["learned"] == work.learned
    assert read["read"] == work.read
    assert (
        soft(two_camps, fit_steps=0)
        .work(AdaptationInput(soft(two_camps, fit_steps=0).settings, found.renderer, SHOTS))
        .learned
        == 0
    )


def test_the_generic_user_reads_no_labels(two_camps: Path) -> None:
    generic = soft(two_camps, fit_steps=0)
    mirrored = [shot.swap() for shot in SHOTS]
    assert margins(generic, SHOTS, QUERIES) == margins(generic, mirrored, QUERIES) == margins(generic, (), QUERIES)


def test_a_new_user_is_a_mixture_of_clusters(tiny_model_path: Path, tmp_path: Path) -> None:
    kinds: dict[str, Any] = {"users": "clusters", "clusters": 2, "steps": 10}
    policy = trained(tiny_model_path, tmp_path / "clusters", camps(1, 1, -1, -1), **kinds)
    hard: dict[str, Any] = {"fit_steps": 9, "learning_rate": 0.5}
    clusters = soft(policy, **hard)
    assert clusters.state(SHOTS).numbers == 2
    assert accuracy(clusters, SHOTS, QUERIES) == 1.0
    # Where the clusters are all alike, no mixture of them is another taste, whatever the labels say.
    alike = soft(policy, **hard)
    alike.clusters = clusters.clusters[:1].repeat(2, 1, 1)
    opposite = [shot.swap() for shot in SHOTS]
    assert margins(alike, SHOTS, QUERIES) == pytest.approx(margins(alike, opposite, QUERIES), abs=1e-3)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_the_loss_is_the_mixture_of_the_formula(tiny_model_path: Path, alpha: float) -> None:
    row = method("p-rlhf")
    config: Any = row.training({**SETTINGS, "alpha": alpha, "beta": 0.2})
    policy: Any = prepare_weights(load_model(tiny_model_path), config.lora, seed=0).eval()
    companion = UserTokens(config, ["ann", "bob"])
    attach(companion, policy, 0)
    with torch.no_grad():
        policy.companion.offsets.copy_(torch.randn(2, 4, 32))
    renderer = EpisodeRenderer(load_tokenizer(tiny_model_path), context="none", layout="conversation")
    collator = StepCollator(renderer, config, companion=companion)
    batch = collator([(0, Episode("bob", (), tuple(QUERIES[:3])))])["step"]
    (units,) = batch.passes
    scores = score(policy, units, config, reference_of(policy, None), companion)
    found = partial_loss(scores, config, pairs=batch.pairs, descriptions=0).item()
    assert batch.pairs == pytest.approx(3)

    def by_hand(tokens: torch.Tensor) -> float:
        with torch.no_grad(), policy.disable_adapter():
            before = _pair_margins(policy, renderer)
        with torch.no_grad(), virtual_tokens(policy, tokens) as ids:
            after = _pair_margins(policy, renderer.with_prefix(ids))
        losses = [math.log1p(math.exp(-0.2 * (new - old))) for new, old in zip(after, before, strict=True)]
        return sum(losses) / len(losses)

    generic = policy.companion.generic.detach()
    personal = generic + policy.companion.offsets[1].detach()
    assert found == pytest.approx(alpha * by_hand(personal) + (1 - alpha) * by_hand(generic), rel=1e-4)


def _pair_margins(policy: Any, renderer: EpisodeRenderer) -> list[float]:
    from fspo.methods.user_weights import pair_margins

    return pair_margins(policy, [renderer.render(Episode("bob", (), tuple(QUERIES[:3])))]).tolist()


class _Stop(TrainerCallback):
    """Breaks off after a number of steps, as a kill would."""

    def __init__(self, after: int) -> None:
        self.after = after

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.after:
            raise KeyboardInterrupt


def test_an_interrupted_training_reaches_the_same_tokens(tiny_model_path: Path, tmp_path: Path) -> None:
    short: dict[str, Any] = {"steps": 4, "save_every": 2, "warmup": 0}
    whole = trained(tiny_model_path, tmp_path / "whole", camps(1, -1), **short)
    with pytest.raises(KeyboardInterrupt):
        trained(tiny_model_path, tmp_path / "broken", camps(1, -1), (_Stop(3),), **short)
    resumed = trained(tiny_model_path, tmp_path / "broken", camps(1, -1), **short)
    (expected, _), (found, _) = load_companion(whole), load_companion(resumed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert [row["step"] for row in read_jsonl(resumed / "metrics.jsonl")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lora": None}, "learn beside low-rank adapters"),
        ({"reference": "shots"}, "has no soft tokens"),
        ({"mirror": True}, "no labels to swap"),
        ({"clusters": 1}, "'clusters'.*2"),
        ({"alpha": 1.5}, "'alpha'"),
    ],
)
def test_what_can_not_be_trained_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        method("p-rlhf").training(settings)
