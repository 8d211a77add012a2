"""What a server's reply can look like, and what becomes of it, over real HTTP."""

from __future__ import annotations

import gzip
import time
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ModelError
from fspo.llm.budget import BudgetReached, Reserved
from fspo.llm.cache import RequestCache, Spent
from fspo.llm.endpoint import FAILED, Endpoint, EndpointConfig
from fspo.llm.replies import CONTROL, cleaned
from fspo.llm.types import Completion, CompletionRequest, Message
from tests.llm.answering import Server, answer, answering, reply

pytest.importorskip("aiohttp")


def asked(server: Server, cache: RequestCache | None = None, **settings: Any) -> Endpoint:
    usual = {"base_url": server.address, "model": "m", "requests_in_flight": 4, "timeout": 10}
    return Endpoint(EndpointConfig.model_validate({**usual, **settings}), cache)


def requests(count: int = 1) -> list[CompletionRequest]:
    return [CompletionRequest((Message("user", f"Hello {n}"),), max_tokens=20, seed=n) for n in range(count)]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("The user asks ... be brief.\n</think>\n\nThe answer.", "The answer."),
        ("<think>A or B?</think>\n\nThe answer.", "The answer."),
        ("<think>I write <think> here. </think> More.</think>The answer.", "The answer."),
        ("<thought>Let me see.</thought>The answer.", "The answer."),
        ("<THINKING>Let me see.</THINKING>The answer.", "The answer."),
        ("<think>It goes on and on", ""),
        ("[THINK]Let me see.[/THINK]The answer.", "The answer."),
        ("\u25c1think\u25b7Let me see.\u25c1/think\u25b7The answer.", "The answer."),
        (
            "<|channel|>analysis<|message|>We need.<|end|><|start|>assistant<|channel|>final<|message|>The answer.",
            "The answer.",
        ),
        ("<|channel|>final<|message|>The answer.<|return|>", "The answer."),
        ("<|channel|>analysis<|message|>We need to say", ""),
        ("<|channel|>commentary to=f <|constrain|>json<|message|>{}<|call|>", ""),
        ("analysisWe need to be brief.assistantfinalThe answer.", "The answer."),
        ("analysisWe need to be", ""),
        ("assistantanalysisWe need to be brief.assistantfinalThe answer.", "The answer."),
        ("to=analysis We need to be brief.assistantfinalThe answer.", "The answer."),
        ("to=analysis We need to be", ""),
        (
            "<|start|>assistant to=analysis<|message|>We need.<|end|><|start|>assistant<|channel|>final<|message|>The "
            "answer.",
            "The answer.",
        ),
        ("to=analysis<|message|>We need to say", ""),
        ("<analysis>Let me see.</analysis>\n\nThe answer.", "The answer."),
        ("<scratchpad>\nLet me see.\n</scratchpad>\nThe answer.", "The answer."),
        ("<scratchpad>It goes on and on", ""),
        ("The answer.<|im_end|>", "The answer."),
        ("The answer.<|im_end|>\n<|im_start|>user\nAnd more?", "The answer."),
        ("<|im_start|>assistant\nThe answer.", "The answer."),
        ("<|start_header_id|>assistant<|end_header_id|>\n\nThe answer.<|eot_id|>", "The answer."),
        ("<|im_end|>\n<|im_start|>user\nHello", ""),
        ("<\uff5cAssistant\uff5c>The answer.<\uff5cend\u2581of\u2581sentence\uff5c>", "The answer."),
        ("<start_of_turn>model\nThe answer.<end_of_turn>", "The answer."),
        ("The answer.</s>[INST] More [/INST]", "The answer."),
        ("The answer.<|im_e", "The answer."),
        ("The user asks.\n</think>\nThe answer.", "The answer."),
        ("The user asks.</think>The answer.", "The answer."),
        ("So it is A </think>\n\nThe answer.", "The answer."),
        ("</think>\n\nThe answer.", "The answer."),
        ('<think>The reply is "Yes."</think>"Yes."', '"Yes."'),
        ("The user asks about `<think>`.\n```\nx\n</think>\n\nThe answer.", "The answer."),
        ("<think>The user wants a <think> tag.</think>The answer.", "The answer."),
        ("The user wants a <think> tag.\n</think>\n\nThe answer.", "The answer."),
        ("<|im_start|>assistant\n<think>Hm.</think>The answer.", "The answer."),
        ("The answer.<|begin_of_thought|>Was that right?", "The answer."),
        ("The answer.</s><pad><pad>", "The answer."),
        ("The answer. [SEP]", "The answer."),
        ("The answer</s>\nUser: And more?", "The answer"),
        ("The answer\n[INST] And more? [/INST]", "The answer"),
        ("<s>The answer.</s>", "The answer."),
        ("Let me look.\n<tool_call>\n{}</tool_call>", "Let me look."),
        ("If a < b and c[0] <b>is</b> x |> f, then {y | z}.", "If a < b and c[0] <b>is</b> x |> f, then {y | z}."),
        ("analysis of the poem shows", "analysis of the poem shows"),
    ],
)
def test_reasoning_and_control_tokens_are_no_part_of_an_answer(text: str, left: str) -> None:
    found = cleaned(text)
    assert found.text == left
    assert (found.reasoning or found.control) == (left != text)
    assert not CONTROL.search(found.text)
    with answering(lambda body, count: reply(answer(text))) as server:
        (said,) = asked(server).complete(requests())
    assert said.text == left


