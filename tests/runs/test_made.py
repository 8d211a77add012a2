"""Which files that a user names may be written."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fspo.errors import ConfigError
from fspo.runs.made import check_file_target


def test_a_pipe_may_be_written_and_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    check_file_target(tmp_path / "pipe", lambda _: False)  # reading it would wait for ever
    (tmp_path / "file").write_text("somebody's own")
    with pytest.raises(ConfigError, match="is not replaced"):
        check_file_target(tmp_path / "file", lambda _: False)
