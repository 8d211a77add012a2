"""Every causal architecture of the installed transformers, tiny and random: exact, or refused by one sentence.

    python -m benchmarks.architectures --out docs/results/architectures      # about 5 minutes on one core
    python -m benchmarks.architectures --only llama gpt2 doge                # some of them

Of every model type that AutoModelForCausalLM takes, a tiny model is built (`tiny_architectures`). Its log-probabilities
by trunk and branches are compared with those of the model's own forward pass over each whole sequence, in its own
attention; and its greedy answers over shared trunks with the naive loop that reads the whole sequence again for every
token. Each ends as one of

    exact        all log-probabilities within 1e-3 nats, all answers the same
    refused      one sentence of fspo, before anything was scored
    late         one sentence of fspo, but only when answers were generated, after it could have been trained
    unbuildable  no tiny model came out of the shrunk configuration, or it could not run by itself
    wrong        other numbers or other answers, and not a word
    traceback    anything else

Every architecture runs in a process of its own with a time limit. With `--out`, every result is kept as it comes; the
same command resumes where it stopped. It starts again from nothing once all are there, or if the code of fspo or of the
benchmarks, the versions of the libraries or the options have changed.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.command_line import command_line
from benchmarks.tiny_architectures import VOCABULARY, build, causal_architectures, variants
from benchmarks.training_step import code_digest
from fspo.errors import FspoError
from fspo.files import read_json, write_json, write_text
from fspo.modeling.generation import Sampling, generate_ids
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.quiet import quietly
from fspo.modeling.rendering import Branch, RenderedPrompt, TokenizedEpisode

__all__ = ["OUTCOMES", "Result", "check", "main", "measure"]

OUTCOMES = ("exact", "refused", "late", "unbuildable", "wrong", "traceback")
_TOLERANCE = 1e-3
"""Nats; rounding is at 1e-5."""
_ANSWER = 8


@dataclass(frozen=True)
class Result:
    """What came of one architecture."""

    architecture: str
    variant: str
    model: str
    outcome: str
    detail: str = ""
    difference: float | None = None
    """Nats, the largest of all tokens of all responses."""


def check(name: str, variant: str, changes: dict[str, Any]) -> Result:
    """Build the architecture, and compare."""
    model_name = ""
    try:
        model = build(name, changes)
        model_name = type(model).__name__
        oracle = _oracle(model)
        episode, requests = _episode(), _requests()
        expected = [_naive(oracle, episode, branch, response) for branch, response in _ways(episode)]
    except Exception as error:
        return Result(name, variant, model_name, "unbuildable", _said(error))
    try:
        with torch.no_grad():
            sums = branch_logprobs(model, [episode])[0].sums.flatten()
    except FspoError as error:
        return Result(name, variant, model_name, "refused", str(error))
    except Exception as error:
        return Result(name, variant, model_name, "traceback", f"scoring: {_said(error)}")
    difference = float((sums - torch.stack(expected)).abs().nan_to_num(nan=torch.inf).max())
    if not difference < _TOLERANCE:
        return Result(name, variant, model_name, "wrong", "scoring", difference)
    return Result(name, variant, model_name, *_generation(model, oracle, requests), difference)


def _generation(model: Any, oracle: Any, requests: Sequence[RenderedPrompt]) -> tuple[str, str]:
    try:
        answers = [answer.ids for answer in generate_ids(model, requests, Sampling(_ANSWER, temperature=0))]
    except FspoError as error:
        return "late", str(error)
    except Exception as error:
        return "traceback", f"generation: {_said(error)}"
    differing = [
        index
        for index, (request, answer) in enumerate(zip(requests, answers, strict=True))
        if answer != _greedy(oracle, [*request.trunk_ids, *request.prompt_ids])
    ]
    return ("wrong", f"answers {differing}") if differing else ("exact", "")


def _oracle(model: Any) -> Any:
    """A copy that fspo never sees, in the plainest attention that it has."""
    oracle = copy.deepcopy(model)
    if oracle._can_set_attn_implementation():
        oracle.set_attn_implementation("eager")
    return oracle


@torch.no_grad()
def _logits(oracle: Any, ids: Sequence[int]) -> torch.Tensor:
    logits: torch.Tensor = oracle(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0]
    return logits


def _naive(oracle: Any, episode: TokenizedEpisode, branch: Branch, response: tuple[int, ...]) -> torch.Tensor:
    before = [*episode.trunk_ids[: branch.boundary], *branch.prompt_ids]
    logprobs = _logits(oracle, [*before, *response]).double().log_softmax(-1)[len(before) - 1 : -1]
    return logprobs.gather(-1, torch.tensor(response)[:, None]).sum()


def _greedy(oracle: Any, ids: Sequence[int]) -> tuple[int, ...]:
    so_far = list(ids)
    for _ in range(_ANSWER):
        so_far.append(int(_logits(oracle, so_far)[-1].argmax()))
    return tuple(so_far[len(ids) :])


def _ways(episode: TokenizedEpisode) -> list[tuple[Branch, tuple[int, ...]]]:
    return [(branch, response) for branch in episode.branches for response in branch.responses]


def _ids(count: int, seed: int) -> tuple[int, ...]:
    # Low ids are often special, and so are the highest ones here.
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(8, VOCABULARY - 12, (count,), generator=generator).tolist())


def _episode() -> TokenizedEpisode:
    """Branches at three boundaries, one of them before the first window is full."""
    shapes = [(5, 4, (6, 3)), (17, 1, (9, 8)), (30, 5, (2, 7)), (30, 3, (8, 1))]
    branches = tuple(
        Branch(_ids(prompt, 10 + at), (_ids(first, 20 + at), _ids(second, 30 + at)), boundary, 0, at)
        for at, (boundary, prompt, (first, second)) in enumerate(shapes)
    )
    return TokenizedEpisode(_ids(30, 1), (0, 5, 17, 30), branches)


def _requests() -> list[RenderedPrompt]:
    return [
        RenderedPrompt(_ids(21, 2), _ids(4, 41)),
        RenderedPrompt(_ids(21, 2), _ids(9, 42)),
        RenderedPrompt(_ids(7, 3), _ids(2, 43)),
    ]


def _said(error: Exception) -> str:
    said = " ".join(line.strip() for line in str(error).strip().splitlines()[:2])
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {said} ({Path(place.filename).name}:{place.lineno})"


def _child(connection: Connection, name: str, variant: str, changes: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    with warnings.catch_warnings(), quietly():
        warnings.simplefilter("ignore")
        connection.send(check(name, variant, changes))


def _apart(name: str, variant: str, changes: dict[str, Any], seconds: float) -> Result:
    """The result of one architecture from a process of its own."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(there, name, variant, changes), daemon=True)
    process.start()
    there.close()
    try:
        if not here.poll(seconds):
            return Result(name, variant, "", "traceback", f"no result after {seconds:.0f} s")
        result: Result = here.recv()
        return result
    except EOFError:
        process.join()
        return Result(name, variant, "", "traceback", f"the process ended with code {process.exitcode}")
    finally:
        process.kill()
        process.join()