@pytest.mark.parametrize(
    ("content", "more", "text"),
    [
        (None, {}, ""),
        (None, {"reasoning_content": "Hm."}, ""),
        ("The answer.", {"reasoning_content": "Hm."}, "The answer."),
        ("The answer.", {"reasoning": "Hm.", "reasoning_details": [{}]}, "The answer."),
        ([{"type": "text", "text": "The "}, {"type": "text", "text": "answer."}], {}, "The answer."),
        (
            [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}, {"type": "text", "text": "A."}],
            {},
            "A.",
        ),
        ({"type": "text", "text": "The answer."}, {}, "The answer."),
        ([], {}, ""),
    ],
)
def test_the_shapes_of_content(content: Any, more: dict[str, Any], text: str) -> None:
    with answering(lambda body, count: reply(answer(content, **more))) as server:
        (said,) = asked(server).complete(requests())
    assert (said.text, said.finish_reason) == (text, "stop")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (answer("Half an ans", "length"), ("Half an ans", "length")),
        (answer("Half an ans", "MAX_TOKENS"), ("Half an ans", "length")),
        (answer("", "length", reasoning_content="The user"), ("", "reasoning")),
        (answer(None, "length"), ("", "reasoning")),
        (answer("<think>The user", "length"), ("", "reasoning")),
        (answer("Half an ans", "content_filter"), ("", "refused")),
        (answer(None, "stop", refusal="I can't."), ("", "refused")),
        (answer("Whole.", None), ("Whole.", "stop")),
        (answer("Half an ans", None, {"prompt_tokens": 3, "completion_tokens": 20}), ("Half an ans", "length")),
        (answer("Whole.", "eos"), ("Whole.", "stop")),
        ({"choices": [{"text": "Whole.", "finish_reason": "stop"}]}, ("Whole.", "stop")),
    ],
)
def test_the_reasons_to_finish(body: dict[str, Any], said: tuple[str, str]) -> None:
    with answering(lambda sent, count: reply(body)) as server:
        (found,) = asked(server).complete(requests())
    assert (found.text, found.finish_reason) == said
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "text",
    [
        "Use the `<s>` element to strike text out.",
        "Use the <s> element, and close it with </s>, to strike text out.",
        "<s>9 dollars</s> 7 dollars",
        "Was 9 dollars: <s>9</s>",
        "BERT predicts the word behind [MASK] from both sides.",
        "Llama puts the user's words between [INST] and [/INST], and the answer behind them.",
        "Llama writes a turn as [INST] text [/INST]",
        "BERT joins two sentences with [SEP] and begins with [CLS], T5 hides words as <extra_id_0>.",
        "A batch is filled up with <pad> tokens, and an unknown word is <unk>.",
        "The byte <0x0A> is a line break.",
        "R1 writes its thoughts between `<think>` and `</think>`, and then its answer.",
        "R1 writes its thoughts between <think> and </think>, and then its answer.",
        "R1 writes `<think>...</think>` and then its answer.",
        "The tags are `<think>`/`</think>`.",
        "Close the block with </think> in the template.",
        "The block ends with (</think>).",
        "The block ends with </think>",
        "It ends with **</think>**, always.",
        "<summary>Short.</summary>\n<analysis>Long.</analysis>",
        "The report has a part <analysis> and a part <scratchpad>.",
        "Write the address as to=analysis in the form.",
        "This is the template:\n```\n{thoughts}\n</think>\n\n{answer}\n```\nFill it in.",
        "This is the template:\n<think>\n{thoughts}\n</think>\n\n{answer}",
    ],
)
def test_an_answer_about_tags_and_tokens_stays_whole(text: str) -> None:
    found = cleaned(text)
    assert (found.text, found.reasoning, found.control, found.orphan) == (text, False, False, False)


