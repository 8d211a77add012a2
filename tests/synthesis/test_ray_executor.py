"""A local cluster of two workers makes the same dataset as this process; a killed worker loses nothing.

Ray decides which worker makes which shard; on a busy machine one of them may make all. So no test counts processes.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fspo.errors import StorageError
from fspo.llm.budget import Budget, BudgetReached
from fspo.llm.cache import RequestCache, Spent, key_of
from fspo.llm.cache_shards import absorb_shards
from fspo.llm.endpoint import Endpoint, EndpointConfig
from fspo.llm.pool import ModelSource, Opener
from fspo.llm.types import Completion, CompletionRequest, LanguageModel
from fspo.progress import Silent
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.ray_executor import RayExecutor
from fspo.synthesis.synthesize import Writers, synthesize
from tests.fake_endpoint import fake_endpoint, stats
from tests.synthesis.helpers import ScriptedModel, Stopped, config_of
from tests.synthesis.test_make import digests

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CONFIG = {"domain": "roleplay", "questions": 30, "users": 12, "shard": 3, "pairs": 20, "shared_pairs": 6}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.update(RAY_worker_niceness="0")  # by default a worker waits for all other processes of the machine
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


class Noted:
    """The scripted model with a cache, which notes whatever is asked of it in a file."""

    name = "scripted"

    def __init__(self, cache: RequestCache, notes: Path, kill: bool = False, stop_at: int | None = None) -> None:
        self.cache, self.notes, self.kill = cache, notes, kill
        self.model = ScriptedModel()
        self.stop_at, self.count = stop_at, 0

    def complete(self, requests: Sequence[CompletionRequest]) -> list[Completion]:
        return [self._complete(request) for request in requests]

    def _complete(self, request: CompletionRequest) -> Completion:
        key = key_of({"model": "scripted"}, request)
        known = self.cache.get(key)
        if known is not None:
            return known
        if self.count == self.stop_at:
            raise Stopped
        with self.notes.open("a") as notes:
            notes.write(f"{os.getpid()} {key}\n")
        [completion] = self.model.complete([request])
        self.cache.put(key, completion, prompt_tokens=7)
        self.count += 1
        if self.count == 30 and self.kill:
            self._die_once()
        return completion

    def _die_once(self) -> None:
        with suppress(FileExistsError):
            self.notes.with_suffix(".killed").touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class NotedSource:
    """Opens `Noted` in one of so many workers."""

    notes: Path
    kill: bool = False
    workers: int = 2

    def divided(self, workers: int, spent: Spent) -> NotedSource:
        assert workers == self.workers
        assert spent.requests > 0
        return self

    def opener(self) -> Opener:
        return self._opened

    def _opened(self, cache: RequestCache, share: float, say: Callable[[str], None]) -> LanguageModel:
        say("It takes no seed from now on.")
        return Noted(cache, self.notes, self.kill)


class Run:
    """A run's folder with a file of answers."""

    def __init__(self, folder: Path, config: SynthesisConfig) -> None:
        folder.mkdir(exist_ok=True)
        self.config, self.out, self.answers, self.notes = (
            config,
            folder / "data",
            folder / "answers.sqlite",
            folder / "n",
        )
        self.said: list[str] = []

    def make(self, kill: bool = False) -> None:
        executor = RayExecutor(NotedSource(self.notes, kill), self.answers, say=self.said.append)
        self._make(Noted(RequestCache(self.answers), self.notes), executor)

    def make_here(self, stop_at: int | None = None) -> None:
        absorb_shards(self.answers)
        self._make(Noted(RequestCache(self.answers), self.notes, stop_at=stop_at), None)

    def _make(self, model: LanguageModel, executor: RayExecutor | None) -> None:
        synthesize(self.config, Writers(model, model), self.out, Silent(), executor)

    @property
    def asked(self) -> Counter[str]:
        return Counter(line.split()[1] for line in self.notes.read_text().splitlines())

    @property
    def elsewhere(self) -> Counter[str]:
        """Questions by each other process."""
        processes = Counter(line.split()[0] for line in self.notes.read_text().splitlines())
        del processes[str(os.getpid())]
        return processes


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path, config_of(**CONFIG))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """What this process makes by itself."""
    alone = Run(tmp_path_factory.mktemp("alone"), config_of(**CONFIG))
    alone.make_here()
    return alone


