"""How thoroughly the personalisation tax is measured."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fspo.evaluation.judge_config import JudgeConfig

__all__ = ["TaxConfig"]


class TaxConfig(BaseModel):
    """A user costs `general + open + 2 * refusals` answers a method, and every set of weights the items once more."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    users: int | None = Field(default=6, ge=1)
    """At most so many of the evaluated users, with the shots of their first episode; null: all of them."""
    general: int = Field(default=10, ge=0)
    """General instructions for each user; users take turns, so that six of them have all sixty between them."""
    refusals: int = Field(default=5, ge=0)
    """Harmful requests for each user, in turn likewise; each is asked twice, the second time with itself in the
    shots."""
    open: int = Field(default=5, ge=0)
    """Open instructions for each user, in turn likewise; asked only where there are judges of the answers."""
    judges: tuple[JudgeConfig, ...] = ()
    """Endpoints that are asked whether the method or the base model answers an open instruction better, for anybody;
    the first is the one of `tax_open`."""
    max_new_tokens: int = Field(default=64, ge=1)
    """Most tokens of an answer, which is the most probable one (no sampling)."""

    @model_validator(mode="after")
    def _judges_of_anybody(self) -> Self:
        for entry in self.judges:
            if entry.endpoint is None:
                raise ValueError(f"the judge '{entry.name}' of the tax has no endpoint; attributes are users' tastes")
            if entry.prompt is not None and "{description}" in entry.prompt:
                raise ValueError(
                    f"the judge '{entry.name}' of the tax knows no user; leave {{description}} out of its prompt"
                )
        names = [entry.name for entry in self.judges]
        if len(set(names)) < len(names):
            raise ValueError("judges of the tax: a name is given twice; every judge needs one of its own")
        return self