def test_control_characters_are_removed_and_counted(tmp_path: Path) -> None:
    text = "\x1b[1;31mThe\x1b[0m\tans\x00wer\x07.\r\nIt is\x7f \x9b2Jgo\x85od.\x1b"
    lines: list[str] = []
    with answering(lambda body, count: reply(answer(text if count else "The answer.\r\nPlain."))) as server:
        config = EndpointConfig(base_url=server.address, model="m", requests_in_flight=1)
        endpoint = Endpoint(config, RequestCache(tmp_path / "a.sqlite"), say=lines.append)
        said = endpoint.complete(requests(2))
    assert [one.text for one in said] == ["The answer.\nPlain.", "The\tanswer.\nIt is good."]
    assert endpoint.replies == {"control characters removed": 1}
    assert len(lines) == 1


HALF = answer("Half an ans", "error")
IN_CHOICE = answer("Half an ans", None)
IN_CHOICE["choices"][0]["error"] = {"code": 502, "message": "upstream is gone"}

ODD = {
    "half an answer": reply(HALF),
    "half an answer, by an error in the choice": reply(IN_CHOICE),
    "half an answer, aborted": reply(answer("Half an ans", "abort")),
    "an error in place of an answer": reply({"error": {"message": "no free GPU"}}),
    "an error in place of an answer, in the second of two": reply({"error": "no free GPU", "choices": None}),
    "no answer in it": reply({"choices": []}),
    "no answer in it, null": reply({"choices": None}),
    "a tool call": reply(answer(None, "tool_calls", tool_calls=[{"id": "1"}])),
    "not readable": reply(b"{not JSON"),
    "not readable, a number": reply(answer(7)),
    "not readable, chunks": b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    "not readable, gzip": reply(gzip.compress(b"{}")[:12] + b"broken", headers={"content-encoding": "gzip"}),
    "not readable, no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "not readable, no length": b"HTTP/1.1 banana\r\n\r\n",
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_answer_is_asked_again(kind: str, tmp_path: Path) -> None:
    cache = RequestCache(tmp_path / "a.sqlite")
    odd = {"Hello 1"}

    def script(body: dict[str, Any], count: int) -> bytes:
        text = body["messages"][-1]["content"]
        if text in odd:
            odd.remove(text)
            return ODD[kind]
        return reply(answer())

    with answering(script) as server:
        endpoint = asked(server, cache, requests_in_flight=1)
        said = endpoint.complete(requests(3))
    assert [(one.text, one.finish_reason) for one in said] == [("Good.", "stop")] * 3
    assert len(server.bodies) == 4
    assert endpoint.replies == {kind.split(",")[0]: 1}
    assert RequestCache(tmp_path / "a.sqlite").replies() == endpoint.replies


@pytest.mark.parametrize("kind", [*ODD, "with usage"])
def test_a_bad_reply_gives_back_what_was_set_aside_for_it_once(kind: str, tmp_path: Path) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 300}
    odd = ODD[kind] if kind in ODD else reply(answer("Half an ans", "error", usage))
    cache = RequestCache(tmp_path / "a.sqlite")
    with answering(lambda body, count: odd if count < 2 else reply(answer())) as server:
        endpoint = asked(server, cache)
        assert endpoint.complete(requests())[0].text == "Good."
    assert endpoint._account._under_way == 0
    assert endpoint._account._set_aside == Reserved(0.0, 0.0)
    assert endpoint.spent == cache.spent()
    if kind == "with usage":
        assert endpoint.spent == Spent(1, 2 * 10 + 3, 2 * 300 + 5)


def test_the_budget_is_passed_at_once_after_bad_replies_that_were_paid_for() -> None:
    odd = reply(answer("Half an ans", "error", {"prompt_tokens": 10, "completion_tokens": 300}))
    with answering(lambda body, count: odd if count == 0 else reply(answer())) as server:
        endpoint = asked(server, budget={"tokens": 400}, requests_in_flight=1)
        began = time.monotonic()
        with pytest.raises(BudgetReached):
            endpoint.complete(requests(10))
    assert time.monotonic() - began < 15  # and not for twice the timeout and the pauses, until the server is given up
    assert endpoint.spent.prompt_tokens + endpoint.spent.tokens <= 400


