"""The report: one self-contained page, whole or in part, that shows what came out against the method."""

from __future__ import annotations

import base64
import csv
import io
import re
import shutil
from html.parser import HTMLParser
from itertools import takewhile
from pathlib import Path
from statistics import fmean
from xml.etree import ElementTree

import pytest
from rich.console import Console

from fspo.errors import DataError, StorageError
from fspo.evaluation.artifacts import Estimates, ReliabilityBin, Sample
from fspo.evaluation.metrics.items import Items
from fspo.evaluation.metrics.summary import summary_table, variants_note
from fspo.evaluation.plots import charts
from fspo.evaluation.report.formatting import detectable
from fspo.evaluation.report.leaderboard import answer_leaderboard, paired_with_lead
from fspo.evaluation.report.page import write_figures, write_report
from fspo.evaluation.report.plot_entry import PlotEntry
from fspo.evaluation.report.samples import broken_answers, contrasting_samples, shown_answer, worst_losses, wrong_pairs
from fspo.evaluation.report.training_section import (
    TrainingCost,
    trained_for,
    training_costs,
    unequal_training_note,
)
from fspo.evaluation.statistics.comparing import compare
from fspo.evaluation.statistics.intervals import Estimate
from fspo.evaluation.statistics.ranking import Game
from fspo.files import read_json, write_json
from fspo.records import read_record, read_records
from tests.evaluation.report.rendering import caveats, unlabelled
from tests.evaluation.run_folder import write_run_folder


@pytest.fixture(scope="module")
def run_folder(reported_run: Path) -> Path:
    return reported_run


@pytest.fixture(scope="module")
def page(run_folder: Path) -> str:
    return unlabelled(run_folder / "report.html")


