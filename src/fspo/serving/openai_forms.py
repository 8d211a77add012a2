"""Answers in the forms of OpenAI's API: chat completions and responses, whole and as streams of server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from fspo.serving.answering import Answer
from fspo.serving.api_errors import api_error, error_body
from fspo.serving.engine import Piece

__all__ = ["chat_completion", "chat_events", "response", "response_events"]

_DONE = b"data: [DONE]\n\n"
Fault = Callable[[BaseException], None]
"""Notes an error in the middle of a stream."""


def chat_completion(answer: Answer, text: str, *, show_shots: bool) -> dict[str, Any]:
    """A whole chat completion."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(answer)}
    whole = {**_chat_head(answer, "chat.completion"), "choices": [choice], "usage": _chat_usage(answer)}
    return whole | ({"fspo": answer.given()} if show_shots else {})


async def chat_events(
    answer: Answer, pieces: AsyncIterator[Piece], *, usage: bool, show_shots: bool, fault: Fault
) -> AsyncIterator[bytes]:
    """A chat completion as it is written: the role, the text, how it ended, the usage on request, and the end."""
    head = _chat_head(answer, "chat.completion.chunk") | ({"usage": None} if usage else {})

    def chunk(delta: dict[str, Any], finish: str | None = None, more: dict[str, Any] | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event({**head, "choices": [choice], **(more or {})})

    try:
        yield chunk({"role": "assistant", "content": ""}, more={"fspo": answer.given()} if show_shots else None)
        async for piece in pieces:
            if piece.text:
                yield chunk({"content": piece.text})
        yield chunk({}, _finish(answer))
        if usage:
            yield _event({**head, "choices": [], "usage": _chat_usage(answer)})
    except Exception as error:
        fault(error)
        yield _event(error_body(api_error(error)))
    yield _DONE


def _chat_head(answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answer.id}",
        "object": kind,
        "created": answer.created,
        "model": answer.model,
        "system_fingerprint": None,
    }


def _chat_usage(answer: Answer) -> dict[str, Any]:
    prompt, cached, completion = answer.usage
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _finish(answer: Answer) -> str:
    return (answer.last.finish if answer.last else None) or "stop"


def response(answer: Answer, text: str | None, *, show_shots: bool = False) -> dict[str, Any]:
    """A whole response; without a text, one that has just begun."""
    done = text is not None
    cut = done and _finish(answer) == "length"
    prompt, cached, completion = answer.usage
    usage = {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }
    whole = {
        "id": f"resp_{answer.id}",
        "object": "response",
        "created_at": answer.created,
        "status": "incomplete" if cut else "completed" if done else "in_progress",
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "instructions": None,
        "metadata": {},
        "model": answer.model,
        "output": [_item(answer, text, cut)] if text is not None else [],
        "parallel_tool_calls": False,
        "temperature": None,
        "tool_choice": "none",
        "tools": [],
        "top_p": None,
        "usage": usage if done else None,
    }
    return whole | ({"fspo": answer.given()} if show_shots else {})


async def response_events(
    answer: Answer, pieces: AsyncIterator[Piece], *, show_shots: bool, fault: Fault
) -> AsyncIterator[bytes]:
    """A response as it is written, in the events that OpenAI's client expects."""
    number = -1
    place = {"item_id": f"msg_{answer.id}", "output_index": 0, "content_index": 0}

    def event(kind: str, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        return _event({"type": kind, "sequence_number": number, **fields}, kind)

    try:
        begun = response(answer, None, show_shots=show_shots)
        yield event("response.created", response=begun)
        yield event("response.in_progress", response=begun)
        item = _item(answer, None, False)
        yield event("response.output_item.added", output_index=0, item=item)
        yield event("response.content_part.added", **place, part=_part(""))
        texts = []
        async for piece in pieces:
            if piece.text:
                texts.append(piece.text)
                yield event("response.output_text.delta", **place, delta=piece.text, logprobs=[])
        text = "".join(texts)
        whole = response(answer, text, show_shots=show_shots)
        yield event("response.output_text.done", **place, text=text, logprobs=[])
        yield event("response.content_part.done", **place, part=_part(text))
        yield event("response.output_item.done", output_index=0, item=whole["output"][0])
        yield event(f"response.{whole['status']}", response=whole)
    except Exception as error:
        fault(error)
        body = error_body(api_error(error))["error"]
        yield event("error", code=body["code"], message=body["message"], param=body["param"], error=body)


def _item(answer: Answer, text: str | None, cut: bool) -> dict[str, Any]:
    status = "in_progress" if text is None else "incomplete" if cut else "completed"
    content = [] if text is None else [_part(text)]
    return {"id": f"msg_{answer.id}", "type": "message", "role": "assistant", "status": status, "content": content}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _event(value: dict[str, Any], name: str = "") -> bytes:
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()
