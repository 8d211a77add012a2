"""The report of a run: one self-contained page to be read in five minutes."""

from __future__ import annotations

from fspo.evaluation.report.page import write_figures, write_report
from fspo.evaluation.report.samples import contrasting_samples

__all__ = ["contrasting_samples", "write_figures", "write_report"]
