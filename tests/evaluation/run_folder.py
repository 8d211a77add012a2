"""A run folder with made-up figures, for the tests of report and table."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fspo.evaluation.artifacts import (
    FORMAT,
    GAMES_FILE,
    Agreement,
    CalibrationRecord,
    Calibrations,
    Details,
    ErrorByChance,
    ItemRecord,
    JudgeRecord,
    JudgesRecord,
    PerUser,
    ReliabilityBin,
    Sample,
    UserMean,
)
from fspo.evaluation.metrics.items import ITEMS_FILE
from fspo.evaluation.statistics.intervals import Estimate
from fspo.evaluation.statistics.ranking import Game
from fspo.files import append_jsonl, read_json, write_json, write_text
from fspo.llm.types import Completion, CompletionRequest
from fspo.records import write_record, write_records
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.synthesize import Writers, synthesize

__all__ = ["write_kept", "write_run_folder"]

_METHODS = {"base": 0.52, "few-shot": 0.53, "pref-ft": 0.55, "ipo": 0.54, "fspo": 0.77, "oracle": 0.64}
_KS = (0, 1, 2, 4, 8)


def write_run_folder(folder: Path, *, light: bool = False) -> Path:
    """Everything a finished run holds that the report reads; `light` has less to draw."""
    metrics = {name: _measures(name, value) for name, value in _METHODS.items()}
    write_json(folder / "metrics.json", metrics)
    observer = {f"reward_accuracy@{k}": _estimate(1 - 0.5 * math.exp(-k), 0.02) for k in _KS}
    observer["reward_accuracy"] = observer["reward_accuracy@8"]
    observer |= {"wrong_labels_drop/25%": _estimate(0.05), "regret_share": _estimate(0.01, 0.01)}
    write_json(folder / "evaluation" / "observer.json", observer)
    others = {
        name: {"reward_accuracy/reference": _estimate(0.77 - value, 0.05)}
        for name, value in _METHODS.items()
        if name != "fspo"
    }
    write_json(folder / "evaluation" / "comparisons.json", others)
    write_record(folder / "evaluation" / "details.json", _details())
    write_kept(folder / "evaluation")
    write_records(folder / "samples.jsonl", _samples())
    _write_curves(folder, 3 if light else 60)
    write_json(folder / "data" / "checks.json", _checks(2 if light else 5))
    write_json(folder / "versions.json", {"fspo": "0.1.0", "torch": "2.13.0"})
    write_text(folder / "config.yaml", "name: reviews-cpu\nmodel: smollm2-135m\nseed: 0\n")
    return folder


def _estimate(value: float, reach: float = 0.04) -> dict[str, Any]:
    return {"value": value, "low": value - reach, "high": value + reach, "users": 16, "items": 128}


def _measures(name: str, value: float) -> dict[str, Any]:
    row = {"reward_accuracy": _estimate(value), "reward_accuracy/reference": _estimate(value)}
    row |= {"reward_accuracy/likelihood": _estimate(0.51)}
    for k in _KS:
        gain = (1 - math.exp(-k / 2)) if name in ("fspo", "pref-ft", "few-shot") else 1
        row[f"reward_accuracy@{k}"] = _estimate(0.5 + (value - 0.5) * gain)
    if name in ("few-shot", "pref-ft", "fspo"):
        row |= {"label_flip_rate": _estimate(value - 0.12), "user_swap_drop": _estimate(value - 0.5)}
        row |= {"reward_accuracy/antisymmetric": _estimate(value + 0.01)}
    row |= _more_measures(name, value)
    for sampling in ("plain", "guided") if name != "base" else ():
        row[f"win_rate/{sampling}"] = _estimate(value - (0.05 if sampling == "plain" else 0), 0.07)
    for sampling in ("plain", "guided"):
        quality = {
            "fluency": -2.1,
            "distinct": 0.97,
            "compression": 0.71,
            "overlap": 0.4,
            "closeness": 0.2,
            "words": 24.0,
            "unfinished": 0.4 if name == "base" else 0.05,
        }
        row |= {
            f"{measure}/{sampling}": _estimate(level) for measure, level in (quality | {"below_floor": 0.02}).items()
        }
    if name != "base":
        row["win_rate"] = row["win_rate/plain"]
    return row


def _more_measures(name: str, value: float) -> dict[str, Any]:
    """What is measured of rewards besides accuracy, and what personalisation costs."""
    row = {"regret": _estimate(1.1 - value), "regret_share": _estimate(1 - value)}
    row |= {f"alignment@{turn}": _estimate(2.0 + value * turn / 3) for turn in (1, 2, 3)}
    row |= {"alignment_slope": _estimate(value / 3), "alignment_slope_normalised": _estimate(0.5)}
    for suffix in ("", "/fitted"):
        row |= {f"calibration_error{suffix}": _estimate(0.1), f"brier{suffix}": _estimate(0.25)}
        row |= {f"overconfidence{suffix}": _estimate(-0.05)}
    if name in ("few-shot", "pref-ft", "fspo"):
        row |= {f"wrong_labels_drop/{share}%": _estimate(share / 200, 0.1) for share in (10, 25)}
        row |= {"other_topics_drop": _estimate(0.02, 0.1), "order_change_rate": _estimate(0.1)}
    if name != "base":
        row |= {"tax_general": _estimate(0.05), "tax_refusal/injected": _estimate(0.1), "tax_fluency": _estimate(0.2)}
        row |= {"win_rate_length_controlled/plain": _estimate(value), "win_rate_by/other/plain": _estimate(value)}
    return row | {"general_pass/personal": _estimate(0.8), "answer_utility/plain": _estimate(value - 0.6)}


def write_kept(folder: Path, *, methods: Mapping[str, float] = _METHODS, users: int = 16, salt: str = "") -> None:
    """Items, games and figures by user of an evaluation's folder; `salt` draws others on the same items."""
    rewards = _details().rewards
    right: dict[str, dict[str, float]] = {name: {} for name in methods}
    items: list[ItemRecord] = []
    games: list[Game] = []
    for user in range(users):
        for number in range(8):
            item = f"user-{user}/0/{number}"
            line = {"item": item, "user": f"user-{user}", "prompt": f"What of film {number}?", "chosen": "Fine.",
                    "rejected": f"Poor, <i>{user}</i>.", "shots": f"shots-{user}",
                    "base_answer": "same",
                    "traits": f"traits-{user}", "description": f"told-{user}", "donor": f"donor-{user}"}  # fmt: skip
            values: dict[str, dict[str, float]] = {}
            for name, share in methods.items():
                reward, drawn = rewards[name][0], random.Random(f"{name}/{item}{salt}").random()
                right[name][item] = float(drawn < share)
                values[name] = {f"reward_accuracy/{reward}": right[name][item], "regret": 1.0 - right[name][item]}
                values[name]["user_swap_drop"] = right[name][item] - 0.5
                values[name] |= {"answer_utility/plain": drawn, "answer_utility/guided": drawn}
                if name != "base":
                    values[name]["win_rate/plain"] = values[name]["win_rate/guided"] = float(drawn > 0.4)
                    values[name]["win_rate_by/far/guided"] = float(drawn > 0.5)
            items.append(ItemRecord(**line, values=values))
            for first, second in itertools.combinations(methods, 2):
                score = (1 + right[first][item] - right[second][item]) / 2
                games.append(Game(f"user-{user}", first, second, score))
    write_records(folder / ITEMS_FILE, items)
    write_records(folder / GAMES_FILE, games)
    by_user = {name: {"reward_accuracy": _by_user(row)} for name, row in right.items()}
    write_record(folder / "per_user.json", by_user, PerUser)
    bins = tuple(
        ReliabilityBin(confidence=0.55 + i / 10, accuracy=0.5 + i / 12, users=9, items=40 - 9 * i) for i in range(4)
    )
    chance = ErrorByChance(mean=0.0432, high=0.0761)
    calibrated = CalibrationRecord(reward="reference", bins=bins, fitted_bins=bins[:2], error_by_chance=chance)
    write_record(folder / "calibration.json", dict.fromkeys(methods, calibrated), Calibrations)
    agreed = Agreement(judges=("headline", "other"), share=Estimate(**_estimate(0.8)), kappa=0.55)
    mute = {"items": 40, "wins": 0, "ties": 0, "losses": 0, "inconsistent": 0, "unreadable": 38, "refused": 2}
    judge = JudgeRecord(counts={"fspo, plain": mute, "few-shot, plain": mute})
    write_record(folder / "judges.json", JudgesRecord(agreement=(agreed,), judges={"mute": judge}))


