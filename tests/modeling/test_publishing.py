"""Policies on a hub: what is refused before the hub is asked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fspo.errors import ConfigError, ModelError
from fspo.modeling import publishing
from fspo.modeling.publishing import publish


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("companion", "dtype", "error"), [(True, "float32", ModelError), (False, "float61", ConfigError)]
)
def test_no_repository_is_made_for_what_cannot_be_uploaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, companion: bool, dtype: str, error: type[Exception], whole: bool
) -> None:
    def asked() -> None:
        raise AssertionError("the hub is not to be asked")

    monkeypatch.setattr(publishing, "HfApi", asked)
    card = {"format": 1, "base": "me/base", "adapters": ["adapter-0"], "details": {"companion": companion}}
    (tmp_path / "policy.json").write_text(json.dumps(card))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(error, match="weights of its method" if companion else "float61"):
        publish(tmp_path, "me/mine", whole=whole, dtype=dtype)
