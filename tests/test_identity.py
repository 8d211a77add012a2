"""What makes two things the same."""

from __future__ import annotations

import cmath
import functools
import math
import ntpath
import os
import posixpath
import re
import subprocess
import sys
import textwrap
import threading
import time
import types
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from fspo import identity
from fspo.errors import StorageError
from fspo.identity import (
    Unidentified,
    callable_identity,
    digest,
    endpoint_identity,
    file_digest,
    same,
    weights_identity,
)

BIG = 3 << 20


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FSPO_CACHE", str(tmp_path / "cache"))


# Settings


@pytest.mark.parametrize(
    ("then", "now", "key"),
    [
        ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}}, "b.c"),
        ({"a": 1}, {"a": 1, "b": {"c": 3}}, "b"),
        ({"a": 1, "b": {"c": 3}}, {"a": 1}, "b"),
        ({"b": {"c": 3, "d": 4}}, {"b": {"d": 4}}, "b.c"),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, "a[1].b"),
        ({"a": [1, 2]}, {"a": [1]}, "a"),
        ({"a": 0}, {"a": False}, "a"),
        ({"a": ""}, {}, "a"),
    ],
)
def test_a_setting_that_is_changed_added_or_removed_is_named(then: Any, now: Any, key: str) -> None:
    found, back = same(then, now), same(now, then)

    assert not found and found.key == key
    assert not back and (back.key, back.then, back.now) == (key, found.now, found.then)


@pytest.mark.parametrize(
    ("then", "now"), [({"a": 1, "b": None}, {"a": 1.0}), ({}, {}), ({"a": (1, 2)}, {"a": [1, 2]}), (None, None)]
)
def test_equal_settings_are_the_same(then: Any, now: Any) -> None:
    assert same(then, now) and same(now, then)


def test_the_values_of_a_difference_are_told() -> None:
    found = same({"endpoint": {"extra_body": {"top_k": 4}}}, {"endpoint": {"model": "m"}})

    assert (found.then, found.now) == ('endpoint.extra_body = {"top_k": 4}', "endpoint.extra_body not set")


def test_a_setting_that_one_side_lacks_has_its_default() -> None:
    usual = {"a": {"new": 48, "inner": {"deep": 1}}}
    for old in ({"a": {"old": 1}}, {"a": {"old": 1, "inner": {}}}):
        new = {"a": {"old": 1, "new": 48, "inner": {"deep": 1}}}
        assert same(old, new, usual=usual) and same(new, old, usual=usual)
        assert not same(old, new)
        found = same(old, {"a": {**new["a"], "new": 100}}, usual=usual)
        assert (found.then, found.now) == ("a.new = 48", "a.new = 100")
        assert same(old, {"a": {**new["a"], "inner": {"deep": 2}}}, usual=usual).key == "a.inner.deep"
    assert same({"a": {"new": None}}, {"a": {"new": 48}}, usual=usual).key == "a.new", "None was chosen"


def test_what_is_known_of_one_side_only_can_be_left_aside() -> None:
    assert same({"model": "m"}, {"model": "m", "weights": "w"}, known=["weights"])
    assert not same({"model": "m", "weights": "v"}, {"model": "m", "weights": "w"}, known=["weights"])
    assert not same({"model": "m"}, {"model": "m", "weights": "w"})


# Endpoints


def test_an_endpoint_is_its_model_and_all_that_changes_answers_and_no_address_and_no_key() -> None:
    usual = {
        "base_url": "http://a:1/v1",
        "key_variable": "KEY",
        "model": "m",
        "extra_body": {},
        "budget": {"tokens": 4},
    }

    assert endpoint_identity(usual) == endpoint_identity({"base_url": "https://b:2/v1", "model": "m", "timeout": 3})
    for more in ({"model": "n"}, {"extra_body": {"enable_thinking": False}}, {"a_setting_of_tomorrow": "x"}):
        assert endpoint_identity(usual | more) != endpoint_identity(usual)


@pytest.mark.parametrize("key", ["api_key", "Authorization", "X-Api-Key", "access_token", "password", "client_secret"])
def test_keys_inside_further_fields_stay_out_of_an_identity(key: str) -> None:
    with_key = {"model": "m", "extra_body": {"max_tokens": 9, "gateway": [{key: "sk-very-secret"}]}}
    found = endpoint_identity(with_key)

    assert "sk-very-secret" not in str(found) and found["extra_body"]["max_tokens"] == 9


# Weights


