"""What the engine in this process gains: short waits for known users, many users in little memory, many at once.

    python -m benchmarks.serving --out docs/results/serving                 # about ten minutes on one core
    python -m benchmarks.serving --out docs/results/serving --parts crowd   # one part, in the place of an earlier one
    python -m benchmarks.serving --out docs/results/serving --render        # the page of saved results, in a second
    python -m benchmarks.serving --short                                    # smaller numbers, about two minutes

Three parts, with the built-in model and shots from the written domain `advice`:

    warm       time to the first piece of an answer after 8 shots, if the engine knows the user (`warm`) and if not
               (`cold`); `warm_speedup` is the ratio of the medians
    budget     200 users ask once each, and then 200 times more, some of them far more often than others; the budget
               is ten times the bytes of five users' trunks, so it has room for about 50. `hit_rate` is over all
               requests, and `lru_hit_rate` what any cache of 50 users that drops the least recently used would reach
               on the same order. Answers to a sample of the users are compared with those of `Policy`
    crowd      50 users ask at the same moment, each with 8 shots that the engine has read before; against plain
               transformers, which answers one request after the other with `generate` and reads the shots each time.
               `fresh_requests_per_second` is for users whom the engine does not know

All answers are greedy. Seconds are of the wall clock. The weights are loaded before anything is timed. `failed` counts
requests without an answer, over all parts and rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shlex
import statistics
import textwrap
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.training_step import device_name
from fspo.files import read_json, write_json, write_text
from fspo.modeling.policy import Policy
from fspo.preferences.types import Preference, Turn
from fspo.printing import counted
from fspo.serving.engine import GenerationRequest
from fspo.serving.engines.local import LocalEngine
from fspo.synthesis.domain import load_domain

__all__ = ["Sizes", "main", "measure"]


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    shots: int = 8
    trials: int = 5
    users: int = 200
    room: int = 50
    budget_shots: int = 1
    checked: int = 10
    crowd: int = 50
    sequential: int = 5
    tokens: int = 32
    batch_size: int = 50


_BUDGET_TOKENS = 4
"""Of an answer in the part `budget`."""
_AMPLE = 2**33
"""Bytes for the trunks of everybody."""
SHORT = Sizes(shots=8, trials=2, users=24, room=6, budget_shots=1, checked=3, crowd=16, sequential=2, tokens=16)
"""The same measurements with fewer people and shorter answers."""
SMALL = Sizes(shots=2, trials=2, users=8, room=3, budget_shots=1, checked=2, crowd=4, sequential=2, tokens=4)
"""Enough to see that it works, with a model of any speed."""


@dataclass(frozen=True)
class _Timed:
    text: str
    first: float
    """Seconds until the first piece."""
    whole: float
    """Seconds until the last one."""
    cached: int
    tokens: int


def measure(
    model: str, sizes: Sizes, parts: Sequence[str] = ("warm", "budget", "crowd"), note: str = ""
) -> dict[str, Any]:
    """See the module.

    Args:
        model: a model's name or folder.
        sizes: how much is measured.
        parts: which parts.
        note: a sentence on the machine, for the page.

    Returns:
        What was measured how (`model`, `sizes`, ...), the results of each part under `parts`, and all of them together
        beside it.
    """
    policy = Policy.load(model, layout="conversation", shots=sizes.shots)
    people = _people(max(sizes.users, 2 * sizes.crowd + sizes.trials), sizes.shots)
    how = {"model": model, "sizes": asdict(sizes), "threads": torch.get_num_threads(), "machine": device_name("cpu")}
    how["note"] = note
    return together(how, {name: asyncio.run(_PARTS[name](policy, people, sizes)) for name in parts})


def together(how: dict[str, Any], parts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The results of all parts beside one another; `failed` is their sum."""
    flat = {name: value for found in parts.values() for name, value in found.items()}
    return {**how, **flat, "failed": sum(found.get("failed", 0) for found in parts.values()), "parts": parts}


def with_earlier(results: dict[str, Any], file: Path) -> dict[str, Any]:
    """The results, and the parts of an earlier call that measured in the same way and are not measured again."""
    if not file.is_file():
        return results
    how = ("model", "sizes", "threads", "machine", "note")
    earlier = read_json(file)
    if any(earlier.get(name) != results[name] for name in how[:-1]):
        return results
    results = results | {"note": results["note"] or earlier.get("note", "")}
    parts = earlier["parts"] | results["parts"]
    return together({name: results[name] for name in how}, {name: parts[name] for name in _PARTS if name in parts})


