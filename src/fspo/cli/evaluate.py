"""`fspo eval`: measure the methods of a run on users and questions they never saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fspo.cli.options import ConfigFile, DryRun, OnExisting, OutputFolder, Overrides, configured, console
from fspo.cli.output import print_plan, print_table
from fspo.cli.progress import shown
from fspo.errors import ConfigError
from fspo.evaluation.benchmarks.comparison import comparison_table
from fspo.runs import benchmarks, pipeline
from fspo.runs.existing import Existing
from fspo.runs.folder import DATA, EVALUATION, RunFolder
from fspo.runs.preflight import opened

__all__ = ["evaluate"]


def evaluate(
    file: Annotated[Path | None, typer.Argument(help="YAML file of the run, or the folder of a run.")] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    output: OutputFolder = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            "--benchmark",
            metavar="NAME",
            help=(
                "Measure on a benchmark and print published results beside yours: reviews, elix-easy, elix-hard, "
                "roleplay, advice, elix-written, reviews-written, reward-bench-arena, reward-bench-prism, prism or "
                "personal-llm."
            ),
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="SOURCE",
            help=(
                "The benchmark's data: a file, a folder of files, or hub:owner/name. [default: the hub; for fspo's "
                "domains generated data]"
            ),
        ),
    ] = None,
    on_existing: OnExisting = Existing.RESUME,
    dry_run: DryRun = False,
) -> None:
    """Measure reward accuracy, sensitivity to the labels, and win rates, and write metrics.json.

    Examples:
      fspo eval --config configs/demo.yaml

      fspo eval runs/demo --set evaluation.answers=8 --on-existing overwrite

      fspo eval runs/demo --benchmark reward-bench-prism --data prism.parquet

      fspo eval runs/demo --benchmark elix-easy
    """
    if data is not None and benchmark is None:
        raise ConfigError("--data names the rows of a benchmark; name the benchmark with --benchmark.")
    named = [] if data is None else [f"benchmarks.{benchmark}.data={json.dumps(data)}"]
    settings = configured(file, config, [*(overrides or []), *named], output, runs_code=True)
    out = console()
    folder = RunFolder(settings)
    if benchmark is not None:
        if dry_run:
            out.print("\n".join(benchmarks.benchmark_plan(folder, benchmark, on_existing)), markup=False)
            return
        with benchmarks.opened(folder, benchmark, on_existing), shown(out) as progress:
            comparison = benchmarks.evaluate_benchmark(folder, benchmark, progress)
        out.print()
        out.print(comparison_table(comparison))
        return
    parts = [*pipeline.data_to_take_over(folder), EVALUATION]
    if dry_run:
        print_plan(folder, parts, on_existing, out)
        return
    with opened(folder, parts, on_existing), shown(out) as progress:
        if DATA in parts:
            pipeline.synth(folder, progress)
        pipeline.evaluate(folder, progress)
    print_table(folder, out)
