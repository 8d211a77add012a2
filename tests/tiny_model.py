"""A tiny random Llama with a real byte-level tokenizer, for tests of every stage: `python -m tests.tiny_model FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

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
    "- The plot is slow\n- The acting is good\n- The pictures are beautiful\n\nI don't think it's for everyone, but I'd watch it.",
)
_CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def build_tiny_model(folder: Path, *, seed: int = 0, vocabulary: int = 384, context: int = 4096) -> Path:
    """Save a random two-layer Llama (hidden size 32) and its ChatML tokenizer into `folder`, and return the folder."""
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
    backend.train_from_iterator(_TEXTS, trainer)
    tokenizer = PreTrainedTokenizerFast(
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
                hidden_size=32,
                intermediate_size=64,
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
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))
    model.save_pretrained(str(folder))
    return folder


if __name__ == "__main__":
    print(build_tiny_model(Path(sys.argv[1])))
