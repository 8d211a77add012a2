"""The demonstration study."""

from __future__ import annotations

from pathlib import Path

import pytest

from fspo.modeling.loading import load_model
from fspo.modeling.policies import save_policy
from fspo.study.demo import demo_study


@pytest.mark.parametrize(("trained", "labels"), [(2, 2), (4, 4), (8, 4)])
def test_it_asks_for_no_more_labels_than_the_policy_reads(
    tmp_path: Path, tiny_model_path: Path, trained: int, labels: int
) -> None:
    details = {"context": "shots", "training": {"layout": "conversation", "shots": trained}}
    base = str(tiny_model_path)
    policy = save_policy(load_model(base), tmp_path / "policy", base=base, details=details)
    assert demo_study(tmp_path / "study", str(policy)).labels.count == labels
