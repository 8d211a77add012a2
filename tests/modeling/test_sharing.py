from __future__ import annotations

import gc
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fspo.errors import ModelError
from fspo.modeling import sharing
from fspo.modeling.loading import load_model
from fspo.modeling.policies import load_policy, save_policy
from fspo.modeling.sharing import PolicyWeights
from tests.modeling.test_policies import adapted, close, output


@pytest.fixture(scope="module")
def policies(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chain (pref-ft, then fspo), whole weights trained from it, and DoRA on top of it."""
    folder, base = tmp_path_factory.mktemp("policies"), str(tiny_model_path)
    save_policy(adapted(load_model(base, device="cpu"), 1), folder / "pref-ft", base=base)
    save_policy(adapted(load_policy(folder / "pref-ft"), 2), folder / "fspo", base=base, start=folder / "pref-ft")
    whole = load_policy(folder / "fspo")
    with torch.no_grad():
        whole.model.layers[0].mlp.up_proj.weight.mul_(1.5)  # type: ignore[operator, union-attr, index]
    save_policy(whole, folder / "whole", base=base, start=folder / "pref-ft")
    dora = adapted(load_policy(folder / "pref-ft"), 4, use_dora=True)
    save_policy(dora, folder / "dora", base=base, start=folder / "pref-ft")
    return folder


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that are read."""
    gc.collect()
    names: list[str] = []
    original = sharing.load_model

    def spy(name: Any, **options: Any) -> Any:
        names.append(Path(name).name)
        return original(name, **options)

    monkeypatch.setattr(sharing, "load_model", spy)
    return names


def weights(folder: Path) -> PolicyWeights:
    return PolicyWeights(folder, device="cpu")


@pytest.mark.parametrize(
    ("name", "start"), [("pref-ft", ""), ("fspo", "pref-ft"), ("whole", "pref-ft"), ("dora", "pref-ft")]
)
def test_a_policy_its_start_and_its_base(policies: Path, tiny_model_path: Path, name: str, start: str) -> None:
    own = weights(policies / name)
    base = output(load_model(tiny_model_path, device="cpu"))
    begun = output(load_policy(policies / start)) if start else base
    for _ in range(2):
        with own.policy() as model:
            assert close(output(model), output(load_policy(policies / name)))
        with own.start() as model:
            assert close(output(model), begun)
        with own.base() as model:
            assert close(output(model), base)
    assert not close(begun, output(load_policy(policies / name)))


def test_policies_over_one_base_share_it(policies: Path, tiny_model_path: Path, loads: list[str]) -> None:
    one, other, plain = weights(policies / "pref-ft"), weights(policies / "fspo"), weights(tiny_model_path)
    expected = [output(load_policy(policies / name)) for name in ("pref-ft", "fspo")]
    expected.append(output(load_model(tiny_model_path, device="cpu")))
    assert loads == []
    for _ in range(2):
        for each, out in zip((one, other, plain), expected, strict=True):
            with each.policy() as model:
                assert close(output(model), out)
    assert loads == [tiny_model_path.name]


def test_weights_that_changed_on_disk_are_not_shared(
    policies: Path, tiny_model_path: Path, tmp_path: Path, loads: list[str]
) -> None:
    model = Path(shutil.copytree(tiny_model_path, tmp_path / "model"))
    first = weights(model)
    with first.policy() as before:
        found = output(before)
    changed = load_model(model, device="cpu")
    with torch.no_grad():
        changed.get_input_embeddings().weight.mul_(2)  # type: ignore[operator]
    changed.save_pretrained(model)
    with weights(model).policy() as after:
        assert not close(output(after), found)
    assert loads == ["model", "model"]


def test_a_policy_trained_again_in_its_folder_is_read_again(
    policies: Path, tiny_model_path: Path, tmp_path: Path, loads: list[str]
) -> None:
    folder, base = tmp_path / "policy", str(tiny_model_path)
    found = []
    earlier = []
    for seed in (5, 6):
        shutil.rmtree(folder, ignore_errors=True)
        save_policy(adapted(load_model(base, device="cpu"), seed), folder, base=base)
        earlier.append(weights(folder))
        with earlier[-1].policy() as model:
            found.append(output(model))
        assert close(found[-1], output(load_policy(folder)))
    assert not close(*found)
    with earlier[0].policy() as model:
        assert close(output(model), found[0])
    assert loads == [tiny_model_path.name]


def test_adapters_that_no_policy_uses_leave_the_memory(policies: Path, tmp_path: Path) -> None:
    held = weights(policies / "fspo")
    with held.policy() as model:
        expected = output(model)
    for number in range(3):
        with weights(Path(shutil.copytree(policies / "pref-ft", tmp_path / str(number)))).policy() as model:
            assert close(output(model), output(load_policy(policies / "pref-ft")))
            gc.collect()
    with held.policy() as model:
        assert close(output(model), expected)
        assert len(model.peft_config) == 3  # type: ignore[arg-type]  # two of `held`, and the last other one


def test_a_base_that_nobody_uses_is_let_go(policies: Path, loads: list[str]) -> None:
    for _ in range(2):
        with weights(policies / "fspo").policy() as model:
            output(model)
        del model
        gc.collect()
    assert len(loads) == 2


def test_a_missing_adapter_is_named(policies: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(policies / "pref-ft", tmp_path / "broken"))
    shutil.rmtree(broken / "adapter-0")
    with pytest.raises(ModelError, match="adapter-0 is missing"), weights(broken).policy():
        pass
