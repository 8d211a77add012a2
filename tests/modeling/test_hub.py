"""Models of a hub on this machine: what is fetched is what is loaded, and what identifies it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, hf_hub_download
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.errors import ConfigError, ModelError
from fspo.evaluation.scoring.weights import Weights
from fspo.files import read_json
from fspo.modeling import hub
from fspo.modeling.loading import load_configuration, load_model, load_tokenizer
from fspo.modeling.model_names import place_here, weights_of
from fspo.modeling.size import count_weights
from fspo.runs.preflight import check_model
from tests.e2e.hub import Hub
from tests.e2e.hub import hub as serve
from tests.tiny_model import build_tiny_model
from tests.training.test_train import interrupted_after, same, weights
from tests.training.train_tiny import train_tiny

NAME = "someone/base"
NEXT = "2" * 40


@pytest.fixture
def other_model_path(tmp_path: Path) -> Path:
    return build_tiny_model(tmp_path / "other", seed=1)


@pytest.fixture
def served(tmp_path: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model, and an empty cache."""
    with serve() as state:
        state.put(NAME, tiny_model_path)
        monkeypatch.setattr(constants, "ENDPOINT", state.address)
        template = state.address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        use_cache(tmp_path / "cache", monkeypatch)
        yield state


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read and fetch as a new process does that has this cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(hub, "_commits", {})
    monkeypatch.setattr(hub, "_done", set())


def row(model: object) -> torch.Tensor:
    found: torch.Tensor = model.get_input_embeddings().weight[7].detach().cpu()  # type: ignore[attr-defined]
    return found


