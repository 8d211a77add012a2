"""What a dry run says is asked, against what is asked."""

from __future__ import annotations

import math
import re
from collections import Counter
from pathlib import Path

import pytest

from fspo.llm.quoting import texts_of
from fspo.preferences.dataset import PreferenceDataset
from fspo.progress import Silent
from fspo.runs.config import load_config
from fspo.runs.plan import requests_table
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import load_domain
from fspo.synthesis.estimate import estimate
from fspo.synthesis.questions import make_questions
from fspo.synthesis.synthesize import Writers, synthesize
from tests.synthesis.helpers import ScriptedModel, config_of, write_domain
from tests.synthesis.reviewer import ScriptedReviewer

SIGNS = {
    "new questions of the same kind": "questions",
    "viewpoints": "viewpoints",
    "short portrait": "portraits",
    "Write one more sentence": "refinement: sentences",
    "Two responses": "judged",
}
JUDGED = ("shared pairs", "shared pairs, again", "refinement: pairs", "labels")


@pytest.mark.parametrize(
    "settings",
    [
        {"steering": "views", "portraits": True},
        {"refinement": None, "steering": "none"},
        {"judge": "measured", "augment": False},
    ],
)
def test_no_stage_asks_more_than_is_said(settings: dict[str, object], tmp_path: Path) -> None:
    folder = str(write_domain(tmp_path / "mine"))
    config = config_of(domain=folder, questions=14, disagreement=None, responses=8, **settings)
    model = ScriptedModel()
    synthesize(config, Writers(model, model), tmp_path / "out", Silent())
    asked = Counter(
        next((name for sign, name in SIGNS.items() if sign in request.messages[-1].content), "responses")
        for request in model.asked
    )
    found = estimate(config, load_domain(folder))
    said = Counter[str]()
    for row in found.stages:
        said["judged" if row.name in JUDGED else row.name] += row.requests
    assert said.keys() == asked.keys()
    exact = {"viewpoints", "portraits", "responses"} | (set() if config.refinement else {"judged"})
    for name, count in asked.items():
        assert count == said[name] if name in exact else count <= said[name]
    assert found.total.requests == sum(said.values())
    assert found.preferences == 6 * 20


@pytest.mark.parametrize("judge", ["llm", "measured"])
def test_no_more_pairs_of_questions_are_labelled_than_is_said(judge: str, tmp_path: Path) -> None:
    shown = {"questions": 40, "pairs_per_question": 1, "shared_pairs": 2, "refinement": None, "disagreement": None}
    config, model = config_of(judge=judge, **shown), ScriptedModel()  # of 5 users nobody validates
    found = estimate(config, load_domain(config.domain))
    synthesize(config, Writers(model, model), tmp_path, Silent())
    assert len(PreferenceDataset.load(tmp_path)) <= found.preferences
    said = sum(row.requests for row in found.stages if row.name in JUDGED)
    assert sum("Two responses" in request.messages[-1].content for request in model.asked) == said


def test_restyled_responses_are_counted_by_their_samples_and_pairs_by_their_questions(tmp_path: Path) -> None:
    settings = {"domain": "reviews-restyled", "questions": 10, "responses": 6, "restyling": {"samples": 8}}
    config, model = SynthesisConfig.model_validate(settings), ScriptedReviewer()
    found = estimate(config, load_domain(config.domain))
    synthesize(config, Writers(model, model), tmp_path)
    (stage,) = found.stages
    assert (stage.name, stage.requests) == ("responses", 80) and sum(model.calls) == 80
    made = PreferenceDataset.load(tmp_path)
    assert 0.9 * found.preferences < len(made) <= found.preferences
    assert found.users == len(made.users)


@pytest.mark.parametrize("augment", [True, False])
def test_new_questions_are_those_that_the_chosen_works_lack(augment: bool) -> None:
    domain, settings = load_domain("reviews"), {"domain": "reviews", "works": 3, "questions": 100}
    own = make_questions(config_of(**settings, augment=False), domain, ScriptedModel(), Silent()).items
    config = config_of(**settings, augment=augment)
    stages = {row.name: row.requests for row in estimate(config, domain).stages}
    assert stages["responses"] == (100 if augment else len(own)) * config.responses
    assert stages.get("questions", 0) == (math.ceil((100 - len(own)) * 4 / 18) if augment else 0)


def test_written_responses_ask_nobody_unless_a_language_model_judges_them() -> None:
    domain = load_domain("advice")
    assert not estimate(SynthesisConfig(domain="advice"), domain).stages
    stages = {row.name: row for row in estimate(SynthesisConfig(domain="advice", judge="llm"), domain).stages}
    assert "responses" not in stages and stages["labels"].requests > 0
    assert "ask no language model" in requests_table(load_config(None, ["synthesis.domain=advice"]))


def test_users_made_anew_and_questions_asked_again_are_within_what_is_said(tmp_path: Path) -> None:
    folder = str(write_domain(tmp_path / "mine"))
    never = {"least": 0.9, "most": 0.95, "attempts": 2}
    config = config_of(domain=folder, questions=60, responses=8, portraits=True, disagreement=never)
    model = ScriptedModel()
    synthesize(config, Writers(model, model), tmp_path / "out", Silent())
    found = estimate(config, load_domain(folder))
    assert [row.name for row in found.again] == ["questions, again", "users drawn again"]
    portraits = sum("short portrait" in request.messages[-1].content for request in model.asked)
    assert portraits > 6  # people were made anew
    assert found.total.requests < len(model.asked) <= found.most.requests
    assert found.again[1].requests == 2 * sum(
        row.requests for row in found.stages if row.name in ("portraits", *JUDGED[:3], "refinement: sentences")
    )
    as_they_are = config.model_copy(update={"disagreement": None, "augment": False})
    assert estimate(as_they_are, load_domain(folder)).again == ()


def test_prompts_are_as_long_as_said(tmp_path: Path) -> None:
    folder = str(write_domain(tmp_path / "mine"))
    config = config_of(domain=folder, questions=14, disagreement=None, responses=8, refinement=None, augment=False)
    config = config.model_copy(update={"questions": 4})
    model = ScriptedModel()
    synthesize(config, Writers(model, model), tmp_path / "out", Silent())
    judged = [r.messages[-1].content for r in model.asked if "Two responses" in r.messages[-1].content]
    shown = [len(texts_of(text)[name]) for text in judged for name in ("first", "second")]
    frame = sum(map(len, judged)) - sum(shown)
    row = next(row for row in estimate(config, load_domain(folder)).stages if row.name == "labels")
    # Apart from the responses, which are taken to be as long as they may be, and what a chat puts around a message.
    without = row.prompt_tokens / row.requests - 2 * config.max_tokens - 8
    assert without == pytest.approx(frame / len(judged) / 4, rel=0.03)


def test_the_plan_of_a_million_is_what_a_dry_run_says(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "scale.md").read_text()
    settings = re.search(r"```yaml\n(.*?)```", text, re.S)
    plan = re.search(r"<!-- million -->\n```text\n(.*?)```", text, re.S)
    assert settings and plan
    (tmp_path / "million.yaml").write_text(settings[1])
    table = requests_table(load_config(tmp_path / "million.yaml"))
    head, *lines = table.splitlines()
    assert "1,000,500 preferences of 1,500 users" in head
    assert "\n".join(lines) + "\n" == plan[1]
