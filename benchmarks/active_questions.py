r"""How soon a person is known, if the next question is the one that tells most, and if it is a random one.

    python -m benchmarks.active_questions --out docs/results/active_questions     # a minute on one core
    python -m benchmarks.active_questions --out docs/results/active_questions \
        --policy smollm2-135m --domains elix-written                               # five minutes more

In each written domain, simulated people with declared traits answer up to ten questions. After every answer something
predicts what this person prefers in pairs of responses to held-out questions. `accuracy` is the share of right
predictions after 0 to 10 answers, with 95% intervals (bootstrap over people), `gain` is the difference to random
questions of the same people, and `random_answers_as_good` says how many random answers are as good as five chosen ones.

Without `--policy` the results stand under `users`: the predictions are those of other people of the domain, weighted by
how well they explain the answers. These people also say what to ask, by expected information gain or by variance.

With `--policy` they stand under `policy`. The predictions are those of the policy's own reward, with the answers as
shots. Questions are chosen by

    random             chance
    information        expected information gain, over other people with shots of their own under the same reward
    variance           variance, over the same people under the same reward
    uncertainty        how unsure the reward is of the person's answer, given their answers so far
    declared           expected information gain, over people with declared traits: what `fspo serve --questions` asks

The reward is the pooled one of `Policy.reward`: the sum of the antisymmetric rewards under each shot alone. So the
effect of each shot on each pair is measured once, for all people and strategies. The effects are saved in `--work`,
so the same command resumes, and `--rows` ends a call early.

Each domain's `measured_with` says with which policy and sizes. With `--out`, domains of an earlier call stay in
metrics.json if they were measured with the same.
"""

from __future__ import annotations

import argparse
import io
import json
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from fspo.files import read_json, write_json, write_text
from fspo.identity import digest
from fspo.judging.declared import DeclaredJudge
from fspo.modeling.model_names import policy_in, weights_of
from fspo.modeling.policy import Policy
from fspo.preferences.response_pair import ResponsePair
from fspo.preferences.types import Person, User
from fspo.records import KeyedLog
from fspo.serving.questions import Belief, Strategy, choose_question, declared_chances
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import Domain, load_domain
from fspo.synthesis.user_slots import make_user, slots_of
from fspo.synthesis.written import values_of

__all__ = ["DOMAINS", "FEW", "Sizes", "main", "measure_policy", "measure_users"]

DOMAINS = ("advice", "elix-written", "reviews-written")
_NOISE = 0.05
"""The chance of an answer against the person's own utilities, in the simulation and in what the program expects."""
_RESAMPLED = 2000
Floats = NDArray[np.float64]
Answers = Sequence[tuple[int, bool]]
"""Numbers of questions, and whether the person prefers the second response."""
Chooser = Callable[[Answers, Collection[int], int], int | None]
"""From the answers so far, the questions that are not to be asked and a seed to the next question."""


@dataclass(frozen=True)
class Sizes:
    """How much is simulated."""

    people: int = 60
    known: int = 60
    """Both are fewer in a domain that does not list so many."""
    answers: int = 10
    questions: int = 120
    tested: int = 120
    shots: int = 8
    """Preferences of each known person that the policy sees."""


FEW = Sizes(questions=20, tested=12)
"""What a policy reads on one core in five minutes."""


@dataclass(frozen=True)
class _Effect:
    """What one shot does to one pair."""

    margin: float
    """How much more the policy likes the first response after the shot with the first one chosen, in nats."""


@dataclass(frozen=True)
class _World:
    """What one domain's simulation has."""

    judge: DeclaredJudge
    known: Sequence[User]
    people: Sequence[User]
    asked: Sequence[ResponsePair]
    """What may be asked."""
    tested: Sequence[ResponsePair]
    """On other prompts."""


def measure_users(domain: str, sizes: Sizes, *, seed: int = 0) -> dict[str, Any]:
    """The results without a policy; see the module."""
    world = _world(load_domain(domain), sizes, seed)
    chances_UQ = declared_chances(world.known, world.judge, world.asked, noise=_NOISE)
    tested_UQ = declared_chances(world.known, world.judge, world.tested, noise=_NOISE)
    prior = Belief(np.hstack([chances_UQ, tested_UQ]))
    choosers = {name: _by_belief(chances_UQ, name) for name in ("random", "information", "variance")}

    def predict(answers: Answers) -> Floats:
        return _after(prior, answers).expected[len(world.asked) :] - 0.5

    return _results(world, domain, choosers, predict, sizes, seed)


