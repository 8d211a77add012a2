from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from fspo.errors import ConfigError
from fspo.evaluation.benchmarks.benchmark import BENCHMARKS, BenchmarkConfig, Protocol, benchmark_of
from fspo.evaluation.benchmarks.comparison import published
from fspo.evaluation.config import EvaluationConfig
from fspo.preferences.published import PUBLISHED
from fspo.synthesis.config import SynthesisConfig

ROOT = Path(__file__).parents[3]


def test_every_benchmark_is_whole_and_documented() -> None:
    page = (ROOT / "docs/benchmarks.md").read_text()
    for name, row in BENCHMARKS.items():
        assert row.name == name
        assert f"`{name}`" in page
        if row.rows is None:
            assert row.synthesis and not published(name)
            continue
        assert row.rows.kind in PUBLISHED
        assert row.rows.hub.startswith("hub:")
        assert row.differences
        assert row.rows.hub.removeprefix("hub:") in page


def test_the_help_names_every_benchmark() -> None:
    reference = " ".join((ROOT / "docs/cli.md").read_text().split()).replace("- ", "-")  # as words are broken
    listed = reference.split("beside yours: ")[1].split(".")[0]
    assert set(listed.replace(" or ", ", ").replace(",", "").split()) == set(BENCHMARKS)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("reviews", "reviews-paper"),
        *((name, name) for name in ("elix-easy", "elix-hard", "roleplay", "advice", "elix-written", "reviews-written")),
    ],
)
def test_domains_are_made_as_the_configurations_make_them(name: str, file: str) -> None:
    written = yaml.safe_load((ROOT / f"configs/{file}.yaml").read_text())["synthesis"]
    ours = SynthesisConfig.model_validate(dict(BENCHMARKS[name].synthesis))
    assert ours == SynthesisConfig.model_validate({**written, "meaning": False})


def test_published_figures_are_percent_with_a_source() -> None:
    record = yaml.safe_load((ROOT / "src/fspo/evaluation/benchmarks/published.yaml").read_text())
    assert set(record["benchmarks"]) <= set(BENCHMARKS)
    used = {row["source"] for rows in record["benchmarks"].values() for row in rows}
    assert used == set(record["sources"])
    for name in record["benchmarks"]:
        figures = published(name)
        assert figures
        assert len({(figure.name, figure.model) for figure in figures}) == len(figures)
        for figure in figures:
            assert 40 < figure.value < 100
            assert figure.source.paper and figure.source.where
            assert (figure.error is None) == (figure.source.error is None)
    assert published("prism") == ()


def test_the_population_model_is_among_the_published_rows() -> None:
    # It beats most personalised ones, and leaving it out would flatter everybody.
    arena = {figure.name: figure.value for figure in published("reward-bench-arena") if figure.model == "Llama 3.1 8B"}
    assert arena["Bradley-Terry reward model, fine-tuned"] > max(arena[name] for name in ("GPO", "VPL", "PAL"))


def test_an_unknown_benchmark_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="There is no benchmark 'prsm'; did you mean 'prism'"):
        benchmark_of("prsm")
    with pytest.raises(ConfigError, match="the known ones are reviews, elix-easy"):
        benchmark_of("zzz")


def test_a_protocol_decides_over_the_run_and_departures_are_told() -> None:
    protocol, config = Protocol(shots=3, parted=True), EvaluationConfig(users=2, shots=8, answers=4, seed=9)
    decided = protocol.evaluation(config)
    assert (decided.users, decided.shots, decided.answers, decided.seed) == (None, 3, 0, 0)
    assert decided.rungs == (0, 1, 2, 3)
    assert Protocol(shots=3, answers=None).evaluation(config).answers == 4
    settings = BenchmarkConfig(users=5, shots=3, queries=2)
    assert protocol.departures(settings) == {"users": (None, 5), "queries": (None, 2)}
    assert protocol.changed(settings) == Protocol(shots=3, queries=2, users=5, parted=True)
    assert protocol.changed(BenchmarkConfig()) == protocol
