from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def policies(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path | None]:
    """Random adapters where training would have put trained ones: Pref-FT, FSPO on top of it, and IPO."""
    import torch
    from peft import LoraConfig, get_peft_model

    from fspo.modeling.loading import load_model
    from fspo.modeling.policies import load_policy, save_policy

    folder = tmp_path_factory.mktemp("methods")

    def trained(name: str, start: Path | None) -> Path:
        torch.manual_seed(len(name))
        warnings.simplefilter("ignore")  # peft asks transformers by old names
        below: Any = load_model(tiny_model_path) if start is None else load_policy(start)
        model: Any = get_peft_model(below, LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False))
        return save_policy(model, folder / name, base=str(tiny_model_path), method=name, start=start)

    pref_ft = trained("pref-ft", None)
    made: dict[str, Path | None] = {"base": None, "few-shot": None, "pref-ft": pref_ft, "ipo": trained("ipo", None)}
    return made | {"fspo": trained("fspo", pref_ft), "oracle": None}
