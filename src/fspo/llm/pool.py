"""Language models opened by their settings: the endpoints of a run, and one model in a process on any machine."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from fspo.errors import StorageError
from fspo.files import read_json, write_json
from fspo.llm.batching import CachedModel
from fspo.llm.budget import Account, Budget
from fspo.llm.cache import RequestCache, Spent
from fspo.llm.endpoint import Endpoint
from fspo.llm.endpoint_config import EndpointConfig
from fspo.llm.types import LanguageModel

__all__ = ["ANSWERS", "SERVERS", "EndpointPool", "ModelSource", "Opener", "Source", "Spending", "answers_file"]

ANSWERS = "answers.sqlite"
"""The file of answers of a run's own endpoint. It outlives the data, so that no answer is paid for twice."""
SERVERS = "endpoints.json"
"""Which server each file of answers belongs to."""


def answers_file(model: str, number: int = 1) -> str:
    """The file of answers for one model; `number` tells servers apart that give their models the same name."""
    plain = re.sub(r"[^A-Za-z0-9]+", "-", model).strip("-").lower()
    return f"answers-{plain}{'' if number == 1 else f'.{number}'}.sqlite"


class _Server(NamedTuple):
    """A model at an address."""

    model: str
    base_url: str

    @classmethod
    def of(cls, config: EndpointConfig) -> _Server:
        return cls(*config.server)


@dataclass(frozen=True)
class Spending:
    """What one server has given, in all calls of a run.

    `file` is the name of its file of answers, and `title` the model alone, for files that are shared. `reused` counts
    the requests of this process that were answered from the file, and `replies` is what was odd about replies -> how
    many.
    """

    file: str
    name: str
    title: str
    spent: Spent
    dollars: float
    reused: int
    replies: dict[str, int]


