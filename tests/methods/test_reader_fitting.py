"""Readers on disk: fitted once, saved, loaded, and never used with other embeddings."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fspo.errors import ConfigError, DataError, StorageError
from fspo.methods.reader_fitting import fit_reader, load_reader
from fspo.methods.reader_table import READERS, ReaderRow, reader_class
from fspo.modeling.embeddings import Embeddings, Response
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Preference, User

SMALL: dict[str, dict[str, object]] = {
    "gpo": {"steps": 2, "hidden": 8, "layers": 1},
    "ridge": {"episodes": 2},
    "hyre": {"steps": 2},
    "lore": {"steps": 2, "new_user_steps": 2},
    "mrm": {"steps": 2},
    "np-btl": {"steps": 2, "hidden": 8},
    "pal": {"steps": 2, "new_user_steps": 2},
    "vpl": {"steps": 2, "hidden": 8, "latent": 4},
}


class Letters:
    """Counts vowels: enough to tell responses apart."""

    name = identity = "letters"

    def embed(self, responses: Sequence[Response]) -> Iterator[tuple[int, Tensor]]:
        for place, (_, text) in enumerate(responses):
            yield place, torch.tensor([float(text.count(letter)) for letter in "aeiou"])


def dataset(users: int = 6, questions: int = 14) -> PreferenceDataset:
    """Users who like or dislike the letter a."""
    rows = []
    for user in range(users):
        for question in range(questions):
            texts = [f"{'a' * (question % 4 + 1)}{'e' * (user % 3)} yes", f"{'o' * (question % 3)}i no"]
            chosen, rejected = texts if user % 2 else texts[::-1]
            rows.append(Preference(f"u{user}", f"Question {question}?", chosen, rejected))
    return PreferenceDataset([User(f"u{user}") for user in range(users)], rows)


def row(name: str, **settings: object) -> ReaderRow:
    return ReaderRow(name, {**SMALL.get(name, {}), **settings}, {"shots": 4, "queries": 2})


@pytest.mark.parametrize("name", READERS)
def test_what_is_loaded_scores_as_what_was_fitted(name: str, tmp_path: Path) -> None:
    embeddings, data = Embeddings(Letters(), tmp_path / "embeddings"), dataset()
    fitted = fit_reader(row(name), data, embeddings, tmp_path / name)
    loaded = load_reader(row(name), tmp_path / name, embeddings)
    shots = data.of_user("u1")[:4]
    responses = [("New?", "aaa"), ("New?", "ooo")]
    scores = fitted.scores(shots, responses)
    assert loaded.scores(shots, responses) == pytest.approx(scores, abs=1e-6)
    assert loaded.identity == fitted.identity
    assert fitted.scores((), responses) == pytest.approx(loaded.scores((), responses))
    assert fitted.record.parameters > 0 and fitted.record.bytes_per_user > 0 and fitted.record.users == 6


def test_a_reader_is_fitted_once(tmp_path: Path) -> None:
    embeddings = Embeddings(Letters(), tmp_path / "embeddings")
    fit_reader(row("ridge"), dataset(), embeddings, tmp_path / "ridge")
    before = (tmp_path / "ridge" / "reader.safetensors").stat().st_mtime_ns
    fit_reader(row("ridge"), dataset(), embeddings, tmp_path / "ridge")
    assert (tmp_path / "ridge" / "reader.safetensors").stat().st_mtime_ns == before
    fit_reader(row("ridge", user_penalty=3.0), dataset(), embeddings, tmp_path / "ridge")
    assert (tmp_path / "ridge" / "reader.safetensors").stat().st_mtime_ns > before


def test_code_of_your_own_that_changed_is_fitted_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = (
        "from fspo.methods.readers.mean_difference import MeanDifference\n"
        "class Scaled(MeanDifference):\n"
        "    title, description = 'Scaled', 'The mean difference, scaled.'\n"
        "    def adapt(self, shots):\n"
        "        return {} * super().adapt(shots)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    own, embeddings = row("mine", reader="scaled_reader:Scaled"), Embeddings(Letters(), tmp_path / "e")
    found: list[str] = []
    for factor in (1, 20):
        (tmp_path / "scaled_reader.py").write_text(source.format(factor))
        monkeypatch.delitem(sys.modules, "scaled_reader", raising=False)
        reader_class.cache_clear()
        importlib.invalidate_caches()
        if found:
            with pytest.raises(ConfigError, match=r"'scaled_reader:Scaled' has changed .*; fit it again"):
                load_reader(own, tmp_path / "mine", embeddings)
        found.append(fit_reader(own, dataset(), embeddings, tmp_path / "mine").identity)
        assert load_reader(own, tmp_path / "mine", embeddings).identity == found[-1]
    assert found[0] != found[1]


def test_the_same_seed_gives_the_same_reader(tmp_path: Path) -> None:
    embeddings = Embeddings(Letters(), tmp_path / "embeddings")
    one, same = (fit_reader(row("np-btl"), dataset(), embeddings, tmp_path / name) for name in "ab")
    other = fit_reader(row("np-btl", seed=1), dataset(), embeddings, tmp_path / "c")
    assert one.weights == same.weights != other.weights


def test_embeddings_of_another_model_are_refused(tmp_path: Path) -> None:
    fit_reader(row("ridge"), dataset(), Embeddings(Letters(), tmp_path / "embeddings"), tmp_path / "ridge")
    others = Letters()
    others.name = others.identity = "another model"
    with pytest.raises(ConfigError, match="fitted on embeddings of letters, and these are others, of another model"):
        load_reader(row("ridge"), tmp_path / "ridge", Embeddings(others, tmp_path / "embeddings"))


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    embeddings = Embeddings(Letters(), tmp_path / "embeddings")
    with pytest.raises(DataError, match="holds no fitted reader yet; run `fspo train`"):
        load_reader(row("ridge"), tmp_path / "ridge", embeddings)
    fit_reader(row("ridge"), dataset(), embeddings, tmp_path / "ridge")
    fit_reader(row("lore"), dataset(), embeddings, tmp_path / "lore")
    weights = tmp_path / "ridge" / "reader.safetensors"
    weights.write_bytes((tmp_path / "lore" / "reader.safetensors").read_bytes())
    with pytest.raises(StorageError, match="holds the weights of another reader"):
        load_reader(row("ridge"), tmp_path / "ridge", embeddings)
    weights.write_bytes(b"{}")
    with pytest.raises(StorageError, match="holds no reader's weights"):
        load_reader(row("ridge"), tmp_path / "ridge", embeddings)


def test_users_with_too_few_questions_are_told_before_the_fit(tmp_path: Path) -> None:
    embeddings = Embeddings(Letters(), tmp_path / "embeddings")
    with pytest.raises(DataError, match=r"episodes of 6 questions.*the users have at most 3"):
        fit_reader(row("np-btl"), dataset(questions=3), embeddings, tmp_path / "np-btl")
    assert not (tmp_path / "np-btl" / "reader.json").exists()


def test_more_shots_than_a_reader_takes_are_refused(tmp_path: Path) -> None:
    embeddings, data = Embeddings(Letters(), tmp_path / "embeddings"), dataset()
    fitted = fit_reader(row("gpo"), data, embeddings, tmp_path / "gpo")
    with pytest.raises(DataError, match="GPO was fitted on up to 4 shots and gets 5"):
        fitted.scores(data.of_user("u0")[:5], [("New?", "aaa")])


def test_vpl_records_whether_its_latent_collapsed(tmp_path: Path) -> None:
    fit_reader(row("vpl"), dataset(), Embeddings(Letters(), tmp_path / "embeddings"), tmp_path / "vpl")
    found = json.loads((tmp_path / "vpl" / "reader.json").read_text())["diagnostics"]
    assert found.keys() >= {"kl", "active_units", "latent_use"}
    assert "active units" in (tmp_path / "vpl" / "README.md").read_text()
