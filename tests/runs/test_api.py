"""The stages from Python: the same data and the same figures as by the command line, as tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import fspo
from fspo import FSPOConfig, FSPOTrainer, Policy, Preference, PreferenceDataset, Results
from fspo.errors import ConfigError, DataError
from fspo.judging.judge import AttributeJudge
from fspo.methods.adapted_policy import AdaptedPolicy
from fspo.progress import Silent
from fspo.runs import pipeline
from tests.evaluation.helpers import small_dataset
from tests.fake_endpoint import fake_endpoint, stats
from tests.synthesis.helpers import write_domain
from tests.training import helpers

MEASURED: dict[str, Any] = {"shots": 2, "queries": 2, "robustness": {"users": 0}, "max_new_tokens": 4}


def longer(shots: Sequence[Preference], prompt: str, response: str) -> float:
    return float(len(response))


@pytest.fixture(scope="module")
def policy(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "policy"
    args = FSPOConfig(
        output_dir=out, objective="ipo", shots=2, queries=2, users_per_step=2, steps=2, learning_rate=0.01, warmup=0
    )
    FSPOTrainer(tiny_model_path, args, helpers.small_dataset(), progress=Silent()).train()
    return out


@pytest.fixture(scope="module")
def held_out() -> PreferenceDataset:
    return small_dataset("t")


@pytest.fixture(scope="module")
def results(policy: Path, held_out: PreferenceDataset, tmp_path_factory: pytest.TempPathFactory) -> Results:
    texts = [text for row in held_out for text in (row.chosen, row.rejected)]
    judge = AttributeJudge.fit(texts, ["length", "exclamation"])
    out = tmp_path_factory.mktemp("results") / "mine"
    return fspo.evaluate(
        {"fspo": policy, "longer": longer},
        held_out,
        out,
        judge=judge,
        progress=Silent(),
        answers=1,
        **MEASURED,
    )


def test_metrics_are_a_table_of_what_was_written(results: Results) -> None:
    written = json.loads((results.folder / "metrics.json").read_text())
    assert set(results.metrics["method"]) == set(written) == {"fspo", "base", "few-shot", "longer"}
    assert len(results.metrics) == sum(map(len, written.values()))
    one = results.metrics.query("method == 'fspo' and measure == 'reward_accuracy'").iloc[0]
    expected = written["fspo"]["reward_accuracy"]
    assert (one["value"], one["low"], one["items"]) == (expected["value"], expected["low"], expected["items"])
    assert "fspo" in repr(results)


def test_comparisons_and_samples_are_tables(results: Results, held_out: PreferenceDataset) -> None:
    found = results.comparisons
    assert set(found["first"]) == {"fspo"} and set(found["second"]) == {"base", "few-shot", "longer"}
    metrics = results.metrics.set_index(["method", "measure"])["value"]
    variant = "reward_accuracy/likelihood"
    difference = found.query("second == 'few-shot' and measure == @variant")["value"].iloc[0]
    assert difference == pytest.approx(metrics["fspo", variant] - metrics["few-shot", variant])
    samples = results.samples
    assert set(zip(samples["method"], samples["sampling"], strict=True)) == {
        ("base", "plain"),
        *((name, way) for name in ("fspo", "few-shot") for way in ("plain", "guided")),
    }
    assert set(samples["user"]) == set(held_out.users)
    assert set(samples.query("method == 'fspo'")["outcome"]) <= {"win", "tie", "loss"}


@pytest.mark.usefixtures("undrawn")
def test_a_report_is_one_page(results: Results, tmp_path: Path) -> None:
    assert "few-shot" in results.report(tmp_path / "page.html").read_text()
    assert results.report() == results.folder / "report.html"


def test_called_again_it_measures_nothing_anew(
    results: Results, policy: Path, held_out: PreferenceDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fspo.modeling import loading, policies

    for module in (loading, policies):
        monkeypatch.setattr(module, "load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    options: dict[str, Any] = {**MEASURED, "answers": 0}
    first = results.metrics.set_index(["method", "measure"])["value"]
    again = fspo.evaluate({"fspo": policy}, held_out, results.folder, progress=Silent(), **options)
    second = again.metrics.set_index(["method", "measure"])["value"]
    assert second["fspo", "reward_accuracy"] == first["fspo", "reward_accuracy"]


def test_policies_and_functions_are_told_apart_and_named(
    policy: Path, held_out: PreferenceDataset, tmp_path: Path
) -> None:
    table = held_out.to_pandas()
    options: dict[str, Any] = {**MEASURED, "answers": 0}
    own = fspo.evaluate(Policy.load(policy), table, tmp_path / "own", baselines=(), progress=Silent(), **options)
    assert list(dict.fromkeys(own.metrics["method"])) == ["fspo"]
    other = fspo.evaluate(longer, table, tmp_path / "other", progress=Silent(), **options)
    assert list(dict.fromkeys(other.metrics["method"])) == ["longer"]
    assert not [*(tmp_path / "other").rglob("answers.jsonl")]  # nobody would judge or compare them
    found = fspo.compare([own, tmp_path / "other"])
    assert set(found.methods["method"]) == {"own: fspo", "other: longer"}
    (pair,) = found.pairs.to_dict("records")
    by_name = found.methods.set_index("method")["value"]
    assert pair["value"] == pytest.approx(by_name[pair["first"]] - by_name[pair["second"]])


def test_a_function_is_called_before_any_model_answers(
    policy: Path, held_out: PreferenceDataset, tmp_path: Path
) -> None:
    def stopped(shots: Sequence[Preference], prompt: str, response: str) -> float:
        raise KeyboardInterrupt

    both: Any = {"fspo": policy, "stopped": stopped}
    with pytest.raises(KeyboardInterrupt):
        fspo.evaluate(both, held_out, tmp_path, progress=Silent(), answers=1, **MEASURED)
    assert not [*tmp_path.rglob("answers.jsonl")]


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the last `fspo.evaluate` into `tmp_path` asked to measure; nothing is measured."""
    from fspo.evaluation import evaluate as module

    asked: dict[str, Any] = {}
    (tmp_path / "metrics.json").write_text("{}")

    def note(config: Any, dataset: Any, policies: Any, **more: Any) -> None:
        asked.update(more, config=config, policies=policies)

    monkeypatch.setattr(module, "evaluate", note)
    return asked


