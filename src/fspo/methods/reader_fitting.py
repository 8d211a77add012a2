"""Readers on disk: fitted once on the training part, saved beside a record of what they were fitted on, and loaded."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from fspo.errors import ConfigError, DataError, StorageError
from fspo.files import write_text, writing
from fspo.identity import digest, file_digest
from fspo.methods.features import FeatureSpace
from fspo.methods.reader import Pairs, Reader, TrainingUsers, index_users
from fspo.methods.reader_table import ReaderRow
from fspo.modeling.embeddings import Embeddings
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference
from fspo.records import Record, read_record, write_record

__all__ = ["READER_FILE", "FittedReader", "ReaderRecord", "fit_reader", "load_reader", "responses_of"]

READER_FILE, _WEIGHTS = "reader.json", "reader.safetensors"
_FORMAT = 1
_TIMED = 16
"""Adaptations that the time of one is the median of."""


class ReaderRecord(Record):
    """What `reader.json` says."""

    format: int
    reader: str
    """One of the readers of fspo, or `module:Class`."""
    source: str
    """The paper."""
    code: str = ""
    """Identifies the code of a reader that is no part of fspo."""
    made_from: str
    """Digest of settings, data, embedder and that code."""
    embedder: str
    """Identity of the embedder."""
    embedder_name: str
    embedding_width: int
    width: int
    """Features of a response."""
    users: int
    """Training users."""
    preferences: int
    """Of these users."""
    fit_seconds: float
    """Without the embeddings."""
    user_seconds: float
    """For reading one user's shots and scoring two responses, embeddings apart."""
    parameters: int
    bytes_per_user: int
    """What is stored of a user besides the embeddings of responses."""
    diagnostics: dict[str, float]


@dataclass
class FittedReader:
    """A fitted reader, which scores responses for a user's shots."""

    row: ReaderRow
    reader: Reader
    space: FeatureSpace
    record: ReaderRecord
    embeddings: Embeddings
    weights: str = ""
    """Digest of the file of its weights."""

    @property
    def identity(self) -> str:
        """A text that differs for readers that give different scores."""
        return f"reader {digest([self.record.made_from, self.weights], 64)}"

    @torch.no_grad()
    def scores(self, shots: Sequence[Preference], responses: Sequence[tuple[str, str]]) -> list[float]:
        """The rewards of responses (prompt, text) for the user who gave the shots.

        Raises:
            DataError: these are more shots than the reader takes, or a response can't be embedded.
        """
        chosen, rejected = ([(shot.prompt, getattr(shot, side)) for shot in shots] for side in ("chosen", "rejected"))
        features = self.space(self.embeddings.of([*chosen, *rejected, *responses]))
        liked, disliked, candidates = features.split([len(chosen), len(rejected), len(responses)])
        return [float(value) for value in self.reader.scores(Pairs(liked, disliked), candidates)]


def fit_reader(row: ReaderRow, train: PreferenceDataset, embeddings: Embeddings, out: Path) -> FittedReader:
    """Fit a reader on the training part and save it in `out`; one that is there already, of the same, is loaded.

    Raises:
        DataError: users have too few preferences for its episodes, or a response can't be embedded.
        StorageError: a file can't be read or written.
    """
    code = row.code
    parts = [row.identity(), train.fingerprint, embeddings.embedder.identity, _FORMAT]
    made_from = digest([*parts, code] if code else parts, 64)
    found = read_record(out / READER_FILE, ReaderRecord, _AGAIN)
    if found is not None and found.made_from == made_from:
        return load_reader(row, out, embeddings)
    indexed, responses, questions = index_users(train)
    vectors = embeddings.of(responses)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(row.settings.seed)
        space = FeatureSpace.fit(vectors, questions, row.settings.components)
        users = TrainingUsers(space(vectors), indexed)
        reader = row.kind(row.settings, users.features.shape[1])
        started = time.monotonic()
        diagnostics = dict(reader.fit(users))
    seconds = time.monotonic() - started
    reader.eval()
    user_seconds, user_bytes = _cost_of_user(row, reader, users)
    record = ReaderRecord(
        format=_FORMAT,
        reader=row.place,
        source=row.kind.source,
        code=code,
        made_from=made_from,
        embedder=embeddings.embedder.identity,
        embedder_name=embeddings.embedder.name,
        embedding_width=vectors.shape[1],
        width=users.features.shape[1],
        users=len(users),
        preferences=len(users.pooled),
        fit_seconds=seconds,
        user_seconds=user_seconds,
        parameters=reader.parameters_count + sum(value.numel() for value in space.state_dict().values()),
        bytes_per_user=user_bytes,
        diagnostics=diagnostics,
    )
    (out / READER_FILE).unlink(missing_ok=True)  # it would speak of other weights
    _save(out, reader, space)
    write_text(out / "README.md", _card(row, record))
    write_record(out / READER_FILE, record)  # last: with it the reader is whole
    return FittedReader(row, reader, space, record, embeddings, file_digest(out / _WEIGHTS))


