"""Policies on a hub: what is refused before the hub is asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from fspo.errors import ConfigError, ModelError, StorageError
from fspo.modeling import publishing
from fspo.modeling.loading import load_model
from fspo.modeling.policies import save_policy
from fspo.modeling.publishing import publish
from tests.modeling.test_policies import adapted


def asked() -> None:
    raise AssertionError("the hub is not to be asked")


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("companion", "dtype", "error"), [(True, "float32", ModelError), (False, "float61", ConfigError)]
)
def test_no_repository_is_made_for_what_cannot_be_uploaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, companion: bool, dtype: str, error: type[Exception], whole: bool
) -> None:
    monkeypatch.setattr(publishing, "HfApi", asked)
    card = {"format": 1, "base": "me/base", "adapters": ["adapter-0"], "details": {"companion": companion}}
    (tmp_path / "policy.json").write_text(json.dumps(card))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(error, match="weights of its method" if companion else "float61"):
        publish(tmp_path, "me/mine", whole=whole, dtype=dtype)


def test_no_repository_is_made_where_whole_weights_cannot_be_written(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "HfApi", asked)
    base = shutil.copytree(tiny_model_path, tmp_path / "base")
    policy = save_policy(adapted(load_model(base, device="cpu"), 1), tmp_path / "policy", base=str(base))
    with monkeypatch.context() as patch, pytest.raises(StorageError, match=r"0\.0 GiB are free"):
        patch.setattr(publishing.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
        publish(policy, "me/mine")
    (base / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        publish(policy, "me/mine")
    shutil.rmtree(base)
    with pytest.raises(ModelError, match=r"base.*not there"):
        publish(policy, "me/mine")
