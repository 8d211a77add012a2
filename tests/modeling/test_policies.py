from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from fspo.errors import ModelError
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.policies import (
    PolicyCard,
    export_policy,
    is_policy,
    join_policies,
    load_policy,
    read_card,
    save_policy,
)


def adapted(model: Any, seed: int, **settings: Any) -> Any:
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.manual_seed(seed)
        settings = {"r": 2, "target_modules": "all-linear", **settings}
        policy = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
    return policy.eval()


def in_peft(base: Path, folder: Path) -> Any:
    """The adapter in `folder` as peft itself loads it, which warns of weights that it misses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder)).eval()


def output(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(torch.arange(12)[None]).logits
    return logits


@pytest.fixture(scope="module")
def chain(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[torch.Tensor]]:
    """Two policies, the second trained from the first; and what base, first and second compute."""
    folder, base = tmp_path_factory.mktemp("policies"), str(tiny_model_path)
    outputs = [output(load_model(base))]
    first = adapted(load_model(base), 1)
    save_policy(first, folder / "pref-ft", base=base, method="pref-ft")
    second = adapted(load_policy(folder / "pref-ft"), 2)
    save_policy(second, folder / "fspo", base=base, method="fspo", start=folder / "pref-ft", details={"steps": 3})
    return folder, [*outputs, output(first), output(second)]


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-5)


def test_a_chain_of_adapters_comes_back(chain: tuple[Path, list[torch.Tensor]]) -> None:
    folder, (base, first, second) = chain
    assert not close(base, first)
    assert not close(first, second)
    assert close(output(load_policy(folder / "pref-ft")), first)
    merged = load_policy(folder / "fspo")
    assert not isinstance(merged, PeftModel)
    assert close(output(merged), second)


def test_switched_off_it_is_the_model_training_started_from(chain: tuple[Path, list[torch.Tensor]]) -> None:
    folder, (base, first, second) = chain
    policy = load_policy(folder / "fspo", adapters="switchable")
    assert isinstance(policy, PeftModel)
    assert close(output(policy), second)
    with policy.disable_adapter():
        assert close(output(policy), first)
    early = load_policy(folder / "pref-ft", adapters="switchable")
    with early.disable_adapter():
        assert close(output(early), base)


def test_peft_alone_reads_a_policy_whose_adapters_lie_on_different_layers(
    chain: tuple[Path, list[torch.Tensor]], tiny_model_path: Path, tmp_path: Path
) -> None:
    folder, (_, first, second) = chain
    for name, expected in (("pref-ft", first), ("fspo", second)):
        assert close(output(in_peft(tiny_model_path, folder / name)), expected)
    start = load_policy(folder / "pref-ft")
    upper = adapted(start, 3, target_modules=["q_proj", "down_proj"], layers_to_transform=[1], r=3, lora_alpha=7)
    save_policy(upper, tmp_path / "upper", base=str(tiny_model_path), start=folder / "pref-ft")
    third = output(upper)
    assert not close(third, first)
    assert close(output(in_peft(tiny_model_path, tmp_path / "upper")), third)


def test_adapters_that_do_not_add_up_are_not_joined(
    chain: tuple[Path, list[torch.Tensor]], tiny_model_path: Path, tmp_path: Path
) -> None:
    folder, _ = chain
    dora = adapted(load_policy(folder / "pref-ft"), 4, use_dora=True)
    save_policy(dora, tmp_path / "dora", base=str(tiny_model_path), start=folder / "pref-ft")
    assert not (tmp_path / "dora" / "adapter_config.json").exists()
    assert close(output(load_policy(tmp_path / "dora")), output(dora))


def test_exported_it_is_a_plain_transformers_folder(chain: tuple[Path, list[torch.Tensor]], tmp_path: Path) -> None:
    folder, (_, _, second) = chain
    out = export_policy(folder / "fspo", tmp_path / "plain", card="# A policy")
    assert close(output(AutoModelForCausalLM.from_pretrained(out).eval()), second)
    assert AutoTokenizer.from_pretrained(out).chat_template
    assert (out / "README.md").read_text() == "# A policy"
    assert not is_policy(out)


def test_the_card(chain: tuple[Path, list[torch.Tensor]], tiny_model_path: Path) -> None:
    folder, _ = chain
    assert is_policy(folder / "fspo")
    assert not is_policy(folder)
    assert read_card(folder / "fspo") == PolicyCard(
        base=str(tiny_model_path),
        adapters=("adapter-0", "adapter-1"),
        method="fspo",
        starts_from=str(folder / "pref-ft"),
        details={"steps": 3},
        place=Path(os.path.relpath(tiny_model_path, folder / "fspo")).as_posix(),
    )


def test_policies_side_by_side_find_each_other_wherever_they_are_moved(
    chain: tuple[Path, list[torch.Tensor]], tiny_model_path: Path, tmp_path: Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    save_policy(load_policy(chain[0] / "fspo"), old / "whole", base=str(tiny_model_path), method="ipo")
    on_top = adapted(load_policy(old / "whole"), 3)
    save_policy(on_top, old / ".staged", base=str(tiny_model_path), start=old / "whole", home=old / "on-top")
    (old / ".staged").rename(old / "on-top")
    assert str(tmp_path) not in (old / "on-top" / "policy.json").read_text()
    shutil.copytree(old, new)
    shutil.rmtree(old)
    card = read_card(new / "on-top")
    assert (card.base, card.starts_from) == (str(new / "whole"), str(new / "whole"))
    assert close(output(load_policy(new / "on-top")), output(on_top))
    assert load_tokenizer(new / "on-top").chat_template


def test_a_base_model_named_by_a_relative_path_stays_as_it_was_named(tiny_model_path: Path, tmp_path: Path) -> None:
    save_policy(adapted(load_model(tiny_model_path), 4), tmp_path / "p", base="../models/mine", method="ipo")
    assert read_card(tmp_path / "p").base == "../models/mine"


def test_a_project_that_was_moved_loads_in_peft(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    shutil.copytree(tiny_model_path, old / "models" / "mine")
    monkeypatch.chdir(old)
    policy = adapted(load_model("models/mine"), 4)
    save_policy(policy, Path("runs/p"), base="models/mine", method="ipo")
    monkeypatch.chdir(tmp_path)
    old.rename(new)
    monkeypatch.chdir(new)
    assert json.loads((new / "runs/p/adapter_config.json").read_text())["base_model_name_or_path"] == "models/mine"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft's own
        loaded = AutoPeftModelForCausalLM.from_pretrained("runs/p").eval()
    assert close(output(loaded), output(policy))


def test_a_policy_stands_alone_once_its_start_is_gone(chain: tuple[Path, list[torch.Tensor]], tmp_path: Path) -> None:
    folder, (_, _, second) = chain
    shutil.copytree(folder / "fspo", tmp_path / "moved")
    assert close(output(load_policy(tmp_path / "moved")), second)


def test_whole_weights_make_a_folder_for_every_tool(
    chain: tuple[Path, list[torch.Tensor]], tiny_model_path: Path, tmp_path: Path
) -> None:
    folder, (_, _, second) = chain
    save_policy(load_policy(folder / "fspo"), tmp_path / "whole", base=str(tiny_model_path), method="ipo")
    assert close(output(load_policy(tmp_path / "whole")), second)
    assert close(output(load_model(tmp_path / "whole")), second)
    assert load_tokenizer(tmp_path / "whole").chat_template
    with pytest.raises(ModelError, match="whole weights"):
        load_policy(tmp_path / "whole", adapters="switchable")
    on_top = adapted(load_policy(tmp_path / "whole"), 3)
    save_policy(on_top, tmp_path / "on-top", base=str(tiny_model_path), start=tmp_path / "whole")
    assert read_card(tmp_path / "on-top").base == str(tmp_path / "whole")
    assert close(output(load_policy(tmp_path / "on-top")), output(on_top))


def test_saving_again_replaces(tiny_model_path: Path, tmp_path: Path) -> None:
    for method in ("one", "two"):
        save_policy(adapted(load_model(tiny_model_path), 4), tmp_path / "p", base=str(tiny_model_path), method=method)
    assert read_card(tmp_path / "p").method == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    assert not list((tmp_path / "p").rglob("*.bin")) + list((tmp_path / "p").rglob("*.pt"))


def test_the_tokenizer_of_adapters_is_the_base_models(chain: tuple[Path, list[torch.Tensor]]) -> None:
    assert load_tokenizer(chain[0] / "fspo").chat_template
    with pytest.raises(ModelError, match="adapters"):
        load_model(chain[0] / "fspo")


def test_a_tokenizer_of_its_own_passes_on_to_what_is_trained_from_a_policy(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    tokenizer, base, first = load_tokenizer(tiny_model_path), str(tiny_model_path), tmp_path / "first"
    tokenizer.chat_template += "{# another #}"
    save_policy(adapted(load_model(base), 1), first, base=base, tokenizer=tokenizer)
    save_policy(adapted(load_policy(first), 2), tmp_path / "adapters", base=base, start=first)
    save_policy(load_policy(first), tmp_path / "whole", base=base, start=first)
    join_policies([first, tmp_path / "adapters"], tmp_path / "joined")
    for name in ("adapters", "whole", "joined"):
        assert load_tokenizer(tmp_path / name).chat_template == tokenizer.chat_template, name


def test_broken_folders_are_named(chain: tuple[Path, list[torch.Tensor]], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no readable policy"):
        load_policy(tmp_path)
    shutil.copytree(chain[0] / "fspo", tmp_path / "broken")
    (tmp_path / "broken" / "adapter-0" / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="adapter-0"):
        load_policy(tmp_path / "broken")
    card = json.loads((tmp_path / "broken" / "policy.json").read_text())
    (tmp_path / "broken" / "policy.json").write_text(json.dumps({**card, "format": 99}))
    with pytest.raises(ModelError, match="another version"):
        load_policy(tmp_path / "broken")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"adapters": ["../payload"]}, "adapters holds"),
        ({"adapters": ["adapter-0", "/etc"]}, "adapters holds"),
        ({"adapters": ["adapter-0/../../payload"]}, "adapters holds"),
        ({"adapters": ["adapter-0\n"]}, "adapters holds"),
        ({"adapters": ["adapter-٣"]}, "adapters holds"),
        ({"adapters": [None]}, "adapters holds null"),
        ({"adapters": "adapter-0"}, "adapters must be a list"),
        ({"adapters": None}, "adapters must be a list"),
        ({"base": None}, "base must be"),
        ({"base": ["a"]}, "base must be"),
        ({"base": ""}, "base must be"),
        ({"starts_from": 3}, "starts_from must be"),
        (None, "it holds no object"),
        ([], "it holds no object"),
    ],
)
def test_a_policy_with_names_that_training_does_not_write_is_refused(
    chain: tuple[Path, list[torch.Tensor]], tmp_path: Path, wrong: Any, said: str
) -> None:
    hostile = Path(shutil.copytree(chain[0] / "fspo", tmp_path / "downloads/policy"))
    (tmp_path / "downloads/payload").mkdir()
    (tmp_path / "downloads/payload/adapter_model.safetensors").write_text("not to be read or copied")
    record = json.loads((hostile / "policy.json").read_text())
    (hostile / "policy.json").write_text(json.dumps({**record, **wrong} if isinstance(wrong, dict) else wrong))
    trained = adapted(load_policy(chain[0] / "fspo"), 3)
    before = sorted(tmp_path.rglob("*"))
    (hostile / "tokenizer_config.json").unlink(missing_ok=True)
    for read in (
        lambda: read_card(hostile),
        lambda: load_policy(hostile),
        lambda: load_tokenizer(hostile),
        lambda: export_policy(hostile, tmp_path / "plain"),
        lambda: save_policy(trained, tmp_path / "runs/mine", base="x", start=hostile),
    ):
        with pytest.raises(ModelError, match=said):
            read()
    assert sorted(tmp_path.rglob("*")) == before


def test_training_on_copies_an_adapter_and_nothing_beside_it(
    chain: tuple[Path, list[torch.Tensor]], tmp_path: Path
) -> None:
    start = Path(shutil.copytree(chain[0] / "pref-ft", tmp_path / "start"))
    (tmp_path / "secret").write_text("a key")
    (start / "adapter-0/notes").symlink_to(tmp_path / "secret")
    made = save_policy(adapted(load_policy(start), 2), tmp_path / "made", base="x", start=start)
    assert sorted(path.name for path in (made / "adapter-0").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert close(output(load_policy(made)), chain[1][2])


def test_a_policy_that_is_built_on_itself_is_refused(chain: tuple[Path, list[torch.Tensor]], tmp_path: Path) -> None:
    policy = Path(shutil.copytree(chain[0] / "pref-ft", tmp_path / "policy"))
    record = json.loads((policy / "policy.json").read_text())
    (policy / "policy.json").write_text(json.dumps({**record, "base": str(policy)}))
    for load in (load_tokenizer, load_policy):
        with pytest.raises(ModelError):
            load(policy)


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
)
def test_a_policy_with_adapters_on_one_of_two_tied_layers_is_read_as_it_was_trained(
    settings: dict[str, Any], tiny_model_path: Path, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft warns of tied layers
        policy = adapted(load_model(tiny_model_path), 5, **settings)
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_embedding_B" in name or "modules_to_save" in name:
                weight.add_(torch.randn_like(weight) * 0.3)
    expected = output(policy)
    assert not close(expected, output(load_model(tiny_model_path)))
    save_policy(policy, tmp_path / "policy", base=str(tiny_model_path))
    merged = load_policy(tmp_path / "policy")
    assert close(output(merged), expected)
    out = export_policy(tmp_path / "policy", tmp_path / "plain")
    assert close(output(AutoModelForCausalLM.from_pretrained(out).eval()), expected)