def measure_policy(domain: str, sizes: Sizes, policy: Policy, effects: KeyedLog[_Effect], name: str) -> dict[str, Any]:
    """The results with a policy; see the module.

    Args:
        domain: the name of a written domain.
        sizes: how much is simulated.
        policy: ranks the responses.
        effects: those that were measured already; the others are added.
        name: tells the policy from others in `effects`.
    """
    world = _world(load_domain(domain), sizes, 0)
    effects_QP = np.array([_row(policy, world, shot, effects, name) for shot in world.asked])
    count = len(world.asked)
    known_UQ = np.array([_signs(world, user, sizes.shots) @ effects_QP[:, :count] for user in world.known])
    chances_UQ = _NOISE + (1 - 2 * _NOISE) * np.asarray(expit(known_UQ), dtype=np.float64)
    declared_UQ = declared_chances(world.known, world.judge, world.asked, noise=_NOISE)
    choosers = {one: _by_belief(chances_UQ, one) for one in ("random", "information", "variance")}
    choosers |= {"uncertainty": _least_sure(effects_QP), "declared": _by_belief(declared_UQ, "information")}
    return {"shots": sizes.shots} | _results(
        world, domain, choosers, lambda answers: _pooled(effects_QP, answers)[count:], sizes, 0
    )


def _row(policy: Policy, world: _World, shot: ResponsePair, effects: KeyedLog[_Effect], name: str) -> list[float]:
    """[P]: the shot's effects on all pairs, 0 for those on its own prompt; what is missing is measured."""
    pairs = _keys(world, shot, name)
    missing = {key: pair.answered("", second=False) for key, pair in pairs.items() if key not in effects}
    if missing:
        margins = policy.margins(Person((shot.answered("", second=False),)), list(missing.values()))
        for key, margin in zip(missing, margins, strict=True):
            effects.put(key, _Effect(margin))
    found = {pair: effects[key].margin for key, pair in pairs.items()}
    return [found.get(pair, 0.0) for pair in (*world.asked, *world.tested)]


def _keys(world: _World, shot: ResponsePair, name: str) -> dict[str, ResponsePair]:
    """The pairs on other prompts, by a key of what the shot's effect on them depends on."""
    others = (pair for pair in (*world.asked, *world.tested) if pair.prompt != shot.prompt)
    return {digest([name, *map(asdict, (shot, pair))]): pair for pair in others}


def _pooled(effects_QP: Floats, answers: Answers) -> Floats:
    """[P]: the pooled reward's margin of each pair after some answers; the opposite answer has the opposite effect."""
    signs_Q = np.zeros(len(effects_QP))
    for number, second in answers:
        signs_Q[number] = -1 if second else 1
    return np.asarray(signs_Q @ effects_QP)


def _signs(world: _World, user: User, shots: int) -> Floats:
    """[Q]: 1 or -1 where a known person prefers the first or the second response and that is a shot; else 0."""
    signs_Q = np.sign([_gap(world.judge, user, question) for question in world.asked])
    decided = [int(place) for place in np.flatnonzero(signs_Q)]
    left = random.Random(f"{user.id}/shots").sample(decided, max(0, len(decided) - shots))
    signs_Q[left] = 0
    return np.asarray(signs_Q, dtype=np.float64)


def _by_belief(chances_UQ: Floats, strategy: Strategy) -> Chooser:
    prior = Belief(chances_UQ)
    return lambda answers, closed, seed: choose_question(_after(prior, answers), closed, strategy, seed=seed)


def _least_sure(effects_QP: Floats) -> Chooser:
    """The question whose answer the policy's reward is least sure of."""

    def choose(answers: Answers, closed: Collection[int], seed: int) -> int | None:
        left = [number for number in range(len(effects_QP)) if number not in closed]
        random.Random(f"{seed}/{len(closed)}").shuffle(left)
        margins_P = np.abs(_pooled(effects_QP, answers))
        return min(left, key=lambda number: round(float(margins_P[number]), 9), default=None)

    return choose


def _after(belief: Belief, answers: Answers) -> Belief:
    for number, second in answers:
        belief = belief.answered(number, second=second)
    return belief


def _results(
    world: _World,
    domain: str,
    choosers: dict[str, Chooser],
    predict: Callable[[Answers], Floats],
    sizes: Sizes,
    seed: int,
) -> dict[str, Any]:
    """The results of one domain: strategy -> one number for each count of answers.

    `predict` has answers -> [K], above 0 where the person is expected to prefer the first response of a tested pair.
    """
    right: dict[str, Floats] = {}
    for strategy, choose in choosers.items():
        rows = []
        for place, person in enumerate(world.people):
            answers = _answers(world, person, choose, sizes.answers, f"{seed}/{domain}/{place}", strategy)
            rows.append([_accuracy(world, person, predict(answers[:count])) for count in range(len(answers) + 1)])
        right[strategy] = np.array(rows)
    chosen = [name for name in right if name != "random"]
    return {
        "people": len(world.people),
        "known": len(world.known),
        "questions": len(world.asked),
        "tested_pairs": len(world.tested),
        "accuracy": {name: _with_intervals(rows) for name, rows in right.items()},
        "gain": {name: _with_intervals(right[name] - right["random"]) for name in chosen},
        "random_answers_as_good": {name: _saved(right[name], right["random"]) for name in chosen},
    }


