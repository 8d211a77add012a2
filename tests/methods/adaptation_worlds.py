"""A tiny random model with one adaptation over it, and users with a known taste, for tests of adaptations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from fspo.methods.adaptation import Adaptation, AdaptationRow, UserView
from fspo.methods.table import ADAPTATIONS
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.policies import load_policy
from fspo.modeling.rendering import EpisodeRenderer
from fspo.preferences.types import Episode, Preference

__all__ = ["accuracy", "adapting", "counted_tokens", "liking_marks", "margins"]


def adapting(model: Path, name: str, folder: Path | None = None, **settings: Any) -> Adaptation:
    """An adaptation with these settings over the model, or over the policy in a folder."""
    row = AdaptationRow(name, ADAPTATIONS[name], settings)
    renderer = EpisodeRenderer(load_tokenizer(model), context=row.kind.in_context, layout="conversation")
    weights: Any = load_model(model) if folder is None else load_policy(folder, adapters="switchable")
    return row.kind(row.settings, weights.eval(), renderer, folder)


def liking_marks(count: int, *, start: int = 0) -> list[Preference]:
    """Preferences of a user who likes exclamation marks, each on another question with other words."""
    words = ["film", "plot", "cast", "music", "story", "scene", "warm", "dull", "bright", "slow", "grand", "quiet"]
    found = []
    for number in range(start, start + count):
        text = " ".join(words[(number * step) % 12] for step in (1, 5, 7))
        found.append(Preference("ann", f"What about film {number}?", f"{text}!!!", f"{text}."))
    return found


def margins(adaptation: Adaptation, shots: Sequence[Preference], queries: Sequence[Preference]) -> list[float]:
    """Log pi(chosen) - log pi(rejected) of each query under the policy of the user who gave the shots, in nats."""
    with adaptation.for_user(shots) as user:
        return _margins(user, shots, queries)


def _margins(user: UserView, shots: Sequence[Preference], queries: Sequence[Preference]) -> list[float]:
    episode = user.renderer.render(Episode("ann", tuple(shots), tuple(queries), user.text))
    with torch.no_grad():
        (scored,) = branch_logprobs(user.model, [episode])
    return (scored.sums[:, 0] - scored.sums[:, 1]).tolist()


def accuracy(adaptation: Adaptation, shots: Sequence[Preference], queries: Sequence[Preference]) -> float:
    """How often the chosen response gained more from the labels than the rejected one: by the antisymmetric reward."""
    mirrored = [shot.swap() for shot in shots]
    gained = [
        own - other
        for own, other in zip(margins(adaptation, shots, queries), margins(adaptation, mirrored, queries), strict=True)
    ]
    return sum(margin > 0 for margin in gained) / len(gained)


@contextmanager
def counted_tokens() -> Iterator[Counter[str]]:
    """Counts the tokens that any model reads: `read` without a gradient, `learned` with one."""
    found: Counter[str] = Counter()

    def count(module: torch.nn.Module, inputs: Any) -> None:
        if isinstance(module, torch.nn.Embedding):
            found["learned" if torch.is_grad_enabled() else "read"] += inputs[0].numel()

    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        yield found
    finally:
        handle.remove()
