"""A trained policy is read by transformers and peft alone, and says the same."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from fspo.modeling.logprobs import response_logprobs
from fspo.modeling.policies import load_policy
from tests.e2e.conftest import run

IDS = list(range(5, 45))
PLAIN = """
import json, sys, warnings
warnings.simplefilter("ignore")
import torch
from transformers import AutoModelForCausalLM
base, adapter, ids = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = AutoModelForCausalLM.from_pretrained(base)
if adapter:
    from peft import PeftModel
    model = PeftModel.from_pretrained(model, adapter)
with torch.no_grad():
    logprobs = model.eval()(torch.tensor([ids])).logits.log_softmax(-1)[0]
assert "fspo" not in sys.modules
print(json.dumps([logprobs[place, token].item() for place, token in enumerate(ids[1:])]))
"""


def elsewhere(base: Path, adapter: Path | str = "") -> torch.Tensor:
    command = [sys.executable, "-c", PLAIN, str(base), str(adapter), json.dumps(IDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return torch.tensor(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("method", ["pref-ft", "fspo"])
def test_plain_tools_give_the_same_log_probs(
    finished: Path, speaking_model_path: Path, tmp_path: Path, method: str
) -> None:
    policy = finished / "methods" / method
    with torch.no_grad():
        ours = response_logprobs(load_policy(policy), IDS[:1], IDS[1:])
        base = elsewhere(speaking_model_path)
    assert not torch.allclose(base, ours, atol=1e-4), "training changed nothing, so this shows nothing"
    assert torch.allclose(elsewhere(speaking_model_path, policy), ours, atol=1e-4)
    if method == "fspo":
        target = tmp_path / "plain"
        assert "The whole model is in" in run("model", "export", policy, target).stdout
        assert torch.allclose(elsewhere(target), ours, atol=1e-4)
        assert (target / "README.md").read_text() == (policy / "README.md").read_text()
        assert "is there already" in run("model", "export", policy, target, code=2).stderr
        run("model", "export", policy, target, "--overwrite", "--dry-run")


def test_what_is_no_policy_is_not_exported(tmp_path: Path) -> None:
    said = run("model", "export", tmp_path, tmp_path / "out", code=1).stderr
    assert "holds no readable policy" in said
