from __future__ import annotations

from benchmarks import length_control


def test_annotations_are_the_same_every_time() -> None:
    for case in length_control.CASES:
        rows, anchors = length_control.made_up(case)
        assert (rows, anchors) == length_control.made_up(case)
        assert (len(rows), len(anchors)) == (case.rows, 2 * case.rows)
        assert len({row.user for row in [*rows, *anchors]}) == 3 * case.rows
