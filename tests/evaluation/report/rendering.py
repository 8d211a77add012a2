"""The parts of the page that are sentences, from the results alone."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fspo.evaluation.metrics.summary import single_context_reward, variants_of
from fspo.evaluation.report.findings import Metrics, facts
from fspo.evaluation.report.formatting import environment

__all__ = ["caveats", "headline", "in_short", "unlabelled"]


def unlabelled(path: Path) -> str:
    """A page without the titles of columns that every cell repeats for narrow screens."""
    return re.sub(r' data-label="[^"]*"', "", path.read_text(encoding="utf-8"))


def headline(metrics: Metrics, lead: str, variants: Mapping[str, str]) -> str:
    """The sentence on top of the page."""
    return _rendered("headline.j2", metrics=metrics, lead=lead, variants=variants)


def in_short(
    metrics: Metrics, observer: Mapping[str, Any], sections: Mapping[str, Any], lead: str, details: Any = None
) -> dict[str, str]:
    """Label -> fact."""
    named = {"variants": variants_of(details or {}, lead), "flipped_reward": single_context_reward(details or {}, lead)}
    text = _rendered("short.j2", metrics=metrics, observer=observer, lead=lead, **sections, **named)
    return dict(re.findall("<dt>(.*?)</dt><dd>(.*?)</dd>", text))


def caveats(metrics: Metrics, details: Mapping[str, Any], shared_prompts: int | None = None) -> list[str]:
    """The sentences on what the results do not show."""
    more = {"facts": facts(metrics), "shared_prompts": shared_prompts, "unequal_training": "", "untraced": ""}
    return re.findall("<li>(.*?)</li>", _rendered("caveats.j2", metrics=metrics, details=details, **more))


def _rendered(template: str, **view: Any) -> str:
    return html.unescape(
        environment()
        .get_template(template)
        .render(**{"given": False, "opponent": "the base model", "model": "m", **view})
    ).strip()
