from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import ModelError
from fspo.modeling.packing import pack
from fspo.modeling.rendering import Branch, TokenizedEpisode
from tests.modeling.models import episodes


def test_a_small_row() -> None:
    branch = Branch((20, 21), ((30, 31), (40,)), 2, 0, 0)
    row = pack([TokenizedEpisode((10, 11, 12), (3,), (branch,))])
    assert row.input_ids.tolist() == [[10, 11, 12, 20, 21, 30, 31, 40]]
    assert row.position_ids.tolist() == [[0, 1, 2, 2, 3, 4, 5, 4]]
    assert row.predictors.tolist() == [4, 5, 4]
    assert row.targets.tolist() == [30, 31, 40]
    assert row.owners.tolist() == [0, 0, 1]
    assert row.shapes == ((1, 2),)


def test_without_a_prompt_the_trunk_predicts_the_response() -> None:
    row = pack([TokenizedEpisode((10, 11, 12), (3,), (Branch((), ((30, 31),), 2, 0, 0),))])
    assert row.predictors.tolist() == [1, 3]


@given(st.lists(episodes(), min_size=1, max_size=3))
def test_every_token_once_and_every_response_token_predicted_from_its_own_past(some: list[TokenizedEpisode]) -> None:
    row = pack(some)
    assert row.input_ids.shape == row.position_ids.shape == (1, sum(episode.tokens for episode in some))
    assert row.forest.length == row.input_ids.shape[1]
    ids, positions = row.input_ids[0].tolist(), row.position_ids[0].tolist()
    at = 0
    for episode in some:
        for branch in episode.branches:
            context = [*episode.trunk_ids[: branch.boundary], *branch.prompt_ids]
            for response in branch.responses:
                path = [*context, *response]
                for offset, token in enumerate(response):
                    predictor = int(row.predictors[at])
                    assert int(row.targets[at]) == token
                    assert positions[predictor] == len(context) + offset - 1
                    assert ids[predictor] == path[len(context) + offset - 1]
                    at += 1
    assert at == len(row.targets) == len(row.owners)
    assert row.owners.tolist() == sorted(row.owners.tolist())


@pytest.mark.parametrize(
    ("branches", "message"),
    [
        ((Branch((1,), ((1,),), 3, 0, 0),), "hangs off"),
        ((Branch((), ((1,),), 0, 0, 0),), "at least one token"),
        ((Branch((1,), ((1,),), 1, 0, 0), Branch((1,), ((1,), (2,)), 1, 0, 1)), "equally many"),
    ],
)
def test_malformed_episodes_are_refused(branches: tuple[Branch, ...], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        pack([TokenizedEpisode((1, 2), (2,), branches)])
