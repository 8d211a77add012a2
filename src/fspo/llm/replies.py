"""What a server's reply can look like, and what becomes of it; docs/endpoints.md has the same table in words.

A reply is used, used after something was cut off, or not used. What is not used is asked again (`Unusable`), or is an
answer without text where asking again would give the same.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from fspo.llm.types import Completion, CompletionRequest, FinishReason

__all__ = [
    "CONTROL",
    "Cleaned",
    "Kind",
    "Read",
    "Unusable",
    "cleaned",
    "counted",
    "only_object",
    "read_reply",
    "said_in",
]

Kind = Literal[
    "reasoning cut off",
    "cut at a control token",
    "control characters removed",
    "only reasoning",
    "withheld by a filter",
    "no text",
    "an error in place of an answer",
    "no answer in it",
    "half an answer",
    "a tool call",
    "not readable",
]
"""What was odd about a reply: the words it is counted under, in the card, the summary and the file of answers."""

_MOST_TOKENS = 10**8
"""Tokens that one request can take, and far more than any can: a larger count is not believed."""

_CUT_SHORT = frozenset({"length", "max_tokens", "model_length"})
_WITHHELD = frozenset({"content_filter", "safety", "recitation", "blocklist", "prohibited_content", "sensitive"})
_TORN = frozenset({"error", "abort", "aborted", "cancelled", "canceled", "insufficient_system_resource"})
_TOOLS = frozenset({"tool_calls", "tool_use", "function_call"})

_TAGS = r"think|thinking|thought|thoughts|reasoning|analysis|scratchpad|seed:think"
_OPENED = rf"<(?:{_TAGS})(?:\s[^<>]*)?>|\[THINK\]"
_CLOSED = rf"</(?:{_TAGS})\s*>|\[/THINK\]"
"""What people and answers may write too: counts as reasoning by its place alone."""
_SURELY_OPENED = r"◁think▷|<\|begin_of_thought\|>|<\|START_THINKING\|>|<unused94>|<\|channel>\s*thought"
_SURELY_CLOSED = r"◁/think▷|<\|end_of_thought\|>|<\|END_THINKING\|>|<unused95>|<channel\|>"
_MARKS = re.compile(
    f"(?P<opened>(?P<sure_opened>{_SURELY_OPENED})|{_OPENED})|(?P<sure_closed>{_SURELY_CLOSED})|(?:{_CLOSED})",
    re.IGNORECASE,
)
_QUOTES = "`'\"*\u201c\u201d\u2018\u2019\u00ab\u00bb"
_QUOTED_BEFORE = re.compile(rf"(?:\A|[^\w.!?\u2026){_QUOTES}]|\.\.)[{_QUOTES}]+\Z")
"""A quotation that begins; one that ends has a word or the end of a sentence before it."""
_NEAR = 16
"""Characters before a mark that are looked at for quotation marks."""
_BLANK_AFTER, _LINE_ENDS = re.compile(r"[ \t]"), re.compile(r"[ \t]*(?:\n|\Z)")
_EMPTY_LINE = re.compile(r"[ \t]*\n[ \t]*\n")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_CHANNEL = re.compile(r"(?:<\|channel\|>\s*|(?:\A|<\|start\|>)\s*(?:assistant\s*)?to=)(\w+).*?<\|message\|>", re.DOTALL)
_BARE_CHANNEL = re.compile(
    r"\A(?:assistant)?\s*(?:analysis(?=[A-Z\"'])|to=analysis\b(?!.*<\|message\|>))(?:.*assistantfinal)?", re.DOTALL
)
"""gpt-oss's channels where the server has left their tokens out: `analysisThe user ...assistantfinalThe answer.`"""

