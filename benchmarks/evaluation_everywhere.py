"""The paper's methods on the paper's domains, with all measures, by the built-in model.

    python -m benchmarks.evaluation_everywhere --out docs/results/evaluation       # an hour on 2 quiet cores
    python -m benchmarks.evaluation_everywhere --small --domains elix-easy         # some minutes
    python -m benchmarks.evaluation_everywhere --estimate                          # says how long, and stops

For each domain the program makes the data, trains the paper's methods and measures them on held-out users and
questions, in a run's folder below `--work`; the same command resumes there. It writes the reports to `--out`, with a
page that shows all domains. What the runs have in common is in `benchmarks/evaluation_everywhere.yaml`.

The estimate counts tokens and divides them by rates that were seen on two cores; a machine with other work takes
longer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.command_line import command_line
from fspo.errors import ConfigError, FspoError
from fspo.evaluation.artifacts import estimates_of
from fspo.evaluation.statistics.intervals import Estimate
from fspo.files import read_json, write_json, write_text, writing
from fspo.methods.table import Method, training_order
from fspo.modeling.quiet import quiet
from fspo.progress import PlainProgress, Progress
from fspo.runs import pipeline
from fspo.runs.config import RunConfig, load_config, methods_of
from fspo.runs.existing import Existing
from fspo.runs.folder import RunFolder
from fspo.training.config import TrainingConfig

__all__ = ["DOMAINS", "SMALL", "Expected", "configurations", "estimate", "main"]

COMMON = Path(__file__).with_suffix(".yaml")

DOMAINS: Mapping[str, tuple[str, ...]] = {
    "reviews": (),
    "elix-easy": ("evaluation.episodes=2",),  # only one user is held out
    "elix-hard": ("synthesis.users=60", "synthesis.questions=110"),
    "roleplay": ("synthesis.users=60",),
}
"""Domain -> what is set for it besides."""

SMALL = (
    "synthesis.responses=4",
    "evaluation.users=2",
    "evaluation.answers=1",
    "evaluation.robustness.users=1",
    "evaluation.ladder=[0, 4]",
    "evaluation.tax.users=1",
    "training.pref-ft.steps=4",
    "training.ipo.steps=4",
    "training.fspo.steps=6",
    "training.pref-ft-cot.steps=4",
    "training.fspo-rat.steps=2",
)
"""What `--small` sets."""

WRITING, SCORING, TRAINING, DRAFTING = 250.0, 650.0, 300.0, 80.0
"""Tokens a second of the built-in model on two cores, of tokens as they are counted here: sampled many at a time, read,
read forward and back, and sampled a few at a time. Chosen so that a little more comes out than docs/results/evaluation
took."""

_FILLED = 0.8
"""How much of its limit a response fills."""

_FOLLOWS_LABELS = 0.3
"""A method with a lower label flip rate hardly follows the labels."""

_KEPT = ("report.html", "metrics.json", "summary.json", "samples.jsonl", "versions.json")
_KEPT_OF_EVALUATION = (
    "comparisons.json",
    "observer.json",
    "calibration.json",
    "per_user.json",
    "details.json",
    "judges.json",
    "games.jsonl",
    "items.jsonl",
)
"""From these a page can be written again, and runs can be compared."""

_LARGEST = 1 << 20
"""Bytes of a file that is still kept; a larger one stays with the run."""
_SHOWN = {
    "reward_accuracy": "reward accuracy",
    "gain_over_population": "over the population",
    "label_flip_rate": "label flip",
    "user_swap_drop": "user swap drop",
    "first_shot_gain": "first shot",
    "wrong_labels_drop/25%": "wrong labels cost",
    "other_topics_drop": "other topics cost",
    "order_change_rate": "order changes",
    "calibration_error": "calibration error",
    "regret_share": "regret",
    "shortfall": "below the observer",
    "win_rate": "win rate",
    "tax_general": "tax",
    "tax_refusal": "tax on refusals",
}


def configurations(
    domains: Sequence[str], work: Path, *, small: bool = False, overrides: Sequence[str] = ()
) -> dict[str, RunConfig]:
    """Domain -> the configuration of its run.

    Raises:
        ConfigError: there is no such domain, or a setting is wrong.
    """
    found = {}
    for domain in domains:
        if domain not in DOMAINS:
            raise ConfigError(f"There is no domain '{domain}' here; choose from {', '.join(DOMAINS)}.")
        named = [f"name={domain}", f"synthesis.domain={domain}", *DOMAINS[domain], *(SMALL if small else ())]
        found[domain] = load_config(COMMON, [*named, *overrides], work / domain)
    return found


@dataclass(frozen=True)
class Expected:
    """Seconds that each stage should take on two quiet cores."""

    synthesis: float
    training: float
    evaluation: float

    @property
    def minutes(self) -> float:
        """All of it."""
        return (self.synthesis + self.training + self.evaluation) / 60


def estimate(config: RunConfig, users: int) -> Expected:
    """How long a run should take, from tokens; `users` are those held out.

    A response is taken to fill four fifths of what it may (22 of 28 tokens were seen). A shot's words and its prompt
    are 24 tokens, a query's 31, and what stands around the shots 38: so the built-in model's tokenizer counts the usual
    words.
    """
    synthesis = config.synthesis
    response = round(_FILLED * synthesis.max_tokens)
    written = synthesis.questions * synthesis.responses
    making = written * response / WRITING + written * 60 / SCORING
    rows = methods_of(config)
    training = sum(_training(row, config.training[row.name], response) for row in training_order(rows))
    measured = min(users, config.evaluation.users or users)
    evaluation = measured * config.evaluation.episodes * _evaluation(rows, config, response) + _tax(rows, config)
    return Expected(making, training, evaluation)


def _training(row: Method, config: TrainingConfig, response: int) -> float:
    shots = config.shots if row.context in ("shots", "both") else 0
    unit = _trunk(shots, response) + config.queries * (31 + 2 * response)
    unit *= 2 if config.mirrors else 1
    seconds = unit / TRAINING
    if config.objective != "pref-ft":
        seconds += unit / SCORING
    if row.describes:
        described = config.description_tokens * (2 if config.mirrors else 1)
        seconds += described / TRAINING
        if config.describe == "own":
            seconds += config.drafts * described * (1 / DRAFTING + 1 / TRAINING) + unit / SCORING
    return config.steps * config.users_per_step * seconds


def _evaluation(rows: Sequence[Method], config: RunConfig, response: int) -> float:
    """Seconds for one episode of one user."""
    evaluation = config.evaluation
    query = 31 + 2 * response
    trunk, queries = _trunk(evaluation.shots, response), evaluation.queries * query
    rungs = [k for k in evaluation.rungs if k < evaluation.shots]
    few = min(evaluation.ladder_queries or evaluation.queries, evaluation.queries)
    conditions = evaluation.label_flip + evaluation.user_swap + (evaluation.label_flip and evaluation.mirrored_swap)
    share = min(1.0, (evaluation.robustness.users or 0) / (evaluation.users or 1))
    varied = len(evaluation.robustness.wrong_labels) + evaluation.robustness.other_topics + evaluation.robustness.orders
    vary = share * varied * (trunk + (evaluation.robustness.queries or evaluation.queries) * query)
    shown = (1 + conditions) * (trunk + queries) + len(rungs) * few * query + vary
    read, drafted = 0.0, 0.0
    for row in rows:
        if row.describes:
            passes = len(rungs) * (trunk / 2 + few * query) + len(evaluation.corruption) * (trunk + queries)
            read += shown + passes
            texts = 3 + conditions + 2 * len(rungs) + share * varied
            drafted += texts * evaluation.description_tokens
            read += texts * trunk
        elif row.context == "shots":
            read += shown
        read += queries  # without context, or as its reference
        if row.context == "description":
            read += 2 * queries
        samplings = len(evaluation.samplings) if row.context in ("shots", "both") else 1
        answers = evaluation.answers * (samplings + (len(evaluation.answer_ladder) if samplings > 1 else 0))
        drafted += answers * evaluation.max_new_tokens * (1.5 if samplings > 1 else 1)
        read += answers * (trunk if row.context in ("shots", "both") else 60) * (1.5 if samplings > 1 else 1)
        read += answers * (40 + evaluation.max_new_tokens)  # fluency
    return read / SCORING + drafted / DRAFTING


def _tax(rows: Sequence[Method], config: RunConfig) -> float:
    """Seconds for the answers to general instructions and harmful requests, for users and for nobody."""
    tax = config.evaluation.tax
    if tax is None:
        return 0.0
    answers = len(rows) * ((tax.users or 0) + 1) * (tax.general + 2 * tax.refusals)
    return answers * tax.max_new_tokens / WRITING


def _trunk(shots: int, response: int) -> int:
    return 38 + shots * (24 + 2 * response) if shots else 38


def _held_out(config: RunConfig) -> int:
    """How many users are held out, as far as that is known before the data are there."""
    from fspo.synthesis.domain import load_domain
    from fspo.synthesis.user_slots import slots_of

    places = slots_of(config.synthesis, load_domain(config.synthesis.domain))
    named = sum(bool(place.held_out) for place in places)
    return named or max(1, round(config.synthesis.held_out * len(places)))


def _made(config: RunConfig, progress: Progress) -> dict[str, Any]:
    """Make, train, measure and report one domain, or resume it; its metrics."""
    folder = RunFolder(config)
    with folder.opened(folder.parts(), Existing.RESUME):
        stages: dict[str, Callable[[RunFolder, Progress], object]] = {
            "synthesis": pipeline.synth,
            "training": pipeline.train,
            "evaluation": pipeline.evaluate,
        }
        for name, stage in stages.items():
            with _clocked(folder.path / "seconds.json", name):
                stage(folder, progress)
        pipeline.report(folder)
    return {
        method: {measure: estimate.to_json() for measure, estimate in row.items()}
        for method, row in pipeline.need_results(folder).items()
    }


@contextmanager
def _clocked(path: Path, name: str) -> Iterator[None]:
    """Add the seconds of a stage to those of earlier calls; what was killed is not counted."""
    start = time.perf_counter()
    yield
    known = read_json(path) if path.exists() else {}
    write_json(path, {**known, name: known.get(name, 0.0) + time.perf_counter() - start})


def _published(config: RunConfig, out: Path) -> None:
    """Copy what is to be kept of a run, but for what is too large to be published."""
    found = [config.output / name for name in _KEPT]
    found += [config.output / "evaluation" / name for name in _KEPT_OF_EVALUATION]
    for path in found:
        if path.exists() and path.stat().st_size <= _LARGEST:
            with writing(out / path.name) as copy:
                shutil.copyfile(path, copy)


def _page(command: str, record: Mapping[str, Any]) -> str:
    lines = [
        "# The paper's methods on the paper's domains",
        "",
        f"```sh\n{command}\n```",
        "",
        f"{record['model']}, with the short trainings of `benchmarks/evaluation_everywhere.yaml`: this shows the "
        "measures, not what the methods can reach. Users have weights for measured attributes, which also judge. "
        "Percent, with 95% intervals clustered by user; none below three users. [evaluation.md](../../evaluation.md) "
        "defines each measure. All results are in each domain's `metrics.json`. The command also writes "
        "each domain's page, `report.html`, which the repository does not hold.",
    ]
    lines += _said_of_flips(record)
    for domain, found in record["domains"].items():
        metrics = estimates_of(found["metrics"])
        shown = [name for name in _SHOWN if any(name in row for row in metrics.values())]
        seconds = ", ".join(f"{name} {value / 60:.1f}" for name, value in found["seconds"].items())
        lines += [
            "",
            f"## {domain}",
            "",
            f"{_people(found['users'])}, {found['pairs']} pairs. "
            f"Minutes: {seconds} (expected: {found['expected_minutes']:.0f} in all).",
            "",
            f"| | {' | '.join(_SHOWN[name] for name in shown)} |",
            "|---|" + "---|" * len(shown),
            *(f"| {name} | {' | '.join(_cell(row.get(m)) for m in shown)} |" for name, row in metrics.items()),
        ]
    return "\n".join(lines) + "\n"


def _said_of_flips(record: Mapping[str, Any]) -> list[str]:
    """Whether any method follows the labels at all; without that, no other result shows personalisation."""
    rates = [
        (row["label_flip_rate"]["value"], name, domain)
        for domain, found in record["domains"].items()
        for name, row in found["metrics"].items()
        if "label_flip_rate" in row
    ]
    if not rates:
        return []
    rate, name, domain = max(rates)
    said = f"The highest label flip rate is {100 * rate:.0f}% ({name}, {domain})"
    if rate < _FOLLOWS_LABELS:
        said += (
            ": with so little training no method follows the labels, and gains between methods are not personalisation"
        )
    return ["", f"{said}. The [reference run](../reviews-reference/README.md) trains longer, on one domain."]


def _people(count: int) -> str:
    return f"{count} held-out {'user' if count == 1 else 'users'}"


def _cell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{100 * estimate.value:.0f}"
    return f"{100 * estimate.value:.0f} ({100 * estimate.low:.0f} to {100 * estimate.high:.0f})"


def measure(configs: Mapping[str, RunConfig], progress: Progress, out: Path | None, command: str) -> dict[str, Any]:
    """Go through all domains; with `out`, the page and the reports are written after each of them."""
    record: dict[str, Any] = {"benchmark": "evaluation_everywhere", "model": "", "domains": {}}
    for number, (domain, config) in enumerate(configs.items(), start=1):
        expected = estimate(config, _held_out(config))
        progress.say(f"{number} of {len(configs)}: {domain}, about {expected.minutes:.0f} minutes")
        metrics = _made(config, progress)
        details = read_json(config.output / "evaluation" / "details.json")
        record["model"] = Path(config.model).name
        record["domains"][domain] = {
            "metrics": metrics,
            "users": details["users"],
            "pairs": details["pairs"],
            "expected_minutes": expected.minutes,
            "seconds": read_json(config.output / "seconds.json"),
        }
        if out is not None:
            _published(config, out / domain)
            write_json(out / "figures.json", _without_metrics(record))
            write_text(out / "README.md", _page(command, record))
    return record


def _without_metrics(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record without what `metrics.json` of each domain has."""
    domains = {
        domain: {name: value for name, value in found.items() if name != "metrics"}
        for domain, found in record["domains"].items()
    }
    return {**record, "domains": domains}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="benchmarks.evaluation_everywhere", description=about)
    parser.add_argument("--domains", default=",".join(DOMAINS), help="some of them, with commas between")
    parser.add_argument("--small", action="store_true", help="a fraction of the training and of the users")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of all runs")
    parser.add_argument("--estimate", action="store_true", help="only say how long it should take")
    parser.add_argument("--work", type=Path, default=Path("runs/evaluation_everywhere"), help="where the runs are")
    parser.add_argument("--out", type=Path, help="folder for figures.json, README.md and the reports")
    options = parser.parse_args(arguments)
    command = command_line("evaluation_everywhere", arguments)
    try:
        configs = configurations(options.domains.split(","), options.work, small=options.small, overrides=options.set)
        if options.estimate:
            expected = {domain: estimate(config, _held_out(config)) for domain, config in configs.items()}
            minutes = sum(row.minutes for row in expected.values())
            print(json.dumps({"minutes": minutes, "seconds": {name: asdict(row) for name, row in expected.items()}}))
            return 0
        quiet()
        record = measure(configs, PlainProgress(sys.stderr), options.out, command)
    except FspoError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(record))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
