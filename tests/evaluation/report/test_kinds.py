"""What the page says of runs of other kinds holds of them: no sentence is on what a run has not got."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.errors import FspoError, StorageError
from fspo.evaluation.report.page import write_report
from fspo.evaluation.statistics.ranking import Game
from fspo.files import read_json, read_jsonl, write_json
from fspo.records import read_records
from tests.evaluation.report.rendering import unlabelled
from tests.evaluation.run_folder import write_run_folder
from tests.evaluation.run_kinds import (
    external_lead,
    judged_by_model,
    judged_by_no_judge,
    judged_by_nobody,
    lines,
    own_prompts,
    two_users,
)

pytestmark = pytest.mark.usefixtures("undrawn")


def page_of(folder: Path) -> str:
    """The page's text, unescaped, blanks as one."""
    text = unlabelled(write_report(folder, folder / "report.html")).replace("\N{NO-BREAK SPACE}", " ")
    return " ".join(html.unescape(text).split())


def section(page: str, name: str) -> str:
    return page[page.index(f'<section id="{name}"') :].partition("</section>")[0]


def test_a_common_run_says_what_it_has(tmp_path: Path) -> None:
    page = page_of(write_run_folder(tmp_path / "run", light=True))
    assert "synthetic users with weights for measured attributes, judged by the same measurement" in page
    assert "The dashed line is the ideal observer" in section(page, "shots")
    assert "Wrong labels, shots on other topics and other orders were measured on 6" in section(page, "sensitivity")
    assert "What the attribute judge does not see" in page
    assert "Several users share 8 held-out questions" in page
    assert "of held-out pairs by the reference reward" in page
    assert "<dt>decisions that change with flipped labels</dt>" in page
    limits = section(page, "limits")
    assert "rank by answers" not in limits
    assert re.search(r"<summary>Other methods \(\d+\)</summary>", limits)
    assert '<td>10.0 points</td><td class="words">7.6 points, which chance alone exceeds' in limits


def test_a_judge_who_named_nobody_is_not_a_judge_who_is_missing(tmp_path: Path) -> None:
    page = page_of(judged_by_nobody(tmp_path / "run"))
    assert "are missing from this run" not in section(page, "wins")
    assert "No judge decided a single comparison" in section(page, "wins")
    assert '<th scope="row">mute</th>' in section(page, "wins")
    ranking = section(page, "ranking").partition("By reward accuracy")[0]
    assert "No judge decided a single comparison" in ranking and "are missing from this run" not in ranking


def test_real_people_without_a_judge_have_answers_to_be_read(tmp_path: Path) -> None:
    page = page_of(judged_by_no_judge(tmp_path / "run"))
    top = section(page, "samples").partition("<details")[0]
    assert "One question, two users" in top and "A chatty answer." in top and "A cheerful answer." in top
    assert "It is a film about a bath house." in top  # the base model's, beside them
    assert "No judge decides for these users" in section(page, "samples")
    wins = section(page, "wins")
    assert "Win rates are missing from this run" in wins and "Quality of the answers" in wins
    limits = section(page, "limits")
    assert "Answers that reach the token limit are cut off:" in limits and "judge sees" not in limits


def test_the_top_of_the_page_says_on_what_it_was_measured(tmp_path: Path) -> None:
    folder = write_run_folder(tmp_path / "run", light=True)
    (folder / "config.yaml").write_text("name: mine\nmodel: smollm2-135m\nlayout: conversation\n", encoding="utf-8")
    page = page_of(folder)
    assert (
        "smollm2-135m · conversation layout · 16 held-out users, 24 questions, 128 pairs · 8 shots"
        in page.partition("</header>")[0]
    )
    details = folder / "evaluation" / "details.json"
    write_json(details, read_json(details) | {"users": 1, "questions": 1, "pairs": 1, "shots": 1})
    assert "1 held-out user, 1 question, 1 pair · 1 shot<" in page_of(folder)
    assert page.index('<section id="samples"') < page.index('<section id="methods"') < page.index('<section id="shots"')
    assert "A cheerful answer." not in page.partition('<section id="samples"')[0]