def _model(folder: Path, middle: bytes = b"a") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"0" * BIG + middle + b"0" * BIG)
    return folder


def _settle(path: Path) -> None:
    """Wait until the last change of a file is old enough for its digest to be kept."""
    deadline = path.stat().st_ctime + identity._SETTLED / 1e9 + 0.05
    time.sleep(max(0.0, deadline - time.time()))


def test_weights_that_differ_in_their_middle_alone_differ(tmp_path: Path) -> None:
    assert weights_identity(_model(tmp_path / "a")) != weights_identity(_model(tmp_path / "b", b"b"))
    assert weights_identity(tmp_path / "a") == weights_identity(_model(tmp_path / "c"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja", "adapter-1/w.safetensors"])
def test_each_file_that_bears_on_answers_counts(tmp_path: Path, name: str) -> None:
    model = _model(tmp_path / "m")
    before = weights_identity(model)

    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_text('{"new": 1}')

    assert weights_identity(model) != before


@pytest.mark.parametrize(
    "name", ["README.md", "training.json", "checkpoints/checkpoint-1/w.safetensors", ".tmp/w.json"]
)
def test_notes_and_what_is_under_way_do_not_count(tmp_path: Path, name: str) -> None:
    model = _model(tmp_path / "m")
    before = weights_identity(model)

    (model / name).parent.mkdir(exist_ok=True, parents=True)
    (model / name).write_text("{}")

    assert weights_identity(model) == before


def test_a_large_file_that_stays_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_SETTLED", 100_000_000)
    path = _model(tmp_path / "m") / "model.safetensors"
    _settle(path)
    before = file_digest(path)
    monkeypatch.setattr(identity, "_read_digest", lambda path: pytest.fail("it was read again"))

    assert file_digest(path) == before


def test_the_digest_of_a_file_just_changed_is_not_kept(tmp_path: Path) -> None:
    path = _model(tmp_path / "m") / "model.safetensors"

    file_digest(path)

    assert not _kept(tmp_path)


def test_a_change_in_place_that_sets_size_and_time_back_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_SETTLED", 100_000_000)
    path = _model(tmp_path / "m") / "model.safetensors"
    _settle(path)
    before, stat = file_digest(path), path.stat()
    assert _kept(tmp_path)

    with path.open("r+b") as handle:
        handle.seek(BIG)
        handle.write(b"b")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (stat.st_mtime_ns, stat.st_ino)
    assert file_digest(path) != before


def test_a_file_that_is_changed_while_it_is_read_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_SETTLED", 100_000_000)
    path = _model(tmp_path / "m") / "model.safetensors"
    _settle(path)
    read = identity._read_digest

    def read_and_change(path: Path) -> str:
        found = read(path)
        with path.open("r+b") as handle:
            handle.write(b"x")
        return found

    monkeypatch.setattr(identity, "_read_digest", read_and_change)
    before = file_digest(path)
    monkeypatch.undo()

    assert file_digest(path) != before


def _kept(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "cache" / "digests").glob("*.json"))


def test_a_damaged_memo_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_SETTLED", 0)
    path = _model(tmp_path / "m") / "model.safetensors"
    before = file_digest(path)
    (memo,) = _kept(tmp_path)
    for damaged in ('{"state": ', "[1]", memo.read_text().replace(before, "0")):
        memo.write_text(damaged)
        assert file_digest(path) == before


def test_a_cache_that_can_not_be_written_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _model(tmp_path / "m") / "model.safetensors"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FSPO_CACHE", str(tmp_path / "file" / "cache"))

    assert len(file_digest(path)) == 64


def test_threads_and_processes_share_the_memo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_SETTLED", 0)
    models = [_model(tmp_path / str(number), b"%d" % number) for number in range(4)]
    found: list[str] = []
    threads = [threading.Thread(target=lambda m=m: found.append(weights_identity(m))) for m in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    code = "import sys, pathlib, fspo.identity as i; print(*map(i.weights_identity, map(pathlib.Path, sys.argv[1:])))"
    other = subprocess.run([sys.executable, "-c", code, *map(str, models)], capture_output=True, text=True, check=True)

    assert {f"files {part.strip()}" for part in other.stdout.split("files ")[1:]} == set(found)
    assert len(set(found)) == 4


def test_a_file_that_is_missing_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="can't be read"):
        file_digest(tmp_path / "w.safetensors")


# Functions


def _made(alpha: float) -> Callable[[str], float]:
    def scorer(text: str) -> float:
        return alpha * len(text)

    return scorer


def _scaled(alpha: Any, text: str) -> float:
    return float(alpha * len(text))


_OURS, _THEIRS = (Enum("Switch", ["ON", "OFF"], module=module) for module in ("posixpath", "ntpath"))
"""As two of Python's own modules might have them."""


class _Side(Enum):
    LONG = 1
    SHORT = -1


@dataclass
class _Weighted:
    weight: float
    _name: str = "weighted"

    def __call__(self, text: str) -> float:
        return self.weight * len(text)

    def score(self, text: str) -> float:
        return self.weight


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (_made(1), _made(-1)),
        (functools.partial(_scaled, 1), functools.partial(_scaled, -1)),
        (functools.partial(_scaled, alpha=1), functools.partial(_scaled, alpha=-1)),
        (lambda text: len(text), lambda text: -len(text)),
        (lambda text, sign=1: sign * len(text), lambda text, sign=-1: sign * len(text)),
        (lambda text, *, sign=1: sign * len(text), lambda text, *, sign=-1: sign * len(text)),
        (lambda text: (lambda: 1)(), lambda text: (lambda: 2)()),
        (lambda text: text in {"a", "b"}, lambda text: text in {"a", "c"}),
        (_Weighted(1.0), _Weighted(-1.0)),
        (_Weighted(1.0).score, _Weighted(-1.0).score),
        (_Weighted(1.0).__call__, _Weighted(1.0).score),
        (len, id),
        (str.upper, str.lower),
        ("a".count, "b".count),
        (math.sin, math.cos),
        (math.sqrt, cmath.sqrt),
        (functools.partial(_scaled, math.sqrt), functools.partial(_scaled, cmath.sqrt)),
        (posixpath.basename, ntpath.basename),
        (functools.partial(_scaled, posixpath.basename), functools.partial(_scaled, ntpath.basename)),
        (functools.partial(_scaled, _OURS.ON), functools.partial(_scaled, _THEIRS.ON)),
        (functools.partial(_scaled, _Side.LONG), functools.partial(_scaled, _Side.SHORT)),
        (re.compile("a").match, re.compile("b").match),
        (functools.cache(_made(1)), functools.cache(_made(-1))),
        (functools.partial(_scaled, [1, [2]]), functools.partial(_scaled, [1, [3]])),
        (functools.partial(_scaled, {"a": 1}), functools.partial(_scaled, {"a": 2})),
        (functools.partial(_scaled, {"a"}), functools.partial(_scaled, {"b"})),
        (functools.partial(_scaled, Path("a")), functools.partial(_scaled, Path("b"))),
    ],
)
def test_functions_that_compute_something_else_differ(one: Any, other: Any) -> None:
    assert callable_identity(one) == callable_identity(one)
    assert callable_identity(one) != callable_identity(other)


