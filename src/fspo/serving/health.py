"""Whether a server can answer: its store and its engines."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from anyio.to_thread import run_sync

from fspo.errors import StorageError
from fspo.serving.engine import Engine
from fspo.serving.ownership import Sessions
from fspo.serving.views import Condition, HealthView

__all__ = ["health_of"]

_LOG = logging.getLogger(__name__)


async def health_of(store: Sessions, engines: Iterable[Engine], under_way: int) -> HealthView:
    """How the store and the engines are, which all have to be alive; the log says why the store is unavailable."""
    states = [await engine.state() for engine in engines]
    answers, alive = True, all(state.alive for state in states)
    try:
        await run_sync(store.check)
    except StorageError as error:
        _LOG.error("The store does not answer: %s", error)
        answers = False
    return HealthView(
        status=_condition(answers and alive),
        store=_condition(answers),
        engine=_condition(alive),
        model=", ".join(dict.fromkeys(state.model for state in states)),
        under_way=under_way,
        waiting=sum(state.waiting for state in states),
    )


def _condition(fine: bool) -> Condition:
    return "ok" if fine else "unavailable"
