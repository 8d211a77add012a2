"""Users that a language model plays in a run: in the training of aloe and in the conversations of the evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError
from fspo.files import read_json, read_jsonl
from tests.fake_endpoint import fake_endpoint, stats
from tests.runs.test_readers import EVALUATED, all_parts, run

# peft finds what is left of a merged adapter.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a .peft_config. attribute")

SHORT = {
    "rounds": 1, "steps": 1, "users_per_step": 2, "queries": 2, "shots": 1, "warmup": 0, "probes": 0,
    "max_new_tokens": 4, "lora": {"r": 2, "alpha": 4},
}  # fmt: skip


def test_one_endpoint_plays_users_in_training_and_evaluation(tmp_path: Path, tiny_model_path: Path) -> None:
    def values(address: str, **more: Any) -> dict[str, Any]:
        endpoint = {"base_url": address, "model": "m", **more}
        talks = {"turns": 2, "users": 2, "endpoint": endpoint}
        evaluation = {**EVALUATED, "robustness": {"users": 0}, "users": 2, "max_new_tokens": 4, "conversations": talks}
        training = {"aloe": {**SHORT, "endpoint": endpoint}}
        return {"methods": ["aloe"], "readers": {}, "training": training, "evaluation": evaluation}

    with fake_endpoint() as address:
        folder = run(tmp_path, tiny_model_path, **values(address))
        metrics = all_parts(folder)
        came = stats(address)["came"]
        assert 1 <= metrics["aloe"]["alignment@2"]["value"] <= 5
        said = [
            row for path in folder.method("aloe").glob("rounds/1/turn-?-messages.jsonl") for row in read_jsonl(path)
        ]
        assert sorted(row["turn"] for row in said) == [1, 2]
        ((file, spent),) = read_json(folder.path / "spending.json").items()
        assert (folder.path / file).is_file() and spent["requests"] >= len(said) + 8
        # Where and how it is asked may change, and nothing is asked again.
        again = values(address, timeout=5, budget={"tokens": 10**6})
        assert all_parts(run(tmp_path, tiny_model_path, **again)) == metrics
        assert stats(address)["came"] <= came + 1  # whether the server is there
        with pytest.raises(ConfigError, match=r"training\.aloe\.endpoint\.model"):
            all_parts(run(tmp_path, tiny_model_path, **values(address, model="another")))