def _world(domain: Domain, sizes: Sizes, seed: int) -> _World:
    rng = random.Random(f"{seed}/{domain.name}")
    assert domain.users.directions is not None
    count = min(sizes.known + sizes.people, domain.users.directions.count)
    config = SynthesisConfig(domain=domain.name, users=count, seed=seed)
    users = [make_user(config, domain, slot) for slot in slots_of(config, domain)]
    rng.shuffle(users)
    judge = DeclaredJudge(values_of(domain.traits), {row.text: row.traits for row in domain.written})
    texts: dict[str, list[str]] = defaultdict(list)
    for row in domain.written:
        texts[row.question].append(row.text)
    prompts = sorted(texts)
    rng.shuffle(prompts)
    third = len(prompts) // 3
    asked, tested = [_pairs(part, texts, rng) for part in (prompts[:third], prompts[third : 2 * third])]
    split = sizes.known * len(users) // (sizes.known + sizes.people)
    return _World(judge, users[:split], users[split:], asked[: sizes.questions], tested[: sizes.tested])


def _pairs(prompts: Sequence[str], texts: dict[str, list[str]], rng: random.Random) -> list[ResponsePair]:
    """Pairs of responses, a different prompt each as long as there are any."""
    rounds: list[list[ResponsePair]] = []
    for prompt in prompts:
        pairs = [ResponsePair(prompt, *rng.sample(pair, 2)) for pair in combinations(texts[prompt], 2)]
        rng.shuffle(pairs)
        for place, pair in enumerate(pairs):
            rounds += [[]] if place == len(rounds) else []
            rounds[place].append(pair)
    return [pair for some in rounds for pair in some]


def _gap(judge: DeclaredJudge, person: User, question: ResponsePair) -> float:
    """How much more the person likes the first response."""
    return judge.utility(person, question.first) - judge.utility(person, question.second)


def _prefers_second(judge: DeclaredJudge, person: User, question: ResponsePair, rng: random.Random) -> bool:
    gap = _gap(judge, person, question)
    return rng.random() < (0.5 if gap == 0 else _NOISE if gap > 0 else 1 - _NOISE)


def _answers(
    world: _World, person: User, choose: Chooser, count: int, name: str, strategy: str
) -> list[tuple[int, bool]]:
    """The person's answers to the questions that are chosen."""
    answers: list[tuple[int, bool]] = []
    prompts: set[str] = set()
    for _ in range(count):
        closed = {number for number, one in enumerate(world.asked) if one.prompt in prompts}
        seed = int(random.Random(f"{name}/{strategy}").random() * 2**31)
        number = choose(answers, closed, seed)
        if number is None:
            break
        # The same person answers the same question alike under every strategy.
        second = _prefers_second(world.judge, person, world.asked[number], random.Random(f"{name}/{number}"))
        answers.append((number, second))
        prompts.add(world.asked[number].prompt)
    return answers


def _accuracy(world: _World, person: User, margins_K: Floats) -> float:
    """The share of the tested pairs that is predicted right; those that leave the person undecided are left out."""
    gaps_K = np.array([_gap(world.judge, person, one) for one in world.tested])
    decided_K = gaps_K != 0
    guesses_K = np.where(np.isclose(margins_K, 0), 0.0, np.sign(margins_K))
    return float((guesses_K * np.sign(gaps_K))[decided_K].mean() / 2 + 0.5)


