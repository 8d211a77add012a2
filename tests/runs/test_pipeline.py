"""What the stages take over from data that are there already: the parts, and whoever labelled them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fspo.evaluation.config import EvaluationConfig
from fspo.judging.by_topic import TopicJudge, load_judge
from fspo.judging.declared import DeclaredJudge
from fspo.judging.judge import AttributeJudge
from fspo.preferences.dataset import PreferenceDataset
from fspo.progress import Silent
from fspo.runs import pipeline
from fspo.runs.config import load_config
from fspo.runs.folder import RunFolder
from fspo.runs.writers import endpoints_of
from tests.evaluation.helpers import small_dataset

DATASET = small_dataset("mine", topics=2)


def folder_of(tmp_path: Path, dataset: PreferenceDataset) -> RunFolder:
    dataset.save(tmp_path / "mine")
    config = tmp_path / "mine.yaml"
    config.write_text(f"data: {tmp_path / 'mine'}\noutput: {tmp_path / 'run'}\n")
    return RunFolder(load_config(config))


def on_topics() -> tuple[PreferenceDataset, TopicJudge]:
    """Users who want something else on one topic, and the judge that knows the topics."""
    people = [replace(user, traits={"length@topic 1": 1.0, "length": -1.0}) for user in DATASET.users.values()]
    texts = [text for row in DATASET for text in (row.chosen, row.rejected)]
    topics = {row.prompt: str(row.source["topic"]) for row in DATASET}
    return PreferenceDataset(people, DATASET.preferences), TopicJudge(AttributeJudge.fit(texts, ["length"]), topics)


def test_the_judge_that_labelled_the_data_is_taken_over_with_them(tmp_path: Path) -> None:
    dataset, judge = on_topics()
    folder = folder_of(tmp_path, dataset)
    judge.save(tmp_path / "mine" / "judge.json")
    pipeline.synth(folder, Silent())
    assert load_judge(folder.data / "judge.json") == judge
    found = pipeline.judge_of(folder, dataset, dataset, endpoints_of(folder, Silent()), Silent())
    assert isinstance(found, TopicJudge) and found.topics == judge.topics
    (folder.data / "judge.json").unlink()  # as in runs that were begun before it was taken over
    assert isinstance(pipeline.judge_of(folder, dataset, dataset, endpoints_of(folder, Silent()), Silent()), TopicJudge)


def test_weights_of_topics_that_nobody_knows_are_told_before_anything_is_measured(tmp_path: Path) -> None:
    said: list[str] = []

    class Heard(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    dataset, _ = on_topics()
    folder = folder_of(tmp_path, dataset)
    pipeline.synth(folder, Heard())
    assert pipeline.judge_of(folder, dataset, dataset, endpoints_of(folder, Silent()), Heard()) is None
    assert "depend on topics, as 'length@topic 1' does, and" in said[-1]
    assert said[-1].endswith("The report shows a few answers.")
    without = folder.config.model_copy(update={"evaluation": EvaluationConfig(answers=0)})
    pipeline.judge_of(RunFolder(without), dataset, dataset, endpoints_of(folder, Silent()), Heard())
    assert "The report" not in said[-1]


def test_without_a_judge_one_is_fitted_to_what_can_be_measured(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, DATASET)
    pipeline.synth(folder, Silent())
    found = pipeline.judge_of(folder, DATASET, DATASET, endpoints_of(folder, Silent()), Silent())
    assert isinstance(found, AttributeJudge) and set(found.scales) == {"length", "exclamation"}


def test_a_policy_s_own_answers_are_judged_by_readers_of_traits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The judge of declared traits knows the texts of the data alone."""
    readers: Any = AttributeJudge({"length": (10.0, 2.0)})
    declared = DeclaredJudge({"tone": ("dry", "warm")}, {"Yes.": {"tone": "dry"}}, answers=readers)
    dataset = small_dataset("own")
    for judge, expected in ((declared, readers), (readers, readers), (None, None)):
        monkeypatch.setattr(pipeline, "judge_of_data", lambda *_, judge=judge: (judge, ""))
        assert pipeline._measuring_judge(folder_of(tmp_path, dataset), dataset) is expected
