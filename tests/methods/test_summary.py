"""Summaries, by a model that is made by hand to repeat the letters that it has read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from fspo.errors import ConfigError
from fspo.methods.adaptation import Adaptation, AdaptationRow
from fspo.methods.policies.summary import Summary
from fspo.modeling.loading import load_tokenizer
from fspo.preferences.types import Episode, Preference
from tests.methods.adaptation_worlds import adapting
from tests.methods.text_worlds import accuracy, rewards

WIDTH = 64
LETTERS = "ABCD"


@pytest.fixture(scope="module")
def repeating(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of one layer whose attention is uniform: a letter is as probable as it was frequent so far."""
    folder = tmp_path_factory.mktemp("repeating")
    tokenizer = load_tokenizer(tiny_model_path)
    sizes: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 1}
    model: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=8,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            rms_norm_eps=0.01,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            **sizes,
        )
    )
    attention: Any = model.model.layers[0].self_attn
    with torch.no_grad():
        for part in (attention.q_proj, attention.k_proj, model.model.layers[0].mlp.down_proj):
            part.weight.zero_()
        attention.v_proj.weight.copy_(torch.eye(WIDTH))
        attention.o_proj.weight.copy_(10 * torch.eye(WIDTH))
        embeddings = model.get_input_embeddings().weight
        embeddings.zero_()
        for place, letter in enumerate(LETTERS):
            (index,) = tokenizer.encode(letter, add_special_tokens=False)
            embeddings[index, place] = 1.0
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    return folder


def likes(*pairs: str, count: int = 4) -> Episode:
    """A user who likes the first letter of each pair, asked about each pair in turn."""
    rows = [
        Preference("u", f"question {n}?", pairs[n % len(pairs)][0], pairs[n % len(pairs)][1]) for n in range(2 * count)
    ]
    return Episode("u", tuple(rows[:count]), tuple(rows[count:]))


def summing(model: Path, **settings: Any) -> Adaptation:
    return adapting(model, "summary", **settings)


USERS = [likes("AB"), likes("BA"), likes("CD")]


def test_the_labels_decide_the_summary_and_the_summary_the_policy(repeating: Path) -> None:
    own = summing(repeating, shots="conversation")
    assert set(own.state(USERS[0].shots).text) == {"A"}
    assert set(own.state(USERS[0].flip_shots().shots).text) == {"B"}
    assert accuracy(own, USERS) == 1
    assert accuracy(own, USERS, flipped=True) == 0


def test_a_writer_that_reads_no_labels_writes_the_same_of_the_mirrored_user(repeating: Path) -> None:
    # Shown both responses of each shot, this model sees the same letters, whichever are liked.
    own = summing(repeating, shots="labelled")
    for user in USERS:
        assert set(own.state(user.shots).text) == set(own.state(user.flip_shots().shots).text)
    assert accuracy(own, USERS) == accuracy(own, [user.flip_shots() for user in USERS])


def test_what_the_summary_does_not_name_is_lost(repeating: Path) -> None:
    user = likes("AB", "AB", "CD")  # A is the most frequent letter, so that it is all that is written
    own = summing(repeating, shots="conversation")
    assert set(own.state(user.shots).text) == {"A"}
    named = Episode("u", user.shots, tuple(query for query in user.queries if query.chosen == "A"))
    unnamed = Episode("u", user.shots, tuple(query for query in user.queries if query.chosen == "C"))
    assert accuracy(own, [named]) == 1
    assert rewards(own, [unnamed]).abs().max() < 1e-3  # nats: nothing but rounding


def test_the_words_around_it_are_in_the_context(repeating: Path) -> None:
    own = summing(repeating, shots="conversation", message="Likes: {summary}.")
    state = own.state(USERS[0].shots)
    assert state.text.startswith("Likes: A")
    assert state.bytes == len(state.text)
    with own.for_user(USERS[0].shots) as user:
        messages = user.renderer.messages(USERS[0].shots, "Hello", user.text)
    assert messages == [{"role": "system", "content": state.text}, {"role": "user", "content": "Hello"}]


def test_the_question_is_asked(repeating: Path) -> None:
    asked = summing(repeating, shots="conversation", question="DDDDDDDDDDDDDDDDDDDDDDDDDDDD?")
    assert set(asked.state(USERS[0].shots).text) == {"D"}


def test_of_an_unknown_user_nothing_is_written(repeating: Path) -> None:
    assert summing(repeating).state(()).text == ""


def test_a_message_without_a_place_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'summary'.*write \{summary\} once"):
        _ = AdaptationRow("summary", Summary, {"message": "nothing"}).settings
