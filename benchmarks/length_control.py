"""Our length-controlled win rate beside that of alpaca_eval, on the same annotations.

    python -m benchmarks.length_control --out docs/results/length_control

The annotations are made up: answers of two methods with lengths of their own, and a judge who weighs quality,
difficulty and length, and answers with certainty or with probabilities. Each annotation is a user
of its own, since alpaca_eval knows none. It takes difficulties and its anchors ("gamed" baselines) from a table on a
hub; here it gets the table of the case instead. All three of its models are compared.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import sys
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.command_line import command_line
from fspo.errors import ConfigError, FspoError
from fspo.evaluation.judges.length_control import Judged, length_controlled
from fspo.files import write_json, write_text

__all__ = ["CASES", "MODELS", "Case", "compare", "made_up", "main", "ours", "peer", "random_cases"]

MODELS = ("length_controlled_minimal", "length_controlled_noreg", "length_controlled_v1")
"""alpaca_eval's: without difficulty, with it, and with anchors too."""


_SOLVED = 1e-10


@dataclass(frozen=True)
class Case:
    """How made-up annotations come about."""

    name: str
    rows: int
    quality: float
    """The method's advantage at equal length, in log-odds."""
    by_length: float
    """What the judge gives for length."""
    longer: float
    """By how many standard deviations the method's answers are longer."""
    graded: bool = False
    """Whether the judge answers with probabilities."""
    undecided: float = 0.0
    """The share of annotations without a preference."""
    seed: int = 0


CASES = (
    Case("a fair judge", 300, 0.4, 0.0, 0.5),
    Case("longer is better", 400, 0.0, 2.0, 1.0, seed=1),
    Case("longer is better, the method worse", 805, -0.7, 1.5, 1.2, seed=2),
    Case("shorter answers", 300, 0.3, 1.0, -0.8, seed=3),
    Case("probabilities", 805, -1.0, 1.0, 0.5, graded=True, seed=4),
    Case("few annotations", 60, 0.5, 1.0, 0.5, seed=5),
    Case("hardly a win", 200, -3.5, 0.5, 0.3, seed=6),
    Case("some undecided", 250, 0.2, 1.0, 0.5, undecided=0.1, seed=7),
)


def random_cases(count: int, seed: int) -> list[Case]:
    """Cases of all sizes and kinds, so that agreement doesn't rest on a few that were picked."""
    generator = random.Random(seed)
    return [
        Case(
            f"random {number}",
            rows=generator.choice([40, 80, 200, 500, 805]),
            quality=generator.uniform(-2.5, 2.5),
            by_length=generator.uniform(0, 2.5),
            longer=generator.uniform(-1.2, 1.2),
            graded=generator.random() < 0.4,
            seed=100 + number,
        )
        for number in range(count)
    ]


def made_up(case: Case) -> tuple[list[Judged], list[Judged]]:
    """The rows of a case, and its anchors: briefer answers of the baseline's own to all rows, then longer ones."""
    generator = random.Random(case.seed)
    rows, anchors = [], []
    for place in range(case.rows):
        baseline = generator.randint(300, 1500)
        difficulty = generator.gauss(0, 1)
        rows.append(_row(generator, case, f"row {place}", baseline, case.quality, case.longer, difficulty))
        for kind, longer in (("brief", -1.0), ("verbose", 1.0)):
            anchors.append(_row(generator, case, f"{kind} {place}", baseline, 0.0, longer, difficulty))
    return rows, anchors[::2] + anchors[1::2]


def _row(
    generator: random.Random, case: Case, user: str, baseline: int, quality: float, longer: float, difficulty: float
) -> Judged:
    extra = generator.gauss(longer, 1.0)
    logit = quality + case.by_length * math.tanh(extra) + 0.8 * difficulty + generator.gauss(0, 0.5)
    chance = 1 / (1 + math.exp(-logit))
    score: float | None = (
        round(chance, 6) if case.graded else generator.choices([float(generator.random() < chance), 0.5], [0.9, 0.1])[0]
    )
    if generator.random() < case.undecided:
        score = None
    return Judged(user, score, max(1, baseline + round(250 * extra)), baseline, round(difficulty, 6))


def ours(case: Case, model: str) -> float:
    """Our figure, in percent."""
    rows, anchors = made_up(case)
    if model == "length_controlled_minimal":
        rows = [replace(row, difficulty=0.0) for row in rows]
    given = anchors if model == "length_controlled_v1" else []
    return 100 * length_controlled(rows, anchors=given, undecided=True).win_rate.value


