from __future__ import annotations

import pytest

from fspo import errors
from fspo.errors import ConfigError, FspoError


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_one_of_ours_and_documented(name: str) -> None:
    error = getattr(errors, name)
    assert issubclass(error, FspoError)
    assert error.__doc__
    assert str(error("What is wrong, where.")) == "What is wrong, where."


def test_exit_codes_tell_usage_from_failure() -> None:
    codes = {name: getattr(errors, name).exit_code for name in errors.__all__}
    assert codes.pop("ConfigError") == ConfigError.exit_code == 2
    assert set(codes.values()) == {1}
