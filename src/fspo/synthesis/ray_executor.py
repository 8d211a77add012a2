"""Labels shards on the nodes of a Ray cluster, or in several processes of this machine: Ray Data maps over them.

A worker is an actor. It reads the questions and responses from the dataset's folder, opens the model by its settings
(a key comes from its own environment), and keeps the answers of a shard in a part of the run's file of answers
(`fspo.llm.cache_shards`). Where a worker dies, Ray starts another and gives it the shard again, which goes on from
that part; only a shard whose tally is there counts as finished. So all need to share the file system of the run's
folder.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from fspo.errors import ConfigError, DataError, FspoError, ModelError, StorageError
from fspo.llm.budget import BudgetReached
from fspo.llm.cache import RequestCache
from fspo.llm.cache_shards import CacheShard, ReadOnlyCache, absorb_shards, shard_path
from fspo.llm.pool import Opener, Source
from fspo.progress import Task
from fspo.synthesis.shards import Labeller, Shard, Work, open_judging, open_labeller

if TYPE_CHECKING:
    import pyarrow

__all__ = ["RayExecutor"]

_TRIES = 5
"""Workers that one shard may cost before it is taken for the cause of their death."""
_SHARD: TypeAdapter[Shard] = TypeAdapter(Shard)
"""As JSON: what goes between machines is data and no code."""
_ERRORS: dict[str, type[FspoError]] = {
    kind.__name__: kind for kind in (BudgetReached, ConfigError, DataError, ModelError, StorageError, FspoError)
}


class RayExecutor:
    """Labels shards by Ray's workers."""

    def __init__(
        self,
        source: Source,
        answers: Path,
        *,
        address: str | None = None,
        workers: int | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Nothing is started yet.

        `source` opens the model that judges; `answers` is the run's file, which takes over what the workers were
        answered. The cluster is at `address`, or else at RAY_ADDRESS (`auto`: the one on this machine), or else of this
        machine alone, for as long as it is needed. By default it has as many `workers` as processors. `say` shows each
        line of a worker once.
        """
        self._source, self._answers = source, answers.resolve()
        self._address, self._workers = address or os.environ.get("RAY_ADDRESS"), workers
        self._say, self._said = say, set[str]()

    def label(self, here: Labeller, shards: Sequence[Shard], task: Task) -> None:
        """Label the shards, in any order.

        Raises:
            BudgetReached: a shard's share of the budget is used up.
            ConfigError: Ray is missing, or there is no cluster at the address.
            ModelError: the judge failed; finished shards stay.
            StorageError: a node can't read or write the run's folder.
        """
        if not shards:
            return
        absorb_shards(self._answers)
        with closing(RequestCache(self._answers)) as cache:
            cache.settle()
            spent = cache.spent()
        numbers = {shard.number: shard for shard in shards}
        with _cluster(self._address, self._workers) as processors:
            workers = min(self._workers or processors, len(shards))
            work = Work(here.work.config, here.work.domain, here.work.out.resolve())
            worker = (work, self._source.divided(workers, spent), self._answers)
            for row in _mapped(shards, worker, workers, min(1.0, processors / workers)):
                self._repeat(json.loads(row["lines"]))
                _raise(row, len(shards))
                task.advance(len(numbers[row["number"]].people))
        absorb_shards(self._answers)

    def _repeat(self, lines: Sequence[str]) -> None:
        """Show what a worker has said, unless another worker has said the same."""
        for line in lines:
            if self._say is not None and line not in self._said:
                self._say(line)
            self._said.add(line)


def _mapped(shards: Sequence[Shard], worker: tuple[Any, ...], workers: int, share: float) -> Iterator[dict[str, Any]]:
    """What came of each shard, as it comes; `share` of a processor for each worker."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # a shard may take hours
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    users = sum(len(shard.people) for shard in shards)
    items = [{"shard": _SHARD.dump_json(shard), "share": len(shard.people) / users} for shard in shards]
    results = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _Worker,
        fn_constructor_args=worker,
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=share,
    )
    yield from results.iter_rows()


