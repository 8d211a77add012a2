"""What the methods of a run took: seconds of training, numbers that were learned, bytes that are stored of a user."""

from __future__ import annotations

from fspo.errors import FspoError
from fspo.evaluation.report import training_section
from fspo.files import read_json
from fspo.modeling.size import count_saved
from fspo.runs.config import methods_of, readers_of
from fspo.runs.folder import RunFolder

__all__ = ["training_costs"]


def training_costs(folder: RunFolder) -> dict[str, dict[str, float]]:
    """Method -> `train_seconds`, `parameters`, and of readers `user_seconds` and `bytes_per_user` too.

    Seconds are those of the machine, and of what else it did. A step that was repeated after an interruption counts
    once. They are without the embeddings of readers, which all readers share, and without the training of the method
    that a policy starts from.
    """
    found: dict[str, dict[str, float]] = {}
    trained = training_section.training_costs(folder.path)
    for row in methods_of(folder.config):
        if row.trains:
            seconds = trained[row.name].seconds if row.name in trained else None
            known = {} if seconds is None else {"train_seconds": seconds}
            found[row.name] = {**known, "parameters": float(count_saved(folder.method(row.name)))}
        else:
            found[row.name] = {"train_seconds": 0.0, "parameters": 0.0}
    for reader in readers_of(folder.config):
        try:
            record = read_json(folder.method(reader.name) / "reader.json")
        except FspoError:
            continue
        found[reader.name] = {
            "train_seconds": float(record["fit_seconds"]),
            "parameters": float(record["parameters"]),
            "user_seconds": float(record["user_seconds"]),
            "bytes_per_user": float(record["bytes_per_user"]),
        }
    return found