def test_a_new_revision_is_loaded_when_it_is_pulled_and_not_before(
    served: Hub, tiny_model_path: Path, other_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert weights_of(NAME) is None and place_here(NAME) is None
    first = load_model(NAME)
    assert torch.equal(row(first), row(load_model(tiny_model_path)))
    assert first.name_or_path == first.config.name_or_path == NAME
    identity = weights_of(NAME)
    assert identity == weights_of(tiny_model_path)

    served.put(NAME, other_model_path, NEXT)
    for _ in range(2):  # in this process, and in a new one
        assert weights_of(NAME) == identity
        assert torch.equal(row(load_model(NAME)), row(first))
        assert load_tokenizer(NAME).chat_template and load_configuration(NAME).hidden_size == 32
        use_cache(tmp_path / "cache", monkeypatch)

    assert CliRunner().invoke(app, ["model", "pull", NAME]).exit_code == 0
    assert weights_of(NAME) == weights_of(other_model_path) != identity
    assert torch.equal(row(load_model(NAME)), row(load_model(other_model_path)))


def test_one_process_reads_one_revision(
    served: Hub, other_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Weights(NAME, {}, dtype="float32", max_length=None)
    found = source.fingerprint(None)
    before = row(source.load(None))
    served.put(NAME, other_model_path, NEXT)
    mine = hub._commits
    use_cache(tmp_path / "cache", monkeypatch)
    hub.fetched(NAME, weights=True, newest=True)  # as another process does meanwhile
    monkeypatch.setattr(hub, "_commits", mine)
    source.let_go()
    assert torch.equal(row(source.load(None)), before)
    assert source.fingerprint(None) == found


def test_a_tokenizer_is_fetched_without_the_weights(served: Hub, tmp_path: Path) -> None:
    load_tokenizer(NAME)
    assert not any("safetensors" in path for path in served.asked if "/resolve/" in path)
    assert place_here(NAME) is not None and weights_of(NAME) is None and count_weights(NAME) is None
    load_model(NAME)
    assert weights_of(NAME) is not None and count_weights(NAME)


def test_a_part_of_a_model_does_not_pass_for_it(served: Hub) -> None:
    hf_hub_download(NAME, "config.json")  # as transformers fetches, file by file
    assert place_here(NAME) is None and weights_of(NAME) is None
    check_model(NAME)
    hf_hub_download(NAME, "model.safetensors")
    assert place_here(NAME) is None and weights_of(NAME) is None
    hf_hub_download(NAME, "tokenizer.json")
    assert place_here(NAME) is not None and weights_of(NAME) is not None


def test_a_shard_that_is_missing_is_fetched(
    served: Hub, tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_model(tiny_model_path).save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    load_tokenizer(tiny_model_path).save_pretrained(str(tmp_path / "shards"))
    served.put(NAME, tmp_path / "shards")
    for name in ("config.json", "tokenizer.json", "model.safetensors.index.json"):
        hf_hub_download(NAME, name)
    shards = sorted(set(read_json(tmp_path / "shards/model.safetensors.index.json")["weight_map"].values()))
    assert len(shards) > 1
    hf_hub_download(NAME, shards[0])
    assert weights_of(NAME) is None
    assert torch.equal(row(load_model(NAME)), row(load_model(tiny_model_path)))
    assert weights_of(NAME) is not None


def test_what_a_hub_does_not_give_is_said_in_a_sentence(
    served: Hub, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"someone/nothing could not be fetched from the hub \(the hub has no such"):
        load_model("someone/nothing")
    del served.files[NAME]["model.safetensors"]
    served.files[NAME]["pytorch_model.bin"] = b""
    with pytest.raises(ModelError, match="has no weights in safetensors"):
        load_model(NAME)
    served.put(NAME, tiny_model_path, NEXT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(ModelError, match="the hub can't be reached, and the model was not fetched before"):
            load_model(NAME)
    hub._commits.clear()
    load_model(NAME)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert load_model(NAME).config.hidden_size == 32


def test_a_training_goes_on_with_the_weights_that_it_began_with(
    served: Hub, tiny_model_path: Path, other_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted_after(patch, 3)
        train_tiny(NAME, tmp_path / "cut", steps=5)
    assert read_json(tmp_path / "cut/training.json")["identity"]["weights"] == weights_of(tiny_model_path)
    served.put(NAME, other_model_path, NEXT)

    use_cache(tmp_path / "empty", monkeypatch)
    assert list((tmp_path / "cut/checkpoints").iterdir())
    with pytest.raises(ConfigError, match=r"with weights = .*, and now weights = "):
        train_tiny(NAME, tmp_path / "cut", steps=5)
    assert read_json(tmp_path / "cut/training.json")["identity"]["weights"] == weights_of(tiny_model_path)

    use_cache(tmp_path / "cache", monkeypatch)
    cut = train_tiny(NAME, tmp_path / "cut", steps=5)
    whole = train_tiny(tiny_model_path, tmp_path / "whole", steps=5)
    assert same(weights(cut), weights(whole))
    assert read_json(cut / "policy.json")["base"] == NAME


def test_a_model_that_is_nowhere_is_missed_without_fetching_anything(served: Hub, tmp_path: Path) -> None:
    assert check_model(NAME) == [f"The model {NAME} is not on this machine; the command fetches it."]
    with pytest.raises(ModelError, match="There is no model someone/bass, neither here nor on the hub"):
        check_model("someone/bass")
    with pytest.raises(ModelError, match=r"Did you mean smollm2-135m\?"):
        check_model("smolm2-135m")
    assert not list(tmp_path.glob("cache/*"))


@pytest.mark.parametrize("name", ["models/nope", "runs/nope"])
@pytest.mark.parametrize("fetch", [False, True])
def test_a_name_that_looks_like_a_folder_is_answered_without_a_hub(served: Hub, name: str, fetch: bool) -> None:
    with pytest.raises(ModelError, match=f"There is no model folder {name}"):
        check_model(name, fetch=fetch)
    assert not served.asked


def test_a_hub_that_is_away_misses_no_model(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    [line] = check_model("someone/bass")
    assert "not known whether the model exists" in line
