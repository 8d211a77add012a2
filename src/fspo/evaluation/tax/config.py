"""How thoroughly the personalisation tax is measured."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["TaxConfig"]


class TaxConfig(BaseModel):
    """A user costs `general + 2 * refusals` answers a method, and every set of weights the items once more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    users: int | None = Field(default=6, ge=1)
    """At most so many of the evaluated users, with the shots of their first episode; null: all of them."""
    general: int = Field(default=10, ge=0)
    """General instructions for each user; users take turns, so that six of them have all sixty between them."""
    refusals: int = Field(default=5, ge=0)
    """Harmful requests for each user, in turn likewise; each is asked twice, the second time with itself in the
    shots."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Most tokens of an answer, which is the most probable one (no sampling)."""