def test_two_workers_finish_what_this_process_began_although_one_is_killed(run: Run, alone: Run) -> None:
    """The dataset is the same, and nobody asks for an answer that another process has received."""
    left = 150
    with pytest.raises(Stopped):
        run.make_here(stop_at=len(alone.asked) - left)  # in the middle of a shard
    run.make(kill=True)
    assert run.notes.with_suffix(".killed").exists()
    assert digests(run.out) == digests(alone.out)
    assert run.asked == alone.asked
    assert max(run.asked.values()) == 1
    assert len(run.elsewhere) > 1  # another worker continued
    assert sum(run.elsewhere.values()) == left
    assert run.said == ["It takes no seed from now on."]  # though each shard's worker says so
    # One file of answers is left, and it holds every answer.
    assert not run.answers.with_name("answers-parts").exists()
    assert RequestCache(run.answers).spent().requests == len(run.asked)


def test_measured_labels_need_no_model(tmp_path: Path) -> None:
    settings = {**CONFIG, "domain": "elix-easy", "users": None, "judge": "measured", "margin": 0.2}
    settings |= {"questions": 12, "pairs": 8, "shard": 2}
    here, there = Run(tmp_path / "here", config_of(**settings)), Run(tmp_path / "there", config_of(**settings))
    here.make_here()
    there.make()
    assert digests(there.out) == digests(here.out)


def make_over_http(folder: Path, address: str, budget: Budget, *, on_ray: bool) -> None:
    answers = folder / "answers.sqlite"
    absorb_shards(answers)
    endpoint = EndpointConfig(base_url=address, model="scripted", requests_in_flight=8, budget=budget)
    model = Endpoint(endpoint, RequestCache(answers))
    executor = RayExecutor(ModelSource("", None, endpoint), answers) if on_ray else None
    synthesize(config_of(**CONFIG), Writers(model, model), folder / "data", Silent(), executor)


def test_a_budget_is_divided_and_never_exceeded_and_this_process_can_continue(tmp_path: Path) -> None:
    """The error of a worker arrives here with its kind and its text; finished answers stay."""
    with fake_endpoint() as address:
        make_over_http(tmp_path / "here", address, Budget(), on_ray=False)
        total = stats(address)["answered"]
    budget = 30 * (total - 150)  # tokens, at 30 an answer; about 300 of them are the workers'
    there = tmp_path / "there"
    with fake_endpoint(port=int(urlsplit(address).port or 0)) as address:
        with pytest.raises(BudgetReached, match=r"A share of the budget is used up .*endpoint\.budget\.tokens"):
            make_over_http(there, address, Budget(tokens=budget), on_ray=True)
        assert 30 * stats(address)["answered"] <= budget
        assert not (there / "data" / "splits.json").exists()
        make_over_http(there, address, Budget(), on_ray=False)
        seen = stats(address)
    assert seen["answered"] - seen["again"] == total
    assert seen["again"] <= 2 * 4  # at most what was under way at the two workers when they were stopped
    assert digests(there / "data") == digests(tmp_path / "here" / "data")


def test_a_folder_that_a_node_does_not_see_is_named(run: Run) -> None:
    class Elsewhere(RayExecutor):
        def label(self, here: Any, shards: Any, task: Any) -> Any:
            (run.out / "responses.jsonl").rename(run.out / "away")
            return super().label(here, shards, task)

    model = Noted(RequestCache(run.answers), run.notes)
    executor = Elsewhere(NotedSource(run.notes, workers=1), run.answers, workers=1)
    with pytest.raises(StorageError, match=r"responses\.jsonl is not to be seen from here"):
        synthesize(run.config, Writers(model, model), run.out, Silent(), executor)
