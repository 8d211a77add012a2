"""How soon a person is known, if the next question is the one that tells most, and if it is a random one.

    python -m benchmarks.active_questions --out docs/results/active_questions     # a minute on one core

In each written domain, simulated people with declared traits answer questions. The program knows other people of
the domain and the chance that each of them prefers either response; it knows nothing else of the one who answers.
After every answer it predicts what this person prefers in pairs of responses to held-out questions. `accuracy` is the
share of right predictions after 0 to 10 answers, with 95% intervals (bootstrap over people), for questions chosen at
random, by expected information gain and by variance. `gain` is the difference to random questions of the same people,
and `answers_saved` says how many random answers are as good as five chosen ones.

With `--policy FOLDER`, the chances of what to ask come from the policy's own reward given preferences of the known
people, and `policy_accuracy` is that of the policy's reward with the answers as shots. This takes hours on a CPU:
choose few people with `--people`, `--known` and `--questions`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from fspo.files import write_json
from fspo.judging.declared import DeclaredJudge
from fspo.modeling.policy import Policy
from fspo.preferences.question import Question
from fspo.preferences.types import Person, Preference, User
from fspo.serving.questions import Belief, Strategy, choose_question, declared_chances, policy_chances
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import Domain, load_domain
from fspo.synthesis.user_slots import make_user, slots_of
from fspo.synthesis.written import values_of

__all__ = ["DOMAINS", "Sizes", "main", "measure"]

DOMAINS = ("advice", "elix-written", "reviews-written")
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
_NOISE = 0.05
"""The chance of an answer against the person's own utilities, in the simulation and in what the program expects."""
_RESAMPLED = 2000
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sizes:
    """How much is simulated."""

    people: int = 60
    known: int = 60
    """Both are fewer in a domain that does not list so many."""
    answers: int = 10
    questions: int = 120
    tested: int = 120
    shots: int = 4
    """Preferences of each known person that the policy sees."""


@dataclass(frozen=True)
class _World:
    """What one domain's simulation has."""

    judge: DeclaredJudge
    known: Sequence[User]
    people: Sequence[User]
    asked: Sequence[Question]
    """What may be asked."""
    tested: Sequence[Question]
    """On other prompts."""
    shown: Sequence[Question]
    """On yet other prompts: the known people's preferences for the policy."""


def measure(domain: str, sizes: Sizes, *, policy: Policy | None = None, seed: int = 0) -> dict[str, Any]:
    """See the module.

    Returns:
        Figures of one domain: strategy -> one number for each count of answers.
    """
    world = _world(load_domain(domain), sizes, seed)
    chances_UQ = declared_chances(world.known, world.judge, world.asked, noise=_NOISE)
    tested_UQ = declared_chances(world.known, world.judge, world.tested, noise=_NOISE)
    by_policy_UQ = None if policy is None else _by_policy(policy, world, sizes)
    right: dict[str, Floats] = {}
    policy_right: dict[str, Floats] = {}
    for strategy in STRATEGIES:
        rows, policy_rows = [], []
        for place, person in enumerate(world.people):
            asking = chances_UQ if by_policy_UQ is None else by_policy_UQ
            answers = _answers(world, person, Belief(asking), strategy, sizes.answers, f"{seed}/{domain}/{place}")
            rows.append(_predicted(world, person, Belief(np.hstack([chances_UQ, tested_UQ])), answers))
            if policy is not None:
                policy_rows.append(_ranked(policy, world, person, answers))
        right[strategy] = np.array(rows)
        if policy is not None:
            policy_right[strategy] = np.array(policy_rows)
    figures = {
        "people": len(world.people),
        "known": len(world.known),
        "questions": len(world.asked),
        "tested_pairs": len(world.tested),
        "accuracy": {name: _with_intervals(rows) for name, rows in right.items()},
        "gain": {name: _with_intervals(rows - right["random"]) for name, rows in right.items() if name != "random"},
        "answers_saved": {name: _saved(rows, right["random"]) for name, rows in right.items() if name != "random"},
    }
    if policy is not None:
        figures["policy_accuracy"] = {name: _with_intervals(rows) for name, rows in policy_right.items()}
    return figures


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
    parts = [prompts[:third], prompts[third : 2 * third], prompts[2 * third :]]
    asked, tested, shown = [_pairs(part, texts, rng) for part in parts]
    split = sizes.known * len(users) // (sizes.known + sizes.people)
    return _World(judge, users[:split], users[split:], asked[: sizes.questions], tested[: sizes.tested], shown)


