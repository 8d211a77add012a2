"""A policy goes to a hub and comes back the same, with nothing of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel

from fspo.modeling.loading import load_model
from fspo.modeling.policies import load_policy, save_policy
from fspo.training.adapters import prepare_weights
from fspo.training.config import LoraSettings
from tests.e2e.conftest import run
from tests.e2e.hub import Hub, hub

IDS = torch.tensor([list(range(5, 45))])


pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # between peft and transformers


@pytest.fixture
def served() -> Iterator[Hub]:
    with hub() as state:
        yield state


def reach(state: Hub, **more: str) -> dict[str, str]:
    return {"HF_ENDPOINT": state.address, "HF_HUB_OFFLINE": "0", "HF_TOKEN": state.token, **more}


def says(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(IDS).logits
    return logits


def head(text: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(text.split("---\n")[1])
    return found


def test_a_policy_over_a_local_model_goes_up_as_a_whole_model(
    finished: Path, speaking_model_path: Path, served: Hub, tmp_path: Path
) -> None:
    policy = finished / "methods/fspo"
    done = run("model", "push", policy, "me/reviews", **reach(served))
    assert f"{served.address}/me/reviews" in done.stdout and served.token not in done.stdout + done.stderr
    assert served.private["me/reviews"]
    clone = served.clone("me/reviews", tmp_path / "clone")
    assert torch.allclose(says(load_model(clone)), says(load_policy(policy)), atol=1e-4)
    card = (clone / "README.md").read_text()
    assert head(card)["library_name"] == "transformers"
    assert "## Training settings" in card and "Label-flip rate" in card and "peft import" not in card
    assert {path.suffix for path in clone.iterdir()} <= {".json", ".safetensors", ".md", ".jinja"}
    for path in clone.iterdir():
        if path.suffix != ".safetensors":
            assert str(speaking_model_path.parent) not in path.read_text(), path
    before = dict(served.files["me/reviews"])
    run("model", "push", policy, "me/reviews", "--public", **reach(served))  # once more, to the same place
    assert served.files["me/reviews"] == before


def test_a_policy_over_a_model_of_the_hub_goes_up_as_an_adapter(
    tiny_model_path: Path, served: Hub, tmp_path: Path
) -> None:
    model = prepare_weights(load_model(tiny_model_path), LoraSettings(r=2), seed=0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    policy = save_policy(model, tmp_path / "policy", base="someone/base", method="fspo")
    said = run("model", "push", policy, "me/small", code=1, **reach(served)).stderr
    assert "someone/base is not on the hub" in said and "me/small" not in served.files
    served.files["someone/base"] = {}
    card = b"---\ntags: [fspo]\n---\n# of an earlier upload\n"
    own = {"notes.txt": b"somebody's own", "adapter_of_mine.safetensors": b"too", "notes/config.json": b"too"}
    served.files["me/small"] = {"model.safetensors": b"of an earlier upload", "README.md": card, **own}
    assert "as an adapter" in run("model", "push", policy, "me/small", "--dry-run").stdout
    run("model", "push", policy, "me/small", "--public", **reach(served))
    pushed = served.files["me/small"]
    assert pushed.keys() == {"README.md", "adapter_config.json", "adapter_model.safetensors", *own}
    assert all(pushed.pop(name) == content for name, content in own.items())
    clone = served.clone("me/small", tmp_path / "clone")
    assert head((clone / "README.md").read_text())["base_model"] == "someone/base"
    assert json.loads((clone / "adapter_config.json").read_text())["base_model_name_or_path"] == "someone/base"
    again = PeftModel.from_pretrained(load_model(tiny_model_path), str(clone))
    assert torch.allclose(says(again), says(model.eval()), atol=1e-5)


def test_a_push_loses_nothing_in_a_repository_of_somebody_else(finished: Path, served: Hub) -> None:
    others = {".gitattributes": b"", "notes.txt": b"mine"}
    for name in ("model.safetensors", "README.md", "config.json", "adapter_model.safetensors"):
        served.files["me/other"] = {**others, name: b"mine"}
        said = run("model", "push", finished / "methods/fspo", "me/other", code=2, **reach(served)).stderr
        assert f"me/other holds {name}" in said
        assert served.files["me/other"] == {**others, name: b"mine"}
    served.files["me/other"] = dict(others)
    run("model", "push", finished / "methods/fspo", "me/other", **reach(served))
    assert served.files["me/other"]["notes.txt"] == b"mine"


def test_what_a_hub_refuses_is_said_in_a_sentence(finished: Path, served: Hub, tmp_path: Path) -> None:
    policy = finished / "methods/fspo"
    said = run("model", "push", policy, "me/mine", code=1, **reach(served, HF_TOKEN="hf_wrong")).stderr
    assert "refuses to write to me/mine (401)" in said and "hf_wrong" not in said
    said = run("model", "push", policy, "a/b/c", code=2, **reach(served)).stderr
    assert "'a/b/c' is no name of a repository" in said
    said = run("model", "push", policy, "me/mine", code=1, **reach(served, HF_ENDPOINT="http://127.0.0.1:9")).stderr
    assert "can't be reached" in said
    assert "holds no readable policy" in run("model", "push", tmp_path, "me/mine", code=1).stderr
    assert served.files == {}
