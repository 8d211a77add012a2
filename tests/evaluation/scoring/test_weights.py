"""What tells weights apart, and by whose tokenizer they are shown texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from fspo.evaluation.config import REFERENCE, EvaluationConfig
from fspo.evaluation.context import Evaluation
from fspo.evaluation.scoring.eval_episodes import build_trials
from fspo.evaluation.scoring.weights import Weights
from fspo.evaluation.scoring_stage import ScoringStage
from fspo.modeling.loading import load_tokenizer
from fspo.modeling.policy import Policy
from fspo.progress import Silent
from tests.evaluation.helpers import small_dataset


def fingerprint(model: str) -> str:
    return Weights(model, {}, dtype="float32", max_length=None).fingerprint(None)


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer.model", "config.json"])
def test_whatever_bears_on_what_a_model_says_makes_it_another(tiny_model_path: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(tiny_model_path, tmp_path / "model"))
    before = fingerprint(str(copy))
    with (copy / name).open("a") as handle:
        handle.write("\n")
    assert fingerprint(str(copy)) != before


def test_a_home_is_found(tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    copy = Path(shutil.copytree(tiny_model_path, tmp_path / "model"))
    before = fingerprint("~/model")
    (copy / "config.json").write_text("{}")
    assert fingerprint("~/model") != before


def test_weights_that_differ_in_the_middle_of_a_file_differ(tmp_path: Path) -> None:
    found = []
    for middle in (b"a", b"b"):
        model = tmp_path / middle.decode()
        model.mkdir()
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_bytes(b"0" * (3 << 20) + middle + b"0" * (3 << 20))
        found.append(fingerprint(str(model)))

    assert len(set(found)) == 2


@pytest.fixture
def own(tiny_model_path: Path, policies: dict[str, Path | None], tmp_path: Path) -> Path:
    """A policy that was trained with another chat template than its base model's."""
    tokenizer = load_tokenizer(tiny_model_path)
    tokenizer.chat_template = tokenizer.chat_template.replace("You are a helpful assistant.", "You know this person.")
    folder = Path(shutil.copytree(str(policies["ipo"]), tmp_path / "own"))
    tokenizer.save_pretrained(folder)
    return folder


def test_a_policy_and_its_reference_are_shown_texts_by_its_own_tokenizer(
    tiny_model_path: Path, policies: dict[str, Path | None], own: Path, tmp_path: Path
) -> None:
    found = {"fspo": own, "ipo": policies["ipo"]}
    weights = Weights(str(tiny_model_path), found, dtype="float32", max_length=None)
    served = Policy.load(own).renderer.identity
    assert weights.of("fspo").renderer.identity == served != weights.renderer("shots").identity
    assert weights.of("ipo").renderer is weights.renderer("none")
    data, config = small_dataset("test"), EvaluationConfig(shots=2, queries=2)
    trials = build_trials(data, config)
    stage = ScoringStage(Evaluation(config, data, trials, list(found), weights, tmp_path, Silent()))
    shown = {
        name: stage.scorer(source, view, name)[0].model.renderer.identity
        for source, views in stage.wanted(list(found)).items()
        for view, name in views.items()
    }
    assert shown["fspo"] == shown[f"fspo{REFERENCE}"] == served
    assert shown["ipo"] == shown[f"ipo{REFERENCE}"] == weights.renderer("none").identity


def test_a_policy_over_a_model_without_chat_template_is_shown_its_own(
    tiny_model_path: Path, own: Path, tmp_path: Path
) -> None:
    bare = Path(shutil.copytree(tiny_model_path, tmp_path / "bare"))
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    settings = json.loads((bare / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(settings))
    weights = Weights(str(bare), {"fspo": own}, dtype="float32", max_length=None)
    assert weights.of("fspo").renderer.identity == Policy.load(own).renderer.identity