def _with_intervals(rows: Floats) -> list[dict[str, float]]:
    """The mean of every column over people [N, K], and its 95% interval by resampling the people."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(rows), (_RESAMPLED, len(rows)))
    means = rows[drawn].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return [
        {"value": round(float(value), 4), "low": round(float(one), 4), "high": round(float(other), 4)}
        for value, one, other in zip(rows.mean(axis=0), low, high, strict=True)
    ]


def _saved(rows: Floats, random_rows: Floats) -> int | None:
    """How many random answers reach the accuracy of five chosen ones; None: more than there were."""
    wanted = rows.mean(axis=0)[min(5, rows.shape[1] - 1)]
    reached = np.flatnonzero(random_rows.mean(axis=0) >= wanted)
    return int(reached[0]) if len(reached) else None


_TITLES = {"users": "predicted by other people with declared traits", "policy": "predicted by the policy's reward"}
_MARKERS = {"random": "s", "information": "o", "variance": "^", "uncertainty": "v", "declared": "D"}


def _plot(results: dict[str, dict[str, Any]]) -> str:
    """Accuracy by number of answers as an SVG, an area for each domain and way to predict."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    shown = [(how, domain, found) for how, some in results.items() for domain, found in some.items()]
    across = min(2, len(shown))
    down = -(-len(shown) // across)
    figure = Figure(figsize=(4.2 * across, 3.2 * down), layout="constrained")
    cells = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
    for cell, (how, domain, found) in zip(cells, shown, strict=False):
        for name, curve in found["accuracy"].items():
            percent = [100 * point["value"] for point in curve]
            low, high = ([100 * point[end] for point in curve] for end in ("low", "high"))
            (line,) = cell.plot(percent, marker=_MARKERS[name], markersize=4, label=name)
            cell.fill_between(range(len(curve)), low, high, color=line.get_color(), alpha=0.12, linewidth=0)
        cell.axhline(50, color="grey", linewidth=0.8)
        cell.set_title(f"{domain},\n{_TITLES[how]}", fontsize=10)
        cell.set(xlabel="answers", ylabel="accuracy, held out (%)")
        cell.legend(fontsize=8, loc="lower right")
    for cell in cells[len(shown) :]:
        cell.set_visible(False)
    text = io.StringIO()
    with rc_context({"svg.hashsalt": "active_questions"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and print; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS))
    for name in ("people", "known", "questions", "tested"):
        parser.add_argument(f"--{name}", type=int, help="in the place of the benchmark's own number")
    parser.add_argument("--policy", help="a policy's folder, or a model's name or folder")
    parser.add_argument("--dtype", default="bfloat16", help="of the policy's weights")
    parser.add_argument("--work", type=Path, default=Path("runs/active_questions"), help="folder of measured effects")
    parser.add_argument("--rows", type=int, help="measure so many shots' effects and end")
    parser.add_argument("--out", type=Path, help="folder for metrics.json and accuracy-by-answers.svg")
    given = parser.parse_args(arguments)
    usual = FEW if given.policy else Sizes()
    own = {name: getattr(given, name) or getattr(usual, name) for name in ("people", "known", "questions", "tested")}
    sizes = replace(usual, **own)
    if given.policy:
        policy = Policy.load(given.policy, dtype=given.dtype)
        effects = KeyedLog(given.work / "effects.jsonl", _Effect)
        how = {"weights": _identity(given.policy), "dtype": given.dtype, "layout": policy.renderer.layout}
        name = "/".join(how.values())
        if given.rows is not None:
            for domain in given.domains:
                _measure_some(policy, _world(load_domain(domain), sizes, 0), effects, name, given.rows)
            return
        measured_with: dict[str, Any] = {"policy": given.policy, **how, "sizes": asdict(sizes), "seed": 0}
        found = {domain: measure_policy(domain, sizes, policy, effects, name) for domain in given.domains}
    else:
        measured_with = {"sizes": asdict(sizes), "seed": 0}
        found = {domain: measure_users(domain, sizes) for domain in given.domains}
    by = "policy" if given.policy else "users"
    results = {by: {domain: {"measured_with": measured_with, **row} for domain, row in found.items()}}
    if given.out:
        file = given.out / "metrics.json"
        earlier = read_json(file) if file.is_file() else {}
        alike = {
            domain: row for domain, row in earlier.get(by, {}).items() if row.get("measured_with") == measured_with
        }
        results = earlier | {by: alike | results[by]}
        results = {name: results[name] for name in _TITLES if name in results}
        write_json(file, results)
        write_text(given.out / "accuracy-by-answers.svg", _plot(results))
    print(json.dumps(results))


def _identity(policy: str) -> str:
    """What tells a policy from others, also from one that was in the same folder before.

    Raises:
        ModelError: there is no such policy or model.
        StorageError: a file can't be read.
    """
    return weights_of(policy_in(policy) or policy) or policy


def _measure_some(policy: Policy, world: _World, effects: KeyedLog[_Effect], name: str, rows: int) -> None:
    missing = [shot for shot in world.asked if any(key not in effects for key in _keys(world, shot, name))]
    for shot in missing[:rows]:
        _row(policy, world, shot, effects, name)
    print(f"{len(missing[rows:])} of {len(world.asked)} shots are left to measure.")


if __name__ == "__main__":
    main()
