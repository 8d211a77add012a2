from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken

from fspo.errors import ModelError
from fspo.evaluation.scoring.weights import Weights
from fspo.llm.local import LocalModel
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.vocabulary import check_vocabulary, rows_of

ROWS = 384


def extended(folder: Path, *tokens: AddedToken) -> Any:
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(list(tokens))
    return tokenizer


def special(token: str) -> AddedToken:
    return AddedToken(token, special=True, normalized=False)


@pytest.fixture
def too_small(tiny_model_path: Path, tmp_path: Path) -> Path:
    """A model whose chat template was given two new tokens, and whose embeddings were not."""
    tokenizer = extended(tiny_model_path, special("<|user|>"), special("<|assistant|>"))
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    load_model(tiny_model_path).save_pretrained(tmp_path)
    tokenizer.save_pretrained(str(tmp_path))
    return tmp_path


def test_a_models_rows_are_those_of_its_embeddings(tiny_model_path: Path) -> None:
    assert rows_of(tiny_model_path) == rows_of(str(tiny_model_path)) == rows_of(load_model(tiny_model_path)) == ROWS
    check_vocabulary(load_tokenizer(tiny_model_path), ROWS, "tiny")


def test_tokens_without_a_row_are_refused_by_both_numbers(too_small: Path) -> None:
    with pytest.raises(ModelError, match=rf"386 tokens.*{ROWS}.*'<\|user\|>' and 1 more"):
        check_vocabulary(load_tokenizer(too_small), ROWS, "tiny")
    with pytest.raises(ModelError, match="386 tokens"):
        LocalModel.load(too_small)
    with pytest.raises(ModelError, match="386 tokens"):
        Weights(str(too_small), {}, dtype="float32", max_length=None).renderer("shots")


def test_words_without_a_row_are_refused(tiny_model_path: Path) -> None:
    tokenizer = extended(tiny_model_path, AddedToken("COVID-19", normalized=False))
    with pytest.raises(ModelError, match=r"385 tokens.*'COVID-19' has none"):
        check_vocabulary(tokenizer, ROWS, "tiny")


def test_tokens_that_are_never_read_need_no_row(tiny_model_path: Path) -> None:
    tokenizer = extended(tiny_model_path, special("[PAD]"), special("<image_soft_token>"))
    tokenizer.pad_token = "[PAD]"
    check_vocabulary(tokenizer, ROWS, "tiny")
    assert LocalModel(load_model(tiny_model_path), tokenizer, "tiny")
