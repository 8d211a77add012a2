"""Tokenizers of several kinds, each with a chat template such as known models have; built here, from nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

__all__ = ["BACKENDS", "BAR", "KINDS", "NO_SYSTEM", "PLAIN", "PUBLISHED", "SPLITTING", "tokenizer_of"]

_TEXTS = (
    "The film was wonderful, and I loved every minute of it! Its music is warm and its cast is brilliant.",
    "the book was dull. it is far too long, and nothing in it surprised me. user assistant system think",
    "[|user|] <|user|> [INST] <think> {response} ### 0123456789 ABCDEFGHIJKLMNOPQRSTUVWXYZ () [] {} <> | / _ : ; '",
)

BAR = "\uff5c"
"""The wide bar in the tokens of DeepSeek."""
THOUGHTS = ("<think>", "</think>")

# As in EXAONE 3.5: the tags are put together from the roles, and are no special tokens.
EXAONE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '[|system|][|endofturn|]\\n' }}{% endif %}"
    "{{ '[|' + message['role'] + '|]' + message['content'] }}"
    "{% if message['role'] == 'user' %}{{ '\\n' }}{% else %}{{ '[|endofturn|]\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[|assistant|]' }}{% endif %}"
)
# As in DeepSeek-R1-Distill: asks for reasoning, and leaves it out of what was said.
DEEPSEEK = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% set ns = namespace(system='') %}"
    "{% for message in messages %}{% if message['role'] == 'system' %}{% set ns.system = message['content'] %}"
    "{% endif %}{% endfor %}{{ bos_token }}{{ ns.system }}"
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '<|User|>' + message['content'] }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{% set content = message['content'] %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<|Assistant|>' + content + '<|end▁of▁sentence|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"
).replace("|", BAR)
# As in Qwen3: an answer without reasoning has empty reasoning in front of it, asked for or finished.
QWEN3 = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}{% set content, reasoning = message['content'], '' %}"
    "{% if '</think>' in content %}{% set reasoning = content.split('</think>')[0].split('<think>')[-1] %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{% if loop.last or reasoning %}{{ '<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n\\n' }}{% endif %}"
    "{{ content.lstrip('\\n') }}{% else %}{{ message['content'] }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{% endif %}"
)
PHI = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
# As in Mistral 7B Instruct v0.3: brackets, blanks around the texts, and no system role.
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}"
    "{% for message in messages %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"
)
# Added tokens without any bracket; what a system role says is not shown at all.
WORDS = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '### Instruction:\\n' + message['content'] + '\\n\\n' }}{% elif message['role'] == 'assistant' %}"
    "{{ '### Response:\\n' + message['content'] + 'ENDOFANSWER\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\\n' }}{% endif %}"
)

# The templates below are those of the models as they are published, but for branches of tools.
SMOLLM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN = (
    "{%- if messages[0]['role'] == 'system' %}\n"
    "    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}\n"
    "{%- else %}\n"
    "    {{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n' }}"
    "\n"
    "{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- if (message.role == 'user') or (message.role == 'system' and not loop.first) "
    "or (message.role == 'assistant') %}\n"
    "        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\n' }}\n{%- endif %}\n"
)
# Its [INST] is plain text.
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}"
    "{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + "
    "'<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
# Its tags are plain text.
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
COMMAND_R = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}"
    "{% set system_message = false %}{% endif %}{% if system_message != false %}"
    "{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + system_message + '<|END_OF_TURN_TOKEN|>' }}{% endif %}"
    "{% for message in loop_messages %}{% set content = message['content'] %}{% if message['role'] == 'user' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|USER_TOKEN|>' + content.strip() + '<|END_OF_TURN_TOKEN|>' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>'  + content.strip() + '<|END_OF_TURN_TOKEN|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)

PLAIN = ("  ", "\n\n")
"""Added tokens that are plain text, as in Gemma and Phi."""

KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "exaone": (EXAONE, ("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]")),
    "deepseek": (DEEPSEEK, (f"<{BAR}User{BAR}>", f"<{BAR}Assistant{BAR}>", f"<{BAR}end▁of▁sentence{BAR}>", *THOUGHTS)),
    "qwen3": (QWEN3, ("<|im_start|>", "<|im_end|>", *THOUGHTS)),
    "phi": (PHI, ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
    "mistral": (MISTRAL, ("[INST]", "[/INST]")),
    "gemma": (GEMMA, ("<start_of_turn>", "<end_of_turn>")),
    "words": (WORDS, ("### Instruction:", "### Response:", "ENDOFANSWER")),
}
"""Name -> chat template, and the tokens that it writes beside <s> and </s>; none of these is special."""

PUBLISHED: dict[str, tuple[str, tuple[str, ...]]] = {
    "smollm": (SMOLLM, ("<|im_start|>", "<|im_end|>")),
    "qwen2.5": (QWEN, ("<|im_start|>", "<|im_end|>")),
    "llama 2": (LLAMA2, ()),
    "llama 3": (LLAMA3, ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")),
    "zephyr": (ZEPHYR, ()),
    "command-r": (
        COMMAND_R,
        (
            "<|START_OF_TURN_TOKEN|>",
            "<|END_OF_TURN_TOKEN|>",
            "<|SYSTEM_TOKEN|>",
            "<|USER_TOKEN|>",
            "<|CHATBOT_TOKEN|>",
        ),
    ),
}
"""More templates, in the same way."""

NO_SYSTEM = ("mistral", "gemma", "words")
"""Whose templates refuse a system role, or leave it out."""


def _byte_level() -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(_TEXTS, trainers.BpeTrainer(
        vocab_size=360, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    ))  # fmt: skip
    return backend


def _lower_case() -> Tokenizer:
    """As bytes, but all capitals are made small, also in tokens that are added."""
    backend = _byte_level()
    backend.normalizer = normalizers.Lowercase()
    return backend


def _pieces() -> Tokenizer:
    """Words that begin with a mark for the blank before them, and bytes for unknown letters, as in Llama 2."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    backend.train_from_iterator(_TEXTS, trainers.BpeTrainer(
        vocab_size=560, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False
    ))  # fmt: skip
    # The bytes are part of the vocabulary, and no added tokens.
    kept = json.loads(backend.to_str())
    kept["added_tokens"] = [token for token in kept["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(kept))


def _merging(pattern: str) -> Tokenizer:
    """Bytes with many merges, also of white space, cut into words by a pattern."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    backend.decoder = decoders.ByteLevel()
    texts = [*_TEXTS, *[f"{text}\n\n" for text in _TEXTS] * 3, *["Question: it\n", "Liked: it\n\n", ".\n\n", "?\n"] * 9]
    backend.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    ))  # fmt: skip
    return backend


def _as_gpt2() -> Tokenizer:
    """Of white space, all but the last character before a word is one piece."""
    return _merging(r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""")


def _as_llama3() -> Tokenizer:
    """Line breaks belong to the punctuation before them. Qwen's is alike."""
    return _merging(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
        r"\s+(?!\S)|\s+"
    )


BACKENDS: dict[str, Callable[[], Tokenizer]] = {
    "bytes": _byte_level, "lower case": _lower_case, "pieces": _pieces
}  # fmt: skip


SPLITTING: dict[str, Callable[[], Tokenizer]] = {"gpt-2": _as_gpt2, "llama 3": _as_llama3, "pieces": _pieces}
"""More backends, which differ in where they cut texts."""


@cache
def _trained(backend: str) -> str:
    """One of the backends, trained once."""
    return str({**BACKENDS, **SPLITTING}[backend]().to_str())


def tokenizer_of(kind: str, backend: str = "bytes", *, plain: tuple[str, ...] = PLAIN) -> Any:
    """A tokenizer of one of the backends with the template and the tokens of one of the kinds."""
    template, tokens = {**KINDS, **PUBLISHED}[kind]
    options = {"unk_token": "<unk>"} if backend == "pieces" else {}
    tokenizer: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(_trained(backend)), bos_token="<s>", eos_token="</s>",
        clean_up_tokenization_spaces=False, **options,
    )  # fmt: skip
    normalized = backend == "lower case"
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=normalized) for token in (*tokens, *plain)])
    tokenizer.chat_template = template
    return tokenizer
