from __future__ import annotations

import importlib.util

import pytest

from benchmarks import length_control


@pytest.mark.skipif(importlib.util.find_spec("alpaca_eval") is not None, reason="alpaca_eval is installed")
def test_without_alpaca_eval_it_says_how_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert length_control.main([]) == 2
    assert "says how to install it" in capsys.readouterr().err


def test_annotations_are_the_same_every_time() -> None:
    for case in length_control.CASES:
        rows, anchors = length_control.made_up(case)
        assert (rows, anchors) == length_control.made_up(case)
        assert (len(rows), len(anchors)) == (case.rows, 2 * case.rows)
        assert len({row.user for row in [*rows, *anchors]}) == 3 * case.rows
