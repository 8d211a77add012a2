from __future__ import annotations

import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import synthesis_ablation
from benchmarks.small_judges import BIAS, ByLogOdds, ByMeaning, put
from benchmarks.synthesis_ablation import VARIANTS, distinct_pairs
from fspo.files import read_jsonl
from fspo.judging.verdicts import Comparison
from fspo.llm.local import LocalModel
from fspo.llm.quoting import texts_of
from fspo.llm.types import Completion, CompletionRequest, Message
from fspo.preferences.types import User
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import load_domain
from fspo.synthesis.judges import pairwise_judge
from tests.synthesis.helpers import ScriptedModel, Stopped

SIZES = "--questions 10 --responses 5 --max-tokens 24 --pairs 24 --rounds 2 --refined-pairs 4 --judged-by-model 4"


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """A bag of words, in place of the sentence embedder that is fetched from the package index."""
    vectors = np.zeros((len(texts), 512), dtype=np.float32)
    for row, text in enumerate(texts):
        for word in re.findall(r"\w+", text.lower()):
            vectors[row, zlib.crc32(word.encode()) % 512] += 1
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-9)


@dataclass(frozen=True)
class Finished:
    """What a run left, its last line, and how much was asked in each call of the model."""

    folder: Path
    printed: str
    calls: tuple[int, ...]


def command(model: Path, work: Path, *more: str) -> list[str]:
    return ["--model", str(model), "--work", str(work), *SIZES.split(), *more]


@pytest.fixture(scope="module")
def patched() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthesis_ablation, "sentence_embedding", lambda: embed)
        yield patch


@pytest.fixture(scope="module")
def calls(patched: pytest.MonkeyPatch) -> list[int]:
    """Requests that reached the model, call by call."""
    seen: list[int] = []
    real = LocalModel.complete

    def complete(self: LocalModel, requests: Sequence[CompletionRequest]) -> list[Completion]:
        seen.append(len(requests))
        return real(self, requests)

    patched.setattr(LocalModel, "complete", complete)
    return seen


@pytest.fixture(scope="module")
def finished(speaking_model_path: Path, tmp_path_factory: pytest.TempPathFactory, calls: list[int]) -> Finished:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("ablation")
    printed = run(command(speaking_model_path, folder / "work", "--out", str(folder / "out")))
    return Finished(folder, printed, tuple(calls))


