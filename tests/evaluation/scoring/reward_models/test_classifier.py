"""A reward model of transformers: what it reads, that shots beyond its room are left out, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ModelError
from fspo.evaluation.config import EvaluationConfig
from fspo.evaluation.scoring.reward_models.classifier import ClassifierRewardModel
from fspo.evaluation.scoring.reward_models.protocol import RewardRequest
from fspo.preferences.types import Preference
from tests.evaluation.helpers import small_dataset
from tests.evaluation.scoring.reward_models.helpers import evaluated

SHOTS = tuple(Preference("", f"Question {n}?", f"liked {n}", f"disliked {n}") for n in range(3))


@pytest.fixture(scope="module")
def folder(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a random head that gives one number."""
    return saved(tiny_model_path, tmp_path_factory.mktemp("reward-model"), labels=1)


def saved(base: Path, folder: Path, *, labels: int) -> Path:
    import torch
    import transformers
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(str(base), num_labels=labels)
    torch.manual_seed(0)
    made: Any = transformers.LlamaForSequenceClassification
    made(config).save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(str(base)).save_pretrained(str(folder))
    return folder


def test_a_score_is_the_models_output_on_its_own_chat_format(folder: Path) -> None:
    import torch

    model = ClassifierRewardModel.load(folder)
    tokenizer: Any = model._tokenizer
    turns = [{"role": "user", "content": "What now?"}, {"role": "assistant", "content": "Nothing."}]
    ids = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)["input_ids"]
    with torch.inference_mode():
        expected = float(model._model(input_ids=ids).logits[0, 0])
    assert model._ids((), "What now?", "Nothing.") == ids[0].tolist()
    assert model.score([RewardRequest((), "What now?", "Nothing.")]) == [pytest.approx(expected, abs=1e-6)]


def test_shots_and_labels_matter_to_what_is_read(folder: Path) -> None:
    model = ClassifierRewardModel.load(folder)
    flipped = tuple(shot.swap() for shot in SHOTS)
    scores = model.score([RewardRequest(shots, "What?", "This.") for shots in ((), SHOTS, flipped)])
    assert len(set(scores)) == 3
    assert model.score([RewardRequest(SHOTS, "What?", "This.")]) == [scores[1]]


def test_users_text_is_no_control_token(folder: Path) -> None:
    model = ClassifierRewardModel.load(folder)
    end = model._tokenizer.convert_tokens_to_ids("<|im_end|>")
    usual, nasty = (model._ids(SHOTS, text, text).count(end) for text in ("harmless", "<|im_end|>"))
    assert usual == nasty


def test_the_oldest_shots_make_room_and_both_responses_are_shown_the_same(folder: Path) -> None:
    whole = ClassifierRewardModel.load(folder)
    long = "word " * 30
    room = len(whole._ids(SHOTS[1:], "What?", long))
    narrow = ClassifierRewardModel.load(folder, max_length=room)
    asked = [RewardRequest(SHOTS, "What?", text) for text in (long, "short")]
    assert narrow.score(asked) == whole.score([RewardRequest(SHOTS[1:], "What?", text) for text in (long, "short")])
    short = len(whole._ids((), "What?", "short"))
    narrow = ClassifierRewardModel.load(folder, max_length=short)
    assert narrow.score(asked) == [None, *whole.score([RewardRequest((), "What?", "short")])]
    assert ClassifierRewardModel.load(folder, max_length=20).score(asked) == [None, None]


def test_without_a_chat_template_it_reads_a_pair_of_texts(folder: Path) -> None:
    model = ClassifierRewardModel.load(folder)
    tokenizer = model._tokenizer
    tokenizer.chat_template = None
    bare = ClassifierRewardModel(model._model, tokenizer, name="bare")
    assert bare._ids((), "What?", "This.") == tokenizer("What?", "This.")["input_ids"]
    assert bare.score([RewardRequest(SHOTS, "What?", "This.")])[0] is not None


def test_what_is_no_reward_model_is_refused(tiny_model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no trained reward model: its weights lack score\.weight"):
        ClassifierRewardModel.load(tiny_model_path)
    with pytest.raises(ModelError, match="gives 3 numbers"):
        ClassifierRewardModel.load(saved(tiny_model_path, tmp_path, labels=3))
    with pytest.raises(ModelError, match="does not exist"):
        ClassifierRewardModel.load(tmp_path / "nowhere")


def test_it_is_measured_like_any_other(folder: Path, tmp_path: Path) -> None:
    config = EvaluationConfig(shots=2, ladder=(0, 2), queries=2, answers=0)
    row = evaluated(tmp_path, small_dataset("test"), config, plain=ClassifierRewardModel.load(folder))["plain"]
    assert {"reward_accuracy", "label_flip_rate", "user_swap_drop", "order_spread", "calibration_error"} <= row.keys()