def _people(count: int, shots: int) -> list[GenerationRequest]:
    """A request of each of so many users, with shots on different questions and a question that no shot is on."""
    written = load_domain("advice").written
    texts: dict[str, list[str]] = {}
    for row in written:
        texts.setdefault(row.question, []).append(row.text)
    people = []
    for number in range(count):
        rng = random.Random(number)
        *shown, last = rng.sample(sorted(texts), shots + 1)
        owner = f"user-{number}"
        pairs = [(question, *rng.sample(texts[question], 2)) for question in shown]
        rows = tuple(Preference(owner, question, chosen, rejected) for question, chosen, rejected in pairs)
        people.append(GenerationRequest(owner, rows, (Turn("user", last),), 1, 0.0, 1.0, (), 0, True))
    return people


async def _ask(engine: LocalEngine, request: GenerationRequest) -> _Timed:
    began, first, text = time.perf_counter(), 0.0, ""
    async for piece in engine.stream(request):
        text += piece.text
        first = first or time.perf_counter() - began
    return _Timed(text, first, time.perf_counter() - began, piece.cached_tokens, piece.completion_tokens)


async def _load_weights(engine: LocalEngine, people: Sequence[GenerationRequest]) -> None:
    await _ask(engine, replace(people[0], owner="nobody", shots=()))


async def _warm(policy: Policy, people: Sequence[GenerationRequest], sizes: Sizes) -> dict[str, Any]:
    engine = LocalEngine(policy, budget=_AMPLE)
    cold: list[_Timed] = []
    warm: list[_Timed] = []
    await _load_weights(engine, people)
    for person in people[: sizes.trials]:
        cold.append(await _ask(engine, person))
        warm.append(await _ask(engine, person))
    await engine.close()
    seconds = {name: statistics.median(one.first for one in found) for name, found in (("cold", cold), ("warm", warm))}
    return {
        "cold_first_seconds": round(seconds["cold"], 4),
        "warm_first_seconds": round(seconds["warm"], 4),
        "warm_speedup": round(seconds["cold"] / seconds["warm"], 2),
        "trunk_tokens": round(statistics.mean(one.cached for one in warm)),
        "same_answers": all(one.text == other.text for one, other in zip(cold, warm, strict=True)),
    }


