"""The readers of a run: fitted in `methods/NAME`, on embeddings that they share, and measured like other methods."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fspo.errors import DataError
from fspo.methods.reader_table import ReaderRow
from fspo.preferences.dataset import PreferenceDataset
from fspo.progress import Progress
from fspo.runs import processes
from fspo.runs.config import readers_of
from fspo.runs.folder import RunFolder

if TYPE_CHECKING:
    from fspo.evaluation.scoring.reward_models.protocol import RewardModel
    from fspo.modeling.embeddings import Embeddings

__all__ = ["check_fitted", "fit_readers", "fitted_readers"]


def fit_readers(
    folder: RunFolder,
    train: PreferenceDataset,
    names: Collection[str],
    progress: Progress,
    record: Callable[[PreferenceDataset, Path], None] | None = None,
) -> list[Path]:
    """Fit the named readers of the run; those that are there already stay. Returns their folders.

    Of several processes the first one fits, and the others wait for it. `record` is called before each fit, with what
    it is fitted on and the reader's folder.

    Raises:
        ConfigError: a reader does not take the evaluation's number of shots, or its own code can't be imported.
        DataError: training users have too few preferences for a reader's episodes.
    """
    rows = [row for row in readers_of(folder.config) if row.name in names]
    if rows and processes.is_first():
        with processes.leading():
            _fit(folder, train, rows, progress, record)
    elif rows:
        processes.follow()
    return [folder.method(row.name) for row in rows]


def _fit(
    folder: RunFolder,
    train: PreferenceDataset,
    rows: Sequence[ReaderRow],
    progress: Progress,
    record: Callable[[PreferenceDataset, Path], None] | None,
) -> None:
    from fspo.methods.reader_fitting import fit_reader

    for row in rows:
        row.check_shots(folder.config.evaluation.shots)
    found = _Shared(folder, progress)
    with progress.task("Fitting readers", len(rows)) as task:
        for row in rows:
            if record is not None:
                record(train, folder.method(row.name))
            try:
                fit_reader(row, train, found.embeddings(row), folder.method(row.name))
            except DataError as error:
                raise DataError(f"In the training part, for the reader '{row.name}': {error}") from error
            task.advance(1, row.name)


def fitted_readers(folder: RunFolder, dataset: PreferenceDataset, progress: Progress) -> dict[str, RewardModel]:
    """Method -> its reader as a reward model, for the responses of `dataset`. None is loaded yet.

    Raises:
        ConfigError: a reader was fitted on other embeddings.
        DataError: a reader is not fitted yet.
    """
    rows = readers_of(folder.config)
    if not rows:
        return {}
    from fspo.evaluation.scoring.reward_models.reader import ReaderRewardModel
    from fspo.methods.reader_fitting import load_reader, responses_of

    shared, responses = _Shared(folder, progress), responses_of(dataset)
    found: dict[str, RewardModel] = {}
    for row in rows:
        reader = load_reader(row, folder.method(row.name), shared.embeddings(row))
        found[row.name] = ReaderRewardModel(row.name, reader, responses)
    return found


def check_fitted(folder: RunFolder, row: ReaderRow) -> None:
    """Check that a reader is fitted.

    Raises:
        DataError: it is not.
    """
    path = folder.method(row.name)
    if not (path / "reader.json").is_file():
        raise DataError(f"{path} holds no fitted reader yet; run `fspo train` or `fspo run` first.")


class _Shared:
    """One `Embeddings` for all readers with the same embedder."""

    def __init__(self, folder: RunFolder, progress: Progress) -> None:
        self._folder, self._progress = folder, progress
        self._made: dict[tuple[str, str, int | None], Embeddings] = {}

    def embeddings(self, row: ReaderRow) -> Embeddings:
        """Those that a reader reads."""
        from fspo.modeling.embeddings import Embeddings, embedder_of

        settings = row.settings
        key = (settings.embedding, settings.pooling, settings.layer)
        if key not in self._made:
            embedder = embedder_of(
                settings.embedding, self._folder.config.model, pooling=settings.pooling, layer=settings.layer
            )
            self._made[key] = Embeddings(embedder, self._folder.embeddings, self._progress)
        return self._made[key]
