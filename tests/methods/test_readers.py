"""Every reader in small worlds: one whose structure it must learn, and one that its theory says it can't."""

from __future__ import annotations

import functools
import math

import pytest
import torch

from fspo.methods.reader import Reader, bradley_terry
from fspo.methods.reader_table import READERS
from fspo.methods.readers.gpo import option_loss
from fspo.methods.readers.mrm import adam_step, robust_weights
from fspo.methods.readers.np_btl import gaussian_kl
from fspo.methods.readers.ridge import posterior_mode
from fspo.methods.readers.vpl import annealed, standard_kl
from tests.methods.reader_worlds import (
    accuracy,
    camps,
    fitted,
    fitted_with_diagnostics,
    liking,
    near,
    new_users,
    training,
)

UP, DOWN, ASIDE = liking(3.0), liking(-3.0), liking(0.0, 3.0)
TWO_CAMPS = training(camps(16, UP, DOWN))
BOTH = new_users(camps(6, UP, DOWN), queries=60)
NETWORK = {"steps": 120, "learning_rate": 3e-3, "users_per_step": 16}
SETTINGS: dict[str, dict[str, object]] = {
    "gpo": {**NETWORK, "hidden": 32, "layers": 1, "steps": 200},
    "np-btl": {**NETWORK, "hidden": 32, "heads": 4},
    "vpl": {**NETWORK, "hidden": 32, "latent": 8, "cycle": 40, "steps": 250},
    "ridge": {"episodes": 4},
    "lore": {"rank": 4, "steps": 100, "new_user_steps": 40, "new_user_learning_rate": 0.3},
    "pal": {"steps": 150, "batch": 128, "learning_rate": 0.02, "prototypes": 4, "space": 8, "new_user_steps": 60},
    "mrm": {**NETWORK, "learning_rate": 0.02, "inner_learning_rate": 1.0, "inner_steps": 3},
}


@functools.cache
def of_two_camps(name: str) -> tuple[Reader, dict[str, float]]:
    """A reader fitted on two camps, which no test changes, and what it reported."""
    return fitted_with_diagnostics(name, TWO_CAMPS, **SETTINGS.get(name, {}))


@pytest.mark.parametrize("name", [name for name in READERS if name != "hyre"])
def test_a_reader_learns_which_camp_a_user_is_in(name: str) -> None:
    reader, _ = of_two_camps(name)
    # Eight noisy shots alone give little; what is known of other users gives the rest.
    least = {"mean-difference": 0.7, "personal-llm": 0.8}.get(name, 0.85)
    assert accuracy(reader, BOTH) > least
    assert accuracy(reader, BOTH, flipped=True) < 1 - least
    nothing = [type(user)(user.shots.first(0), user.queries) for user in BOTH]
    assert 0.3 < accuracy(reader, nothing) < 0.7


@pytest.mark.parametrize("name", ["mean-difference", "ridge", "lore", "mrm", "personal-llm"])
def test_a_linear_reward_can_not_prefer_the_middle(name: str) -> None:
    users = camps(16, near(0.0), lambda x: -near(0.0)(x))
    reader = fitted(name, training(users), **SETTINGS.get(name, {}))
    assert accuracy(reader, new_users(users[:10])) < 0.65


def test_pal_can_prefer_a_place() -> None:
    users = camps(16, near(1.0), near(-1.0))
    reader = fitted("pal", training(users), **SETTINGS["pal"])
    assert accuracy(reader, new_users(users[:6])) > 0.75


@pytest.mark.parametrize("name", ["lore", "pal", "mrm"])
def test_weights_of_a_shared_basis_can_not_express_a_taste_outside_it(name: str) -> None:
    reader, _ = of_two_camps(name)
    assert accuracy(reader, new_users(camps(6, ASIDE))) < 0.7


def test_ridge_and_the_mean_difference_can_express_any_linear_taste() -> None:
    strangers = new_users(camps(10, ASIDE), shots=16)
    assert accuracy(fitted("mean-difference", TWO_CAMPS), strangers) > 0.8
    assert accuracy(fitted("ridge", TWO_CAMPS, prior="none", episodes=4), strangers) > 0.8


def test_retrieved_users_alone_say_nothing_of_another_taste() -> None:
    strangers = new_users(camps(10, ASIDE))
    assert accuracy(fitted("personal-llm", TWO_CAMPS, own=1e6), strangers) < 0.65
    assert accuracy(fitted("personal-llm", TWO_CAMPS, own=1e6), BOTH) > 0.8


def test_hyre_tells_apart_what_the_population_leaves_open_and_not_what_it_contradicts() -> None:
    open_world = training(camps(8, ASIDE), mask=(0.0, 1.0, 1.0, 1.0, 1.0, 1.0))
    users = new_users(camps(10, liking(3.0, 3.0), liking(-3.0, 3.0)))
    settings = {"steps": 300, "learning_rate": 0.02, "prior_scale": 1.0, "heads": 40, "batch": 128}
    open_reader, contradicted = (fitted("hyre", world, **settings) for world in (open_world, TWO_CAMPS))
    assert accuracy(open_reader, users) - accuracy(open_reader, users, flipped=True) > 0.3
    assert accuracy(open_reader, users) > 0.75
    assert accuracy(contradicted, BOTH) < 0.75


