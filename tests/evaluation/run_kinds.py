"""Run folders of other kinds than the common one: few users, another judge, an external lead, one's own prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fspo.files import read_json, read_jsonl, write_json, write_text
from tests.evaluation.run_folder import write_run_folder

__all__ = [
    "external_lead",
    "judged_by_model",
    "judged_by_no_judge",
    "judged_by_nobody",
    "lines",
    "own_prompts",
    "two_users",
]


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write records as JSONL."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def judged_by_model(folder: Path) -> Path:
    """No observer and no measured attributes: every method met the base model alone, which beats two of them."""
    write_run_folder(folder, light=True)
    evaluation = folder / "evaluation"
    (evaluation / "observer.json").unlink()
    games = [game for game in read_jsonl(evaluation / "games.jsonl") if game["first"] == "base"]
    lines(evaluation / "games.jsonl", games)
    metrics = read_json(folder / "metrics.json")
    for row in metrics.values():
        for measure in [m for m in row if m.startswith(("wrong_labels", "other_topics", "order_", "shortfall"))]:
            del row[measure]
    for name, share in (("fspo", 0.8), ("few-shot", 0.4), ("pref-ft", 0.45), ("ipo", 0.6), ("oracle", 0.55)):
        for measure in ("win_rate", "win_rate/plain"):
            metrics[name][measure] |= {"value": share, "low": share - 0.05, "high": share + 0.05}
    write_json(folder / "metrics.json", metrics)
    write_json(evaluation / "details.json", read_json(evaluation / "details.json") | {"judge_kind": "other"})
    return folder


def judged_by_nobody(folder: Path) -> Path:
    """A judge who was asked and never named an answer."""
    write_run_folder(folder, light=True)
    evaluation = folder / "evaluation"
    lines(evaluation / "games.jsonl", [])
    metrics = read_json(folder / "metrics.json")
    for row in metrics.values():
        for measure in [m for m in row if m.startswith("win_rate")]:
            del row[measure]
    write_json(folder / "metrics.json", metrics)
    return folder


def two_users(folder: Path) -> Path:
    """Two users, so that nothing has an interval."""
    write_run_folder(folder, light=True)
    evaluation = folder / "evaluation"
    for path in (folder / "metrics.json", evaluation / "comparisons.json"):
        table = read_json(path)
        write_json(path, {name: {m: _bare(e) for m, e in row.items()} for name, row in table.items()})
    write_json(evaluation / "observer.json", {m: _bare(e) for m, e in read_json(evaluation / "observer.json").items()})
    for name in ("items.jsonl", "games.jsonl"):
        kept = [row for row in read_jsonl(evaluation / name) if row["user"] in ("user-0", "user-1")]
        lines(evaluation / name, kept)
    per_user = read_json(evaluation / "per_user.json")
    few = {
        n: {m: {u: users[u] for u in ("user-0", "user-1")} for m, users in row.items()} for n, row in per_user.items()
    }
    few["fspo"]["reward_accuracy"]["user-0"]["value"] = 0.4
    few["fspo"]["reward_accuracy"]["user-1"]["value"] = 0.9
    write_json(evaluation / "per_user.json", few)
    return folder


def external_lead(folder: Path) -> Path:
    """A reward model from elsewhere leads: it ranks every pair right, and has no answers."""
    write_run_folder(folder, light=True)
    evaluation = folder / "evaluation"
    details = read_json(evaluation / "details.json")
    details["rewards"] = details["rewards"] | {"my-rm": ["score"], "a-rm": ["score"]}
    write_json(evaluation / "details.json", details | {"compared": "my-rm"})
    metrics = read_json(folder / "metrics.json")
    for name in ("my-rm", "a-rm"):
        metrics[name] = {m: metrics["base"]["reward_accuracy"] for m in ("reward_accuracy", "reward_accuracy/score")}
    write_json(folder / "metrics.json", metrics)
    rows = read_jsonl(evaluation / "items.jsonl")
    for row in rows:
        row["values"]["my-rm"] = {"reward_accuracy/score": 1.0}
        row["values"]["a-rm"] = {"reward_accuracy/score": 0.5}
    lines(evaluation / "items.jsonl", rows)
    return folder


def own_prompts(folder: Path) -> Path:
    """Every user is asked questions of their own."""
    write_run_folder(folder, light=True)
    for path in (folder / "evaluation" / "items.jsonl", folder / "samples.jsonl"):
        rows = read_jsonl(path)
        lines(path, [row | {"prompt": f"{row['user']}: {row['prompt']}"} for row in rows])
    return folder


def judged_by_no_judge(folder: Path) -> Path:
    """Real people: they have no traits, and their data come without a judge, so their answers are only read."""
    write_run_folder(folder, light=True)
    evaluation = folder / "evaluation"
    details = read_json(evaluation / "details.json")
    write_json(evaluation / "details.json", details | {"judge_kind": "none", "samplings": {}, "judgements": {}})
    rows = read_jsonl(folder / "samples.jsonl")
    lines(folder / "samples.jsonl", [row | {"traits": {}, "outcomes": {}, "broken": {}} for row in rows])
    unjudged = ("win_rate", "answer_utility")
    metrics = {
        name: {m: e for m, e in row.items() if not m.startswith(unjudged)}
        for name, row in read_json(folder / "metrics.json").items()
    }
    write_json(folder / "metrics.json", metrics)
    for name in ("games.jsonl", "judges.json"):
        (evaluation / name).unlink()
    return folder


def _bare(estimate: dict[str, Any]) -> dict[str, Any]:
    return estimate | {"low": None, "high": None, "users": 2, "items": 16}
