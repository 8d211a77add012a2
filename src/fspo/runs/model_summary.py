"""Who writes and who judges in a synthesis, in words, and a warning where that is a model too small to judge."""

from __future__ import annotations

from fspo.llm.endpoint_config import EndpointConfig
from fspo.modeling.chat import takes_system
from fspo.modeling.model_names import place_here
from fspo.modeling.size import count_weights
from fspo.runs.config import RunConfig

__all__ = ["asked_lines", "template_lines"]

_SMALL = 1_000_000_000
"""Weights below which a model is not expected to judge by what a description says."""


def asked_lines(config: RunConfig) -> list[str]:
    """Who writes responses, who judges pairs, who writes everything else; empty for the demo's recipe and own data.

    Nobody is asked, and nothing is loaded.
    """
    synthesis = config.synthesis
    if config.data is not None or synthesis.recipe != "paper":
        return []
    asked = _name(config.model, config.endpoint)
    writers = " + ".join(
        f"{member.weight:g} x {_name(member.model or '', member.endpoint)}" for member in config.ensemble
    )
    judge = asked if synthesis.judge == "llm" else "measured attributes, and no language model"
    lines = [f"Responses by {writers or asked}; pairs judged by {judge}; any other text by {asked}."]
    if synthesis.judge == "llm" and config.endpoint is None:
        lines += _warning(config.model)
    return lines


def template_lines(config: RunConfig) -> list[str]:
    """A line on each model on this machine that writes in synthesis and whose chat template takes no system role.

    Models that are not here yet are passed over: nothing is fetched.
    """
    from fspo.modeling.loading import load_tokenizer

    if config.data is not None:
        return []
    asked = [config.model] if config.endpoint is None else []
    writers = [member.model or config.model for member in config.ensemble if member.endpoint is None]
    places = {name: place_here(name) for name in dict.fromkeys([*asked, *writers])}
    return [
        f"The chat template of {name} takes no system role: what the system says goes in front of the first user's "
        "text."
        for name, place in places.items()
        if place is not None and not takes_system(load_tokenizer(place))
    ]


def _warning(model: str) -> list[str]:

    count = count_weights(model)
    if not count or count >= _SMALL:
        return []
    size = f"{count / 1e6:,.0f} million" if count >= 1e6 else f"{count:,}"
    return [
        f"Warning: {model} has {size} weights, and a model of under a billion hardly judges by what a description "
        "says; most pairs may be left undecided, and labels be little better than chance. Set "
        "synthesis.judge=measured, or endpoint.base_url and endpoint.model."
    ]


def _name(model: str, endpoint: EndpointConfig | None) -> str:
    return f"{model} on this machine" if endpoint is None else f"{endpoint.model} at {endpoint.base_url}"