def load_reader(row: ReaderRow, folder: Path, embeddings: Embeddings) -> FittedReader:
    """The reader that `fit_reader` saved.

    Raises:
        DataError: there is none.
        ConfigError: it was fitted on other embeddings, or by other code.
        StorageError: a file is damaged.
    """
    record = read_record(folder / READER_FILE, ReaderRecord, _AGAIN)
    if record is None:
        raise DataError(f"{folder} holds no fitted reader yet; run `fspo train` or `fspo run` first.")
    if record.embedder != embeddings.embedder.identity:
        raise ConfigError(
            f"The reader in {folder} was fitted on embeddings of {record.embedder_name}, and these are others, of "
            f"{embeddings.embedder.name}; fit it again with `fspo train --on-existing overwrite`, or set model, "
            "embedding, pooling and layer back."
        )
    if record.code != row.code:
        raise ConfigError(
            f"The code of the reader '{row.place}' has changed since it was fitted in {folder}; fit it again with "
            "`fspo train`."
        )
    reader, space = row.kind(row.settings, record.width), FeatureSpace(record.embedding_width, record.width)
    _load(folder / _WEIGHTS, reader, space)
    return FittedReader(row, reader.eval(), space, record, embeddings, file_digest(folder / _WEIGHTS))


_AGAIN = "delete it and run `fspo train` again."


def responses_of(dataset: PreferenceDataset) -> list[tuple[str, str]]:
    """Every response (prompt, text) of a dataset, once."""
    return list(dict.fromkeys((row.prompt, text) for row in dataset for text in (row.chosen, row.rejected)))


def _save(out: Path, reader: Reader, space: FeatureSpace) -> None:
    from safetensors.torch import save_file

    tensors = {f"{part}.{name}": value for part, name, value in _tensors(reader, space)}
    with writing(out / _WEIGHTS) as temporary:
        save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, temporary)


def _load(path: Path, reader: Reader, space: FeatureSpace) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{path} holds no reader's weights; {_AGAIN}") from error
    for part, module in (("reader", reader), ("space", space)):
        own = {name.removeprefix(f"{part}."): value for name, value in found.items() if name.startswith(f"{part}.")}
        for name, buffer in module.named_buffers():
            if name in own and own[name].shape != buffer.shape:  # such as one row a training user
                module.get_submodule(name.rpartition(".")[0]).register_buffer(name.rpartition(".")[2], own[name])
        try:
            module.load_state_dict(own)
        except RuntimeError as error:
            raise StorageError(f"{path} holds the weights of another reader; {_AGAIN}") from error


def _tensors(reader: Reader, space: FeatureSpace) -> list[tuple[str, str, Tensor]]:
    parts: Mapping[str, torch.nn.Module] = {"reader": reader, "space": space}
    return [(part, name, value) for part, module in parts.items() for name, value in module.state_dict().items()]


@torch.no_grad()
def _cost_of_user(row: ReaderRow, reader: Reader, users: TrainingUsers) -> tuple[float, int]:
    """Median seconds of reading shots and scoring two responses, and the bytes of what is remembered of a user."""
    shots = users.pairs(0).first(row.most_shots or 8)
    seconds = []
    for _ in range(_TIMED):
        started = time.monotonic()
        reader.scores(shots, users.features[:2])
        seconds.append(time.monotonic() - started)
    state = reader.adapt(shots)
    return median(seconds), state.numel() * state.element_size()


def _card(row: ReaderRow, record: ReaderRecord) -> str:
    source = f" Source: {record.source}." if record.source else ""
    figures = "".join(f"- {name.replace('_', ' ')}: {value:.4g}\n" for name, value in record.diagnostics.items())
    return (
        f"# {row.kind.title}\n\n{row.kind.description}{source}\n\n"
        f"A reader of fspo: it scores responses from a user's shots, on frozen embeddings of {record.embedder_name}, "
        "and writes no text.\n\n"
        f"- Fitted on {record.preferences:,} preferences of {record.users:,} users in {record.fit_seconds:.1f} s\n"
        f"- {record.parameters:,} numbers, and {record.bytes_per_user:,} bytes a user\n{figures}"
    )
