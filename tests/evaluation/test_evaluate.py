"""Evaluation end to end on a tiny random model: the schema, resuming, and the leak check."""

from __future__ import annotations

import json
import math
import shutil
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError, DataError, ModelError
from fspo.evaluation.artifacts import AGAIN, GAMES_FILE
from fspo.evaluation.config import EvaluationConfig, Floors, RobustnessConfig
from fspo.evaluation.metrics.items import Items
from fspo.evaluation.report.page import write_report
from fspo.evaluation.scoring.reward_models.protocol import FunctionRewardModel
from fspo.evaluation.statistics.ranking import Game
from fspo.files import read_json, read_jsonl, write_json
from fspo.preferences.dataset import PreferenceDataset
from fspo.progress import Silent, Task
from fspo.records import read_records
from tests.evaluation.helpers import small_dataset
from tests.evaluation.report.rendering import caveats
from tests.evaluation.running import CONFIG, NO_ANSWERS, Run, runner

# peft finds what is left of a merged adapter.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a .peft_config. attribute")
FIELDS = {"value", "low", "high", "users", "items"}


@pytest.fixture(scope="module")
def evaluated(
    tiny_model_path: Path, policies: dict[str, Path | None], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Run, Path]:
    """`evaluate` with everything but what a test is about filled in, and the folder of one whole evaluation."""
    whole = tmp_path_factory.mktemp("run") / "evaluation"
    run = runner(tiny_model_path, policies, whole)
    run()
    return run, whole


@pytest.fixture
def run(evaluated: tuple[Run, Path]) -> Run:
    return evaluated[0]


@pytest.fixture
def out(evaluated: tuple[Run, Path], tmp_path: Path) -> Path:
    """A copy of the whole evaluation."""
    return Path(shutil.copytree(evaluated[1], tmp_path / "evaluation"))


@pytest.mark.usefixtures("undrawn")
def test_every_method_is_measured_in_the_fixed_schema(out: Path, tmp_path: Path) -> None:
    metrics = read_json(out / "metrics.json")
    assert list(metrics) == ["base", "few-shot", "pref-ft", "ipo", "fspo", "oracle"]
    for name, row in metrics.items():
        assert {"reward_accuracy", "reward_accuracy@1", "reward_accuracy@2"} <= row.keys()
        assert ("reward_accuracy@0" in row) == (name not in ("few-shot", "pref-ft"))  # their own reference
        assert all(record.keys() == FIELDS for record in row.values())
        assert row["reward_accuracy"]["items"] == 8
    assert {"label_flip_rate", "user_swap_drop", "win_rate", "win_rate/plain", "win_rate/guided"} <= metrics[
        "fspo"
    ].keys()
    assert {"reward_accuracy/reference", "reward_accuracy/antisymmetric"} <= metrics["fspo"].keys()
    assert "label_flip_rate" not in metrics["ipo"]
    assert "win_rate" not in metrics["base"]
    assert "win_rate/guided" not in metrics["oracle"]
    assert "fluency/plain" in metrics["base"]
    observer = read_json(out / "observer.json")
    assert observer["reward_accuracy@0"]["value"] <= observer["reward_accuracy@2"]["value"]
    assert "unfinished/guided" in metrics["fspo"]
    compared = read_json(out / "comparisons.json")
    assert set(compared) == set(metrics) - {"fspo"}
    assert {"reward_accuracy", "reward_accuracy/antisymmetric", "win_rate", "win_rate/guided"} <= compared[
        "few-shot"
    ].keys()
    assert "win_rate/guided" not in compared["oracle"]  # it has no mirror to be guided by
    difference = metrics["fspo"]["reward_accuracy"]["value"] - metrics["ipo"]["reward_accuracy"]["value"]
    assert compared["ipo"]["reward_accuracy"]["value"] == pytest.approx(difference)
    details = read_json(out / "details.json")
    assert (details["users"], details["pairs"], details["compared"]) == (4, 8, "fspo")
    samples = read_jsonl(out / "samples.jsonl")
    assert len(samples) == 4
    assert {"base", "fspo, plain", "fspo, guided", "oracle, plain"} <= samples[0]["answers"].keys()
    for name in ("metrics.json", "samples.jsonl"):
        (out / name).rename(tmp_path / name)
    assert (
        "missing from this run" in write_report(tmp_path, tmp_path / "report.html").read_text()
    )  # of training and data