def peer(case: Case, model: str, *, tolerance: float | None = None) -> float:
    """The figure of alpaca_eval, in percent; `tolerance` is its solver's, where it shouldn't be scikit-learn's 1e-4.

    Raises:
        ConfigError: alpaca_eval is not installed.
    """
    try:
        import pandas as pd
        from alpaca_eval.metrics import glm_winrate
    except ImportError as error:
        raise ConfigError(
            f"alpaca_eval can't be imported ({error}); install it: pip install -c constraints.txt -e '.[dev]'."
        ) from error
    rows, anchors = made_up(case)
    frame = pd.DataFrame(
        {
            # 1 is the baseline's win and 2 the method's; ties are 1.5.
            "preference": [math.nan if row.score is None else row.score + 1 for row in rows],
            "output_1": ["x" * row.baseline_length for row in rows],
            "output_2": ["x" * row.length for row in rows],
            "generator_1": "baseline",
            "generator_2": "method",
            "annotator": "judge",
            "index": range(len(rows)),
        }
    )
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        table = _table(Path(folder) / "anchors.csv", rows, anchors)
        info = dict(glm_winrate.GLM_INFO[model])
        if tolerance is not None:
            info["kwargs"] = info["kwargs"] | {"tol": tolerance}
        downloading = glm_winrate.hf_hub_download
        glm_winrate.hf_hub_download = lambda **_: str(table)
        try:
            found = glm_winrate.get_length_controlled_winrate(
                frame, glm_name=model, save_weights_dir=None, is_warn_extreme_changes=False, glm_info=info
            )
        finally:
            glm_winrate.hf_hub_download = downloading
    return float(found["length_controlled_winrate"])


def _table(path: Path, rows: Sequence[Judged], anchors: Sequence[Judged]) -> Path:
    """The table that alpaca_eval gets its anchors and its difficulties from."""
    longer = [anchor.baseline_length - anchor.length for anchor in anchors]
    mean = sum(longer) / len(longer)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in longer) / (len(longer) - 1))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["model", "preference", "index", "std_delta_len", "instruction_difficulty", "not_gamed_baseline"]
        )
        # Rows are found by their number, so the difficulty of row i has to stand in line i.
        by_row = anchors[: len(rows)], anchors[len(rows) :]
        for kind, column in zip(("brief", "verbose"), by_row, strict=True):
            for place, (anchor, row) in enumerate(zip(column, rows, strict=True)):
                length = (anchor.baseline_length - anchor.length) / deviation
                score = "" if anchor.score is None else anchor.score
                writer.writerow([kind, score, place, length, row.difficulty, False])
    return path


def compare(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Both figures for every case and model."""
    rows = []
    for case in cases:
        for model in MODELS:
            one, other = ours(case, model), peer(case, model)
            print(f"{case.name}, {model}: {one:.3f} beside {other:.3f}", file=sys.stderr)
            rows.append(
                {
                    "case": case.name,
                    "model": model,
                    "ours": one,
                    "peer": other,
                    "difference": one - other,
                    "difference_when_solved": one - peer(case, model, tolerance=_SOLVED),
                }
            )
    return rows


def _largest(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    return max((abs(row[name]) for row in rows), default=0.0)


def _page(figures: dict[str, Any]) -> str:
    lines = [
        "# Length-controlled win rates beside alpaca_eval's",
        "",
        f"```sh\n{figures['command']}\n```",
        "",
        f"Percent, on the same made-up annotations; {figures['peer']}. The head of",
        "`benchmarks/length_control.py` describes the cases. Over the table and "
        f"{len(figures['random_rows'])} more comparisons,",
        f"on cases drawn by chance, the largest difference is {figures['largest_difference']:.3f} points. It comes",
        "from the tolerance at which alpaca_eval's solver stops and chooses its penalty; with a tolerance of 1e-10,",
        f"the largest difference is {figures['largest_difference_when_solved']:.6f} points.",
        "",
        "| case | model | fspo | alpaca_eval | difference |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['case']} | {row['model'].removeprefix('length_controlled_')} "
        f"| {row['ours']:.3f} | {row['peer']:.3f} | {row['difference']:+.3f} |"
        for row in figures["rows"]
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison from the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.length_control", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--random", type=int, default=40, help="cases drawn by chance beside those with a name")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for figures.json and README.md")
    options = parser.parse_args(arguments)
    try:
        rows, random_rows = compare(CASES), compare(random_cases(options.random, options.seed))
    except FspoError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    figures = {
        "benchmark": "length_control",
        "command": command_line("length_control", arguments),
        "peer": f"alpaca_eval {version('alpaca_eval')}",
        "largest_difference": _largest([*rows, *random_rows], "difference"),
        "largest_difference_when_solved": _largest([*rows, *random_rows], "difference_when_solved"),
        "rows": rows,
        "random_rows": random_rows,
    }
    if options.out is not None:
        write_json(options.out / "figures.json", figures)
        write_text(options.out / "README.md", _page(figures))
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
