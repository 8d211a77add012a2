"""A small study on one model, to try the pages: with a participant's labels as shots, against without them."""

from __future__ import annotations

from pathlib import Path

from fspo.paths import expanded
from fspo.study.config import StudyConfig

__all__ = ["demo_study"]

_CONSENT = """
This is a demonstration on this computer. You label a few pairs of answers. Then a small language model answers
new questions twice: once with your labels, once without. You choose between the two, and do not know which is which.

Your choices are stored in a temporary folder, which is removed when the server ends.
"""


_LABELS = 4


def demo_study(folder: Path, policy: str, *, labels: int | None = None, comparisons: int = 4) -> StudyConfig:
    """The demonstration, with the folder of a policy, or the name of a model, which sees labels as a conversation.

    Args:
        folder: where the study is stored.
        policy: answers for both arms.
        labels: pairs that a participant labels; by default four, or as many as the policy reads.
        comparisons: pairs of answers that a participant compares.

    Raises:
        ModelError: there is no such policy or model.
    """
    labels = _labels_of(policy) if labels is None else labels
    return StudyConfig.model_validate(
        {
            "name": "demo",
            "output": folder,
            "arms": {
                "personal": {"policy": policy},
                "base": {"policy": policy, "personalised": False},
            },
            "participants": 100,
            "labels": {"source": {"domain": "elix-written"}, "count": labels},
            "comparisons": {"count": comparisons, "attention": 1},
            "matching": {"length": 2.0},
            "answers": {"max_tokens": 80},
            "attention": [
                {
                    "prompt": "This question checks that the page works. Which answer names a colour?",
                    "right": "Blue is a colour, so this is the answer to choose here.",
                    "wrong": "A table has four legs, so this is not the answer to choose here.",
                }
            ],
            "about": [{"id": "field", "text": "What do you work on?"}],
            "consent": {"version": "demo", "text": _CONSENT, "contact": "nobody, this is a demonstration"},
            "languages": {"en": {}, "de": {}},
        }
    )


def _labels_of(policy: str) -> int:
    from fspo.modeling.policy import Policy

    place = expanded(policy)
    reads = Policy.load(Path(place) if Path(place).is_dir() else policy).shots
    return min(_LABELS, reads or _LABELS)