def test_overloads_before_a_bad_reply_do_not_use_up_its_second_chance() -> None:
    def script(body: dict[str, Any], count: int) -> bytes:
        busy = reply({"error": {"message": "busy"}}, 429, {"retry-after-ms": "1"})
        return (busy, busy, busy, ODD["not readable"], ODD["no answer in it"], reply(answer()))[count]

    with answering(script) as server:
        assert asked(server).complete(requests())[0].text == "Good."


@pytest.mark.parametrize("kind", ODD)
def test_what_is_never_an_answer_is_counted_as_failed_and_the_others_go_on(kind: str, tmp_path: Path) -> None:
    def script(body: dict[str, Any], count: int) -> bytes:
        return ODD[kind] if body["seed"] % 3 == 0 else reply(answer())

    cache = RequestCache(tmp_path / "a.sqlite")
    with answering(script) as server:
        endpoint = asked(server, cache, retries=1, requests_in_flight=8)
        endpoint.complete(requests(2)[1:])  # a server that has not answered yet would be taken for another kind
        said = list(endpoint.stream(iter(requests(30)), 8))
    assert [one.finish_reason for one in said] == ["failed", "stop", "stop"] * 10
    assert {one.text for one in said} == {"", "Good."}
    assert endpoint.replies == {kind.split(",")[0]: 20, FAILED: 10}
    with answering(lambda body, count: reply(answer())) as well:
        config = EndpointConfig(base_url=server.address, model="m")
        again = Endpoint(config, cache, _Sent(well))
        assert {one.finish_reason for one in again.complete(requests(30))} == {"stop"}
    assert len(well.bodies) == 10  # only what failed is asked again
    assert FAILED not in again.replies


def _Sent(server: Server) -> Any:
    """The way to another server for an endpoint that keeps its name."""
    from fspo.llm.transport import WebTransport

    return WebTransport(EndpointConfig(base_url=server.address, model="m"))


def test_a_server_that_gives_no_answers_any_more_ends_the_run_with_its_words(tmp_path: Path) -> None:
    def script(body: dict[str, Any], count: int) -> bytes:
        return reply(answer()) if count < 5 else reply({"error": {"message": "the disk is full"}})

    with answering(script) as server:
        endpoint = asked(server, RequestCache(tmp_path / "a.sqlite"), retries=0, requests_in_flight=2)
        with pytest.raises(ModelError, match=r"2[01] requests failed one after the other; .*the disk is full"):
            list(endpoint.stream(iter(requests(400)), 8))
    assert len(server.bodies) < 5 + 20 + 10
    assert RequestCache(tmp_path / "a.sqlite").spent() == Spent(5, 15, 25)


CUT, CLOSED, BARE = answer("The user asks", "length"), answer("Hm.\n</think>\n\nGood."), answer("Good.")
ENDED, NOTHING, TORN = ("Good.", "stop"), ("", "reasoning"), ("The user asks", "length")


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        ([CLOSED, CLOSED, CLOSED, CUT], [ENDED, ENDED, ENDED, NOTHING]),
        ([CUT, CLOSED, CUT, CLOSED, CLOSED], [NOTHING, ENDED, NOTHING, ENDED, ENDED]),
        ([CUT, CLOSED, CLOSED], [TORN, ENDED, ENDED]),
        ([CLOSED, CLOSED, BARE, CLOSED, CUT], [ENDED, ENDED, ENDED, ENDED, TORN]),
        ([CLOSED, CLOSED, CLOSED, BARE, CUT], [ENDED, ENDED, ENDED, ENDED, TORN]),
    ],
)
def test_an_answer_that_is_cut_is_reasoning_where_all_others_close_some(
    replies: list[dict[str, Any]], said: list[tuple[str, str]], tmp_path: Path
) -> None:
    with answering(lambda body, count: reply(replies[count])) as server:
        for _ in range(2):  # what is kept is the same
            endpoint = asked(server, RequestCache(tmp_path / "a.sqlite"), requests_in_flight=1)
            found = endpoint.complete(requests(len(replies)))
            assert [(one.text, one.finish_reason) for one in found] == said
        alone = asked(server, requests_in_flight=1)
        server.bodies.clear()
        assert [(one.text, one.finish_reason) for one in alone.complete(requests(len(replies)))] == said
    assert endpoint.replies.get("only reasoning", 0) == alone.replies.get("only reasoning", 0) == said.count(NOTHING)