async def _budget(policy: Policy, people: Sequence[GenerationRequest], sizes: Sizes) -> dict[str, Any]:
    users = [
        replace(one, shots=one.shots[: sizes.budget_shots], max_tokens=_BUDGET_TOKENS) for one in people[: sizes.users]
    ]
    engine = LocalEngine(policy, budget=_AMPLE)
    sample = users[: max(1, sizes.room // 10)]
    for one in sample:
        await _ask(engine, one)
    budget = engine.counts.trunk_bytes * sizes.room // len(sample)  # that many trunks of usual length
    await engine.close()
    engine = LocalEngine(policy, budget=budget, batch_size=8)
    order = _visits(users, random.Random(0))
    found: list[_Timed] = []
    failed = 0
    for start in range(0, len(order), 8):
        visits = order[start : start + 8]
        answers = await asyncio.gather(*(_ask(engine, one) for one in visits), return_exceptions=True)
        failed += sum(isinstance(one, BaseException) for one in answers)
        found += [one for one in answers if isinstance(one, _Timed)]
    counts = engine.counts.cache
    await engine.close()
    by_user = {one.owner: answer.text for one, answer in zip(order, found, strict=False)} if not failed else {}
    checked = users[: sizes.checked]
    right = sum(_alone(policy, one) == by_user.get(one.owner) for one in checked)
    return {
        "users": len(users),
        "budget_bytes": budget,
        "budget_users": sizes.room,
        "peak_bytes": counts.peak_bytes,
        "budget_requests": len(order),
        "hit_rate": round(counts.hits / (counts.hits + counts.misses), 4),
        "lru_hit_rate": round(_lru(order, sizes.room), 4),
        "evictions": counts.evictions,
        "answers_checked": len(checked),
        "answers_right": right,
        "failed": failed,
    }


def _visits(users: Sequence[GenerationRequest], rng: random.Random) -> list[GenerationRequest]:
    """Every user once in order, and then as many visits in which some users come far more often than others."""
    weights = [1 / (place + 1) for place in range(len(users))]
    return [*users, *rng.choices(users, weights, k=len(users))]


def _lru(order: Sequence[GenerationRequest], room: int) -> float:
    """The hit rate of a cache with room for so many users."""
    kept: OrderedDict[str, None] = OrderedDict()
    hits = 0
    for one in order:
        hits += one.owner in kept
        kept[one.owner] = None
        kept.move_to_end(one.owner)
        if len(kept) > room:
            kept.popitem(last=False)
    return hits / len(order)


def _alone(policy: Policy, request: GenerationRequest) -> str:
    (turn,) = request.turns
    return policy.generate(request.shots, turn.text, temperature=0, max_new_tokens=request.max_tokens)


async def _crowd(policy: Policy, people: Sequence[GenerationRequest], sizes: Sizes) -> dict[str, Any]:
    crowd = [replace(one, max_tokens=sizes.tokens) for one in people[: sizes.crowd]]
    engine = LocalEngine(policy, budget=_AMPLE, batch_size=sizes.batch_size)
    await _load_weights(engine, people)
    rates: dict[str, float] = {}
    failed: dict[str, int] = {}
    answers: list[_Timed | BaseException] = []
    for name in ("fresh", "known"):
        began = time.perf_counter()
        answers = await asyncio.gather(*(_ask(engine, one) for one in crowd), return_exceptions=True)
        rates[name] = len(crowd) / (time.perf_counter() - began)
        failed[name] = sum(isinstance(one, BaseException) for one in answers)
    await engine.close()
    done = [one for one in answers if isinstance(one, _Timed)]
    sample = crowd[: sizes.sequential]
    plain, seconds = _plain(policy, sample)
    sequential = len(sample) / seconds
    same = sum(text == answer.text for text, answer in zip(plain, answers, strict=False) if isinstance(answer, _Timed))
    return {
        "crowd": len(crowd),
        "requests_per_second": round(rates["known"], 4),
        "fresh_requests_per_second": round(rates["fresh"], 4),
        "sequential_requests_per_second": round(sequential, 4),
        "throughput_ratio": round(rates["known"] / sequential, 2),
        "fresh_throughput_ratio": round(rates["fresh"] / sequential, 2),
        "tokens_per_second": round(sum(one.tokens for one in done) / len(crowd) * rates["known"], 2),
        "first_seconds": _percentiles([one.first for one in done]),
        "whole_seconds": _percentiles([one.whole for one in done]),
        "sequential_requests": len(sample),
        "sequential_same_answers": same,
        "fresh_failed": failed["fresh"],
        "failed": sum(failed.values()),
    }


def _plain(policy: Policy, requests: Sequence[GenerationRequest]) -> tuple[list[str], float]:
    """The answers of transformers' own `generate`, one after the other, and how long it takes."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert policy.weights is not None
    folder = policy.weights.base_name
    if folder == "smollm2-135m":
        from fspo.modeling import builtin_model

        folder = str(builtin_model.obtain())
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)  # as the engine has it
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model.eval()
    texts = []
    began = time.perf_counter()
    for request in requests:
        (turn,) = request.turns
        messages = policy.messages(request.shots, turn.text, reserve=request.max_tokens)
        shown = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            out = model.generate(
                **shown,
                max_new_tokens=request.max_tokens,
                do_sample=False,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.eos_token_id,
            )
        texts.append(tokenizer.decode(out[0, shown["input_ids"].shape[1] :], skip_special_tokens=True).strip())
    return texts, time.perf_counter() - began


def _percentiles(seconds: Sequence[float]) -> dict[str, float]:
    ranked = sorted(seconds)
    return {
        f"p{share}": round(ranked[min(len(ranked) - 1, share * len(ranked) // 100)], 3)
        for share in (50, 90, 99)
        if ranked
    }


_PARTS = {"warm": _warm, "budget": _budget, "crowd": _crowd}


_PAGE = """\
# Serving

`{command}` on {machine}, {cores}, model `{model}`{short}.
All numbers are in [serving.json](serving.json).
"""
_WARM = """
## Waiting for a known user

| | seconds to the first text |
|---|---|
| the engine reads {shots} shots ({trunk_tokens:,} tokens) | {cold_first_seconds:.3f} |
| it has read them before | {warm_first_seconds:.3f} |

A known user waits {warm_speedup:.1f} times shorter (medians of {trials} users). The answers are {same}.
"""
_BUDGET = """
## {users} users in the memory of {budget_users}

The budget is {budget_bytes:,} bytes, and at most {peak_bytes:,} were in use. Of {budget_requests} requests
{hit_rate:.1%} found their user's shots in memory; a cache that drops the least recently used of {budget_users} users
reaches {lru_hit_rate:.1%} on the same order. {answers_right} of {answers_checked} answers that were compared are those
of the policy alone.
"""
_CROWD = """
## {crowd} users at once

| | requests per second | ratio |
|---|---|---|
| plain transformers, one after the other | {sequential_requests_per_second:.3f} | 1 |
| the engine, users whom it does not know | {fresh_requests_per_second:.3f} | {fresh_throughput_ratio:.1f} |
| the engine, known users | {requests_per_second:.3f} | {throughput_ratio:.1f} |

An answer has at most {tokens} tokens. Of known users half have the first text after {first_seconds[p50]:.2f} s and the
whole answer after {whole_seconds[p50]:.2f} s; 99% after {first_seconds[p99]:.2f} s and {whole_seconds[p99]:.2f} s.
{sequential_same_answers} of {sequential_requests} answers are those of plain transformers.
"""
_END = """
Requests without an answer: {failed}.

## Limits

"""
_RATIOS = "Each ratio is of rounds in one run, one after the other."
_LIMITS = {
    "warm": "- The answers that are compared for a known user have one token.\n",
    "budget": "- Each of the {users} users has {each_shots}, and an answer at most {budget_tokens} tokens, to keep the "
    "part short.\n",
    "crowd": "- For users whom the engine does not know, reading their shots is nearly all of the work, so they gain "
    "little.\n",
}
_UNCOUNTED = "- Requests without an answer were not counted in the round of users whom the engine does not know.\n"
"""Of results that were saved before that round was counted."""


def _page(results: dict[str, Any]) -> str:
    """The results in words, as Markdown."""
    same = "the same" if results.get("same_answers") else "not all the same"
    names = {**results["sizes"], **results, "same": same}
    names["command"] = _command(results)
    names["cores"] = counted(results["threads"], "threads")
    names["short"] = "" if results["sizes"] == asdict(Sizes()) else ", with smaller numbers than the benchmark's own"
    names["each_shots"] = counted(results["sizes"]["budget_shots"], "shots")
    names["budget_tokens"] = _BUDGET_TOKENS
    texts = {"warm": _WARM, "budget": _BUDGET, "crowd": _CROWD}
    parts = [name for name in texts if name in results["parts"]]
    whole = _PAGE + "".join(texts[name] for name in parts) + _END
    limits = "".join(_LIMITS[name] for name in parts)
    if "crowd" in parts and "fresh_failed" not in results:
        limits += _UNCOUNTED
    first = textwrap.fill(
        " ".join(filter(None, ("-", results["note"], _RATIOS))), 120, subsequent_indent="  ", break_on_hyphens=False
    )
    return f"{whole.format(**names)}{first}\n{limits.format(**names)}"


def _command(results: dict[str, Any]) -> str:
    """The command that measures all of it in the same way."""
    model, sizes = results["model"], results["sizes"]
    options = [] if model == "smollm2-135m" else ["--model", model]
    options += ["--short"] if sizes == asdict(SHORT) else ["--small"] if sizes == asdict(SMALL) else []
    return shlex.join(["python", "-m", "benchmarks.serving", *options, "--threads", str(results["threads"])])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print; see the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--short", action="store_true", help="smaller numbers, about two minutes")
    parser.add_argument("--small", action="store_true", help="the smallest numbers, to see that it works")
    parser.add_argument("--parts", nargs="+", choices=list(_PARTS), default=list(_PARTS))
    parser.add_argument("--threads", type=int, help="threads of torch; by default its own choice")
    parser.add_argument("--out", type=Path, help="folder for serving.json and README.md")
    parser.add_argument("--note", default="", help="a sentence on the machine, such as what else it did, for the page")
    parser.add_argument("--render", action="store_true", help="measure nothing: write the page of the results in --out")
    given = parser.parse_args(arguments)
    if given.render:
        if given.out is None:
            parser.error("--render needs --out")
        results = read_json(given.out / "serving.json")
        results["note"] = given.note or results.get("note", "")
        _save(results, given.out)
        return
    if given.threads:
        torch.set_num_threads(given.threads)
    results = measure(given.model, SMALL if given.small else SHORT if given.short else Sizes(), given.parts, given.note)
    if given.out:
        results = with_earlier(results, given.out / "serving.json")
        _save(results, given.out)
    print(json.dumps(results))


def _save(results: dict[str, Any], folder: Path) -> None:
    write_json(folder / "serving.json", results)
    write_text(folder / "README.md", _page(results))


if __name__ == "__main__":
    main()