def _by_user(right: Mapping[str, float]) -> dict[str, UserMean]:
    users: dict[str, list[float]] = {}
    for item, value in right.items():
        users.setdefault(item.partition("/")[0], []).append(value)
    return {user: UserMean(value=sum(row) / len(row), items=len(row)) for user, row in users.items()}


def _details() -> Details:
    fields: dict[str, Any] = {
        "format": FORMAT,
        "users": 16,
        "questions": 24,
        "pairs": 128,
        "seed": 0,
        "shots": 8,
        "episodes": 1,
        "queries": 8,
        "robustness": {
            "users": 6,
            "pairs": 18,
            "other_topics_users": 6,
            "wrong_labels": {"10%": 1, "25%": 2},
            "orders": 2,
        },
        "headline_reward": "reference",
        "headline_sampling": "plain",
        "compared": "fspo",
        "rewards": {
            "base": ["likelihood"],
            "few-shot": ["antisymmetric", "reference", "likelihood"],
            "pref-ft": ["reference"],
            "ipo": ["reference"],
            "fspo": ["reference"],
            "oracle": ["reference"],
        },
        "samplings": {"fspo": "guided", "few-shot": "plain", "pref-ft": "plain", "ipo": "plain", "oracle": "plain"},
        "judge_kind": "attributes",
        "floors": {"log_prob": -4.5, "distinct": 0.5},
        "dropped_shots": {"few-shot": 0, "fspo": 3},
        "judgements": {"fspo, plain": {"items": 64, "inconsistent": 1, "below_floor": 2, "base_below_floor": 5}},
    }
    return Details(**fields)


