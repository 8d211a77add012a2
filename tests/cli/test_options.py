"""Which run a command is about."""

from __future__ import annotations

from pathlib import Path

import pytest

from fspo.cli.options import configured
from fspo.errors import ConfigError


def test_a_run_that_is_not_there_is_answered_with_the_nearest(tmp_path: Path) -> None:
    for name in ("tiny", "reviews"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"name: {name}\n")
    assert configured(tmp_path / "tiny", None, None, None).name == "tiny"
    with pytest.raises(ConfigError, match=f"There is no run {tmp_path}/revews; did you mean '{tmp_path}/reviews'"):
        configured(tmp_path / "revews", None, None, None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=f"{tmp_path}/empty is not the folder of a run"):
        configured(tmp_path / "empty", None, None, None)
    with pytest.raises(ConfigError, match=r"no configuration file .*mine\.yaml"):
        configured(tmp_path / "mine.yaml", None, None, None)
