from __future__ import annotations

import json

import pytest

from benchmarks import step_profile


def test_the_profile_names_where_time_goes(capsys: pytest.CaptureFixture[str]) -> None:
    assert step_profile.main(["--model", "shape:tiny", "--layers", "1", "--rows", "2x2x6"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    ways = figures["rows"][0]["ways"]
    assert {"masked", "pieces"} <= set(ways)
    for way in ways.values():
        assert sum(way["shares"].values()) == pytest.approx(1)
        assert way["shares"]["attention"] > 0 and way["shares"]["matmul"] > 0