@pytest.mark.parametrize("name", ["gpo", "np-btl", "vpl"])
def test_mirrored_episodes_make_a_network_read_the_labels(name: str) -> None:
    one_taste = training(camps(16, UP))
    others = new_users(camps(6, DOWN))
    drifted = fitted(name, one_taste, **{**SETTINGS[name], "steps": 60})
    mirrored = fitted(name, one_taste, mirror=True, **SETTINGS[name])
    assert accuracy(drifted, others) < 0.3
    assert accuracy(mirrored, others) > 0.75


def test_vpl_reports_a_latent_that_collapsed() -> None:
    _, used = of_two_camps("vpl")
    reader, collapsed = fitted_with_diagnostics("vpl", TWO_CAMPS, kl_weight=10.0, **{**SETTINGS["vpl"], "steps": 120})
    assert used["latent_use"] > 0.3 and used["active_units"] > 0.5
    assert collapsed["latent_use"] < 0.1 and collapsed["kl"] < used["kl"] / 10
    assert accuracy(reader, BOTH) < 0.7


def test_one_step_of_the_published_mrm_adapts_next_to_nothing() -> None:
    published = {"inner_learning_rate": 1e-3, "inner_steps": 1}
    reader, found = fitted_with_diagnostics("mrm", TWO_CAMPS, **{**SETTINGS["mrm"], **published})
    assert found["largest_change_of_a_weight"] <= 5.1e-4
    assert accuracy(reader, BOTH) < 0.7
    unadapted = fitted("mrm", TWO_CAMPS, inner_steps=0, steps=2)
    assert torch.equal(*(unadapted.adapt(user.shots) for user in BOTH[:2]))


def test_a_gaussian_np_btl_learns_too() -> None:
    assert accuracy(fitted("np-btl", TWO_CAMPS, beta_kl=1e-3, **SETTINGS["np-btl"]), BOTH) > 0.85


def test_the_bradley_terry_loss() -> None:
    found = bradley_terry(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0]))
    assert found.tolist() == pytest.approx([math.log(1 + math.exp(-1)), math.log(2)])


def test_the_divergence_of_two_gaussians() -> None:
    # KL(N(1, 4) || N(0, 1)) = (4 + 1 - 1 - log 4) / 2.
    first, second = torch.tensor([1.0, math.log(4)]), torch.zeros(2)
    assert float(gaussian_kl(first, second)) == pytest.approx((4 - math.log(4)) / 2)
    assert float(standard_kl(first[:1], first[1:])) == pytest.approx((4 - math.log(4)) / 2)
    pairs = [torch.distributions.Normal(m, math.exp(log / 2)) for m, log in ((0.3, -0.4), (-1.0, 0.7))]
    sides = [torch.tensor([0.3, -0.4]), torch.tensor([-1.0, 0.7])]
    assert float(gaussian_kl(*sides)) == pytest.approx(float(torch.distributions.kl_divergence(*pairs)))


def test_the_loss_of_gpo() -> None:
    means, raw, shares = torch.tensor([1.0, 0.0]), torch.zeros(2), torch.tensor([1.0, 0.0])
    deviation, p = 0.05 + 0.95 * math.log(2), 1 / (1 + math.exp(-1))
    log_densities = [
        -0.5 * ((share - mean) / deviation) ** 2 - math.log(deviation * math.sqrt(2 * math.pi))
        for share, mean in ((1, p), (0, 1 - p))
    ]
    assert float(option_loss(means, raw, shares)) == pytest.approx(-sum(log_densities))


def test_the_kl_weight_of_vpl_rises_in_cycles() -> None:
    assert [annealed(step, 4) for step in (0, 2, 4)] == pytest.approx([0.1, 0.55, 0.1])
    assert annealed(39_999, 40_000) == pytest.approx(1.0, abs=1e-6)


def test_the_steps_of_mrm_are_those_of_adam() -> None:
    w = torch.tensor([0.3, -0.2], requires_grad=True)
    optimizer = torch.optim.Adam([w], lr=0.1)
    ours, moments = w.detach().clone(), (torch.zeros(2), torch.zeros(2))
    for step in range(1, 4):
        optimizer.zero_grad()
        w.pow(3).sum().backward()
        optimizer.step()
        ours, moments = adam_step(ours, 3 * ours.square(), moments, step, 0.1)
    assert torch.allclose(ours, w.detach(), atol=1e-6)


def test_users_with_a_larger_loss_weigh_more_in_mrm() -> None:
    assert robust_weights(torch.tensor([0.0, 1.0, 2.0]), 0.5).tolist() == pytest.approx(
        [1 / (1 + math.exp(2)), 0.5, 1 / (1 + math.exp(-2))]
    )


def test_ridge_finds_the_regression_of_scikit_learn() -> None:
    from sklearn.linear_model import LogisticRegression

    differences = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)) + torch.tensor([1.0, 0.0, 0.0, -0.5])
    both = torch.cat([differences, -differences]).numpy()
    # Each pair counts twice there, once with either label, so the penalty does too.
    theirs = LogisticRegression(C=1 / (2 * 0.7), fit_intercept=False, tol=1e-10).fit(both, [1] * 30 + [0] * 30)
    ours = posterior_mode(differences, torch.zeros(4), 0.7 * torch.eye(4))
    assert torch.allclose(ours, torch.tensor(theirs.coef_[0]).float(), atol=1e-3)
    mean = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert torch.equal(posterior_mode(differences[:0], mean, torch.eye(4)), mean)