class _Worker:
    """One process of the cluster. What it needs it opens with its first shard, so that errors come back as a result."""

    def __init__(self, work: Work, source: Source, answers: Path) -> None:
        self._work, self._source, self._answers = work, source, answers
        self._opened: tuple[Labeller, Opener | None, RequestCache] | None = None

    def __call__(self, table: pyarrow.Table) -> dict[str, list[Any]]:
        shard, share = _SHARD.validate_json(table["shard"][0].as_py()), table["share"][0].as_py()
        error, lines = None, list[str]()
        try:
            if not self._work.done(shard):
                self._label(shard, share, lines.append)
        except FspoError as problem:
            error = problem
        kind = "" if error is None else next(c.__name__ for c in type(error).__mro__ if c.__name__ in _ERRORS)
        return {
            "number": [shard.number],
            "error": [kind],
            "message": [str(error or "")],
            "lines": [json.dumps(lines)],
        }

    def _label(self, shard: Shard, share: float, say: Callable[[str], None]) -> None:
        labeller, opener, before = self._opened = self._opened or self._open()
        part = shard_path(self._answers, shard.number)
        _count_try(part)
        if opener is None:
            labeller.label(shard)
            return
        with closing(CacheShard(part, before)) as cache:
            labeller.judged_by(open_judging(self._work, opener(cache, share, say))).label(shard)

    def _open(self) -> tuple[Labeller, Opener | None, RequestCache]:
        opener = self._source.opener() if self._work.config.judge == "llm" else None
        return open_labeller(self._work), opener, ReadOnlyCache(self._answers)


def _count_try(part: Path) -> None:
    """Note that a worker begins a shard.

    Raises:
        ModelError: too many have begun it and not come to its end.
    """
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.with_suffix(".tries").open("ab") as tries:
        tries.write(b".")
        count = tries.tell()
    if count > _TRIES:
        raise ModelError(
            f"{_TRIES} workers died over shard {part.stem}, perhaps for want of memory; set a smaller "
            "synthesis.batch or fewer workers, and run the same command again: what was finished is kept."
        )


def _raise(row: dict[str, Any], shards: int) -> None:
    """Raise what a worker has met, if anything."""
    kind, message = _ERRORS.get(row["error"]), row["message"]
    if kind is BudgetReached:
        raise BudgetReached(
            f"A share of the budget is used up (what was left of it was divided among {shards} shards by their users). "
            f"{message} Or run it again unchanged: fspo then divides what is left."
        )
    if kind is not None:
        raise kind(message)


@contextmanager
def _cluster(address: str | None, workers: int | None) -> Iterator[int]:
    """Join a cluster, or start one; yields its processors. One that this process has joined before is left as it is."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its notices would stand between lines of progress
    try:
        import ray
    except ImportError as error:
        raise ConfigError("The executor ray needs the package ray; install fspo[ray].") from error
    joined = ray.is_initialized()
    if not joined:
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if address is None:
                ray.init(address="local", num_cpus=workers, include_dashboard=False, **quiet)
            else:
                _knock(address)
                ray.init(address=address, **quiet)
        except Exception as error:  # Ray has no type of its own for a cluster that does not come up
            what = " ".join(str(error).split())
            if address is None:
                raise ModelError(
                    f"No Ray cluster came up on this machine ({what}); it may be too busy: run the same command again, "
                    "or with the executor `local`."
                ) from error
            raise ConfigError(
                f"There is no Ray cluster at {address} ({what}); start one with `ray start --head`, or leave the "
                "address out for one on this machine."
            ) from error
    try:
        resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield max(1, int(resources.get("CPU", 1)))
    finally:
        if not joined:
            ray.shutdown()


def _knock(address: str) -> None:
    """Try a connection, since Ray itself waits for minutes where nobody answers.

    Raises:
        OSError: nobody answers.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
