"""Plots: a method looks the same in all of them, and no line runs through a name."""

from __future__ import annotations

import re

import matplotlib

from fspo.evaluation.plots import charts, drawing
from fspo.evaluation.statistics.intervals import Estimate
from fspo.methods.table import METHODS, USUAL

ESTIMATE = Estimate(0.5, 0.4, 0.6, 9, 90)


def test_methods_of_the_table_are_told_apart_by_colour_and_by_mark() -> None:
    for of in (drawing.PLAIN.colour, drawing.PLAIN.marker):
        assert len({of(name) for name in USUAL}) == len(USUAL)
    palette = drawing.Palette.of(METHODS)
    assert len({(palette.colour(name), palette.marker(name)) for name in METHODS}) == len(METHODS)


def test_other_methods_keep_their_colour_and_mark_whatever_else_is_drawn() -> None:
    names = [f"rm-{letter}" for letter in "dacb"]
    palette = drawing.Palette.of([*names, "fspo"])
    looks = {name: (palette.colour(name), palette.marker(name)) for name in names}
    assert len({colour for colour, _ in looks.values()}) == 4
    assert len({mark for _, mark in looks.values()}) == 4
    one = charts.interval_plot([("x", "rm-c", ESTIMATE)], title="one", palette=palette)
    two = charts.interval_plot([("x", "rm-a", ESTIMATE), ("y", "rm-c", ESTIMATE)], title="two", palette=palette)
    assert palette == drawing.Palette.of(sorted([*names, "fspo"]))
    series = [set(re.findall(r"--series-\d+", svg)) for svg in (one, two)]
    assert len(series[0]) == 1
    assert series[0] < series[1]
    assert {colour for colour, _ in looks.values()}.isdisjoint(map(palette.colour, USUAL))


def test_no_line_runs_through_a_name() -> None:
    """The dotted line at a half ends where the name of a method that ends there begins."""
    svg = charts.accuracy_by_shots({"ipo": [(0, ESTIMATE), (8, ESTIMATE)]}, [], title="t")
    names = re.search(r'<text [^>]*? x="([\d.]+)"[^>]*>ipo</text>', svg)
    dotted = re.search(r"L ([\d.]+) [\d.]+\s+\" clip-path=[^>]*stroke-dasharray: 0.8", svg)
    assert names and dotted, svg
    assert float(dotted.group(1)) < float(names.group(1))


def test_settings_of_matplotlib_that_crop_a_figure_change_nothing() -> None:
    def drawn() -> str:
        return charts.accuracy_by_shots({"ipo": [(0, ESTIMATE), (8, ESTIMATE)]}, [], title="t")

    usual = drawn()
    with matplotlib.rc_context({"savefig.bbox": "tight"}):
        assert drawn() == usual