def test_items_and_games_are_kept_and_say_what_the_figures_say(out: Path) -> None:
    metrics, details = read_json(out / "metrics.json"), read_json(out / "details.json")
    items = Items.read(out)
    assert len(items.records) == 8
    assert items.methods == list(metrics)
    for name, row in metrics.items():
        headline = f"reward_accuracy/{details['rewards'][name][0]}"
        for measure in (headline, "label_flip_rate", "win_rate/plain", "regret"):
            values = items.values(name, measure)
            assert bool(values) == (measure in row), (name, measure)
            if values:
                assert math.fsum(values.values()) / len(values) == pytest.approx(row[measure]["value"], abs=1e-5)
    record = items.records[0]
    assert record.user == record.item.split("/")[0]
    for digest in ("traits", "description", "donor"):  # of four users, each another one
        assert len({getattr(record, digest) for record in items.records}) == 4, digest
    assert details["judge"]["kind"] == "CountingJudge"
    assert sum(bool(record.base_answer) for record in items.records) == 4  # one prompt a user was answered
    games = read_records(out / GAMES_FILE, Game, AGAIN)
    met = {frozenset((game.first, game.second)) for game in games}
    assert len(met) == math.comb(len(metrics), 2)
    over_base = [game for game in games if (game.first, game.second) == ("base", "oracle")]
    assert 1 - math.fsum(g.score for g in over_base) / len(over_base) == metrics["oracle"]["win_rate"]["value"]


