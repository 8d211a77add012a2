"""`fspo env`, `fspo model`, the command reference and model cards."""

from __future__ import annotations

import ast
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Gemma2Config
from typer.testing import CliRunner

from fspo.cli import reference
from fspo.cli.main import app
from fspo.evaluation.statistics.intervals import Estimate
from fspo.methods.table import METHODS
from fspo.modeling.layouts import LAYOUTS, LayoutName
from fspo.modeling.loading import load_tokenizer
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.types import Preference
from fspo.runs.config import load_config
from fspo.runs.model_cards import model_card

ROOT = Path(__file__).parents[2]


def test_env_tells_versions_and_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FSPO_CACHE", str(tmp_path))
    facts = json.loads(CliRunner().invoke(app, ["env", "--json"]).output)
    assert facts["cache"] == str(tmp_path)
    assert facts["built-in model"] == "not obtained yet"
    assert facts["versions"]["torch"].startswith("2.")
    text = CliRunner().invoke(app, ["env", "--config", str(ROOT / "configs/tiny.yaml"), "--set", "seed=5"]).output
    assert "versions:" in text
    assert "  seed: 5" in text


def test_model_list_and_show(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model_path: Path) -> None:
    monkeypatch.setenv("FSPO_CACHE", str(tmp_path))
    assert "smollm2-135m: " in CliRunner().invoke(app, ["model", "list"]).output
    text = CliRunner().invoke(app, ["model", "show", str(tiny_model_path)]).output
    assert "architectures: LlamaForCausalLM" in text
    again = ["model", "show", "--config", str(ROOT / "configs/tiny.yaml"), "--set", f"model={tiny_model_path}"]
    assert CliRunner().invoke(app, again).output == text
    result = CliRunner().invoke(app, [*again, str(tiny_model_path)])
    assert result.exit_code == 2 and "--config" in result.stderr
    result = CliRunner().invoke(app, ["model", "show"])
    assert result.exit_code == 1
    assert "fspo model pull smollm2-135m" in result.stderr


def test_model_show_warns_of_what_can_not_be_scored_with(tiny_model_path: Path, tmp_path: Path) -> None:
    def shown(folder: Path) -> str:
        result = CliRunner().invoke(app, ["model", "show", str(folder)])
        assert result.exit_code == 0, result.stderr
        return str(result.output)

    assert "Warning" not in shown(tiny_model_path)
    capped = Gemma2Config(
        vocab_size=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, head_dim=8
    )
    AutoModelForCausalLM.from_config(capped).save_pretrained(tmp_path / "capped")
    assert "Warning: fspo can't score" in (said := shown(tmp_path / "capped")) and "soft-caps" in said
    shutil.copytree(tiny_model_path, tmp_path / "cut")
    weights = tmp_path / "cut/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert "damaged" in shown(tmp_path / "cut")
    kept = load_file(tiny_model_path / "model.safetensors")
    save_file({name: kept[name] for name in sorted(kept)[1:]}, weights, {"format": "pt"})
    assert "they lack" in shown(tmp_path / "cut")


def test_model_pull_names_the_builtin_model_where_the_hub_is_out_of_reach(tiny_model_path: Path) -> None:
    assert "can be loaded" in CliRunner().invoke(app, ["model", "pull", str(tiny_model_path)]).output
    assert "Would obtain" in CliRunner().invoke(app, ["model", "pull", "--dry-run"]).output
    result = CliRunner().invoke(app, ["model", "pull", "nobody/nothing"])
    assert result.exit_code == 1
    assert "smollm2-135m" in result.stderr


def test_the_reference_says_what_the_commands_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reference.main(["--check", str(ROOT / "docs/cli.md")]) == 0
    path = tmp_path / "cli.md"
    assert reference.main(["--check", str(path)]) == 1
    assert "make docs" in capsys.readouterr().err
    assert reference.main([str(path)]) == 0
    assert reference.main(["--check", str(path)]) == 0
    text = path.read_text()
    assert "### fspo data import" in text
    assert "\x08" not in text


def test_a_model_card_tells_what_was_made_of_what(tmp_path: Path) -> None:
    config = load_config(ROOT / "configs/tiny.yaml")
    row = METHODS["fspo"]
    text = model_card(row, config, {})
    assert "Not evaluated yet." in text
    assert "the policy `pref-ft` of the same run" in text
    from_base = model_card(row.from_base(), config, {})
    assert "Starts from: the base model" in from_base and "Pref-FT" not in from_base
    estimate = Estimate(0.75, 0.7, 0.8, users=9, items=90)
    text = model_card(row, config, {"fspo": {"reward_accuracy": estimate, "win_rate": replace(estimate, low=None)}})
    assert "| Reward accuracy | 75.0% | 70.0% to 80.0% |" in text
    assert "| Win rate over the base model | 75.0% | none |" in text
    assert "mirrored-contrast" in text
    named = model_card(row, config, {"fspo": {"reward_accuracy": estimate}}, {"reward": "antisymmetric"})
    assert "clustered by user; reward: antisymmetric." in named
    (tmp_path / "tokenizer_config.json").touch()
    own_tokenizer = 'AutoTokenizer.from_pretrained("FOLDER")'
    assert own_tokenizer not in text and own_tokenizer in model_card(row, config, {}, policy=tmp_path)


@pytest.mark.parametrize("name", ["fspo", "ipo", "fspo-rat"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_model_card_says_what_the_policy_reads(tiny_model_path: Path, name: str, layout: LayoutName) -> None:
    row = METHODS[name]
    text = model_card(row, load_config(ROOT / "configs/tiny.yaml", [f"layout={layout}"]), {})
    blocks = [ast.parse(block) for block in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)]
    [shown] = [
        ast.literal_eval(line.value)
        for block in blocks
        for line in block.body
        if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "messages"
    ]
    renderer = EpisodeRenderer(load_tokenizer(tiny_model_path), context=row.context, layout=layout)
    shots = [Preference("ann", f"QUESTION {n}", f"LIKED {n}", f"DISLIKED {n}") for n in (1, 2)]
    assert shown == renderer.messages(shots, "PROMPT", "DESCRIPTION")


def test_a_folder_without_a_model_is_not_to_be_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "policy").mkdir()
    record = {"format": 1, "base": "smollm2-135m", "adapters": [], "starts_from": None}
    (tmp_path / "policy/policy.json").write_text(json.dumps(record))
    for name, said in (
        ("./empty", "holds no model"),
        ("empty", "holds no model"),
        ("./nowhere", "does not exist"),
        ("./policy", "built on: `fspo model show smollm2-135m`"),
    ):
        result = CliRunner().invoke(app, ["model", "show", name])
        assert result.exit_code == 1
        assert said in result.stderr and "pull" not in result.stderr
