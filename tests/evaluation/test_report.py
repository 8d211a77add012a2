"""The report: one self-contained page, whole or in part, that shows what came out against the method."""

from __future__ import annotations

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from fspo.errors import DataError, StorageError
from fspo.evaluation.effort import Effort, efforts, unequal
from fspo.evaluation.findings import caveats, headline, negatives
from fspo.evaluation.report import contrasting_samples, write_figures, write_report
from fspo.evaluation.statistics import Estimate
from fspo.evaluation.summary import said_variants, summary_table
from fspo.files import read_json
from tests.evaluation.run_folder import write_run_folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run_folder(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(run_folder: Path) -> str:
    return write_report(run_folder, run_folder / "report.html").read_text(encoding="utf-8")


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
    assert not re.search(r'(?:src|href)="(?!#)', page.replace("xlink:href", "href"))
    assert not re.search(r"url\((?!#)", page)
    assert "missing from this run" not in page


def test_every_plot_says_what_it_shows(page: str) -> None:
    plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(plots) >= 6
    for plot in plots:
        assert 'role="img"' in plot
        assert re.search(r"<title>[^<]+</title><desc>[^<]+</desc>", plot)
        assert "var(--" in plot
        assert "#0505" not in plot


def test_the_same_run_gives_the_same_page(run_folder: Path, page: str, tmp_path: Path) -> None:
    assert write_report(run_folder, tmp_path / "again.html").read_text(encoding="utf-8") == page


def test_user_text_is_text(page: str) -> None:
    assert "&lt;b&gt;and says so&lt;/b&gt;" in page
    assert "<b>and says so" not in page


def test_what_rewards_are_measured_against_is_said(page: str) -> None:
    assert "pref-ft weights it started from, given the same shots" in page
    assert "base weights it started from, without context too" in page
    assert page.count("the same weights without context") == 2  # pref-ft and oracle; few-shot has its mirror


def test_how_long_methods_were_trained_is_said(run_folder: Path, page: str) -> None:
    found = efforts(run_folder)
    assert found["fspo"] == Effort(60, 120_000, 120, 480, "pref-ft")
    assert found["ipo"] == Effort(60, 60_000, 120, 480, "")
    assert "tokens from 60,000 (pref-ft) to 120,000 (fspo)" in page
    assert "steps from" not in page
    assert unequal({"ipo": found["ipo"]}) == unequal({}) == ""


def test_what_the_checks_of_the_data_hold_is_shown(run_folder: Path, page: str) -> None:
    checks = read_json(run_folder / "data" / "checks.json")
    for heading in ("Attributes of the responses", "How often two users disagree", "Labelled pairs", "Responses"):
        assert f"<h3>{heading}</h3>" in page
    assert "<dt>texts sampled</dt><dd>400</dd>" in page
    assert "samples put aside: too short" in page
    assert checks["samples"][0]["response"] in page
    assert checks["sample_pairs"][0]["rejected"] in page
    assert "hold by construction" in page


def test_figures_are_shown_with_intervals(page: str) -> None:
    assert "fspo ranks the preferred of two responses first in 77.0 % [73.0, 81.0]" in page
    assert "73.0 \N{EN DASH} 81.0" in page
    assert "ideal observer" in page


@pytest.mark.parametrize("part", ["metrics.json", "evaluation", "methods", "data", "config.yaml", "versions.json"])
def test_a_run_in_part_is_shown_in_part(tmp_path: Path, part: str) -> None:
    copy = write_run_folder(tmp_path / "copy", light=True)
    target = copy / part
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    text = write_report(copy, copy / "report.html").read_text(encoding="utf-8")
    if part not in ("versions.json",):
        assert "missing from this run" in text


def test_an_empty_run_says_what_is_missing(tmp_path: Path) -> None:
    text = write_report(tmp_path, tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("missing from this run") >= 6


def test_plots_are_files_of_their_own(run_folder: Path, tmp_path: Path) -> None:
    written = write_figures(run_folder, tmp_path / "figures")
    assert [path.name for path in written][:2] == ["accuracy-by-shots.svg", "win-rates.svg"]
    assert "training-loss.svg" in [path.name for path in written]
    for path in written:
        ElementTree.fromstring(path.read_text(encoding="utf-8"))
        used, given = (set(re.findall(p, path.read_text())) for p in (r"var\((--[\w-]+)\)", r"(--[\w-]+):"))
        assert used <= given
    assert write_figures(tmp_path, tmp_path / "none") == []


def test_bad_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no run folder"):
        write_report(tmp_path / "nowhere", tmp_path / "r.html")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(StorageError, match="not valid JSON"):
        write_report(tmp_path, tmp_path / "r.html")


def test_contrasting_users_are_the_least_alike_on_a_shared_prompt() -> None:
    samples = [
        {"user": user, "prompt": prompt, "traits": {"x": weight}}
        for user, weight in (("a", 1.0), ("b", 0.9), ("c", -1.0), ("d", -0.9))
        for prompt in ("p2", "p1")
    ]
    first, second = contrasting_samples(samples)
    assert {sample["user"] for sample in first} | {sample["user"] for sample in second} == set("abcd")
    assert {sample["prompt"] for sample in first} == {"p1"}
    assert first[0]["traits"]["x"] * first[1]["traits"]["x"] < 0
    assert contrasting_samples([]) == []
    assert contrasting_samples(samples[:1]) == [[samples[0]]]


def estimate(value: float, low: float, high: float, users: int = 30) -> Estimate:
    return Estimate(value, low, high, users, 100)


def test_what_came_out_against_a_method_is_said() -> None:
    metrics = {
        "fspo": {
            "reward_accuracy": estimate(0.53, 0.48, 0.58),
            "win_rate": estimate(0.3, 0.2, 0.4),
            "label_flip_rate": estimate(0.1, 0.05, 0.15),
            "user_swap_drop": estimate(0.2, 0.1, 0.3),
        }
    }
    found = negatives(metrics, {"dropped_shots": {"fspo": 2}})
    assert len(found) == 4
    assert "can't be told from 50%" in found[0]
    assert "lies below 50%" in found[1]
    assert "14 %" in found[2]
    assert "2 shots" in found[3]
    floored = negatives({}, {"judgements": {"fspo, plain": {"items": 9, "base_below_floor": 4}}})
    assert [("4 of 9" in sentence, "for nothing" in sentence) for sentence in floored] == [(True, True)]
    assert negatives({"fspo": {"reward_accuracy": estimate(0.8, 0.7, 0.9)}}, {}) == []


def test_no_variant_is_hidden_by_the_choice_of_a_headline() -> None:
    wins = {"win_rate": estimate(0.7, 0.6, 0.8), "win_rate/guided": estimate(0.7, 0.6, 0.8)}
    [found] = negatives({"fspo": {**wins, "win_rate/plain": estimate(0.6, 0.49, 0.7)}}, {})
    assert "win rate (plain)" in found
    [found] = negatives({"fspo": {"reward_accuracy": Estimate(0.8, None, None, 2, 9)}}, {})
    assert "no interval, from 2 users" in found


def test_the_first_sentence_names_its_variants() -> None:
    metrics = {"fspo": {"reward_accuracy": estimate(0.8, 0.7, 0.9), "win_rate": estimate(0.7, 0.6, 0.8)}}
    said = headline(metrics, "fspo", {"reward": "antisymmetric", "sampling": "guided"})
    assert "of held-out pairs by the antisymmetric reward" in said
    assert "answer with guided sampling" in said


def test_the_variants_of_the_headlines_are_named(run_folder: Path, page: str) -> None:
    details = read_json(run_folder / "evaluation" / "details.json")
    said = (
        "Reward: antisymmetric (few-shot), reference (pref-ft, ipo, fspo, oracle). "
        "Sampling: plain (few-shot), guided (fspo)."
    )
    assert said_variants(details) == said
    assert said_variants({}) == ""
    assert said in page
    rows = re.findall(r'<th scope="row">([\w-]+)</th>.*?<td class="words">(.*?)</td>', page, re.DOTALL)
    assert "its mirror" in dict(rows)["few-shot"]
    assert "pref-ft weights it started from" in dict(rows)["fspo"]
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        console.print(summary_table(read_json(run_folder / "metrics.json"), details=details))
    assert said in " ".join(capture.get().split())


def test_answers_cut_off_at_the_limit_are_a_caveat(page: str) -> None:
    assert "cut off at the limit" in page
    assert "base plain 40%" in page
    cut = {"fspo": {"unfinished/plain": estimate(0.01, 0.0, 0.02)}}
    assert not any("cut off" in sentence for sentence in caveats(cut, {}))


def test_few_users_are_a_caveat() -> None:
    few = {"fspo": {"reward_accuracy": estimate(0.8, 0.7, 0.9, users=5)}}
    assert any("5 users" in sentence for sentence in caveats(few, {}))
    assert not any("rest on" in sentence for sentence in caveats({}, {}))
    assert headline({}, "fspo") == ""


def test_the_table_of_the_terminal(run_folder: Path) -> None:
    console = Console(width=120, record=True, file=None, no_color=True)
    with console.capture() as capture:
        console.print(summary_table(read_json(run_folder / "metrics.json"), title="reviews"))
    text = capture.get()
    assert "77.0 (73.0…81.0)" in text
    assert "16 held-out users" in text
    with console.capture() as capture:
        console.print(summary_table({}))
    assert "Nothing was measured." in " ".join(capture.get().split())


def test_the_table_says_where_there_is_no_interval() -> None:
    console = Console(width=100, no_color=True)
    record = {"value": 0.5, "low": None, "high": None, "users": 1, "items": 4}
    with console.capture() as capture:
        console.print(summary_table({"fspo": {"reward_accuracy": record}}))
    assert "50.0 (no interval)" in capture.get()