def test_a_killed_evaluation_ends_with_the_same_figures(run: Run, out: Path) -> None:
    whole = read_json(out / "metrics.json")
    for name in ("metrics.json", "fluency.jsonl", "samples.jsonl"):
        (out / name).unlink()
    shutil.rmtree(out / "fspo")
    for path in out.glob("*/*.jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        path.write_text("".join(lines[:-1]) + lines[-1][:-9], encoding="utf-8")
    resumed = run(out=out)
    for method, row in whole.items():
        for measure, record in row.items():
            assert resumed[method][measure] == pytest.approx(record, abs=1e-4), (method, measure)


def test_what_is_known_needs_no_model(run: Run, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fspo.evaluation.scoring.weights import Weights

    first = read_json(out / "metrics.json")
    monkeypatch.setattr(Weights, "_read", lambda *_: pytest.fail("a model was loaded again"))
    assert run(out=out) == first
    assert (
        run(out=out, config=CONFIG.model_copy(update={"floors": Floors(words=999)}))["fspo"]["win_rate"]["value"] == 0.5
    )


def test_the_reference_of_fspo_is_the_policy_it_started_from(
    run: Run, out: Path, policies: dict[str, Path | None], tmp_path: Path
) -> None:
    both = read_json(out / "metrics.json")
    tasks: list[str] = []

    class Heard(Silent):
        def task(self, name: str, total: float, done: float = 0.0) -> AbstractContextManager[Task]:
            tasks.append(name)
            return super().task(name, total, done)

    alone = run(NO_ANSWERS, tmp_path / "alone", policies={"fspo": policies["fspo"]}, progress=Heard())
    assert "Scoring fspo's reference (the model that its reward is measured against)" in tasks
    assert not any("fspo-reference" in task for task in tasks)
    assert alone["fspo"]["reward_accuracy"] == both["fspo"]["reward_accuracy"]
    assert (tmp_path / "alone" / "fspo-reference" / "margins.jsonl").exists()
    assert not (out / "fspo-reference").exists()


def test_a_reference_that_saw_no_shots_in_training_sees_none_in_the_evaluation(
    run: Run, policies: dict[str, Path | None], tmp_path: Path
) -> None:
    trained = tmp_path / "fspo"
    shutil.copytree(str(policies["ipo"]), trained)
    card = read_json(trained / "policy.json")
    write_json(trained / "policy.json", card | {"details": {"training": {"reference": "none"}}})
    own, shown = ({"base": None, "fspo": folder} for folder in (trained, policies["ipo"]))
    margins = {}
    for name, wanted in (("none", own), ("shots", shown)):
        run(NO_ANSWERS, tmp_path / name, policies=wanted)
        folder = tmp_path / name
        margins[name] = [row for line in read_jsonl(folder / "fspo" / "margins.jsonl") for row in line["rows"]]
        # The base model without shots is scored already, so it needs no folder of its own.
        assert (folder / "fspo-reference").exists() == (name == "shots")
    assert margins["none"] == margins["shots"]
    found = [read_json(tmp_path / name / "metrics.json")["fspo"]["brier"]["value"] for name in margins]
    assert found[0] != found[1]


def test_a_leak_is_refused_by_name(run: Run) -> None:
    test = small_dataset("test")
    with pytest.raises(DataError, match="test-exclamation-less"):
        run(train=test)
    renamed = PreferenceDataset(small_dataset("train").users, [])
    questions = [type(p)(next(iter(renamed.users)), p.prompt, p.chosen, p.rejected, p.question) for p in test][:1]
    with pytest.raises(DataError, match="test-q0"):
        run(train=PreferenceDataset(renamed.users, questions))


def test_missing_policies_are_named(run: Run, policies: dict[str, Path | None], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'fspo' has no policy"):
        run(policies={"fspo": None})
    with pytest.raises(DataError, match="run `fspo train`"):
        run(policies={"fspo": tmp_path / "nowhere"})
    with pytest.raises(ConfigError, match="did you mean 'fspo'"):
        run(policies={"fsop": None})
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="empty"):
        run(policies={"fspo": tmp_path / "empty"})


def test_a_moved_run_folder_finds_its_start(run: Run, policies: dict[str, Path | None], tmp_path: Path) -> None:
    out = tmp_path / "out"
    source = policies["fspo"]
    assert source is not None
    shutil.copytree(source.parent, tmp_path / "moved")
    card = tmp_path / "moved" / "fspo" / "policy.json"
    record = json.loads(card.read_text())
    card.write_text(json.dumps(record | {"starts_from": "/gone/methods/pref-ft"}))
    assert "reward_accuracy" in run(NO_ANSWERS, out, policies={"fspo": card.parent})["fspo"]
    shutil.rmtree(tmp_path / "moved" / "pref-ft")
    with pytest.raises(DataError, match="which is gone"):
        run(policies={"fspo": card.parent})


def test_without_answers_there_are_no_win_rates(run: Run, tmp_path: Path) -> None:
    metrics = run(NO_ANSWERS, tmp_path / "evaluation", policies={"base": None, "few-shot": None})
    assert not any("win_rate" in measure or "fluency" in measure for row in metrics.values() for measure in row)
    assert read_jsonl(tmp_path / "evaluation" / "samples.jsonl") == []


def test_without_a_judge_rewards_are_measured_all_the_same(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "evaluation"
    metrics = run(out=out, policies={"base": None, "few-shot": None}, judge=None)
    assert "reward_accuracy" in metrics["few-shot"]
    assert not any("win_rate" in measure for row in metrics.values() for measure in row)
    assert read_json(out / "observer.json") == {}
    read = read_jsonl(out / "samples.jsonl")
    assert 2 <= len({row["user"] for row in read}) == len(read) <= 8  # a few, one prompt each, to be read
    assert all(row["answers"].keys() >= {"base", "few-shot, plain"} and row["outcomes"] == {} for row in read)
    details = read_json(out / "details.json")
    assert details["judge_kind"] == "none"
    assert not any("a set of weights for attributes" in sentence for sentence in caveats({}, details))


@pytest.mark.parametrize(
    "settings",
    [
        {"ladder": (-1,)},
        {"shotz": 3},
        {"headline_reward": "antisymmetric", "label_flip": False},
        {"headline_sampling": "guided", "samplings": ("plain",)},
    ],
)
def test_a_contradictory_configuration_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        EvaluationConfig.model_validate(settings)


def test_every_method_is_measured_on_the_same_pairs_at_each_number_of_shots(
    tiny_model_path: Path, policies: dict[str, Path | None], tmp_path: Path
) -> None:
    config = NO_ANSWERS.model_copy(update={"ladder_queries": 1})
    some = {name: policies[name] for name in ("base", "few-shot", "pref-ft", "fspo", "oracle")}
    metrics = runner(tiny_model_path, some, tmp_path)(config)
    for k in (0, 1, 2):
        assert {row[f"reward_accuracy@{k}/likelihood"]["items"] for row in metrics.values()} == {4}
    assert {row["reward_accuracy"]["items"] for row in metrics.values()} == {8}
    observer = read_json(tmp_path / "observer.json")
    assert {observer[f"reward_accuracy@{k}"]["items"] for k in (0, 1, 2)} == {4}
    assert observer["reward_accuracy"]["items"] == 8
    fspo = metrics["fspo"]
    for measure in ("reward_accuracy", "reward_accuracy@2"):
        shortfall = fspo[measure.replace("reward_accuracy", "shortfall")]
        assert shortfall["value"] == pytest.approx(observer[measure]["value"] - fspo[measure]["value"])
        assert shortfall["items"] == fspo[measure]["items"]


def test_log_probs_that_are_not_numbers_end_the_evaluation_before_anything_is_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fspo.evaluation.scoring import logprob_scores

    original = logprob_scores._one_pass

    def spoilt(*arguments: Any) -> list[logprob_scores.Score]:
        return [replace(score, rejected=math.nan) for score in original(*arguments)]

    monkeypatch.setattr(logprob_scores, "_one_pass", spoilt)
    with pytest.raises(ModelError, match="not numbers in float32"):
        run(NO_ANSWERS, tmp_path)
    assert not list(tmp_path.rglob("margins.jsonl"))


def test_a_device_without_enough_memory_is_explained(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from fspo.modeling import logprobs

    def score(*arguments: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(logprobs, "branch_logprobs", score)
    with pytest.raises(ModelError, match=r"^The device is out of memory; lower evaluation\.answer_batch, .*max_length"):
        run(NO_ANSWERS, tmp_path / "out", policies={"few-shot": None})


def test_answers_are_drawn_and_judged_at_fewer_shots_too(run: Run, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"answer_ladder": (1,), "layout": "labelled"})
    metrics = run(config, tmp_path, policies={"few-shot": None, "oracle": None})
    row = metrics["few-shot"]
    headline = f"win_rate/{CONFIG.headline_sampling}"
    assert row[f"{headline}@1"]["items"] == row[headline]["items"]
    assert not [m for m in row if "@1" in m and not m.startswith(("win_rate", "reward_accuracy", "shortfall"))]
    assert not [m for m in metrics["oracle"] if m.startswith("win_rate") and "@" in m]  # it sees no shots
    lines = read_jsonl(tmp_path / "few-shot" / "answers.jsonl")
    full, few = ([line for line in lines if line["sampling"] == s] for s in ("plain", "plain@1"))
    assert [line["item"] for line in full] == [line["item"] for line in few]
    assert [line["text"] for line in full] != [line["text"] for line in few]
    again = run(config, tmp_path, policies={"few-shot": None, "oracle": None})
    assert again == metrics
    assert read_jsonl(tmp_path / "few-shot" / "answers.jsonl") == lines


def test_shots_are_varied_for_whoever_sees_them(out: Path) -> None:
    metrics = read_json(out / "metrics.json")
    varied = {"wrong_labels_accuracy/25%", "wrong_labels_drop/25%", "order_accuracy", "order_change_rate"}
    for name, row in metrics.items():
        sees = name in ("few-shot", "pref-ft", "fspo")
        assert varied <= row.keys() if sees else varied.isdisjoint(row), name
        assert {"calibration_error", "brier/fitted", "regret", "regret_share", "shortfall@2"} <= row.keys()
        assert ("first_shot_gain" in row) == ("gain_over_no_context" in row) == sees
        assert ("gain_over_population" in row) == (name != "ipo")
        assert {"answer_utility/plain", "answer_regret/plain"} <= row.keys()
    gained = metrics["few-shot"]["reward_accuracy"]["value"] - metrics["base"]["reward_accuracy"]["value"]
    assert metrics["few-shot"]["gain_over_no_context"]["value"] == pytest.approx(gained)
    assert metrics["fspo"]["order_spread"]["items"] == 4
    assert {"reward_accuracy@0", "wrong_labels_accuracy/25%", "regret"} <= read_json(out / "observer.json").keys()
    calibration = read_json(out / "calibration.json")
    assert calibration["fspo"]["reward"] == "reference"
    assert sum(row["items"] for row in calibration["fspo"]["bins"]) == 8
    assert read_json(out / "per_user.json")["fspo"]["order_spread"].keys() == small_dataset("test").users.keys()


def test_other_topics_are_varied_where_there_are_some(run: Run, tmp_path: Path) -> None:
    config = NO_ANSWERS.model_copy(update={"robustness": RobustnessConfig(users=3, queries=1)})
    metrics = run(config, tmp_path, policies={"few-shot": None}, test=small_dataset("test", topics=3))
    record = metrics["few-shot"]["other_topics_accuracy"]
    assert (record["users"], record["items"]) == (3, 3)
    assert read_json(tmp_path / "details.json")["robustness"]["other_topics_users"] == 3


def test_a_varied_score_equals_that_of_an_episode_made_so(run: Run, tmp_path: Path, tiny_model_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from benchmarks.naive import naive_logprobs
    from fspo.evaluation.scoring.eval_episodes import build_trials
    from fspo.evaluation.scoring.variations import build_probes
    from fspo.modeling.rendering import EpisodeRenderer

    test, config = small_dataset("test", topics=3), NO_ANSWERS.model_copy(update={"robustness": RobustnessConfig()})
    run(config, tmp_path, policies={"few-shot": None}, test=test)
    model: Any = AutoModelForCausalLM.from_pretrained(str(tiny_model_path))
    renderer = EpisodeRenderer(AutoTokenizer.from_pretrained(str(tiny_model_path)))
    line = read_jsonl(tmp_path / "few-shot" / "variations.jsonl")[1]
    probe = next(p for p in build_probes(test, build_trials(test, config), config) if p.trial.user == line["user"])
    variations = probe.variations(config)
    assert len(line["rows"]) == sum(len(v.numbers) for v in variations)
    for variation in variations:
        (naive,) = naive_logprobs(model, [renderer.render(variation.episode)])
        rows = [row for row in line["rows"] if row["condition"] == variation.condition]
        assert [row["item"] for row in rows] == [probe.trial.item(number) for number in variation.numbers]
        for row, sums in zip(rows, naive.sums.tolist(), strict=True):
            assert [row["chosen"], row["rejected"]] == pytest.approx(sums, abs=1e-3)


def test_no_shot_and_one_shot_are_measured_whatever_the_ladder(run: Run, tmp_path: Path) -> None:
    metrics = run(NO_ANSWERS.model_copy(update={"ladder": ()}), tmp_path, policies={"few-shot": None})
    assert {"reward_accuracy@0/likelihood", "reward_accuracy@1", "reward_accuracy@2"} <= metrics["few-shot"].keys()


@pytest.mark.usefixtures("undrawn")
def test_a_reward_model_from_elsewhere_stands_beside_the_methods(run: Run, tmp_path: Path) -> None:
    length = FunctionRewardModel(lambda shots, prompt, response: float(len(response)), "length")
    policies = {"base": None, "few-shot": None}
    out, models = tmp_path / "evaluation", {"length": length}
    metrics = run(NO_ANSWERS, out, results=tmp_path, policies=policies, reward_models=models)
    assert list(metrics) == ["base", "few-shot", "length"]
    assert (tmp_path / "metrics.json").is_file() and not (out / "metrics.json").exists()
    assert metrics["length"]["reward_accuracy"]["items"] == metrics["few-shot"]["reward_accuracy"]["items"]
    assert metrics["length"]["label_flip_rate"]["value"] == 0.0
    write_report(tmp_path, tmp_path / "report.html")
    assert "nothing: its own score" in (tmp_path / "report.html").read_text()