def _samples() -> list[Sample]:
    people = {
        "cheerful": {"sentiment": 1.0},
        "gloomy": {"sentiment": -1.0},
        "terse": {"length": -1.0},
        "chatty": {"length": 1.0, "exclamation": 0.4},
    }
    return [
        Sample(
            user=name,
            description=f"Someone who is {name} <b>and says so</b>.",
            traits=traits,
            group="axis",
            item=f"{name}/0/{number}",
            prompt=f"What did you think of the film number {number}?",
            answers={
                "base": "It is a film about a bath house.",
                "fspo, plain": f"A {name} answer. It goes on for a while, as answers do.",
                "fspo, guided": f"- {name}\n- {name} again",
            },
            outcomes={"fspo, plain": "win", "fspo, guided": "loss"},
            broken={"fspo, guided": ("distinct",)} if name == "gloomy" else {},
        )
        for name, traits in people.items()
        for number in range(2)
    ]


def _write_curves(folder: Path, steps: int) -> None:
    generator = random.Random(0)
    for name, end in (("pref-ft", 0.55), ("ipo", 0.56), ("fspo", 0.85)):
        for step in range(1, steps + 1):
            accuracy = 0.5 + (end - 0.5) * (1 - math.exp(-step / 20)) + generator.gauss(0, 0.06)
            record = {
                "step": step,
                "loss": 4 * math.exp(-step / 40) + generator.gauss(0, 0.2),
                "margin_accuracy": accuracy,
                "tokens": 2000 if name == "fspo" else 1000,
            }
            append_jsonl(folder / "methods" / name / "metrics.jsonl", record)
        settings = {"config": {"users_per_step": 2, "queries": 4}}
        write_json(folder / "methods" / name / "training.json", {"identity": settings})
        write_json(folder / "methods" / name / "policy.json", {"starts_from": "../pref-ft" if name == "fspo" else None})


class _Writer:
    """Writes short reviews that praise or find fault as they are told to."""

    name = "made-up"

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        """One review for each request."""
        found = []
        for number, request in enumerate(requests):
            if number % 9 == 8:
                found.append(Completion(" good. User: what else?", 6, "stop"))
                continue
            glad = any(word in request.messages[0].content for word in ("love", "excellent", "enjoyed", "moved", "fun"))
            feeling = ("warm", "lovely", "brilliant", "superb") if glad else ("dull", "awful", "boring", "weak")
            said = f" {feeling[number % 4]} work {number}. I found plot {number} {feeling[(number + 1) % 4]}. The cast"
            found.append(Completion(f"{said} is {feeling[(number + 2) % 4]} from the first scene on.", 30, "stop"))
        return found


def _checks(attributes: int) -> dict[str, Any]:
    """What synthesis writes of a handful of made-up responses."""
    measured = ("length", "exclamation", "emoji", "bullets", "first_person", "sentiment")[: max(2, attributes)]
    settings = {"domain": "reviews-restyled", "questions": 6, "responses": 4, "attributes": measured}
    settings |= {"restyling": {"samples": 8, "short_words": 8, "long_words": 10, "max_words": 30}, "shared_pairs": 20}
    writer = _Writer()
    with TemporaryDirectory() as out:
        synthesize(SynthesisConfig.model_validate(settings), Writers(writer, writer), out)
        checks: dict[str, Any] = read_json(Path(out) / "checks.json")
    return checks
