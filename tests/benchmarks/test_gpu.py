from __future__ import annotations

import json

import pytest
import torch

from benchmarks import gpu, training_step
from tests.preloaded import forking


@pytest.mark.slow
def test_the_program_for_gpus_runs_without_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_step, "subprocess", forking)
    options = ["--device", "cpu", "--shape", "tiny", "--rows", "2x2x6", "--repeats", "1"]
    assert gpu.main(options) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    (row,) = figures["rows"]
    assert (row["shape"], row["shots"], row["queries"]) == ("tiny", 2, 2)
    assert row["loss_difference"] < 1e-4
    assert figures["failures"] == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_cuda_device_one_sentence_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err