def run(arguments: list[str]) -> str:
    """The last line that is printed."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        assert synthesis_ablation.main(arguments) == 0
    return printed.getvalue().splitlines()[-1]


@pytest.mark.slow
def test_each_variant_lacks_what_it_is_named_after(
    speaking_model_path: Path, finished: Finished, calls: list[int]
) -> None:
    work, out = finished.folder / "work", finished.folder / "out"
    record = json.loads(finished.printed)
    assert record == json.loads((out / "figures.json").read_text())
    rows: dict[str, Any] = {row["name"]: row for row in record["variants"]}
    assert list(rows) == [variant.name for variant in VARIANTS]

    responses = {path.parents[1].name: read_jsonl(path)[1:] for path in work.rglob("judged/responses.jsonl")}
    steered = {name: {row["steered"] for row in lines} for name, lines in responses.items()}
    personas = {persona.name for persona in load_domain("elix-easy").personas}
    assert steered["without-steering"] == {""}
    assert steered["whole-by-personas"] <= personas and not steered["whole-by-viewpoints"] & personas
    writers = {name: {row["model"] for row in lines} for name, lines in responses.items()}
    assert len(writers["whole-by-personas"]) == 2 and len(writers["without-ensemble"]) == 1

    whole, unrefined = rows["whole, by personas"], rows["without refinement"]
    assert responses["whole-by-personas"] == responses["without-refinement"]
    assert whole["diversity"] == unrefined["diversity"] and whole["difference_to_whole"]["value"] == 0
    assert whole["judged"]["sentences"] > unrefined["judged"]["sentences"] == 0
    assert unrefined["judged"]["entropy"]["before"] == unrefined["judged"]["entropy"]["after"]
    assert whole["judged"]["entropy"]["before"] == unrefined["judged"]["entropy"]["before"]
    for row in rows.values():
        assert 0 <= row["judged"]["decided"] <= 1
        assert row["judged"]["first_share"] is None or 0 <= row["judged"]["first_share"] <= 1
    page = (out / "README.md").read_text()
    for name in rows:
        assert page.count(f"| {name} |") == (1 if rows[name]["judged_by_model"] else 2)
    for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1

    calls.clear()
    assert run(command(speaking_model_path, work)) == finished.printed
    assert calls == []


@pytest.mark.slow
def test_killed_on_the_way_it_goes_on_and_asks_nothing_twice(
    speaking_model_path: Path, tmp_path: Path, finished: Finished, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls.clear()
    counted = LocalModel.complete
    full = finished.calls.index(max(finished.calls))  # the batch after it belongs to the same stage

    def killed(self: LocalModel, requests: Sequence[CompletionRequest]) -> list[Completion]:
        if len(calls) == full + 1:
            raise Stopped
        return counted(self, requests)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(LocalModel, "complete", killed)
        run(command(speaking_model_path, tmp_path))
    assert run(command(speaking_model_path, tmp_path)) == finished.printed
    assert tuple(calls) == finished.calls


def test_a_model_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert synthesis_ablation.main(command(tmp_path / "none", tmp_path / "work")) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def asked(description: str, first: str, second: str) -> str:
    judge = pairwise_judge(SynthesisConfig(domain="elix-easy"), load_domain("elix-easy"), ScriptedModel())
    return judge.request(Comparison(User("u", description), "Why is it so?", first, second)).messages[0].content


def test_the_usual_prompt_is_read() -> None:
    shown = put(asked("Likes cats.", "One.\n\nTwo.", "Three."))
    assert (shown.description, shown.first, shown.second) == ("Likes cats.", "One.\n\nTwo.", "Three.")
    assert texts_of(shown.empty) == texts_of(asked("Likes cats.", "...", "..."))
    with pytest.raises(ValueError, match="usual"):
        put("Which do you like?")


def test_the_judge_by_meaning_reads_the_description_and_is_biased() -> None:
    scripted = ScriptedModel()
    judge = ByMeaning(scripted, embed, unclear=0.01)
    cats, dogs = "A cat is a cat.", "A dog is a dog."
    near, far, same = judge.figures(
        [asked("Likes a cat.", *pair) for pair in ((cats, dogs), (dogs, cats), (cats, cats))]
    )
    assert near - BIAS == pytest.approx(BIAS - far) and near > far
    assert same == pytest.approx(BIAS)
    requests = [
        CompletionRequest((Message("user", asked("Likes a cat.", dogs, cats)),), temperature=0.0),
        CompletionRequest((Message("user", "Say something."),), temperature=1.0),
    ]
    judged, other = judge.complete(requests)
    assert judged.text == '{"preferred": "B"}'
    assert [other] == ScriptedModel().complete(requests[1:])
    assert scripted.asked == requests[1:]


def test_log_odds_do_not_depend_on_what_else_is_read(tiny_model_path: Path) -> None:
    prompts = [asked(f"Likes {word}.", word * count, "no") for count, word in enumerate(("cats ", "dogs ", "tea "), 1)]
    together = ByLogOdds(ScriptedModel(), str(tiny_model_path)).figures(prompts)
    alone = [ByLogOdds(ScriptedModel(), str(tiny_model_path)).figures([prompt])[0] for prompt in prompts]
    assert together == pytest.approx(alone, abs=1e-4)
    assert len(set(together)) == 3
    assert ByLogOdds(ScriptedModel(), str(tiny_model_path)).figures([asked("Likes tea.", "...", "...")]) == [0.0]


def test_distinct_pairs_of_words() -> None:
    assert distinct_pairs(["a b c", "a b d"]) == 3 / 4
    assert distinct_pairs(["a", ""]) == 0
