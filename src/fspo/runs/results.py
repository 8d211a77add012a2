"""What an evaluation measured, as tables: read from the folder of a run, or of `fspo.evaluate`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fspo.errors import ConfigError, DataError
from fspo.paths import expanded

if TYPE_CHECKING:
    import pandas as pd

    from fspo.evaluation.report.run_data import RunData
    from fspo.evaluation.statistics.intervals import Estimate

__all__ = ["ComparisonTables", "Results", "compare"]


class Results:
    """What an evaluation measured.

    Attributes:
        folder: where it lies.
        benchmark: the name of the benchmark; empty for the run's own data.
    """

    def __init__(self, folder: str | Path, benchmark: str = "") -> None:
        """Read nothing yet.

        Raises:
            DataError: the folder holds no evaluation.
        """
        self.folder, self.benchmark = Path(expanded(folder)), benchmark
        place = self.folder / f"benchmarks/{benchmark}" if benchmark else self.folder
        if not (place / "metrics.json").is_file():
            command = f"fspo eval --benchmark {benchmark}" if benchmark else "fspo eval"
            raise DataError(f"{place} has no metrics.json; run `{command}` or fspo.evaluate first.")

    @classmethod
    def load(cls, folder: str | Path, benchmark: str = "") -> Results:
        """The results in the folder of a run, or of `fspo.evaluate`.

        Raises:
            DataError: the folder holds no evaluation.
        """
        return cls(folder, benchmark)

    def __repr__(self) -> str:
        """The folder and the methods."""
        return (
            f"Results({self.folder}{f', {self.benchmark}' if self.benchmark else ''}: {', '.join(self._read.metrics)})"
        )

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row for each `method` and `measure`: `value`, the 95% interval from `low` to `high`, `users`, `items`.

        Measures are those of `metrics.json`, such as `reward_accuracy`, `label_flip_rate` and `win_rate`.

        Raises:
            StorageError: a file is damaged or of another version.
        """
        return _frame(
            ["method", "measure", *_ESTIMATE],
            ((method, measure, *_values(found)) for method, measure, found in _flat(self._read.metrics)),
        )

    @cached_property
    def comparisons(self) -> pd.DataFrame:
        """One row for each `measure` and other method: the headline method (`first`) minus the other one (`second`).

        Differences are paired by item.

        Raises:
            StorageError: a file is damaged or of another version.
        """
        lead = str(self._read.details.get("compared", ""))
        return _frame(
            ["first", "second", "measure", *_ESTIMATE],
            ((lead, other, measure, *_values(found)) for other, measure, found in _flat(self._read.comparisons)),
        )

    @cached_property
    def samples(self) -> pd.DataFrame:
        """One row for each answer: `item`, `user`, `description`, `prompt`, `method`, `sampling`, `answer`, `outcome`.

        The outcome is the judge's verdict against the base model's answer: win, tie or loss.

        Raises:
            StorageError: the file is damaged or of another version.
        """
        rows = (
            (
                *(sample.item, sample.user, sample.description, sample.prompt),
                *((label, "plain") if label == self._read.baseline else label.rsplit(", ", 1)),
                text,
                sample.outcomes.get(label, ""),
            )
            for sample in self._read.samples
            for label, text in sample.answers.items()
        )
        return _frame(["item", "user", "description", "prompt", "method", "sampling", "answer", "outcome"], rows)

    def report(self, path: str | Path | None = None) -> Path:
        """Write the results as one self-contained HTML page.

        By default it is `report.html` in the folder.

        Raises:
            StorageError: a file is damaged, or the page can't be written.
        """
        from fspo.evaluation.report.page import write_report

        folder = self.folder / "benchmarks" / self.benchmark if self.benchmark else self.folder
        return write_report(
            self.folder, folder / "report.html" if path is None else Path(expanded(path)), benchmark=self.benchmark
        )

    @cached_property
    def _read(self) -> RunData:
        from fspo.evaluation.report.run_data import RunData

        return RunData.of(self.folder, self.benchmark)


@dataclass(frozen=True)
class ComparisonTables:
    """Methods of several runs on the same items.

    Attributes:
        measure: the compared measure.
        methods: one row for each method of a run, the best first: `method`, `variant` and the estimate.
        pairs: one row for every two methods: the estimate of `first` minus `second`, `p`, `adjusted` (p corrected for
            all pairs by Holm's method) and `detectable`, the true difference that these items would show with a chance
            of 80%: NaN where that can't be told (the printed table has a dash), and infinite where no two shares differ
            by so much ("over 100").
        notes: what the comparison leaves out, in sentences.
    """

    measure: str
    methods: pd.DataFrame
    pairs: pd.DataFrame
    notes: tuple[str, ...]


def compare(
    runs: Iterable[str | Path | Results],
    *,
    measure: str = "",
    methods: Iterable[str] = (),
    benchmark: str = "",
) -> ComparisonTables:
    """Compare every two methods of evaluated runs on the same items, as `fspo eval compare` does.

    Args:
        runs: folders of runs or of `fspo.evaluate`, or their results.
        measure: `reward_accuracy` or `win_rate` (each method with its headline variant), or another measure; by default
            the first of these that there is.
        methods: compare only these.
        benchmark: compare the results on this benchmark.

    Raises:
        ConfigError: none of the runs has the measure.
        DataError: a run is named twice or has no evaluation, the runs' items differ, or there are fewer than two
            methods.
        StorageError: a file of a run is damaged or of another version.
    """
    from fspo.evaluation.run_comparison.compare_runs import compare_runs

    folders = [run.folder if isinstance(run, Results) else Path(expanded(run)) for run in runs]
    found = compare_runs(folders, measure=measure, methods=list(methods), benchmark=benchmark)
    rows = ((row.name, row.variant.partition("/")[2], *_values(row.estimate)) for row in found.methods)
    pairs = (
        (
            pair.first,
            pair.second,
            *_values(pair.comparison.difference),
            pair.comparison.p,
            pair.comparison.adjusted,
            _detectable(pair.comparison.detectable, percent=found.percent),
        )
        for pair in found.pairs
    )
    notes = [
        *([f"The same item by item in several runs, shown once: {', '.join(found.same)}."] if found.same else []),
        *([f"Without this measure: {', '.join(found.left_out)}."] if found.left_out else []),
    ]
    return ComparisonTables(
        found.measure,
        _frame(["method", "variant", *_ESTIMATE], rows),
        _frame(["first", "second", *_ESTIMATE, "p", "adjusted", "detectable"], pairs),
        tuple(notes),
    )


_ESTIMATE = ("value", "low", "high", "users", "items")


def _values(found: Estimate) -> tuple[Any, ...]:
    return tuple(getattr(found, name) for name in _ESTIMATE)


def _detectable(difference: float | None, percent: bool) -> float | None:
    """Infinite where no difference can be as large: two shares differ by 1 at most."""
    return math.inf if percent and difference is not None and difference > 1 else difference


def _flat(table: Mapping[str, Mapping[str, Estimate]]) -> Iterable[tuple[str, str, Estimate]]:
    return ((outer, inner, found) for outer, row in table.items() for inner, found in row.items())


def _frame(columns: list[str], rows: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    try:
        import pandas as pd
    except ImportError as error:
        raise ConfigError(
            "Results are tables of pandas, which is not installed; run `pip install pandas` in this environment."
        ) from error
    return pd.DataFrame(list(rows), columns=columns)