def test_a_policy_that_adapts_is_measured_by_its_method_and_settings(
    measured: dict[str, Any], tiny_model_path: Path, held_out: PreferenceDataset, tmp_path: Path
) -> None:
    adapted = AdaptedPolicy.adapt(tiny_model_path, "ttt", {"steps": 50})
    for models in (adapted, {"ttt": adapted}):
        fspo.evaluate(models, held_out, tmp_path, baselines=["base"], progress=Silent())
        assert list(measured["policies"]) == ["ttt", "base"]
        assert measured["adaptations"]["ttt"].settings.steps == 50
    with pytest.raises(ConfigError, match="'fspo' adapts to each user by the method 'ttt'; name it so"):
        fspo.evaluate({"fspo": adapted}, held_out, tmp_path, progress=Silent())


def test_a_policy_is_measured_within_its_own_limit_of_tokens(
    measured: dict[str, Any], policy: Path, held_out: PreferenceDataset, tmp_path: Path
) -> None:
    short = Policy.load(policy, max_length=64)
    both = {"fspo": policy, "ipo": short}
    given: dict[str, Any] = {"max_length": 96}
    for models, settings, limit in ((policy, {}, None), (short, {}, 64), (short, given, 96), (both, given, 96)):
        fspo.evaluate(models, held_out, tmp_path, progress=Silent(), **settings)  # type: ignore[arg-type]
        assert measured["config"].max_length == limit
    with pytest.raises(
        ConfigError, match=r"different numbers of tokens at most \(fspo: \d+, ipo: 64\); set max_length"
    ):
        fspo.evaluate(both, held_out, tmp_path, progress=Silent())  # type: ignore[arg-type]


def test_what_can_not_be_evaluated_is_one_sentence(
    policy: Path, held_out: PreferenceDataset, tmp_path: Path, tiny_model_path: Path
) -> None:
    trainer = FSPOTrainer(
        tiny_model_path, FSPOConfig(output_dir=tmp_path / "new"), helpers.small_dataset(), progress=Silent()
    )
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("name: run\n")
    for models, out, settings, message in (
        (policy, "x", {"shot": 2}, "evaluate: there is no setting 'shot'; did you mean 'shots'"),
        (policy, "x", {"shots": -1}, "evaluate: 'shots': .*, not -1"),
        (policy, "run", {}, "is the folder of a run, which `fspo eval .*run` evaluates"),
        (3, "x", {}, "A int is neither a policy nor a reward model"),
        (trainer.policy, "x", {}, "has no folder yet"),
        ({"spfo": policy}, "x", {}, "no method 'spfo'; did you mean 'fspo'"),
    ):
        with pytest.raises(ConfigError, match=message):
            fspo.evaluate(models, held_out, tmp_path / out, progress=Silent(), **settings)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="in training data and test data alike"):
        fspo.evaluate(policy, held_out, tmp_path / "x", train=held_out, progress=Silent(), **MEASURED)
    with pytest.raises(DataError, match=r"no metrics\.json; run `fspo eval` or fspo\.evaluate first"):
        Results.load(tmp_path)