def test_the_answers_on_top_are_those_of_the_headline_sampling(tmp_path: Path) -> None:
    folder = write_run_folder(tmp_path / "run", light=True)
    top = section(page_of(folder), "samples").partition("<details")[0]
    assert "<span>fspo, guided</span>" in top and "fspo, plain" not in top
    rows = read_jsonl(folder / "samples.jsonl")
    lines(folder / "samples.jsonl", [row | {"answers": {"base": "b", "ipo, plain": "i" * 9}} for row in rows])
    assert "<span>ipo, plain</span>" in section(page_of(folder), "samples")  # the lead has none


def test_a_run_judged_by_a_model_has_no_observer_and_base_in_its_ranking(tmp_path: Path) -> None:
    page = page_of(judged_by_model(tmp_path / "run"))
    assert "dashed" not in page
    assert "ideal observer" not in section(page, "shots")
    sensitivity = section(page, "sensitivity")
    assert "Wrong labels" not in sensitivity and "ideal observer" not in sensitivity
    assert "Another user's shots should cost accuracy" in sensitivity
    assert "synthetic users" not in page
    assert "Measured without a judge" in page
    assert "What the attribute judge" not in page
    ranking = section(page, "ranking").partition("By reward accuracy")[0]
    standing = ranking[ranking.index("Table: Ranking by answers") :]
    rows = re.findall(r'<th scope="row">([\w-]+)</th><td>(\d)</td><td>([^<]*)</td>', standing)
    assert [name for name, _, _ in rows] == ["fspo", "ipo", "oracle", "base", "pref-ft", "few-shot"]
    assert dict((name, rank) for name, rank, _ in rows)["base"] == "4"
    assert "50.0<small>by definition" in standing
    assert "Methods did not meet each other" in ranking


def test_two_users_have_no_intervals_and_nothing_that_speaks_of_them(tmp_path: Path) -> None:
    page = page_of(two_users(tmp_path / "run"))
    assert "The intervals come from" not in page
    assert "Each interval is for one result alone" not in page
    assert "With only 2 users, no result has an interval" in page
    assert "<dt>too few users to compare with</dt><dd>base, few-shot, pref-ft, ipo and oracle</dd>" in page
    assert "Holm's correction" not in page
    assert "<dt>users with an accuracy of at most 50%</dt><dd>1 of 2, with " in page
    assert "1 of 2 users is at 50% or below" in page


def test_a_lead_from_elsewhere_has_no_answers_to_fail(tmp_path: Path) -> None:
    page = page_of(external_lead(tmp_path / "run"))
    failures = section(page, "failures")
    assert "my-rm ranked every pair right. It has no judged answers." in failures
    assert "lost no answer" not in failures
    assert "<dt>decisions that change with flipped labels</dt>" not in page


def test_users_with_questions_of_their_own_share_none(tmp_path: Path) -> None:
    page = page_of(own_prompts(tmp_path / "run"))
    assert "Several users share" not in page
    assert "may share held-out questions" not in page
    assert "No two users have a common prompt" in section(page, "samples")
    assert "first prompt they share" not in page


def test_one_method_has_nobody_to_meet(tmp_path: Path) -> None:
    folder = judged_by_model(tmp_path / "run")
    metrics = {name: row for name, row in read_json(folder / "metrics.json").items() if name in ("base", "fspo")}
    write_json(folder / "metrics.json", metrics)
    kept = [game for game in read_jsonl(folder / "evaluation/games.jsonl") if game["second"] == "fspo"]
    lines(folder / "evaluation" / "games.jsonl", kept)
    assert "did not meet each other" not in page_of(folder)


def test_every_measure_without_a_variant_has_its_place(tmp_path: Path) -> None:
    folder = write_run_folder(tmp_path / "run", light=True)
    metrics = read_json(folder / "metrics.json")
    more = (
        "gain_over_no_context", "gain_over_population", "gain_over_oracle", "first_shot_gain", "beyond_training_gain",
        "shortfall", "shortfall@1", "order_spread", "other_topics_accuracy",
    )  # fmt: skip
    for number, measure in enumerate(more):
        metrics["fspo"][measure] = {"value": 0.6123 + number / 1000, "low": 0.6, "high": 0.7, "users": 16, "items": 99}
    write_json(folder / "metrics.json", metrics)
    figures = section(page_of(folder), "figures")
    table = figures[figures.index("<h3>Gains over baselines, and at the first shots</h3>") :].partition("</table>")[0]
    for number, _ in enumerate(more):
        assert f"{61.23 + number / 10:.1f}<small>60.0 to 70.0" in table
    assert "below the observer, 1 shot" in table