def test_equal_functions_are_the_same() -> None:
    assert callable_identity(_made(2)) == callable_identity(_made(2))
    assert callable_identity(_Weighted(2.0)) == callable_identity(_Weighted(2.0))


def _cell(source: str, **names: Any) -> Any:
    """What a cell of a notebook defines: no file, no source."""
    namespace: dict[str, Any] = {"__name__": "__main__", **names}
    exec(textwrap.dedent(source), namespace)
    return namespace["score"]


def test_a_cell_that_was_edited_is_another_function() -> None:
    assert callable_identity(_cell("def score(t): return 1.0")) != callable_identity(_cell("def score(t): return -1.0"))
    assert callable_identity(_cell("def score(t): return 1.0")) == callable_identity(
        _cell("\n\n# a word\ndef score(t): return 1.0")
    )


def test_globals_and_the_functions_behind_a_function_count() -> None:
    source = "def score(t): return weight * len(t)"
    assert callable_identity(_cell(source, weight=1)) != callable_identity(_cell(source, weight=2))
    two = "def helper(t): return {}\ndef score(t): return helper(t)"
    assert callable_identity(_cell(two.format(1))) != callable_identity(_cell(two.format(2)))
    nested = "def score(t): return [f(t) for f in parts][0]"
    assert callable_identity(_cell(nested, parts=[_made(1)])) != callable_identity(_cell(nested, parts=[_made(2)]))
    unused = "def score(t): return 1"
    assert callable_identity(_cell(unused, weight=1)) == callable_identity(_cell(unused, weight=object()))