def test_a_resumed_run_knows_that_answers_begin_in_reasoning_until_one_does_not(tmp_path: Path) -> None:
    script = [CLOSED, CLOSED, CLOSED, CUT, BARE, CUT, CUT]
    said: list[str] = []
    with answering(lambda body, count: reply(script[count])) as server:
        for count in (3, 4, 6, 7):
            endpoint = asked(server, RequestCache(tmp_path / "a.sqlite"), requests_in_flight=1)
            said = [one.finish_reason for one in endpoint.complete(requests(count))]
    assert said == ["stop", "stop", "stop", "reasoning", "stop", "length", "length"]


def test_an_answer_that_mentions_a_closing_tag_changes_no_other(tmp_path: Path) -> None:
    mention = answer("Close the block with </think> in the template.")
    script = [mention, mention, mention, CUT]
    with answering(lambda body, count: reply(script[count])) as server:
        found = asked(server, requests_in_flight=1).complete(requests(4))
    assert [one.text for one in found] == ["Close the block with </think> in the template."] * 3 + ["The user asks"]


@pytest.mark.parametrize("count", [10**30, -1, 1.5e300, True, "7", None])
def test_counts_that_can_not_be_are_not_believed(count: Any, tmp_path: Path) -> None:
    usage = {"prompt_tokens": count, "completion_tokens": count}
    with answering(lambda body, n: reply(answer(usage=usage))) as server:
        cache = RequestCache(tmp_path / "a.sqlite")
        asked(server, cache).complete(requests(2))
    assert cache.spent() == Spent(2, 2 * (len("Hello 0") + 64), 2 * len("Good."))


def test_odd_numbers_among_log_probs_are_no_crash() -> None:
    body = answer("A")
    top = [{"token": "A", "logprob": 10**400}, {"token": "B", "logprob": -1}]
    body["choices"][0]["logprobs"] = {"content": [{"top_logprobs": top}]}
    request = CompletionRequest((Message("user", "Hello"),), logprobs=2)
    with answering(lambda sent, count: reply(body)) as server:
        assert asked(server).complete([request]) == [Completion("A", 5, "stop")]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (
            429,
            {"message": "You exceeded your current quota.", "type": "insufficient_quota", "code": "insufficient_quota"},
        ),
        (429, {"message": "You exceeded your current quota, please check your plan and billing details."}),
        (402, {"message": "Insufficient credits"}),
        (403, {"message": "Your account has insufficient balance."}),
        (403, {"message": "Your account balance is insufficient"}),
        (400, {"message": "Your credit balance is too low to access the API."}),
        (200, {"message": "Insufficient credits", "code": 402}),
    ],
)
def test_a_quota_that_is_used_up_ends_the_run_at_once(status: int, error: dict[str, Any], tmp_path: Path) -> None:
    def script(body: dict[str, Any], count: int) -> bytes:
        return reply(answer()) if count < 3 else reply({"error": error}, status)

    cache = RequestCache(tmp_path / "a.sqlite")
    began = time.monotonic()
    with answering(script) as server, pytest.raises(ModelError, match="no quota or credit left") as stopped:
        asked(server, cache).complete(requests(50))
    assert time.monotonic() - began < 12  # the pauses of six retries take 16 s at least
    assert error["message"].rstrip(".") in str(stopped.value)
    assert len(server.bodies) <= 8
    assert cache.spent().requests == 3


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (
            403,
            {
                "error": {
                    "code": 403,
                    "message": "The input was flagged by moderation",
                    "metadata": {"reasons": ["harassment"], "flagged_input": "I hate the billing department"},
                }
            },
        ),
        (403, {"error": {"message": "Blocked: 'insufficient balance on my card'", "code": "content_filter"}}),
        (400, {"error": {"message": "[{'loc': ('x',), 'input': 'How do I dispute a billing error?'}]"}}),
        (400, {"error": {"message": 'invalid: {"content": "My credit balance is too low."}'}}),
        (400, {"error": {"message": "wrong form", "input": "Your account is suspended, payment required"}}),
        (
            400,
            {"detail": [{"loc": ["body"], "msg": "wrong", "input": "It exceeded your current quota"}]},
        ),
        (400, {"error": {"message": "Questions on billing are not answered here."}}),
    ],
)
def test_a_text_about_money_that_is_refused_ends_no_run(status: int, body: dict[str, Any]) -> None:
    def script(sent: dict[str, Any], count: int) -> bytes:
        return reply(body, status) if sent["seed"] == 1 else reply(answer())

    with answering(script) as server:
        said = asked(server, requests_in_flight=1).complete(requests(3))
    assert [one.finish_reason for one in said] == ["stop", "refused", "stop"]


