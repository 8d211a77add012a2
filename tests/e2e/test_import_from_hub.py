"""Published data from a hub on this machine, through the real command."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from fspo.preferences.dataset import PreferenceDataset
from tests import preloaded
from tests.e2e.conftest import environment, run
from tests.e2e.hub import hub
from tests.preferences.test_published import BENCH


def lines(*rows: dict[str, object]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return preloaded.run("-c", code, env=environment(**variables))


def test_a_published_dataset_becomes_one_of_fspo(tmp_path: Path) -> None:
    other = BENCH | {"user_id": "user8", "context": [{"role": "user", "content": "Why?"}]}
    with hub() as state:
        state.files["someone/bench"] = {
            "README.md": b"a card",
            "data/test.jsonl": lines(other, BENCH),
            "data/train.jsonl": lines(BENCH),
        }
        state.files["someone/pictures"] = {"a.png": b""}
        reach = {"HF_ENDPOINT": state.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hf")}
        command = ["data", "import", "hub:someone/bench"]
        done = run(*command, tmp_path / "all", "--format", "reward-bench", **reach)
        assert "Left out: 1 row repeating an earlier one." in done.stdout
        assert "2 preferences of 2 users" in done.stdout
        assert list(PreferenceDataset.load(tmp_path / "all").users) == ["user8", "user7"]

        run("data", "import", "hub:someone/bench/data/train.jsonl", tmp_path / "one", "-f", "reward-bench", **reach)
        assert len(PreferenceDataset.load(tmp_path / "one")) == 1

        # What a benchmark measures on is the part that it names, and never the training rows.
        fetched = (
            "from fspo.preferences.hub import fetch; print(*[path.name for path in fetch('hub:someone/bench', %r)])"
        )
        state.files["someone/bench"] |= {"data/latest-train.jsonl": lines(BENCH)}
        assert python(fetched % "test", **reach).stdout.split() == ["test.jsonl"]
        assert python(fetched % "train", **reach).stdout.split() == ["latest-train.jsonl", "train.jsonl"]
        del state.files["someone/bench"]["data/test.jsonl"]
        assert "DataError: No file of hub:someone/bench has a name" in python(fetched % "test", **reach).stderr

        for name, said in (
            ("hub:someone/nothing", "There is no dataset someone/nothing on the hub"),
            (
                "hub:someone/pictures",
                "has no file that ends in .parquet, .jsonl, .jsonl.gz, .csv, .csv.gz, .tsv (it holds a.png)",
            ),
            ("hub:someone", "names no dataset of a hub"),
        ):
            code = 2 if name == "hub:someone" else 1
            assert said in run("data", "import", name, tmp_path / "no", "-f", "elix", code=code, **reach).stderr
        reach["HF_ENDPOINT"] = "http://127.0.0.1:9"
        reach["HF_HOME"] = str(tmp_path / "empty")
        assert "can't be reached" in run(*command, tmp_path / "no", "-f", "elix", code=1, **reach).stderr
    assert not (tmp_path / "no").exists()