def test_functions_that_call_each_other_end() -> None:
    source = "def even(n): return n == 0 or odd(n - 1)\ndef odd(n): return n != 0 and even(n - {})\nscore = even"
    assert callable_identity(_cell(source.format(1))) == callable_identity(_cell(source.format(1)))
    assert callable_identity(_cell(source.format(1))) != callable_identity(_cell(source.format(2)))


def test_classes_of_a_cell_count_with_their_methods_and_bases() -> None:
    source = """
        class Base:
            def by(self): return {}
        class Score(Base):
            __slots__ = ("scale",)
            def __init__(self, scale): self.scale = scale
            def __call__(self, t): return self.by() * self.scale
        score = Score({})
    """
    found = {callable_identity(_cell(source.format(by, scale))) for by in (1, 2) for scale in (1, 2)}

    assert len(found) == 4


def test_a_module_of_ones_own_counts_by_what_is_used_of_it() -> None:
    def module(code: str) -> types.ModuleType:
        made = types.ModuleType("own_helpers_that_are_not_installed")
        exec(code, made.__dict__)
        return made

    source = "def score(t): return helpers.f(t)"
    one, other, same_use = (
        callable_identity(_cell(source, helpers=module(code)))
        for code in ("def f(t): return 1", "def f(t): return 2", "def f(t): return 1\ng = object()")
    )

    assert one != other and one == same_use
    with pytest.raises(Unidentified, match="own_helpers"):
        callable_identity(_cell("def score(t): return getattr(helpers, t)", helpers=module("f = 1")))


def test_a_module_that_is_imported_inside_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source = "def score(t):\n    from own_module_to_import import f\n    return f(t)"
    found = set()
    for number in (1, 2):
        (tmp_path / "own_module_to_import.py").write_text(f"def f(t): return {number} + {number * 1000}")
        sys.modules.pop("own_module_to_import", None)
        for cached in tmp_path.glob("__pycache__/*"):
            cached.unlink()
        identity._package_of.cache_clear()
        found.add(callable_identity(_cell(source)))
    sys.modules.pop("own_module_to_import")

    assert len(found) == 2


def test_numbers_of_arrays_and_tensors_count() -> None:
    import numpy as np
    import torch

    found = [
        callable_identity(functools.partial(_scaled, value))
        for value in (
            np.array([1.0, 2.0]),
            np.array([1.0, 3.0]),
            np.array([1, 2]),
            torch.tensor([1.0, 2.0]),
            torch.tensor([1.0, 3.0]),
            torch.tensor([1.0, 2.0]).bfloat16(),
        )
    ]

    assert len(set(found)) == 6


def test_what_can_not_be_told_from_others_is_refused_with_its_name(tmp_path: Path) -> None:
    import torch

    model = torch.nn.Linear(2, 2)
    with pytest.raises(Unidentified, match=r"'model' is a torch\.nn\.modules\.linear\.Linear"):
        callable_identity(_cell("def score(t): return model(t)", model=model))
    with pytest.raises(Unidentified, match="lock"):
        callable_identity(functools.partial(_scaled, threading.Lock()))
    with (tmp_path / "f").open("w") as handle, pytest.raises(Unidentified):
        callable_identity(functools.partial(_scaled, handle))
    with pytest.raises(Unidentified):
        callable_identity(functools.partial(_scaled, (i for i in range(3))))


def test_a_stated_identity_is_believed() -> None:
    class Model:
        def __init__(self, version: str) -> None:
            self.identity, self.held = version, object()

    one, other, again = (callable_identity(functools.partial(_scaled, Model(v))) for v in ("1", "2", "1"))

    assert one == again != other


def test_instances_are_told_by_code_and_attributes() -> None:
    assert callable_identity(_Weighted(1.0)) != callable_identity(_Weighted(2.0))
    assert callable_identity(_Weighted(1.0)) == callable_identity(_Weighted(1.0))


def test_an_identity_is_the_same_in_every_process() -> None:
    code = textwrap.dedent("""
        import functools, re
        from fspo.identity import callable_identity
        def make(alpha, names={"a", "b", "c"}):
            def scorer(text, sides=frozenset({("x", 1), ("y", 2), "z"})):
                return alpha * len(text) if text in {"p", "q", "r"} else sum(map(len, names))
            return scorer
        print(callable_identity(make(1)), callable_identity(functools.partial(make(2), re.compile("a"))))
    """)
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(outputs) == 1


def test_a_digest_is_that_of_json() -> None:
    assert digest({"b": 1, "a": "\ud83d"}) == digest({"a": "\ud83d", "b": 1}) != digest({"a": "\ud83e", "b": 1})
    assert len(digest([], 64)) == 64