class EndpointPool:
    """The endpoints of a run: one file of answers and one account for each server.

    So a budget covers everything that is asked there, and no request is sent twice.
    """

    def __init__(
        self,
        folder: Path,
        endpoints: Iterable[EndpointConfig] = (),
        *,
        own: EndpointConfig | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Nothing is opened.

        Args:
            folder: holds the files of answers, and `endpoints.json`, which notes the server that each belongs to.
            endpoints: all that may be opened, in the order of the settings.
            own: the run's own endpoint, the first in the order.
            say: shows a line; see `Endpoint`.
        """
        self._folder, self._own, self._say = folder, own and _Server.of(own), say
        self._servers = [_Server.of(one) for one in ([own] if own else []) + list(endpoints)]
        self._caches: dict[str, RequestCache] = {}
        self._accounts: dict[str, Account] = {}
        self._opened: dict[str, tuple[str, Endpoint]] = {}

    def open(self, config: EndpointConfig) -> Endpoint:
        """The endpoint with these settings, ready to be asked.

        Raises:
            StorageError: its file of answers can't be used.
        """
        key, file = config.model_dump_json(), self.file(config)
        if key not in self._opened:
            cache = self.cache(file)
            self._note_servers(config)
            account = self._accounts.setdefault(file, Account(cache.spent()))
            self._opened[key] = file, Endpoint(config, cache, say=self._say, account=account)
        return self._opened[key][1]

    def cache(self, file: str) -> RequestCache:
        """A file of answers, opened once.

        Raises:
            StorageError: it can't be used.
        """
        if file not in self._caches:
            self._caches[file] = RequestCache(self._folder / file)
        return self._caches[file]

    def file(self, config: EndpointConfig) -> str:
        """The name of the file that keeps the answers of an endpoint.

        Raises:
            StorageError: it can't be read which server each file belongs to.
        """
        server, files = _Server.of(config), self._files(config)
        return next(file for file, owner in files.items() if owner == server)

    def _files(self, config: EndpointConfig) -> dict[str, _Server]:
        """File of answers -> its server, for those of earlier calls, those of the settings and that of `config`.

        A server that is new has the file of its place among the servers whose models have its name. If that belongs to
        one that has left the settings, the server has moved.
        """
        files, servers = self._noted(), list(dict.fromkeys([*self._servers, _Server.of(config)]))
        for server in servers:
            if server not in files.values():
                plain = answers_file(server.model)
                place = [one for one in servers if answers_file(one.model) == plain].index(server)
                file = ANSWERS if server == self._own else answers_file(server.model, place + 1)
                if files.get(file) in servers:
                    names = (answers_file(server.model, number) for number in itertools.count(1))
                    file = next(one for one in names if one not in files and not (self._folder / one).exists())
                files[file] = server
        return files

    def _noted(self) -> dict[str, _Server]:
        """File of answers -> its server, at the last call."""
        path = self._folder / SERVERS
        noted = read_json(path) if path.exists() else {}
        try:
            return {str(file): _Server(**server) for file, server in noted.items()}
        except (AttributeError, TypeError) as error:
            raise StorageError(
                f"{path} does not say which server each file of answers belongs to; delete it, and the files are "
                "counted in the order of the settings."
            ) from error

    def _note_servers(self, config: EndpointConfig) -> None:
        files = self._files(config)
        if files != self._noted():
            write_json(self._folder / SERVERS, {file: server._asdict() for file, server in files.items()})

    def spending(self) -> list[Spending]:
        """What was spent at each server that was opened, other processes included."""
        found = {}
        for file, endpoint in self._opened.values():
            same = [one for place, one in self._opened.values() if place == file]
            spent = self._caches[file].spent()
            dollars = max(one.cost(spent) for one in same)
            reused = sum(one.reused for one in same)
            found[file] = Spending(file, endpoint.name, endpoint.title, spent, dollars, reused, endpoint.replies)
        return list(found.values())

    def spent(self) -> list[str]:
        """What was spent, in sentences: one for each server that was opened, and one for its odd replies."""
        lines = []
        for one in self.spending():
            dollars = f", {one.dollars:.2f} dollars" if one.dollars else ""
            lines.append(
                f"{one.name} gave {one.spent.requests:,} answers in all calls of this run: "
                f"{one.spent.prompt_tokens:,} tokens of prompts, {one.spent.tokens:,} of answers{dollars}; "
                f"{one.reused:,} requests were answered from what was kept."
            )
            if one.replies:
                odd = ", ".join(f"{kind} {count:,}" for kind, count in one.replies.items())
                lines.append(f"Odd replies of {one.name} in all calls of this run: {odd}.")
        return lines

    def close(self) -> None:
        """Send nothing more, wait for the requests under way, and close all files of answers."""
        for _, endpoint in self._opened.values():
            endpoint.close()
        for cache in self._caches.values():
            cache.close()


Opener = Callable[[RequestCache, float, Callable[[str], None]], LanguageModel]
"""(where answers are kept, share of the budget, what shows a line) -> the model, ready to be asked."""


class Source(Protocol):
    """Opens a model in any process; it can be pickled."""

    def divided(self, workers: int, spent: Spent) -> Source:
        """For one of several workers who ask at once, after so much was spent."""

    def opener(self) -> Opener:
        """Load what is needed once; what it gives is for one piece of work after the other."""


@dataclass(frozen=True)
class ModelSource:
    """An endpoint, or a model on the machine that opens it.

    `where` is the model's folder, where it is one, since another process may start elsewhere. `left` is what the
    endpoint may still cost; None for all of its budget.
    """

    model: str
    where: Path | None = None
    endpoint: EndpointConfig | None = None
    left: Budget | None = None

    def divided(self, workers: int, spent: Spent) -> ModelSource:
        """A worker's part of the requests in flight, and what is left of the budget for all of them."""
        if self.endpoint is None:
            return self
        in_flight = max(1, self.endpoint.requests_in_flight // workers)
        endpoint = self.endpoint.model_copy(update={"requests_in_flight": in_flight})
        return replace(self, endpoint=endpoint, left=self.endpoint.budget.left(spent))

    def opener(self) -> Opener:
        """The model, with each piece of work's share of the budget.

        Raises:
            ModelError: the model can't be obtained.
        """
        endpoint = self.endpoint
        if endpoint is None:
            from fspo.llm.local import LocalModel

            local = LocalModel.load(self.where or self.model, name=self.model)
            return lambda cache, share, say: CachedModel(local, cache)
        left = self.left or endpoint.budget
        return lambda cache, share, say: Endpoint(
            endpoint.model_copy(update={"budget": left.left(share=share)}), cache, say=say
        )
