"""Training in rounds: what is on disk, interrupted and continued, measured, and published as one policy."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fspo.errors import ConfigError
from fspo.files import check_no_others, read_json, read_jsonl
from fspo.methods import round_setup, rounds
from fspo.methods.one_round import Pairs, Round
from fspo.methods.rounds import play
from fspo.methods.table import METHODS
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.policies import load_policy, read_card
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import User
from fspo.runs.made import RUN
from fspo.training.trainer import PolicyTrainer
from tests.methods.policies.round_worlds import SMALL, LikesYes, against_no, agreeing, job_of
from tests.progress_lines import Lines


def contents(out: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]], list[dict[str, Any]]]:
    """The weights, the figures of the rounds, and the metrics without the time they took."""
    weights = {
        f"{path.relative_to(out)} {name}": tensor
        for path in sorted(out.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }
    clocks = {"seconds", "tokens_per_second"}
    metrics = [{k: v for k, v in row.items() if k not in clocks} for row in read_jsonl(out / "metrics.jsonl")]
    return weights, read_jsonl(out / "rounds.jsonl"), metrics


def assert_same(one: Path, other: Path) -> None:
    (weights, *records), (others, *more) = contents(one), contents(other)
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert records == more


@pytest.fixture(scope="module")
def finished(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    job = job_of("spin", tiny_model_path, tmp_path_factory.mktemp("run") / "methods" / "spin", judge=LikesYes, **SMALL)
    return job.method.train(job)


def interrupt(monkeypatch: pytest.MonkeyPatch, place: str, at: int) -> None:
    """Interrupt the call number `at` of a function, from 1."""
    owner: Any = {"training_step": PolicyTrainer, "answer": round_setup}.get(place, rounds)
    original, calls = getattr(owner, place), iter(range(1, 1000))

    def call(*arguments: Any, **more: Any) -> Any:
        if next(calls) == at:
            raise KeyboardInterrupt
        return original(*arguments, **more)

    monkeypatch.setattr(owner, place, call)


@pytest.mark.parametrize(("place", "at"), [("answer", 3), ("training_step", 5), ("join_policies", 1)])
def test_interrupted_and_continued_it_reaches_the_same_weights(
    finished: Path, tiny_model_path: Path, tmp_path: Path, place: str, at: int
) -> None:
    job = job_of("spin", tiny_model_path, tmp_path / "spin", judge=LikesYes, **SMALL)
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, place, at)
        with pytest.raises(KeyboardInterrupt):
            job.method.train(job)
    assert not (job.out / "policy.json").exists()
    assert_same(job.method.train(job), finished)


def test_a_finished_training_is_not_repeated_and_another_is_refused(
    finished: Path, tiny_model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, "answer", 1)
    job = job_of("spin", tiny_model_path, finished, **SMALL)
    assert job.method.train(job) == finished
    other = job_of("spin", tiny_model_path, finished, **{**SMALL, "rounds": 3})
    with pytest.raises(ConfigError, match="rounds = 2, and now rounds = 3"):
        other.method.train(other)


def test_the_policy_is_that_of_the_last_round_as_one_training_from_the_start(
    finished: Path, tiny_model_path: Path
) -> None:
    card, last = read_card(finished), read_card(finished / "rounds" / "2")
    assert (card.starts_from, card.adapters, card.method) == (None, ("adapter-0",), "spin")
    assert len(last.adapters) == 2
    ids = torch.tensor([load_tokenizer(tiny_model_path).encode("Is book 1 good?")])
    switchable: Any = load_policy(finished, adapters="switchable")
    with torch.no_grad():
        whole, chained = (load_policy(folder)(input_ids=ids).logits for folder in (finished, finished / "rounds" / "2"))
        base = load_model(tiny_model_path)(input_ids=ids).logits
        with switchable.disable_adapter():
            start = switchable(input_ids=ids).logits
    torch.testing.assert_close(whole, chained, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(start, base, atol=1e-6, rtol=1e-6)
    assert not torch.allclose(whole, base, atol=1e-3)
    weights = load_file(finished / "adapter-0" / "adapter_model.safetensors")
    assert {tensor.shape[0] for name, tensor in weights.items() if "lora_A" in name} == {4}  # two of rank 2


def test_all_files_are_those_of_a_run(finished: Path) -> None:
    check_no_others(finished.parents[1], RUN, below="methods/spin")


def test_every_round_starts_where_its_reference_is(finished: Path) -> None:
    rows = read_jsonl(finished / "metrics.jsonl")
    losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    # h is 0 there, and -log sigmoid(0) is log 2; the first step of the warm-up changes nothing yet.
    assert losses[1] == pytest.approx(math.log(2), abs=1e-5)
    assert losses[4] == pytest.approx(math.log(2), abs=1e-5)


def test_what_is_measured_after_each_round(finished: Path) -> None:
    start, first, second = read_jsonl(finished / "rounds.jsonl")
    for number, row in enumerate((start, first, second)):
        texts = [line["text"] for line in read_jsonl(finished / "rounds" / str(number) / "probes.jsonl")]
        assert (row["round"], row["probes"]) == (number, len(texts)) == (number, 3)
        assert row["answer_words"] == pytest.approx(sum(len(text.split()) for text in texts) / 3)
    assert start["win_over_start"] == 0.5
    assert (start["pairs"], first["pairs"], second["pairs"]) == (0, 12, 12)
    assert all(row["chosen_words"] == start["chosen_words"] for row in (first, second))


@pytest.mark.parametrize(
    ("method", "settings", "place"),
    [("spin", {}, "answer"), ("synpo", {}, "answer"), ("aloe", {}, "answer"), ("spa", {"seeds": 5}, "_train")],
)
def test_it_says_how_many_users_have_too_few_preferences(
    tiny_model_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    settings: dict[str, Any],
    place: str,
) -> None:
    everybody, said = agreeing(4, 8), Lines()
    users = [User(name, "Likes yes.") for name in everybody.users]
    few = PreferenceDataset(users, [row for row in everybody if row.user != "u3" or "book 0" in row.prompt])
    changes = {**SMALL, "probes": 0, "skip_short_users": True, **settings}
    interrupt(monkeypatch, place, 1)
    with pytest.raises(KeyboardInterrupt):
        job = job_of(method, tiny_model_path, tmp_path / "out", few, progress=said, judge=LikesYes, **changes)
        job.method.train(job)
    assert said.lines.count("Left out of the training part: 1 user with too few preferences for an episode.") == 1


def test_it_ends_where_nothing_is_left_to_learn(tiny_model_path: Path, tmp_path: Path) -> None:
    def once(one: Round) -> Pairs:
        return against_no(one) if one.number == 1 else Pairs((), same=4)

    said = Lines()
    job = job_of("spin", tiny_model_path, tmp_path / "out", progress=said, **SMALL)
    out = play(job, once)
    assert any("ends after round 1" in line for line in said.lines)
    assert read_json(out / "training.json")["finished"] is True
    ones, others = (load_file(folder / "adapter_model.safetensors") for folder in (out, out / "rounds" / "1"))
    assert all(torch.equal(ones[name], others[name]) for name in ones)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mirror": True}, "'spin': mirror: a model's own answers tell nothing of swapped labels"),
        ({"ladder": [1, 2]}, "ladder: answers are written after all shots"),
        ({"rounds": 0}, "'rounds'"),
        ({"temperature": -1}, "'temperature'"),
    ],
)
def test_settings_that_rounds_have_no_use_for_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        METHODS["spin"].training(settings)


def test_it_counts_the_steps_of_all_rounds() -> None:
    assert METHODS["spin"].training({"rounds": 3, "steps": 20}).total_steps == 60
    assert METHODS["fspo"].training({"steps": 20}).total_steps == 20