def measure(names: Sequence[str], *, out: Path | None, seconds: float = 120.0, command: str = "") -> dict[str, Any]:
    """The results of all these architectures; with `out`, from where an unfinished measurement there stopped."""
    figures = _begun(out, command)
    done = {(row["architecture"], row["variant"]) for row in figures["rows"]}
    for name in names:
        for variant, changes in variants(name):
            if (name, variant) in done:
                continue
            result = _apart(name, variant, changes, seconds)
            print(f"{name} {variant}: {result.outcome} {result.detail}", file=sys.stderr)
            figures["rows"].append(asdict(result))
            if out is not None:
                write_json(out / "figures.json", figures)
    figures |= {"finished": True, "counts": _counts(figures["rows"])}
    if out is not None:
        write_json(out / "figures.json", figures)
        write_text(out / "README.md", _page(figures))
    return figures


def _begun(out: Path | None, command: str) -> dict[str, Any]:
    source = {
        "command": command,
        "code": code_digest(),
        "versions": {name: version(name) for name in ("transformers", "torch")},
    }
    path = out / "figures.json" if out is not None else None
    if path is not None and path.exists():
        found: dict[str, Any] = read_json(path)
        if not found["finished"] and all(found.get(name) == value for name, value in source.items()):
            return found
    return {"benchmark": "architectures", **source, "finished": False, "rows": []}


def _counts(rows: Sequence[dict[str, Any]]) -> dict[str, int]:
    counts = Counter(row["outcome"] for row in rows)
    return {outcome: counts[outcome] for outcome in OUTCOMES}


def _page(figures: dict[str, Any]) -> str:
    counts = figures["counts"]
    lines = [
        "# Causal architectures of transformers",
        "",
        f"```sh\n{figures['command']}\n```",
        "",
        f"Of {len(figures['rows'])} models of transformers {figures['versions']['transformers']}, "
        f"{counts['exact']} are exact, {counts['refused']} are refused by one sentence before they train or score, "
        f"{counts['unbuildable']} can't be built small, {counts['late']} are refused when they generate, "
        f"{counts['wrong']} are wrong and {counts['traceback']} end in a traceback. "
        "What these words mean is at the head of `benchmarks/architectures.py`; all figures are in "
        "[figures.json](figures.json).",
        "",
        "| architecture | model | outcome | largest difference, nats | |",
        "|---|---|---|---|---|",
    ]
    for row in figures["rows"]:
        name = row["architecture"] + (f" ({row['variant']})" if row["variant"] else "")
        difference = "" if row["difference"] is None else f"{row['difference']:.0e}"
        detail = row["detail"].replace("|", "\\|").replace("<", "&lt;")
        lines.append(f"| {name} | {row['model']} | {row['outcome']} | {difference} | {detail} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; the exit status is 1 if one of them is wrong or ends in a traceback."""
    parser = argparse.ArgumentParser(prog="benchmarks.architectures", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="TYPE", help="model types, such as llama gpt2; all by default")
    parser.add_argument("--seconds", type=float, default=120.0, help="time limit of one architecture")
    parser.add_argument("--out", type=Path, help="folder for figures.json and README.md")
    options = parser.parse_args(arguments)
    known = causal_architectures()
    unknown = sorted(set(options.only or ()) - set(known))
    if unknown:
        print(f"transformers has no causal language model of type {', '.join(unknown)}.", file=sys.stderr)
        return 2
    command = command_line("architectures", arguments)
    figures = measure(options.only or known, out=options.out, seconds=options.seconds, command=command)
    print(json.dumps(figures))
    return 1 if figures["counts"]["wrong"] or figures["counts"]["traceback"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
