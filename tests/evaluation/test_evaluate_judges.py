"""An evaluation with several judges, matched answers and the tax, end to end on a tiny random model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError, DataError, ModelError
from fspo.evaluation.config import EvaluationConfig, Floors, TaxConfig
from fspo.evaluation.evaluate import evaluate
from fspo.evaluation.scoring.weights import Weights
from fspo.files import read_json, read_jsonl
from fspo.judging.verdicts import Comparison, Judgement, Preferred
from fspo.preferences.types import User
from fspo.progress import Silent
from tests.evaluation.helpers import CountingJudge, small_dataset
from tests.fake_endpoint import fake_endpoint, stats

CONFIG = EvaluationConfig.model_validate(
    {
        "shots": 2,
        "ladder": [0, 2],
        "queries": 2,
        "answers": 2,
        "samplings": ["plain"],
        "max_new_tokens": 6,
        "robustness": {"users": 0},
        "floors": Floors(log_prob=-99, words=0, distinct=0),
        "judges": [{"name": "longer", "likes": {"length": 1}}],
        "match": ["format"],
        "tax": {"users": 3, "general": 2, "refusals": 1, "max_new_tokens": 3},
    }
)


class Failing:
    """Judges many at once, and is down after `left` of them."""

    identity = "failing"

    def __init__(self, left: int) -> None:
        self.left = left

    def compare(self, user: User, prompt: str, first: str, second: str) -> Preferred:
        raise NotImplementedError

    def judge(self, comparisons: Iterable[Comparison]) -> Iterator[Judgement]:
        for _ in comparisons:
            if not self.left:
                raise ModelError("The judge can't be reached; run the same command again: what was finished is kept.")
            self.left -= 1
            yield Judgement.agreed("first")


def run(model: Path, out: Path, config: EvaluationConfig = CONFIG, **options: Any) -> dict[str, Any]:
    options = {"judge": CountingJudge()} | options
    methods = options.pop("methods", {"base": None, "few-shot": None})
    return evaluate(config, small_dataset("test"), methods, model=str(model), out=out, **options)


def test_judges_matching_and_tax_stand_in_the_metrics_and_a_judge_may_be_down(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "evaluation"
    with pytest.raises(ModelError, match="run the same command again"):
        run(tiny_model_path, out, judges={"far": Failing(3)})
    assert not (out / "metrics.json").exists()
    assert len(read_jsonl(out / "few-shot" / "judgements-far.jsonl")) == 3
    monkeypatch.setattr(Weights, "_read", lambda *_: pytest.fail("a model was loaded again"))
    row = run(tiny_model_path, out, judges={"far": Failing(5)})["few-shot"]
    assert {"win_rate", "win_rate_matched/plain", "win_rate_by/longer/plain"} <= row.keys()
    assert row["win_rate_by/far/plain"]["value"] == 1.0
    assert read_json(out / "details.json")["judges"].keys() == {"longer", "far"}
    values = read_jsonl(out / "items.jsonl")[0]["values"]["few-shot"]
    assert values["win_rate_by/far/plain"] == 1.0
    assert {"tax_general", "tax_refusal", "tax_refusal/injected", "tax_fluency"} <= row.keys()
    assert all(record.keys() == {"value", "low", "high", "users", "items"} for record in row.values())
    judges = read_json(out / "judges.json")
    assert list(judges["judges"]) == ["headline", "longer", "far"]
    for name, place in (("headline", ""), ("longer", "longer/")):
        note = judges["judges"][name]["length_controlled"]["few-shot, plain"]["note"]
        assert (f"win_rate_length_controlled/{place}plain" in row) != ("undefined" in note)
    assert [entry["judges"] for entry in judges["agreement"]] == [
        ["headline", "longer"], ["headline", "far"], ["longer", "far"],
    ]  # fmt: skip
    assert read_json(out / "metrics.json")["few-shot"] == row


def test_a_further_judge_takes_the_place_of_one_that_is_missing(tiny_model_path: Path, tmp_path: Path) -> None:
    said: list[str] = []

    class Heard(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    config = CONFIG.model_copy(update={"tax": None, "match": ()})
    row = run(tiny_model_path, tmp_path, config, judge=None, progress=Heard())["few-shot"]
    assert "win_rate" in row
    assert "win_rate_by/longer/plain" not in row
    assert any("'longer' judges for the headline" in text for text in said)
    assert list(read_json(tmp_path / "judges.json")["judges"]) == ["headline"]


def test_a_judge_of_descriptions_and_users_without_any_are_told_before_anything_is_measured(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    entry = {"name": "far", "endpoint": {"base_url": "http://127.0.0.1:9/v1", "model": "m"}}
    config = EvaluationConfig.model_validate({"judges": [entry]})
    with pytest.raises(DataError, match="The judge 'far' reads descriptions"):
        evaluate(
            config,
            small_dataset("test", described=False),
            {"base": None},
            model=str(tiny_model_path),
            out=tmp_path,
            judge=CountingJudge(),
        )
    assert not any(tmp_path.iterdir())


def test_open_instructions_are_judged_by_a_server_and_kept(
    tiny_model_path: Path, policies: dict[str, Path | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tax = {"users": 3, "general": 0, "open": 2, "refusals": 0, "max_new_tokens": 6}
    with fake_endpoint() as address:
        entries = [{"name": name, "endpoint": {"base_url": address, "model": name}} for name in ("far", "other")]
        config = CONFIG.model_copy(update={"match": (), "tax": TaxConfig.model_validate(tax | {"judges": entries})})
        methods = {name: policies[name] for name in ("base", "fspo")}
        row = run(tiny_model_path, tmp_path, config, methods=methods)["fspo"]
        asked = stats(address)["answered"]
        monkeypatch.setattr(Weights, "_read", lambda *_: pytest.fail("a model was loaded again"))
        assert run(tiny_model_path, tmp_path, config, methods=methods)["fspo"] == row
        assert stats(address)["answered"] == asked > 0
    assert row["tax_open"]["value"] == pytest.approx(0.5 - row["general_win_rate/personal"]["value"])
    assert row["tax_open"]["items"] == 6
    assert "general_win_rate_by/other/personal" in row and "tax_general" not in row
    counts = read_json(tmp_path / "judges.json")["tax"]["far"]["fspo"]
    assert counts["wins"] + counts["ties"] + counts["losses"] == 12  # six for users, six for nobody
    assert (tmp_path / "fspo" / "tax-judgements-far.jsonl").exists()


def test_judges_at_one_server_share_its_answers_and_its_account_which_is_said(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    said: list[str] = []

    class Heard(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    with fake_endpoint() as address:
        endpoint = {"base_url": address, "model": "m", "budget": {"tokens": 10**6}}
        entries = [{"name": name, "endpoint": {**endpoint, "timeout": len(name)}} for name in ("far-off", "near-here")]
        config = EvaluationConfig.model_validate(CONFIG.model_dump() | {"match": (), "tax": None, "judges": entries})
        row = run(tiny_model_path, tmp_path, config, progress=Heard())["few-shot"]
        asked = stats(address)
    assert row["win_rate_by/far-off/plain"] == row["win_rate_by/near-here/plain"]
    assert asked["came"] == asked["answered"] > asked["again"] == 0, "one judge's answers are the other's too"
    assert [path.name for path in tmp_path.rglob("*.sqlite")] == ["answers-m.sqlite"]
    assert any(f"m at {address} gave {asked['answered']:,} answers in all calls of this run" in text for text in said)


def test_a_name_is_given_once(tiny_model_path: Path, tmp_path: Path) -> None:
    for name in ("longer", "headline"):
        with pytest.raises(ConfigError, match=f"'{name}' has a name that is taken"):
            run(tiny_model_path, tmp_path, judges={name: CountingJudge()})
