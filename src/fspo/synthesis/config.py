"""What is synthesized, by either recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from fspo.synthesis.recipe.config import RecipeConfig
from fspo.synthesis.restyled.config import RestyledConfig

__all__ = ["RECIPES", "ExecutorConfig", "SynthesisConfig", "usual_settings"]

SynthesisConfig = Annotated[RestyledConfig | RecipeConfig, Field(discriminator="recipe")]
"""The section `synthesis` of a run; its key `recipe` says which of the two it is."""

RECIPES: dict[str, type[RestyledConfig] | type[RecipeConfig]] = {"restyled": RestyledConfig, "paper": RecipeConfig}
"""Value of `recipe` -> the settings there are then."""


def usual_settings(config: SynthesisConfig) -> dict[str, Any]:
    """The settings of the same recipe and domain with nothing else chosen, ready for JSON."""
    kind = type(config)
    required = {name: getattr(config, name) for name, field in kind.model_fields.items() if field.is_required()}
    return kind.model_validate(required).model_dump(mode="json")


class ExecutorConfig(BaseModel):
    """Who does the work of synthesis. It decides nothing in what is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["local", "ray"] = "local"
    """This process, or the workers of a Ray cluster, who label (`recipe: paper` only)."""
    address: str | None = Field(default=None, min_length=1)
    """Of a Ray cluster, or `auto` for this machine's; by default RAY_ADDRESS, or a cluster for this run alone."""
    workers: int | None = Field(default=None, ge=1)
    """Processes of the cluster; by default as many as it has processors."""