def test_a_table_says_in_what_its_numbers_are(tmp_path: Path) -> None:
    page = page_of(write_run_folder(tmp_path / "run", light=True))
    assert "training loss; as recorded at each step." in page
    assert "standard deviations of the domain's responses." in section(page, "regret")
    assert "every way to count wins, by its name in metrics.json" in section(page, "wins")
    ranking = section(page, "ranking")
    assert "items are the judgements of the method's own answers" in ranking
    # 16 users, 8 questions, against each of five others
    assert re.search(r'<th scope="row">fspo</th>(<td>[^<]*</td>){6}<td>16</td><td>640</td>', ranking)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("metrics.json", '{"fspo": [1]}'),
        ("metrics.json", "[]"),
        ("metrics.json", '{"fspo": {"reward_accuracy": {"value": 0.5, "high": 0.6, "users": 3, "items": 9}}}'),
        ("metrics.json", '{"fspo": {"reward_accuracy": 0.5}}'),
        ("evaluation/observer.json", "[1]"),
        ("evaluation/comparisons.json", '{"base": {"x": null}}'),
        ("evaluation/details.json", "[]"),
        ("evaluation/details.json", '{"format": 2, "rewards": {"fspo": 3}}'),
        ("evaluation/per_user.json", '{"fspo": {"reward_accuracy": [0.5]}}'),
        ("evaluation/calibration.json", "[]"),
        ("evaluation/calibration.json", '{"fspo": {"bins": [{"accuracy": 1}]}}'),
        ("evaluation/judges.json", '{"agreement": [{"share": 1}]}'),
        ("evaluation/games.jsonl", '{"user": "u", "first": "a", "second": "b"}\n'),
        ("evaluation/items.jsonl", '{"user": "u", "item": "u/0/0", "prompt": "p"}\n'),
        ("samples.jsonl", '{"item": "u/0/0", "prompt": "p", "answers": {}, "outcomes": {}}\n'),
        ("versions.json", "[]"),
    ],
)
def test_a_damaged_file_is_named_in_one_sentence(base: Path, tmp_path: Path, file: str, text: str) -> None:
    for path in base.rglob("*.json*"):
        target = tmp_path / "run" / path.relative_to(base)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (tmp_path / "run" / file).write_text(text, encoding="utf-8")
    with pytest.raises(StorageError, match=rf"{Path(file).name}.* is damaged.*run `fspo eval` again") as caught:
        write_report(tmp_path / "run", tmp_path / "report.html")
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_folder(tmp_path_factory.mktemp("base") / "run", light=True)


def test_what_a_later_version_adds_is_passed_over(base: Path, tmp_path: Path) -> None:
    games = read_jsonl(base / "evaluation" / "games.jsonl")
    lines(tmp_path / "games.jsonl", [game | {"judge": "new"} for game in games])
    later, now = (read_records(folder / "games.jsonl", Game, "") for folder in (tmp_path, base / "evaluation"))
    assert later == now != []


def test_the_command_opens_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run_folder(tmp_path / "run", light=True)
    shutil.rmtree(folder / "methods")  # their weights are missing, so they have no model cards
    opened: list[str] = []
    found = iter((True, False))

    def open_url(url: str) -> bool:
        opened.append(url)
        return next(found)

    monkeypatch.setattr("webbrowser.open", open_url)
    for there in (True, False):
        done = CliRunner().invoke(app, ["report", str(folder), "--open"])
        assert done.exit_code == 0, done.output
        assert ("no browser on this machine" in " ".join(done.output.split())) != there
    assert opened == [(folder / "report.html").resolve().as_uri()] * 2
    CliRunner().invoke(app, ["report", str(folder)])
    assert len(opened) == 2


@pytest.mark.parametrize("text", ['{"fspo": [1]}', '{"fspo": {"reward_accuracy": 0.5}}'])
def test_the_command_says_it_without_a_traceback(base: Path, tmp_path: Path, text: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text((base / "config.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (folder / "metrics.json").write_text(text, encoding="utf-8")
    done = CliRunner().invoke(app, ["report", str(folder)])
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, SystemExit | FspoError), done.exception
    assert "metrics.json" in " ".join(done.stderr.split())
