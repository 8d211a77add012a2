"""A tiny Llama with a real byte-level tokenizer, for tests of every stage: `python -m tests.tiny_model FOLDER`.

It is random, or taught in a few seconds to string sentences of reviews together, which is all that synthesis needs.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["CHAT_TEMPLATE", "build_tiny_model"]

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}"
    "{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_TEXTS = (
    "The film was wonderful, and I loved every minute of it! Its music is warm and its cast is brilliant.",
    "The book was dull. It is far too long, and nothing in it surprised me. I would not read it again.",
    "Write a short review of the series. What do you think of the ending? Which response do you prefer?",
    "Here is what this person preferred before. Response A. Response B. Preferred: A. The person prefers long answers.",
    "- The plot is slow\n- The acting is good\n- The pictures are beautiful\n\n"
    "I don't think it's for everyone, but I'd watch it.",
)
_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


_SUBJECTS = ("story", "cast", "music", "ending", "plot", "acting", "film", "book", "writing", "pace")
_WORDS = {
    1: ("wonderful", "brilliant", "beautiful", "excellent", "great", "delightful", "charming"),
    -1: ("dull", "terrible", "boring", "awful", "bad", "disappointing", "tedious"),
}
_TAILS = (
    "from the first page to the last",
    "in almost every scene of it",
    "for anyone who knows the genre well",
    "and the rest of it is much the same",
    "and that is what stays with me in the end",
)


def _reviews(count: int, seed: int) -> Iterator[str]:
    """Short reviews of one opinion each."""
    rng = random.Random(seed)
    for _ in range(count):
        side = rng.choice((1, -1))
        first, second = rng.sample(_SUBJECTS, 2)
        adjectives = rng.sample(_WORDS[side], 3)
        tail = f" {rng.choice(_TAILS)}" if rng.random() < 0.6 else ""
        rest = rng.choice(
            (
                f" The {second} is {adjectives[1]} and {adjectives[2]}{tail}.",
                f" I found the {second} {adjectives[1]}{tail}.",
                f" Even the {second} is {adjectives[1]}, which says a lot about it.",
            )
        )
        yield f"The {first} is {adjectives[0]}{'' if rest[1] == 'E' else tail}." + rest


def build_tiny_model(
    folder: Path, *, seed: int = 0, vocabulary: int = 384, context: int = 4096, taught: bool = False
) -> Path:
    """Save a two-layer Llama (hidden size 32; 64 if taught) and its ChatML tokenizer into `folder`, and return that."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in _CONTROL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((*_TEXTS, *(_reviews(400, seed) if taught else ())), trainer)
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer),
                hidden_size=64 if taught else 32,
                intermediate_size=128 if taught else 64,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=context,
                tie_word_embeddings=True,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
    if taught:
        _teach(model, tokenizer, seed)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))
    model.save_pretrained(str(folder))
    return folder


def _teach(model: Any, tokenizer: Any, seed: int, *, steps: int = 300, batch: int = 8) -> None:
    """Train on short reviews after any context, until what is sampled is made of their phrases."""
    import torch

    rng = random.Random(seed)
    texts = tokenizer(list(_reviews(steps * batch, seed + 1)))["input_ids"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    model.train()
    with torch.enable_grad():
        for step in range(steps):
            # Whatever is read before a review is noise to this model.
            before = [rng.randrange(len(tokenizer)) for _ in range(rng.randrange(1, 60))]
            rows = [[*text, tokenizer.eos_token_id] for text in texts[step * batch : (step + 1) * batch]]
            width = max(map(len, rows))
            ids = torch.tensor([before + row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
            labels = torch.tensor([[-100] * len(before) + row + [-100] * (width - len(row)) for row in rows])
            loss = model(input_ids=ids, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


if __name__ == "__main__":
    print(build_tiny_model(Path(sys.argv[1]), vocabulary=640, taught=True))
