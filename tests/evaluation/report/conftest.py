from __future__ import annotations

from typing import Any

import pytest
from matplotlib.figure import Figure


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots are made, but not drawn, which takes most of the time: for tests of what a page says in words."""

    def write_nothing(figure: Figure, buffer: Any, **_: object) -> None:
        buffer.write('<svg height="1pt" width="1pt" viewBox="0 0 1 1"></svg>')

    monkeypatch.setattr(Figure, "savefig", write_nothing)
