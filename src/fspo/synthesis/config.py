"""What is synthesized, by either recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fspo.synthesis.recipe.config import RecipeConfig
from fspo.synthesis.restyled.config import RestyledConfig

__all__ = ["RECIPES", "SynthesisConfig"]

SynthesisConfig = Annotated[RestyledConfig | RecipeConfig, Field(discriminator="recipe")]
"""The section `synthesis` of a run; its key `recipe` says which of the two it is."""

RECIPES: dict[str, type[RestyledConfig] | type[RecipeConfig]] = {"restyled": RestyledConfig, "paper": RecipeConfig}
"""Value of `recipe` -> the settings there are then."""
