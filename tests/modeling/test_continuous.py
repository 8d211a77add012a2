"""Streams that come and go, against the naive loop over whole sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from fspo.modeling import continuous
from fspo.modeling.continuous import ContinuousDecoder, read_on
from fspo.modeling.decoding import NOTHING, KeyValues
from fspo.modeling.preparing import prepare_model
from tests.modeling.models import KINDS, VOCABULARY, build


def random_ids(count: int, seed: int) -> list[int]:
    return torch.randint(0, VOCABULARY, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def greedy(model: Any, ids: Sequence[int], count: int) -> list[int]:
    """The oracle: the whole sequence again for every token."""
    so_far = list(ids)
    for _ in range(count):
        so_far.append(int(model(torch.tensor([so_far])).logits[0, -1].argmax()))
    return so_far[len(ids) :]


def read(base: Any, ids: Sequence[int], before: KeyValues, piece: int) -> tuple[KeyValues, torch.Tensor]:
    """What was read of `ids` after `before`, a few tokens at a time."""
    own, scores = NOTHING, torch.empty(0)
    for start in range(0, len(ids), piece):
        part = ids[start : start + piece]
        (found,), scores = read_on(base, [(part, before.followed_by(own))])
        own = own.followed_by(found)
    return own, scores


class Streams:
    """Greedy answers of streams that are added one by one."""

    def __init__(self, base: Any) -> None:
        self.base, self.decoder = base, ContinuousDecoder(base)
        self.names: list[str] = []
        self.answers: dict[str, list[int]] = {}

    def add(self, name: str, prompt: Sequence[int], trunk: KeyValues, piece: int = 100) -> None:
        own, scores = read(self.base, prompt, trunk, piece)
        self.decoder.add(own, trunk)
        self.names.append(name)
        self.answers[name] = [int(scores[0].argmax())]

    def step(self, times: int) -> None:
        for _ in range(times):
            self.decoder.step(torch.tensor([self.answers[name][-1] for name in self.names]))
            for name, token in zip(self.names, self.decoder.scores.argmax(-1).tolist(), strict=True):
                self.answers[name].append(token)

    def remove(self, name: str) -> None:
        row = self.names.index(name)
        self.decoder.remove(row)
        self.names[row] = self.names[-1]
        self.names.pop()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_streams_that_come_and_go_equal_the_naive_loop(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(continuous, "_ROWS", 2)
    monkeypatch.setattr(continuous, "_COLUMNS", 3)
    monkeypatch.setattr(continuous, "_PADDED", 9)
    model = build(kind)
    base = prepare_model(model)
    trunks = {"ann": random_ids(30, 0), "ben": random_ids(9, 1), "": []}
    read_trunks = {name: read(base, ids, NOTHING, 7)[0] for name, ids in trunks.items()}
    prompts = {
        "first": ("ann", random_ids(4, 2)),
        "second": ("ben", random_ids(1, 3)),
        "longer": ("ann", random_ids(8, 4)),
        "bare": ("", random_ids(5, 5)),
        "apart": ("ben", random_ids(20, 6)),
        "late": ("ann", random_ids(3, 7)),
    }
    streams = Streams(base)

    def add(name: str) -> None:
        owner, prompt = prompts[name]
        streams.add(name, prompt, read_trunks[owner], piece=6)

    add("first")
    streams.step(2)
    add("second"), add("longer")
    streams.step(3)
    streams.remove("first")
    add("bare"), add("apart")
    streams.step(6)
    streams.remove("longer"), streams.remove("second")
    streams.step(1)
    streams.remove("bare"), streams.remove("apart")
    add("late")
    streams.step(4)
    for name, answer in streams.answers.items():
        owner, prompt = prompts[name]
        assert answer == greedy(model, [*trunks[owner], *prompt], len(answer)), name


@torch.no_grad()
def test_pieces_of_one_pass_do_not_see_each_other() -> None:
    base = prepare_model(build("llama"))
    one, other, trunk = random_ids(5, 1), random_ids(3, 2), random_ids(12, 3)
    before, _ = read(base, trunk, NOTHING, 100)
    (_, both), scores = read_on(base, [(one, NOTHING), (other, before)])
    assert both.length == 3
    for row, ids in enumerate(([*one], [*trunk, *other])):
        torch.testing.assert_close(scores[row], base(torch.tensor([ids])).logits[0, -1], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_row_is_free_of_what_was_there_before() -> None:
    base = prepare_model(build("llama"))
    decoder = ContinuousDecoder(base)
    long, _ = read_on(base, [(random_ids(9, 0), NOTHING)])
    invalid = KeyValues(tuple((keys * float("nan"), values * float("nan")) for keys, values in long[0].layers))
    decoder.add(long[0])
    decoder.add(invalid)
    decoder.remove(1)
    (short,), scores = read_on(base, [(random_ids(2, 1), NOTHING)])
    decoder.add(short)
    token = int(scores[0].argmax())
    decoder.step(torch.tensor([0, token]))
    expected = base(torch.tensor([[*random_ids(2, 1), token]])).logits[0, -1]
    torch.testing.assert_close(decoder.scores[1], expected, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_part_does_not_hold_on_to_the_rest() -> None:
    base = prepare_model(build("llama"))
    (whole,), _ = read_on(base, [(random_ids(40, 0), NOTHING)])
    part = whole.part(0, 10)
    assert part.nbytes * 4 == whole.nbytes
    assert sum(keys.untyped_storage().nbytes() for keys, _ in part.layers) * 2 == part.nbytes
    assert whole.part(5, 5) is NOTHING
