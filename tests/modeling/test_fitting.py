from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import DataError
from fspo.modeling.fitting import Room, fitted, long_rows
from fspo.modeling.loading import load_tokenizer
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Episode, Preference, User
from tests.modeling.test_chat import hostile_texts


@pytest.fixture(scope="module")
def tokenizer(tiny_model_path: Path) -> Any:
    return load_tokenizer(tiny_model_path)


def dataset() -> PreferenceDataset:
    rows = [Preference("ann", f"Is film {i} good?", f"Yes, {i}.", f"No, {i}.") for i in range(6)]
    rows[3] = replace(rows[3], rejected="It is long. " * 300)
    rows[4] = replace(rows[4], prompt="\u65e5\u672c " * 200)
    return PreferenceDataset([User("ann", "I like short answers.")], rows)


@given(st.data())
def test_a_preference_fits_exactly_where_it_can_be_rendered(tokenizer: Any, data: st.DataObject) -> None:
    texts = st.one_of(hostile_texts(), st.text(alphabet="ab <|", max_size=200))
    query = Preference("ann", data.draw(texts), data.draw(texts), data.draw(texts))
    shots = [Preference("ann", data.draw(texts), "a", "b") for _ in range(2)]
    description = data.draw(texts)
    context = data.draw(st.sampled_from(["none", "shots", "description", "both"]))
    renderer = EpisodeRenderer(tokenizer, context=context)  # type: ignore[arg-type]
    needed = Room(renderer).needed(query, description)
    assert needed == renderer.render(Episode("ann", (), (query,), description)).longest
    limit = data.draw(st.one_of(st.sampled_from([needed, needed - 1]), st.integers(20, 900)))
    limited = replace(renderer, max_length=limit)
    episode = Episode("ann", tuple(shots), (query,), description)
    assert Room(limited).fits(query, description) == (needed <= limit)
    if needed <= limit:
        assert limited.render(episode).longest <= limit
    else:
        with pytest.raises(DataError, match="user 'ann'"):
            limited.render(episode)


def test_rows_that_are_too_long_are_left_out_or_refused_by_row(tokenizer: Any) -> None:
    room = Room(EpisodeRenderer(tokenizer, max_length=256))
    assert [row.number for row in long_rows(dataset(), [room])] == [4, 5]
    read = fitted(dataset(), [room], "leave-out", setting="long_rows")
    assert list(read.dataset) == [row for place, row in enumerate(dataset()) if place not in (3, 4)]
    assert read.dataset.users == dataset().users
    said = r"ratings: row 4 \(user 'ann', prompt 'Is film 3 good\?'\) makes [0-9,]+ tokens .* limit is 256.* 1 more row"
    with pytest.raises(DataError, match=said):
        fitted(dataset(), [room], "refuse", setting="long_rows", file="ratings")
    with pytest.raises(DataError, match="row 104"):
        fitted(dataset(), [room], "refuse", setting="long_rows", number=lambda row: 104)
    with pytest.raises(DataError, match=r"row 1 .* limit is 20;"):
        fitted(dataset(), [Room(EpisodeRenderer(tokenizer, max_length=20))], "leave-out", setting="long_rows")
    assert fitted(dataset(), [Room(EpisodeRenderer(tokenizer))], "refuse", setting="").dataset == dataset()


def test_room_for_an_answer_and_for_a_description_counts(tokenizer: Any) -> None:
    renderer = EpisodeRenderer(tokenizer, context="both", max_length=4096)
    row, description = dataset().preferences[0], "I like short answers."
    plain = Room(renderer).needed(row, description)
    bare = Room(renderer).needed(row, "")
    answered = Room(renderer, answer=1000).needed(row, description)
    longer = max(len(renderer.render_response(text)) for text in (row.chosen, row.rejected))
    assert answered == plain - longer + 1000
    assert Room(renderer, drafted=500).needed(row, description) == bare + 500
    short, alone = replace(row, prompt="?", chosen="a", rejected="b"), EpisodeRenderer(tokenizer, max_length=99)
    described = "I like short answers. " * 90
    learned = Room(alone, learns_description=True).needed(short, described)
    assert learned == EpisodeRenderer(tokenizer).render_descriptions("ann", (), described, "").longest
    assert learned > 500 > Room(alone).needed(short, described)
    assert not Room(renderer, answer=4096).fits(row, "")
