"""What an evaluation knows of training: the shots, the scale of the reward, and whom it must not have seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fspo.errors import DataError
from fspo.evaluation.provenance import (
    Provenance,
    base_provenance,
    check_unseen,
    read_provenance,
    untraced,
    untraced_note,
)
from fspo.files import write_json
from fspo.preferences.dataset import PreferenceDataset
from tests.evaluation.helpers import small_dataset

TRAIN, TEST = small_dataset("train"), small_dataset("test")


def read(folder: Path, **settings: Any) -> Provenance:
    write_json(folder / "training.json", {"identity": {"config": settings, "dataset": "abc"}, "finished": True})
    return read_provenance({"fspo": folder})["fspo"]


def test_shots_are_the_ladders_or_the_full_count(tmp_path: Path) -> None:
    assert read(tmp_path, shots=8, ladder=[4, 8, 2]).shots == (2, 4, 8)
    assert read(tmp_path, shots=8, ladder=None).shots == (8,)
    assert read(tmp_path, shots=0).shots == ()
    assert read_provenance({"base": None, "gone": tmp_path / "nowhere"}) == {"base": Provenance(), "gone": Provenance()}


def test_beta_scales_the_reward_that_it_was_trained_with(tmp_path: Path) -> None:
    assert read(tmp_path, objective="ipo", beta=0.05, reduction="sum").scale("sum") == 0.05
    assert read(tmp_path, objective="ipo", beta=0.05, reduction="sum").scale("mean") == 1.0
    assert read(tmp_path, objective="mirrored-contrast", beta=0.05, reduction="sum").scale("sum") == 1.0
    assert Provenance().scale("sum") == 1.0


def test_a_user_seen_in_training_is_named_with_a_way_out() -> None:
    both = PreferenceDataset([*TEST.users.values(), next(iter(TRAIN.users.values()))], TEST)
    with pytest.raises(DataError, match=r"User 'train-length-more' is in training data.*fspo data split"):
        check_unseen({}, TRAIN, both)


def test_a_policy_trained_on_other_data_is_named() -> None:
    check_unseen({"fspo": Provenance(dataset=TRAIN.fingerprint), "base": Provenance()}, TRAIN, TEST)
    with pytest.raises(DataError, match="policy of 'fspo' was trained on other data"):
        check_unseen({"fspo": Provenance(dataset=small_dataset("else").fingerprint)}, TRAIN, TEST)


def kept(folder: Path, dataset: str = "", start: str | None = None) -> Path:
    write_json(folder / "policy.json", {"starts_from": start})
    if dataset:
        write_json(folder / "training.json", {"identity": {"config": {}, "dataset": dataset}, "finished": True})
    return folder


@pytest.mark.parametrize("start", ["../pref-ft", "/gone/methods/pref-ft"])
def test_the_policy_that_training_started_from_is_looked_at_too(tmp_path: Path, start: str) -> None:
    kept(tmp_path / "pref-ft", small_dataset("else").fingerprint)
    trained = read_provenance({"fspo": kept(tmp_path / "fspo", TRAIN.fingerprint, start)})
    with pytest.raises(DataError, match=r"'fspo', or rather .*pref-ft, which it started from, was trained on other"):
        check_unseen(trained, TRAIN, TEST)
    kept(tmp_path / "pref-ft", TRAIN.fingerprint)
    trained = read_provenance({"fspo": tmp_path / "fspo"})
    check_unseen(trained, TRAIN, TEST)
    assert untraced(trained) == []
    assert untraced(trained, checked=False) == ["fspo"]


def test_policies_that_do_not_say_what_they_were_trained_on_are_told(tmp_path: Path) -> None:
    kept(tmp_path / "pref-ft")
    policies = {
        "base": None,
        "ipo": kept(tmp_path / "ipo"),
        "fspo": kept(tmp_path / "fspo", TRAIN.fingerprint, "../pref-ft"),
        "pref-ft-cot": kept(tmp_path / "cot", TRAIN.fingerprint, "/gone/altogether"),
        "fspo-rat": kept(tmp_path / "rat", TRAIN.fingerprint),
    }
    found = untraced(read_provenance(policies))
    assert found == ["ipo", "fspo (which started from pref-ft)", "pref-ft-cot (which started from altogether)"]
    assert "ipo, fspo (which started from pref-ft)" in untraced_note(found)
    assert untraced_note([]) == ""


def test_a_base_model_that_is_a_policy_is_looked_at_too(tmp_path: Path) -> None:
    policy = kept(tmp_path / "policy", TEST.fingerprint)
    with pytest.raises(DataError, match=rf"policy of '{policy}' was trained on other data"):
        check_unseen(base_provenance(str(policy)), TRAIN, TEST)
    assert base_provenance("smollm2-135m") == base_provenance(str(tmp_path)) == {}


def test_policies_that_start_from_each_other_end(tmp_path: Path) -> None:
    trained = read_provenance({"fspo": kept(tmp_path / "a", TRAIN.fingerprint, "../b")})
    kept(tmp_path / "b", TRAIN.fingerprint, "../a")
    check_unseen(trained, TRAIN, TEST)
    assert len(read_provenance({"fspo": tmp_path / "a"})["fspo"].line) == 2
