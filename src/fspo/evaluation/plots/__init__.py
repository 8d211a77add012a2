"""Plots of the report as inline SVG that takes its colours from the page, in daylight, in the dark and in print."""

from __future__ import annotations

from fspo.evaluation.plots.comparing import Panel, accuracy_by_shots, interval_plot, panels, reliability, user_dots
from fspo.evaluation.plots.drawing import OBSERVER, PLAIN, Palette, standalone
from fspo.evaluation.plots.training import heatmap, histograms, training_curves

__all__ = [
    "OBSERVER",
    "PLAIN",
    "Palette",
    "Panel",
    "accuracy_by_shots",
    "heatmap",
    "histograms",
    "interval_plot",
    "panels",
    "reliability",
    "standalone",
    "training_curves",
    "user_dots",
]
