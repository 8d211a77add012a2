"""What the settings of an evaluation make of a value that depends on the machine."""

from __future__ import annotations

import pytest

from fspo.evaluation.config import EvaluationConfig
from fspo.modeling.loading import fast_dtype


def test_auto_is_the_precision_that_is_fast_here() -> None:
    assert EvaluationConfig.model_validate({"dtype": "auto"}).dtype == fast_dtype()


@pytest.mark.parametrize("able", [False, True])
def test_auto_follows_the_instructions_of_the_processor(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": able})
    found = EvaluationConfig.model_validate({"dtype": "auto"})
    assert found.dtype == ("bfloat16" if able else "float32")
    assert EvaluationConfig.model_validate_json(found.model_dump_json()) == found


def test_another_precision_stays() -> None:
    assert EvaluationConfig.model_validate({"dtype": "float16"}).dtype == "float16"
