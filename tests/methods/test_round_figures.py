"""What a round is measured on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fspo.files import read_jsonl
from fspo.methods.rounds import play
from tests.methods.policies.round_worlds import SMALL, LikesYes, against_no, agreeing, job_of
from tests.progress_lines import Lines


def test_probes_are_questions_of_the_validation_part(tiny_model_path: Path, tmp_path: Path) -> None:
    validation, said = agreeing(2, 4), Lines()
    job = job_of("spin", tiny_model_path, tmp_path / "out", validation=validation, progress=said, **SMALL)
    out = play(replace(job, judge=LikesYes), against_no)
    # All of their chosen responses say yes, and a random model's answers don't.
    assert read_jsonl(out / "rounds.jsonl")[0]["win_over_chosen"] == 0
    assert any("0.0% wins over the chosen responses" in line for line in said.lines)
