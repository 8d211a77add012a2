"""What of a benchmark's protocol a run changes: the section `benchmarks` of its file."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from fspo.paths import PlaceName

__all__ = ["BenchmarkConfig"]


class BenchmarkConfig(BaseModel):
    """Settings of one benchmark. Whatever is set departs from the published protocol, and the comparison says so."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    data: PlaceName | None = Field(default=None, min_length=1)
    """A file or folder of the published rows, or hub:owner/name; null: the hub, for the own domains `fspo synth`."""
    users: int | None = Field(default=None, ge=1)
    """At most so many users; null: the protocol's."""
    shots: int | None = Field(default=None, ge=1)
    """Shots of each user; null: the protocol's."""
    queries: int | None = Field(default=None, ge=1)
    """At most so many queries of each episode; null: the protocol's."""
    episodes: int | None = Field(default=None, ge=1)
    """Episodes of each user; null: the protocol's."""
    answers: int | None = Field(default=None, ge=0)
    """Prompts answered for each user, for win rates; null: the protocol's."""