def test_synthesis_is_that_of_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    settings: dict[str, Any] = {
        **{"questions": 16, "pairs": 9, "shared_pairs": 5, "responses": 4, "shard": 3, "meaning": False, "batch": 64},
        "progress": Silent(),
    }
    with fake_endpoint() as address:
        endpoint = {"base_url": address, "model": "scripted", "timeout": 2}
        made = fspo.synthesize(write_domain(tmp_path / "mine"), tmp_path / "run", endpoint=endpoint, **settings)
        asked = stats(address)["came"]
        again = fspo.synthesize(tmp_path / "mine", tmp_path / "run", endpoint=endpoint, **settings)
        assert stats(address)["came"] == asked
        with pytest.raises(ConfigError, match="questions = 16, and now"):
            fspo.synthesize(tmp_path / "mine", tmp_path / "run", endpoint=endpoint, **{**settings, "questions": 17})
    assert again == made
    assert len(made.whole.users) == 6
    assert made.whole == PreferenceDataset.load(tmp_path / "run" / "data")
    assert made.train.users.keys().isdisjoint(made.test.users) and len(made.train) and len(made.test)
    with pytest.raises(ConfigError, match=r"there is no setting 'synthesis\.question'; did you mean"):
        fspo.synthesize("elix-easy", tmp_path / "other", question=3)
    assert not (tmp_path / "other").exists()


def test_synthesis_without_a_model_is_by_the_built_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[str] = []
    monkeypatch.setattr(pipeline, "synth", lambda folder, _: models.append(folder.config.model))
    with pytest.raises(DataError):  # nothing was made
        fspo.synthesize("elix-easy", tmp_path / "run", judge="measured")
    assert models == ["smollm2-135m"]


def test_what_can_not_be_synthesized_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "my domain").mkdir()
    for domain, settings, error, message in (
        ("no such domain", {}, DataError, "There is no domain 'no such domain'"),
        (tmp_path / "my domain", {}, DataError, r"my domain has no domain\.yaml"),
        ("elix-easy", {"on_existing": "replace"}, ConfigError, "'replace'; choose 'resume', 'overwrite', 'fail'"),
        ("elix-easy", {"evaluation": {"shots": 2}}, ConfigError, "'evaluation' is a setting of a run"),
        ("elix-easy", {"training": {}}, ConfigError, "'training' is a setting of a run"),
        ("elix-easy", {"seeds": 3}, ConfigError, r"did you mean 'synthesis\.seed'"),
    ):
        with pytest.raises(error, match=message):
            fspo.synthesize(domain, tmp_path / "run", progress=Silent(), **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_tables_come_in_and_go_out(tmp_path: Path) -> None:
    whole = small_dataset("t")
    table = whole.to_pandas()
    assert PreferenceDataset.from_pandas(table).preferences == whole.preferences
    assert PreferenceDataset.from_datasets(whole.to_datasets()) == PreferenceDataset.from_pandas(table)
    messages = whole.to_datasets(conversational=True)
    assert messages[0]["prompt"][0]["role"] == "user"
    assert PreferenceDataset.from_datasets(messages) == PreferenceDataset.from_pandas(table)
    renamed = table.rename(columns={"user": "annotator"})
    assert PreferenceDataset.from_pandas(renamed, columns={"user": "annotator"}).preferences == whole.preferences
    nameless = pd.DataFrame([{"prompt": "Hi", "chosen": "a", "rejected": "b"}])
    assert list(PreferenceDataset.from_pandas(nameless, user="me").users) == ["me"]
    with pytest.raises(DataError, match="row 1, column 'user'"):
        PreferenceDataset.from_pandas(nameless)
    lines = tmp_path / "rows.jsonl"
    lines.write_text(json.dumps({"user": "ann", "prompt": "Hi", "chosen": "a", "rejected": "b"}) + "\n")
    assert len(PreferenceDataset.from_jsonl(lines)) == 1
    parts = whole.split(test_users=0.5, test_questions=0.5, seed=1)
    parts.save(tmp_path / "parts")
    assert fspo.SplitDataset.load(tmp_path / "parts") == parts
    assert parts.test.users.keys().isdisjoint(parts.train.users)
    assert f"train={parts.train!r}" in repr(parts) and "frozenset" not in repr(parts)