def test_a_rate_limit_is_no_quota_that_is_used_up() -> None:
    words = "You exceeded your current quota, please check your plan and billing details. Please retry in 0.1s."

    def script(body: dict[str, Any], count: int) -> bytes:
        return reply({"error": {"message": words}}, 429) if count == 0 else reply(answer())

    with answering(script) as server:
        assert asked(server).complete(requests())[0].text == "Good."


def test_a_missing_v1_that_is_answered_with_200_names_the_address() -> None:
    words = "Unexpected endpoint or method. (POST /chat/completions)"
    told = r"Unexpected endpoint .*check the address, which often ends in /v1"
    with answering(lambda body, count: reply({"error": words})) as server, pytest.raises(ModelError, match=told):
        asked(server).complete(requests())


def test_a_port_that_speaks_no_http_is_one_sentence() -> None:
    told = "does not answer as an OpenAI-compatible server does"
    with answering(lambda body, count: b"SSH-2.0-OpenSSH_9.6\r\n") as server, pytest.raises(ModelError, match=told):
        asked(server).complete(requests(3))


def test_one_bad_reply_at_the_very_beginning_is_not_the_wrong_address() -> None:
    def script(body: dict[str, Any], count: int) -> bytes:
        return ODD["not readable, chunks"] if count == 0 else reply(answer())

    with answering(script) as server:
        assert asked(server).complete(requests())[0].text == "Good."


def test_a_proxy_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with answering(lambda body, count: reply(answer())) as server:
        assert asked(server).complete(requests())[0].text == "Good."


def test_a_proxy_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    away = Endpoint(EndpointConfig(base_url="http://model.invalid/v1", model="m", retries=0))
    with pytest.raises(ModelError, match=r"by the proxy in http_proxy\) can't be reached; .*http_proxy"):
        away.complete(requests())


def test_silence_is_told_and_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("fspo.llm.endpoint._QUIET", 0.3)
    lines: list[str] = []

    def script(body: dict[str, Any], count: int) -> bytes:
        time.sleep(0 if count == 0 else 30)
        return reply(answer())

    with answering(script) as server:
        config = EndpointConfig(base_url=server.address, model="m", timeout=1, retries=1, requests_in_flight=1)
        endpoint = Endpoint(config, RequestCache(tmp_path / "a.sqlite"), say=lines.append)
        began = time.monotonic()
        with pytest.raises(ModelError, match=r"answered nothing for .*timed out.*run the same command again"):
            endpoint.complete(requests(20))
    assert 2 < time.monotonic() - began < 20  # twice the timeout and the pauses; all 19 in turn would take 38 s
    assert any("has answered nothing for" in line and "waited for until" in line for line in lines)
    assert any("timed out" in line for line in lines)
    assert endpoint.spent.requests == 1


def test_a_wait_that_the_server_asks_for_is_no_silence() -> None:
    def script(body: dict[str, Any], count: int) -> bytes:
        busy = {"error": {"message": "60 requests a minute"}}
        return reply(busy, 429, {"retry-after": "2"}) if count == 0 else reply(answer())

    with answering(script) as server:  # without the wait, it is given up after a second
        assert asked(server, timeout=0.5, retries=1).complete(requests())[0].text == "Good."


def test_waiting_for_a_limit_is_told_with_the_servers_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fspo.llm.endpoint._QUIET", 0.3)
    lines: list[str] = []

    def script(body: dict[str, Any], count: int) -> bytes:
        busy = {"error": {"message": "60 requests a minute"}}
        return reply(busy, 429, {"retry-after": "2"}) if count == 0 else reply(answer())

    with answering(script) as server:
        config = EndpointConfig(base_url=server.address, model="m")
        assert Endpoint(config, say=lines.append).complete(requests())[0].text == "Good."
    assert any("60 requests a minute" in line for line in lines)


def test_what_is_odd_is_said_once() -> None:
    lines: list[str] = []
    with answering(lambda body, count: reply(answer("<think>Hm.</think>Good.<|im_end|>"))) as server:
        Endpoint(EndpointConfig(base_url=server.address, model="m"), say=lines.append).complete(requests(20))
    assert len(lines) == 2
    assert sum("reasoning" in line for line in lines) == 1
