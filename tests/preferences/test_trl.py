from __future__ import annotations

from pathlib import Path

import pytest

from fspo.preferences.formats import write_trl
from tests.preferences.worlds import grid


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # whatever TRL and its friends warn about is theirs
@pytest.mark.parametrize(("suffix", "conversational"), [("parquet", False), ("jsonl", True)])
def test_stock_trl_trains_on_an_export_as_it_is(
    tmp_path: Path, tiny_model_path: Path, suffix: str, conversational: bool
) -> None:
    trl = pytest.importorskip("trl")
    import datasets as hub

    path = write_trl(grid(users=2, questions=4), tmp_path / f"views.{suffix}", conversational=conversational)
    builder = "json" if suffix == "jsonl" else suffix
    rows = hub.load_dataset(builder, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    trainer = trl.DPOTrainer(
        model=str(tiny_model_path),
        train_dataset=rows,
        args=trl.DPOConfig(
            output_dir=str(tmp_path / "out"),
            max_steps=1,
            per_device_train_batch_size=2,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
        ),
    )
    assert trainer.train().training_loss == pytest.approx(0.693, abs=0.01)
