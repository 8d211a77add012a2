"""A trained policy is read by transformers and peft alone, and says the same."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

from benchmarks.naive import response_logprobs
from fspo.modeling.policies import load_policy
from tests import preloaded
from tests.e2e.conftest import environment, run

IDS = list(range(5, 45))
WITHOUT_FSPO = """
import sys
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface
from fspo.modeling.attention import IMPLEMENTATION
for interface in (AttentionInterface, AttentionMaskInterface):
    del interface._global_mapping[IMPLEMENTATION]
for name in [name for name in sys.modules if name.split(".")[0] == "fspo"]:
    sys.modules[name] = None
"""
"""Takes from a forked process all that it has of fspo: its attention, and its modules, so that importing them fails."""
PLAIN = """
import json, warnings
warnings.simplefilter("ignore")
import torch
from transformers import AutoModelForCausalLM
ids, *policies = map(json.loads, sys.argv[1:])
for base, adapter in policies:
    model = AutoModelForCausalLM.from_pretrained(base)
    if adapter:
        from peft import PeftModel
        model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        logprobs = model.eval()(torch.tensor([ids])).logits.log_softmax(-1)[0]
    print(json.dumps([logprobs[place, token].item() for place, token in enumerate(ids[1:])]))
"""


def elsewhere(*policies: tuple[Path, Path | None]) -> list[torch.Tensor]:
    """The log-probs of each (base, adapter), in a process without fspo."""
    given = [json.dumps([str(base), str(adapter or "")]) for base, adapter in policies]
    done = preloaded.run("-c", WITHOUT_FSPO + PLAIN, json.dumps(IDS), *given, env=environment())
    assert done.returncode == 0, done.stderr
    return [torch.tensor(json.loads(line)) for line in done.stdout.splitlines()[-len(policies) :]]


def test_plain_tools_give_the_same_log_probs(finished: Path, speaking_model_path: Path, tmp_path: Path) -> None:
    first, policy, target = finished / "methods/pref-ft", finished / "methods/fspo", tmp_path / "plain"
    assert "The whole model is in" in run("model", "export", policy, target).stdout
    # In one process, which imports the libraries once.
    base, pref_ft, *fspo = elsewhere(
        (speaking_model_path, None), (speaking_model_path, first), (speaking_model_path, policy), (target, None)
    )
    for folder, found in ((first, [pref_ft]), (policy, fspo)):
        with torch.no_grad():
            ours = response_logprobs(load_policy(folder), IDS[:1], IDS[1:])
        assert not torch.allclose(base, ours, atol=1e-4), "training changed nothing, so this shows nothing"
        for theirs in found:
            assert torch.allclose(theirs, ours, atol=1e-4)
    ours, theirs = ((folder / "README.md").read_text() for folder in (policy, target))
    assert "AutoPeftModelForCausalLM" in ours and theirs.splitlines()[0] == ours.splitlines()[0]
    code = re.findall(r"```python\n(.*?)```", theirs, re.DOTALL)[1].replace("FOLDER", str(target))
    exec(compile(code.replace("max_new_tokens=128", "max_new_tokens=1"), "README.md", "exec"), {})
    assert "is there already" in run("model", "export", policy, target, code=2).stderr
    run("model", "export", policy, target, "--overwrite", "--dry-run")


def test_what_is_no_policy_is_not_exported(tmp_path: Path) -> None:
    said = run("model", "export", tmp_path, tmp_path / "out", code=1).stderr
    assert "holds no readable policy" in said
