"""Win rates: both orders, floors, and answers that are drawn once and stay the same."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from fspo.evaluation.config import EvaluationConfig, Floors
from fspo.evaluation.judges.answer_quality import Quality
from fspo.evaluation.judges.judgement_store import judged
from fspo.evaluation.judges.win_rates import Answer, Answerer, decide, judge_answers
from fspo.evaluation.scoring.eval_episodes import build_trials
from fspo.evaluation.scoring.weights import LoadableModel
from fspo.judging.judge import AttributeJudge
from fspo.judging.verdicts import Comparison, Judgement, Preferred
from fspo.modeling import answering, generation
from fspo.preferences.types import User
from tests.evaluation.helpers import CountingJudge, small_dataset

ANN = User("ann", traits={"length": 1.0})
FINE = Quality(log_prob=-2.0, distinct=1.0, compression=0.9, overlap=0.5, closeness=0.4, words=9)
GIBBERISH = Quality(log_prob=-9.0, distinct=1.0, compression=0.9, overlap=0.0, closeness=0.0, words=9)
CONFIG = EvaluationConfig(shots=2, queries=3, answers=2, max_new_tokens=6, answer_batch=3)


class FirstJudge:
    """Always likes what it sees first."""

    identity = "first"

    def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
        return "first"


def test_a_judge_of_positions_comes_out_even_and_is_found_out(tmp_path: Path) -> None:
    pair = ("ann/0/0", Comparison(ANN, "p", "long answer", "short"))
    [judgement] = judged(FirstJudge(), [pair], path=tmp_path / "j.jsonl")
    assert (judgement.preferred, judgement.consistent, judgement.reason) == ("tie", False, "inconsistent")


@pytest.mark.parametrize(("a", "b", "word"), [("x " * 9, "x", "first"), ("x", "x " * 9, "second"), ("x", "y", "tie")])
def test_both_orders_agree_for_a_judge_of_texts(a: str, b: str, word: Preferred, tmp_path: Path) -> None:
    [judgement] = judged(CountingJudge(), [("ann/0/0", Comparison(ANN, "p", a, b))], path=tmp_path / "j.jsonl")
    assert judgement == Judgement.agreed(word)


def test_floors_overrule_the_judge() -> None:
    for word in get_args(Preferred):
        assert decide(word, (), ()) == word
        assert decide(word, ("words",), ()) == "second"
        assert decide(word, (), ("words",)) == "first"
        assert decide(word, ("words",), ("log_prob",)) == "tie"


def answers(method: str, *texts: str) -> list[Answer]:
    return [Answer(method, "plain", f"ann/0/{n}", "ann", "p", text) for n, text in enumerate(texts)]


def test_judgements_are_kept_and_floors_applied_anew(tmp_path: Path) -> None:
    drawn, base = answers("fspo", "x " * 9, "x " * 9), {a.item: a for a in answers("base", "x", "x")}
    qualities = {"ann/0/0": FINE, "ann/0/1": GIBBERISH}
    args = ({"ann": ANN}, drawn, base, qualities, dict.fromkeys(qualities, FINE))
    path = tmp_path / "j.jsonl"
    first, second = judge_answers(CountingJudge(), *args, Floors(), path=path)
    assert (first.score, second.score, second.judgement.preferred) == (1.0, 0.0, "first")
    assert second.broken == ("log_prob",)
    before = path.read_bytes()
    kept = judge_answers(CountingJudge(), *args, Floors(log_prob=-99), path=path)
    assert [j.score for j in kept] == [1.0, 1.0]
    assert path.read_bytes() == before


def test_the_words_of_another_judge_or_for_a_changed_user_are_not_taken(tmp_path: Path) -> None:
    drawn, base = answers("fspo", "x " * 9), {a.item: a for a in answers("base", "x")}
    qualities = {"ann/0/0": FINE}
    path = tmp_path / "j.jsonl"

    def preferred(judge: Any, user: User = ANN) -> str:
        (found,) = judge_answers(judge, {"ann": user}, drawn, base, qualities, qualities, Floors(), path=path)
        return found.judgement.preferred

    assert preferred(CountingJudge()) == "first"
    assert preferred(FirstJudge()) == "tie"
    assert preferred(CountingJudge(), User("ann", traits={"length": -1.0})) == "second"
    long = AttributeJudge({"length": (5.0, 1.0)}, margin=0.1)
    assert preferred(long) == "first"
    assert preferred(AttributeJudge(long.scales, margin=9.0)) == "tie"
    assert len(path.read_text().splitlines()) == 5


def drawn(tiny_model_path: Path, path: Path, sampling: Any = "plain", **options: Any) -> list[Answer]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from fspo.modeling.rendering import EpisodeRenderer

    tokenizer = AutoTokenizer.from_pretrained(str(tiny_model_path))
    model = options.pop("model", lambda: AutoModelForCausalLM.from_pretrained(str(tiny_model_path)).eval())
    trials = options.pop("trials", None) or build_trials(small_dataset("t"), CONFIG)[:2]
    answerer = Answerer(LoadableModel(model, EpisodeRenderer(tokenizer), "w"), CONFIG, "fspo")
    return answerer.answer(trials, sampling, path)


def test_a_killed_run_draws_the_same_answers(tiny_model_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    whole = drawn(tiny_model_path, path)
    assert len(whole) == 4
    assert len({answer.item for answer in whole}) == 4
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:2]) + lines[2][:20], encoding="utf-8")
    assert drawn(tiny_model_path, path) == whole
    assert drawn(tiny_model_path, path, model=None) == whole


def test_guided_answers_are_others(tiny_model_path: Path, tmp_path: Path) -> None:
    plain, guided = (drawn(tiny_model_path, tmp_path / f"{s}.jsonl", s) for s in ("plain", "guided"))
    assert [a.item for a in plain] == [a.item for a in guided]
    assert {a.sampling for a in guided} == {"guided"}
    assert [a.text for a in plain] != [a.text for a in guided]


@pytest.mark.parametrize(("sampling", "strength"), [("plain", 0.0), ("guided", CONFIG.guidance)])
def test_guidance_and_the_mirrored_shots_reach_whoever_draws(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampling: str, strength: float
) -> None:
    seen: list[tuple[float, bool]] = []
    original = generation.generate_ids

    def spy(model: Any, requests: Any, settings: generation.Sampling, **more: Any) -> Any:
        seen.extend((settings.guidance, request.mirror_trunk_ids is not None) for request in requests)
        return original(model, requests, settings, **more)

    monkeypatch.setattr(answering, "generate_ids", spy)
    drawn(tiny_model_path, tmp_path / "answers.jsonl", sampling)
    assert set(seen) == {(strength, True)}


def test_a_question_in_another_spelling_is_not_answered_again(tiny_model_path: Path, tmp_path: Path) -> None:
    trial = build_trials(small_dataset("t"), CONFIG)[0]
    first, second, *_ = trial.own.queries
    ways = tuple(replace(first, prompt=way) for way in (first.prompt, first.prompt.upper(), f" {first.prompt}  "))
    own = replace(trial.own, queries=(*ways, second))
    answered = drawn(tiny_model_path, tmp_path / "a.jsonl", trials=[replace(trial, own=own)])
    assert len(answered) == CONFIG.answers == 2
    assert sum(answer.prompt == second.prompt for answer in answered) == 1


def test_users_answer_the_same_prompts_where_they_can(tiny_model_path: Path, tmp_path: Path) -> None:
    by_user = itertools.groupby(drawn(tiny_model_path, tmp_path / "a.jsonl"), key=lambda answer: answer.user)
    for _, group in by_user:
        prompts = [answer.prompt for answer in group]
        assert len(set(prompts)) == len(prompts) == 2