def _pairs(prompts: Sequence[str], texts: dict[str, list[str]], rng: random.Random) -> list[Question]:
    """Pairs of responses, a different prompt each as long as there are any."""
    rounds: list[list[Question]] = []
    for prompt in prompts:
        pairs = [Question(prompt, *rng.sample(pair, 2)) for pair in combinations(texts[prompt], 2)]
        rng.shuffle(pairs)
        for place, pair in enumerate(pairs):
            rounds += [[]] if place == len(rounds) else []
            rounds[place].append(pair)
    return [pair for some in rounds for pair in some]


def _gap(judge: DeclaredJudge, person: User, question: Question) -> float:
    """How much more the person likes the first response."""
    return judge.utility(person, question.first) - judge.utility(person, question.second)


def _prefers_second(judge: DeclaredJudge, person: User, question: Question, rng: random.Random) -> bool:
    gap = _gap(judge, person, question)
    return rng.random() < (0.5 if gap == 0 else _NOISE if gap > 0 else 1 - _NOISE)


def _answers(
    world: _World, person: User, belief: Belief, strategy: Strategy, count: int, name: str
) -> list[tuple[int, bool]]:
    """The questions that are asked, and whether the person prefers the second response."""
    answers: list[tuple[int, bool]] = []
    prompts: set[str] = set()
    for _ in range(count):
        closed = {number for number, one in enumerate(world.asked) if one.prompt in prompts}
        seed = int(random.Random(f"{name}/{strategy}").random() * 2**31)
        number = choose_question(belief, closed, strategy, seed=seed)
        if number is None:
            break
        # The same person answers the same question alike under every strategy.
        second = _prefers_second(world.judge, person, world.asked[number], random.Random(f"{name}/{number}"))
        answers.append((number, second))
        prompts.add(world.asked[number].prompt)
        belief = belief.answered(number, second=second)
    return answers


def _predicted(world: _World, person: User, belief: Belief, answers: Sequence[tuple[int, bool]]) -> list[float]:
    """The share of the tested pairs that is predicted right, after 0, 1, ... answers; the rest is undecided."""
    gaps = np.array(
        [world.judge.utility(person, one.first) - world.judge.utility(person, one.second) for one in world.tested]
    )
    decided = gaps != 0

    def accuracy() -> float:
        chances = belief.expected[len(world.asked) :][decided]
        guesses = np.where(np.isclose(chances, 0.5), 0.5, chances > 0.5)
        return float(np.abs(guesses - (gaps[decided] < 0)).mean())

    found = [accuracy()]
    for number, second in answers:
        belief = belief.answered(number, second=second)
        found.append(accuracy())
    return found


def _by_policy(policy: Policy, world: _World, sizes: Sizes) -> Floats:
    """The chances by the policy's reward, given preferences of the known people."""
    people = []
    for place, user in enumerate(world.known):
        rng = random.Random(f"{place}/shown")
        shots: list[Preference] = []
        for question in rng.sample(list(world.shown), len(world.shown)):
            gap = _gap(world.judge, user, question)
            if gap and len(shots) < sizes.shots and question.prompt not in {shot.prompt for shot in shots}:
                shots.append(question.answered(user.id, second=gap < 0))
        people.append(Person(tuple(shots)))
    return policy_chances(policy, people, world.asked)


def _ranked(policy: Policy, world: _World, person: User, answers: Sequence[tuple[int, bool]]) -> list[float]:
    """The accuracy of the policy's reward on the tested pairs, with the first 1, 2, ... answers as shots."""
    pairs = [(one, gap) for one in world.tested if (gap := _gap(world.judge, person, one))]
    found = []
    for count in range(1, len(answers) + 1):
        shots = tuple(world.asked[number].answered(person.id, second=second) for number, second in answers[:count])
        margins = policy.margins(Person(shots), [one.answered("", second=False) for one, _ in pairs])
        signs = np.sign(margins) * np.sign([gap for _, gap in pairs])
        found.append(float((signs / 2 + 0.5).mean()))
    return found


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


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate and print; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS))
    parser.add_argument("--people", type=int, default=Sizes.people)
    parser.add_argument("--known", type=int, default=Sizes.known)
    parser.add_argument("--questions", type=int, default=Sizes.questions)
    parser.add_argument("--tested", type=int, default=Sizes.tested)
    parser.add_argument("--policy", help="folder of a policy whose reward chooses the questions too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for active_questions.json")
    given = parser.parse_args(arguments)
    sizes = Sizes(given.people, given.known, questions=given.questions, tested=given.tested)
    policy = Policy.load(given.policy) if given.policy else None
    results = {name: measure(name, sizes, policy=policy, seed=given.seed) for name in given.domains}
    if given.out:
        write_json(given.out / "active_questions.json", results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