_BAR = r"[|\uff5c]"  # DeepSeek's tokens have the wide one
_TURN = rf"<{_BAR}(?:im_start|start_header_id|start|turn|assistant){_BAR}>|<start_of_turn>|<\|turn>"
_OPENING = re.compile(
    rf"\A(?:\s*(?:(?:{_TURN})\s*(?:assistant|model)\b|<{_BAR}(?:end_header_id|message|assistant|begin_of_text|startoftext"
    rf"|begin\u2581of\u2581sentence){_BAR}>|<s>(?!(?:(?!</s>).)*</s>\s*[^\s<\[])|<bos>|\[/INST\])\s*)+",
    re.IGNORECASE | re.DOTALL,
)
"""What a server that shows control tokens shows before an answer; `<s>` may begin a text that is struck out in HTML."""
_SURE = (
    rf"<{_BAR}[^<>|\uff5c\s]{{1,40}}{_BAR}>|<\|[a-z_]{{2,20}}>|<[a-z_]{{2,20}}\|>|<(?:start|end)_of_turn>"
    rf"|<{_BAR}[^<>|\uff5c\s]{{0,40}}\Z|<tool_call>\s*\{{|\[TOOL_CALLS\]\s*\[(?=\{{)"
)
"""Nothing else looks like these, so that a text ends before them: tokens with bars, half of one at the end, turns."""
_ENDS = r"</s>|<eos>|\[EOS\]|<eop>|<eod>"
_MAYBE = (
    rf"{_ENDS}|<(?:s|bos|pad|unk|mask)>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_image>|<unused\d+>|<extra_id_\d+>"
    r"|<reserved_\d+>|<0x[0-9A-Fa-f]{2}>|\[(?:gMASK|sMASK|PAD|UNK|CLS|SEP|MASK|BOS|TOOL_CALLS)\]|</?tool_call>"
)
"""Answers about HTML or language models hold these too: they count at the end, and where a turn ends or begins."""
_NEXT_TURN = rf"<s>|<bos>|\[INST\]|<<SYS>>|<{_BAR}|<start_of_turn>|(?i:user|human|assistant|system)[ \t]*[:\n]"
CONTROL = re.compile(
    rf"{_SURE}|(?:(?:{_MAYBE})\s*)+\Z|(?:{_ENDS}|<s>)(?=\s*(?:{_NEXT_TURN}))|(?<=[.!?\u2026])(?:{_ENDS})"
    r"|(?:\A|(?<=\n)|(?<=[.!?\u2026])|(?<=[.!?\u2026] ))\[INST\]"
)
"""Control tokens of the usual tokenizers, where they are none of an answer's own words."""
_PAIRS = (("<s>", "</s>"), ("[INST]", "[/INST]"), ("<<SYS>>", "<</SYS>>"), ("<tool_call>", "</tool_call>"))
"""Tokens that an answer writes about come in pairs; the second is none where the first has been left in the text."""
_TURN_ENDS = re.compile(
    rf"<{_BAR}(?:im_end|im_start|end|eot_id|eom_id|endoftext|end_of_text|return|call|start|start_header_id|user|system|eos"
    rf"|end_of_turn|turn_end|END_OF_TURN_TOKEN|observation|end\u2581of\u2581sentence){_BAR}>"
    r"|<turn\|>|<\|turn>|</?s>|<[eb]os>|<(?:start|end)_of_turn>|\[/?INST\]|\[[EB]OS\]",
    re.IGNORECASE,
)
"""Control tokens that a whole answer can end with."""
_HINTS = re.compile(r"[<\[◁]")
_OBJECT = re.compile(r"\s*(?:```(?:json)?)?\s*(\{.*\})[\s`.]*", re.DOTALL)
_UNPRINTABLE = re.compile(r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters, but tabs and line breaks, and the whole of a terminal's sequences, such as for colours."""


@dataclass(frozen=True)
class Cleaned:
    """A model's text without what is no part of its answer.

    Attributes:
        text: what is left.
        reasoning: whether reasoning was cut off.
        control: whether the text was cut at a control token.
        unprintable: whether control characters were removed.
        unended: whether it was cut in the middle of something, so that its last sentence may be torn.
        orphan: whether reasoning was closed that nothing in the text had opened: the model's template opens it.
    """

    text: str
    reasoning: bool = False
    control: bool = False
    unprintable: bool = False
    unended: bool = False
    orphan: bool = False


@dataclass(frozen=True)
class Read:
    """A reply that is an answer.

    `prompt_tokens` are as the server counts them, if it does, and `kinds` say what was odd about it; for `orphan` see
    `Cleaned`.
    """

    completion: Completion
    prompt_tokens: int | None
    kinds: tuple[Kind, ...] = ()
    orphan: bool = False


@dataclass(frozen=True)
class Unusable:
    """A reply that is no answer, and may be one another time.

    `said` are the server's own words, and `status` is the code of an error that came as a reply; tokens are as the
    server counts them, if it does.
    """

    kind: Kind
    said: Any = None
    status: int | None = None
    prompt_tokens: int | None = None
    tokens: int | None = None


def read_reply(request: CompletionRequest, reply: object) -> Read | Unusable:
    """What a reply holds, without the prefix that was asked for."""
    if not isinstance(reply, Mapping):
        return Unusable("not readable")
    used = counted(reply, "prompt_tokens"), counted(reply, "completion_tokens")
    choices = reply.get("choices")
    if reply.get("error") and not choices:
        return Unusable("an error in place of an answer", reply["error"], _status(reply["error"]), *used)
    if "choices" not in reply or not isinstance(choices, Sequence | None) or isinstance(choices, str):
        return Unusable("not readable", reply.get("message") or reply.get("detail"))
    choice = choices[0] if choices else None
    if choice is None:
        return Unusable("no answer in it", None, None, *used)
    if not isinstance(choice, Mapping):
        return Unusable("not readable")
    reason = str(choice.get("finish_reason") or "").lower()
    if choice.get("error") or reply.get("error") or reason in _TORN:
        error = choice.get("error") or reply.get("error")
        return Unusable("half an answer", error, _status(error), *used)
    message = choice.get("message")
    if not isinstance(message, Mapping):
        if "text" not in choice:
            return Unusable("not readable")
        message = {"content": choice["text"]}
    if reason in _TOOLS or message.get("tool_calls"):
        return Unusable("a tool call", None, None, *used)
    text = _text_of(message.get("content"))
    if text is None:
        return Unusable("not readable", None, None, *used)
    return _answer(request, choice, message, reason, text, *used)


def only_object(answer: str) -> Mapping[str, Any]:
    """The JSON object that an answer is, in a fence of code or without; empty if it is or has anything else."""
    found = _OBJECT.fullmatch(answer)
    try:
        stated: Mapping[str, Any] = json.loads(found[1]) if found else {}
    except (ValueError, RecursionError):
        return {}
    return stated


def _answer(
    request: CompletionRequest,
    choice: Mapping[str, Any],
    message: Mapping[str, Any],
    reason: str,
    text: str,
    prompt_tokens: int | None,
    tokens: int | None,
) -> Read:
    count = len(text.encode("utf-8", "replace")) if tokens is None else tokens  # at most so many
    if reason in _WITHHELD or (message.get("refusal") and not text.strip()):
        return Read(Completion("", count, "refused"), prompt_tokens, ("withheld by a filter",))
    clean = cleaned(text)
    cut_short = reason in _CUT_SHORT or (not reason and tokens is not None and tokens >= request.max_tokens)
    kinds: list[Kind] = []
    finish: FinishReason = "length" if cut_short or clean.unended else "stop"
    if cut_short and not clean.text:
        kinds, finish = ["only reasoning"], "reasoning"  # shown or hidden: nothing else leaves no text at all
    else:
        kinds += ["reasoning cut off"] if clean.reasoning else []
        kinds += ["cut at a control token"] if clean.control else []
        kinds += ["control characters removed"] if clean.unprintable else []
        kinds += [] if clean.text else ["no text"]
    rest, anew = _after_prefix(request, clean.text)
    first = _first_tokens(choice) if request.logprobs else ()
    return Read(Completion(rest, count, finish, anew, first), prompt_tokens, tuple(kinds), clean.orphan)


def _after_prefix(request: CompletionRequest, text: str) -> tuple[str, bool]:
    """A text without the prefix that was asked for, and whether it stands alone without having taken that up."""
    begun = request.prefix.strip()
    taken_up = text.lower().startswith(begun.lower())
    return (text[len(begun) :], False) if taken_up else (text, True)


def cleaned(text: str) -> Cleaned:
    """A model's text without reasoning and control characters, and up to the first control token."""
    text, count = _UNPRINTABLE.subn("", _whole(text).replace("\r\n", "\n"))
    return replace(_without_marks(text.strip()), unprintable=count > 0)


def _without_marks(text: str) -> Cleaned:
    """The same for a text without control characters."""
    bare = _BARE_CHANNEL.match(text)
    if bare is not None:
        ended = bare[0].endswith("assistantfinal")
        return Cleaned(text[bare.end() :].strip() if ended else "", reasoning=True, unended=not ended)
    if not _HINTS.search(text):
        return Cleaned(text)
    channels = list(_CHANNEL.finditer(text))
    kept, reasoning, open_, orphan = text, False, False, False
    if channels:
        final = [channel for channel in channels if channel[1] == "final"]
        reasoning = len(final) < len(channels)
        kept = text[final[-1].end() :] if final else ""
    kept, marked, open_, orphan = _without_reasoning(kept)
    opening = _OPENING.match(kept)
    kept = kept[opening.end() :] if opening else kept
    control = _control_in(kept)
    torn = False
    if control is not None:
        torn = not _TURN_ENDS.match(control[0]) and bool(CONTROL.sub("", kept[control.start() :]).strip())
        kept = kept[: control.start()]
    cut = control is not None or opening is not None
    return Cleaned(kept.strip(), reasoning or marked, cut, unended=open_ or torn, orphan=orphan)


def _control_in(text: str) -> re.Match[str] | None:
    """The first control token; what closes something that the text itself has opened is none, as in HTML."""
    for found in CONTROL.finditer(text):
        before = text[: found.start()]
        if not any(found[0].startswith(end) and before.count(begin) > before.count(end) for begin, end in _PAIRS):
            return found
    return None


def _without_reasoning(text: str) -> tuple[str, bool, bool, bool]:
    """The text outside of reasoning; whether there was any, whether it never ended, and whether nothing opened it.

    Reasoning begins at the start of the text alone, or by a token that no text has. Its own marks may be nested.
    """
    kept: list[str] = []
    at, depth, ended, found, orphan = 0, 0, False, False, False
    mentioned: list[re.Match[str]] = []
    fences = [fence.start() for fence in _FENCE.finditer(text)]
    for mark in _MARKS.finditer(text):
        sure = bool(mark["sure_opened"] or mark["sure_closed"])
        fenced = bisect(fences, mark.start())
        in_code = not depth and fenced % 2 == 1 and fenced < len(fences)  # in a block that has an end
        if not sure and (in_code or _quoted(text, mark)):
            continue
        if mark["opened"] and depth:
            depth += 1
        elif mark["opened"] and (sure or _begins("".join(kept) + text[at : mark.start()])):
            kept.append(text[at : mark.start()])
            depth, ended, found = 1, False, True
        elif mark["opened"]:
            mentioned.append(mark)
        elif depth:
            at, depth, ended = mark.end(), depth - 1, True
        elif mentioned and not sure and _pair(text, mentioned[-1], mark):
            mentioned.pop()
        elif sure or _closes_unopened(text, mark):  # all that stands before belongs to it
            orphan = orphan or not mark.start() or bool(text[at : mark.start()].strip())
            kept.clear()
            at, found = mark.end(), True
    open_ = depth > 0 and not ended  # reasoning that mentions an opening mark ends with its last closing one
    if not open_:
        kept.append(text[at:])
    return "".join(kept), found, open_, orphan


def _begins(before: str) -> bool:
    """Whether an answer that has only this so far has not begun."""
    return not _OPENING.sub("", before).strip()


def _pair(text: str, opened: re.Match[str], closed: re.Match[str]) -> bool:
    """Whether two marks that an answer mentions belong together: in one line, or with the first alone on its line."""
    line = text.rfind("\n", 0, opened.start()) + 1
    alone = not text[line : opened.start()].strip() and _LINE_ENDS.match(text, opened.end()) is not None
    return alone or text.find("\n", opened.end(), closed.start()) < 0


def _quoted(text: str, mark: re.Match[str]) -> bool:
    """Whether the mark is between quotation marks."""
    return _quotation_begins(text, mark) and text[mark.end() : mark.end() + 1] in [*_QUOTES]


def _quotation_begins(text: str, mark: re.Match[str]) -> bool:
    """Whether a quotation begins directly before the mark."""
    at = mark.start()
    start = max(text.rfind("\n", 0, at) + 1, at - _NEAR)
    return _QUOTED_BEFORE.search(text[start:at]) is not None


def _closes_unopened(text: str, mark: re.Match[str]) -> bool:
    """Whether a closing mark that nothing opened ends reasoning: a sentence that mentions one has a blank before it."""
    at, end = mark.span()
    if not text[text.rfind("\n", 0, at) + 1 : at].strip():  # it begins its line
        return _BLANK_AFTER.match(text, end) is None or _LINE_ENDS.match(text, end) is not None
    if text[at - 1].isspace():
        return _EMPTY_LINE.match(text, end) is not None
    return text[at - 1] not in "([{<|/" and not _quotation_begins(text, mark)


def _text_of(content: object) -> str | None:
    """The text of a message's content (a string, nothing, or the text parts of a list); None for other shapes."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = [content] if isinstance(content, Mapping) else content
    if not isinstance(parts, Sequence):
        return None
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping):
            if part.get("type", "text") in ("text", "output_text") and isinstance(part.get("text"), str):
                texts.append(part["text"])
        else:
            return None
    return "".join(texts)


def said_in(body: object) -> Any:
    """What a body says of an error, wherever it says it."""
    if not isinstance(body, Mapping):
        return body
    return body.get("error") or body.get("message") or body.get("detail") or (body if body else None)


def _status(error: object) -> int | None:
    """The HTTP status that an error names, if it names one."""
    for name in ("code", "status", "status_code"):
        code = error.get(name) if isinstance(error, Mapping) else None
        if str(code).isdecimal() and 400 <= int(str(code)[:4]) < 600:
            return int(str(code))
    return None


def _whole(text: str) -> str:
    """Without halves of surrogate pairs, which fit into no file."""
    return text.encode("utf-8", "replace").decode()


def _first_tokens(choice: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """The likeliest first tokens with their log-probs; none where the server gives none, or in another form."""
    try:
        entries = choice["logprobs"]["content"][0]["top_logprobs"]
        found = [(str(entry["token"]), float(entry["logprob"])) for entry in entries]
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError):
        return ()
    return tuple((token, min(0.0, log_prob)) for token, log_prob in found if not math.isnan(log_prob))


def counted(reply: Mapping[str, Any], name: str) -> int | None:
    """A count of tokens in a reply, where the server gives one that can be."""
    usage = reply.get("usage")
    count = usage.get(name) if isinstance(usage, Mapping) else None
    if isinstance(count, bool) or not isinstance(count, int | float) or not 0 <= count <= _MOST_TOKENS:
        return None
    return int(count)