class Balance(HTMLParser):
    """Checks that tags are closed and collects ids."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_endtag(self, tag: str) -> None:
        assert self.stack, f"</{tag}> closes nothing"
        assert self.stack.pop() == tag


def test_the_page_is_whole_and_needs_nothing_from_elsewhere(page: str) -> None:
    balance = Balance()
    balance.feed(page)
    assert balance.stack == []
    assert len(balance.ids) == len(set(balance.ids))
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?!#|data:text/csv;)', page.replace("xlink:href", "href"))
    assert not re.search(r"url\((?!#)", page)
    assert "missing from this run" not in page


@pytest.mark.usefixtures("undrawn")
def test_the_page_says_on_how_many_pairs_the_curve_stands(run_folder: Path, tmp_path: Path) -> None:
    metrics = read_json(run_folder / "metrics.json")
    for row in metrics.values():
        row |= {name: value | {"items": 64} for name, value in row.items() if name.startswith("reward_accuracy@")}
    observer = {name: value | {"items": 64} for name, value in
                read_json(run_folder / "evaluation" / "observer.json").items()}  # fmt: skip
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    write_json(folder / "metrics.json", metrics)
    write_json(folder / "evaluation" / "observer.json", observer)
    page = write_report(folder, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Every point uses the same 64 pairs: those of all 128 pairs" in page
    observer["reward_accuracy@8"]["items"] = 128
    write_json(folder / "evaluation" / "observer.json", observer)
    page = write_report(folder, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The points use different pairs</strong> (64, 128 of them)" in page


@pytest.mark.filterwarnings("ignore:.*set_ticklabels")
def test_names_are_neither_formulas_nor_markup() -> None:
    """Methods, users and measures are called whatever the data call them."""
    name, e = r"$\bad{$ <i>&[/b] $x$", Estimate(0.6, 0.5, 0.7, 5, 20)
    bins = [ReliabilityBin(confidence=0.6, accuracy=0.7, users=3, items=9)]
    for svg in (
        charts.accuracy_by_shots({name: [(0, e), (1, e)]}, [(0, e)], title=name),
        charts.interval_plot([(name, name, e)], title=name),
        charts.panels([charts.Panel(name, {name: e}, 0.0)], title=name),
        charts.user_dots({name: {name: 0.5}}, title=name, xlabel=name),
        charts.reliability({name: (bins, bins)}, title=name),
        charts.training_curves({name: [(1, 0.5), (2, 0.6)]}, title=name),
        charts.heatmap([[None, 0.5], [0.5, None]], [name, name], title=name),
        charts.histograms({name: ([0, 1], [3])}, title=name),
    ):
        drawn = ElementTree.fromstring(svg)
        texts = ["".join(element.itertext()).strip() for element in drawn.iter() if element.tag.endswith("text")]
        assert name in " ".join(texts) or name.split()[0] in " ".join(texts), texts
    table = summary_table({name: {"reward_accuracy": e}}, title=name, details={"rewards": {name: ["a[/b]"]}})
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    assert console.export_text().count(name) == 3


def test_every_plot_says_what_it_shows(page: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) >= 6
    for plot in plots:
        assert 'role="img"' in plot
        assert re.search(r'<title id="[^"]+">[^<]+</title><desc id="[^"]+">[^<]+</desc>', plot)
        assert "var(--" in plot
        assert "#0505" not in plot


@pytest.mark.usefixtures("undrawn")
def test_the_same_run_gives_the_same_page(run_folder: Path, page: str, tmp_path: Path) -> None:
    """Its wide drawings too: `test_plots_are_files_of_their_own`."""
    again = unlabelled(write_report(run_folder, tmp_path / "again.html"))
    assert again == re.sub(r"<svg .*?</svg>\n", "<svg></svg>", page, flags=re.DOTALL)


def test_user_text_is_text(page: str) -> None:
    assert "&lt;b&gt;and says so&lt;/b&gt;" in page
    assert "<b>and says so" not in page


def test_what_rewards_are_measured_against_is_said(page: str) -> None:
    assert "pref-ft weights it started from, given the same shots" in page
    assert "base weights it started from, also without context" in page
    assert page.count("the same weights without context") == 2  # pref-ft and oracle; few-shot has its mirror


def test_how_long_methods_were_trained_is_said(run_folder: Path, page: str) -> None:
    found = training_costs(run_folder)
    assert found["fspo"] == TrainingCost(60, 120_000, 120, 480, "pref-ft")
    assert found["ipo"] == TrainingCost(60, 60_000, 120, 480, "")
    assert "tokens from 60,000 (pref-ft) to 120,000 (fspo)" in page
    assert "steps from" not in page
    assert unequal_training_note({"ipo": found["ipo"]}) == unequal_training_note({}) == ""


def test_the_top_says_how_long_the_lead_was_trained(run_folder: Path, page: str) -> None:
    top = page[: page.index("<main")]
    assert "fspo was trained for 60 steps (120,000 tokens), after 60 steps (60,000 tokens) of pref-ft." in top
    timed = {"ipo": TrainingCost(1, 900, None, None, "", seconds=83.0)}
    assert trained_for(timed, "ipo") == "ipo was trained for 1 step (900 tokens, 1 min 23 s)."
    assert trained_for(timed, "fspo") == ""


@pytest.mark.usefixtures("undrawn")
def test_a_training_of_one_step_has_no_curve_and_none_is_missing(tmp_path: Path) -> None:
    copy = write_run_folder(tmp_path / "copy", light=True)
    for path in copy.glob("methods/*/metrics.jsonl"):
        path.write_text(path.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    text = write_report(copy, copy / "report.html").read_text(encoding="utf-8")
    assert "No training has two steps" in text and "Training curves are missing" not in text


def test_what_the_checks_of_the_data_hold_is_shown(run_folder: Path, page: str) -> None:
    checks = read_json(run_folder / "data" / "checks.json")
    for heading in ("Attributes of the responses", "How often two users disagree", "Labelled pairs", "Responses"):
        assert f"<h3>{heading}</h3>" in page
    assert "<dt>texts sampled</dt><dd>48</dd>" in page
    assert "samples put aside: role marker or refusal" in page
    assert checks["samples"][0]["response"] in page
    assert checks["sample_pairs"][0]["rejected"] in page
    assert "hold by construction" in page


def test_figures_are_shown_with_intervals(page: str) -> None:
    assert "fspo ranks the preferred of two responses first in 77.0% [73.0, 81.0]" in page
    assert "73.0 to 81.0" in page
    assert "ideal observer" in page


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("part", ["metrics.json", "evaluation", "methods", "data", "config.yaml", "versions.json"])
def test_a_run_in_part_is_shown_in_part(tmp_path: Path, part: str) -> None:
    copy = write_run_folder(tmp_path / "copy", light=True)
    target = copy / part
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    text = write_report(copy, copy / "report.html").read_text(encoding="utf-8")
    assert ("missing from this run" in text) == (part != "versions.json")
    if part == "versions.json":  # which nobody misses: there is no fold for them, and no word on who wrote the page
        assert "<summary>Versions</summary>" not in text
        assert "Written by fspo" not in text


def test_an_empty_run_says_what_is_missing(tmp_path: Path) -> None:
    text = write_report(tmp_path, tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("missing from this run") >= 6


def test_plots_are_files_of_their_own(run_folder: Path, page: str, tmp_path: Path) -> None:
    written = write_figures(run_folder, tmp_path / "figures")
    names = {path.name for path in written}
    assert {
        "ranking-answers.svg",
        "accuracy-by-shots.svg",
        "win-rates.svg",
        "training-loss.svg",
        "alignment-by-turn.svg",
    } <= names
    assert all(path.with_suffix(".csv").exists() for path in written)
    for path in written:
        ElementTree.fromstring(path.read_text(encoding="utf-8"))
        assert re.sub("<style>.*?</style>", "", path.read_text(), count=1, flags=re.DOTALL).strip() in page
        used, given = (set(re.findall(p, path.read_text())) for p in (r"var\((--[\w-]+)\)", r"(--[\w-]+):"))
        assert used <= given
    assert write_figures(tmp_path, tmp_path / "none") == []


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run folder"):
        write_report(tmp_path / "nowhere", tmp_path / "r.html")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(StorageError, match=r"metrics\.json is damaged"):
        write_report(tmp_path, tmp_path / "r.html")


def test_contrasting_users_are_the_least_alike_on_a_shared_prompt() -> None:
    samples = [
        Sample(user=user, item=f"{user}/0/0", prompt=prompt, traits={"x": weight})
        for user, weight in (("a", 1.0), ("b", 0.9), ("c", -1.0), ("d", -0.9))
        for prompt in ("p2", "p1")
    ]
    first, second = contrasting_samples(samples)
    assert {sample.user for sample in first} | {sample.user for sample in second} == set("abcd")
    assert {sample.prompt for sample in first} == {"p1"}
    assert first[0].traits["x"] * first[1].traits["x"] < 0
    assert contrasting_samples([]) == []
    assert shown_answer(samples, "fspo", "guided") == "base"
    assert contrasting_samples(samples[:1]) == [[samples[0]]]


def test_the_words_stand_out_from_the_ground_by_day_by_night_and_on_paper(page: str) -> None:
    """At least 4.5 to 1 (WCAG 2.2, 1.4.3): axe does not look into drawings."""
    blocks = re.findall(r":root {(.*?)}", page, re.DOTALL)
    schemes = [dict(re.findall(r"(--[\w-]+): (#\w+);", block)) for block in blocks]
    assert len(schemes) == 3
    for colours in schemes:
        words = [name for name in colours if name in ("--ink", "--muted", "--accent") or name.startswith("--series")]
        assert len(words) == 15
        for ground in ("--paper", "--card"):
            for name in words:
                assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground, colours)


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    shares = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_every_plot_comes_with_its_numbers(run_folder: Path, page: str) -> None:
    links = re.findall(r'<a href="data:text/csv;charset=utf-8;base64,([\w+/=]+)" download="([\w-]+)\.csv">', page)
    tables = {name: list(csv.DictReader(io.StringIO(base64.b64decode(text).decode()))) for text, name in links}
    wide, narrow = (re.findall(rf'<svg [^>]*class="{size}"', page) for size in ("wide", "narrow"))
    assert len(tables) == len(wide) == len(narrow) == len(re.findall("<svg", page)) / 2
    metrics = read_json(run_folder / "metrics.json")
    for row in tables["accuracy-by-shots"]:
        if row["method"] != "ideal observer":
            assert float(row["value"]) == metrics[row["method"]][f"reward_accuracy@{row['shots']}"]["value"]
    assert {row["user"] for row in tables["per-user"]} == {f"user-{number}" for number in range(16)}
    assert {row["measure"] for row in tables["sensitivity"]} >= {"label_flip_rate", "wrong_labels_drop/25%"}


def test_a_name_cannot_become_a_formula_in_a_spreadsheet() -> None:
    plot = PlotEntry("x", "x", None, [{"user": "=1+1", "value": -0.5}, {"user": "plain, quoted", "value": None}])
    assert plot.csv == 'user,value\n\'=1+1,-0.5\n"plain, quoted",\n'


def test_the_ranking_rests_on_every_game_there_is() -> None:
    users = [f"u{number}" for number in range(10)]
    played = (("a", "base", 1.0), ("base", "a", 0.5), ("a", "b", 0.5), ("b", "base", 0.5))
    games = [Game(user, first, second, score) for user in users for first, second, score in played]
    metrics = {name: {"win_rate": estimate(value, 0.4, 0.9)} for name, value in (("a", 0.75), ("b", 0.5))}
    found = answer_leaderboard(games, metrics)
    assert found["each_other"]
    assert [row["method"] for row in found["rows"]] == ["a", "b", "base"]
    assert found["rows"][-1]["estimate"].value == 0.5
    over_base = [game for game in games if "base" in (game.first, game.second)]
    found = answer_leaderboard(over_base, metrics)
    assert not found["each_other"]
    assert [row["estimate"].value for row in found["rows"]] == [0.75, 0.5, 0.5]  # the win rates themselves
    assert answer_leaderboard([], metrics)["rows"][0]["ranks"] == ""
    tied = answer_leaderboard([Game(g.user, g.first, g.second, 0.5) for g in games], metrics)
    assert {(row["rank"], row["ranks"]) for row in tied["rows"]} == {(1, "1 to 3")}
    assert answer_leaderboard([], {}) == {}


def test_differences_are_paired_corrected_and_have_a_size_that_could_be_seen(run_folder: Path, page: str) -> None:
    items = Items.read(run_folder / "evaluation")
    rewards = {name: row[0] for name, row in read_json(run_folder / "evaluation" / "details.json")["rewards"].items()}
    found = paired_with_lead(items, "fspo", rewards)
    ours, theirs = (items.values(name, "reward_accuracy/reference") for name in ("fspo", "ipo"))
    assert found["ipo"].difference.value == pytest.approx(fmean(ours.values()) - fmean(theirs.values()))
    assert all(row.adjusted >= row.p for row in found.values())  # type: ignore[operator]
    assert len(found) > 1
    assert (found["ipo"].detectable or 0) > (compare(ours, theirs).detectable or 0) > 0  # a correction costs power
    assert "after that correction" in page
    assert "<dt>more accurate than</dt>" in page
    assert re.search(r'<th scope="row">ipo</th>(<td>.*?</td>){3}<td class="words">fspo is better</td>', page)
    assert "corrected together by Holm" in page
    assert paired_with_lead(Items(()), "fspo", rewards) == {}


def test_the_error_of_calibration_stands_beside_what_chance_gives(page: str) -> None:
    table = page[page.index("<caption><span>Percent. Calibration error") :].partition("</table>")[0]
    rows = [re.findall(r"<td>([^<]+)</td>", row) for row in table.split("</tr>") if re.search(r">\s*fspo\s*<", row)]
    assert rows == [["unchanged", "10.0", "4.3", "7.6"], ["fitted", "10.0", *["\N{EN DASH}"] * 2]]


def test_what_is_against_the_lead_comes_first(page: str) -> None:
    against = page[
        page.index("<h3>Results that miss their threshold</h3>") : page.index("<summary>All thresholds</summary>")
    ]
    said = [name.partition(",")[0] for name in re.findall(r'<th scope="row">([^<]+)</th>', against)]
    assert said[0] == "fspo"
    assert said.count("fspo") == len(list(takewhile(lambda name: name == "fspo", said)))
    assert f"{said.count('fspo')} of fspo, {len(said) - said.count('fspo')} of other methods" in page


@pytest.mark.parametrize(("difference", "said"), [(None, "\N{EN DASH}"), (0.123, "12.3"), (1.3, "over 100")])
def test_a_detectable_difference_is_one_that_there_can_be(difference: float | None, said: str) -> None:
    assert detectable(difference) == said


def test_failures_are_chosen_by_rule(run_folder: Path) -> None:
    samples = read_records(run_folder / "samples.jsonl", Sample, "")
    known = Items.read(run_folder / "evaluation").records[0]
    items = [
        known.model_copy(update={"user": s.user, "item": s.item, "values": {
            "base": {"answer_utility/plain": 1.0}, "fspo": {"answer_utility/guided": -float(len(s.item))}
        }})
        for s in samples
    ]  # fmt: skip
    lost = worst_losses(samples, Items(tuple(items)), "fspo, guided")
    assert [row["user"] for row in lost] == ["cheerful", "chatty", "terse"]  # by the most first, each once
    assert lost[0]["by"] == 1.0 + len("cheerful/0/0")
    assert [row["user"] for row in broken_answers(samples, "fspo, guided")] == ["gloomy"]
    assert worst_losses(samples, Items(()), "fspo, guided")[0]["by"] is None
    wrong = wrong_pairs(Items.read(run_folder / "evaluation"), "fspo", "reference")
    assert len({row["user"] for row in wrong}) == len(wrong) == 3
    assert all(row["values"]["fspo"]["reward_accuracy/reference"] == 0 for row in wrong)


def test_a_judge_who_decided_nothing_is_seen_to(page: str) -> None:
    row = next(line for line in page.splitlines() if '<th scope="row">mute</th>' in line)
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
    assert cells[:9] == ["80", "0", "0", "0", "0", "76", "0", "4", "0"]
    assert "\u2013" in cells[9]


def test_users_without_traits_contrast_by_how_often_they_disagreed() -> None:
    samples = [Sample(user=user, item=f"{user}/0/0", prompt="p") for user in "abc"]
    record = {"users": ["a", "b", "c"], "matrix": [[0, 0.1, 0.9], [0.1, 0, 0.2], [0.9, 0.2, 0]]}
    assert [[s.user for s in pair] for pair in contrasting_samples(samples, record)] == [["a", "c"]]


def estimate(value: float, low: float, high: float, users: int = 30) -> Estimate:
    return Estimate(value, low, high, users, 100)


def test_the_variants_of_the_headlines_are_named(run_folder: Path, page: str) -> None:
    details = read_json(run_folder / "evaluation" / "details.json")
    said = (
        "Reward: likelihood (base), antisymmetric (few-shot), reference (pref-ft, ipo, fspo, oracle). "
        "Sampling: plain (few-shot, pref-ft, ipo, oracle), guided (fspo)."
    )
    assert variants_note(details) == said
    assert variants_note({}) == ""
    assert said in page
    rows = re.findall(r'<th scope="row">([\w-]+)</th>(?:(?!</tr>).)*?<td class="words">(.*?)</td>', page, re.DOTALL)
    assert "its mirror" in dict(rows)["few-shot"]
    assert "pref-ft weights it started from" in dict(rows)["fspo"]
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(summary_table(read_record(run_folder / "metrics.json", Estimates, "") or {}, details=details))
    assert said in " ".join(capture.get().split())


def test_answers_cut_off_at_the_limit_are_a_caveat(page: str) -> None:
    assert "cut off at the limit" in page
    assert "base plain 40%" in page
    cut = {"fspo": {"unfinished/plain": estimate(0.01, 0.0, 0.02)}}
    assert not any("cut off" in sentence for sentence in caveats(cut, {}))
