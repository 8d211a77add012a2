"""Settings of training that have no effect: refused, or said in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fspo.errors import ConfigError
from fspo.runs.config import RunConfig, load_config
from fspo.runs.unused_settings import check_unused_settings, unused_writers

CONFIGS = Path(__file__).parents[2] / "configs"
RUNS = sorted([*CONFIGS.glob("*.yaml"), *CONFIGS.glob("gpu/*.yaml")])
MIRRORED = "  fspo: {objective: mirrored-contrast}\n"


def config(tmp_path: Path, text: str, *overrides: str) -> RunConfig:
    path = tmp_path / "my.yaml"
    path.write_text(f"methods: [base, ipo, fspo]\ntraining:\n{text}")
    return load_config(path, overrides)


def said_of(config: RunConfig, *, begun: bool = False) -> list[str]:
    """What is said where all methods of the run are trained."""
    return check_unused_settings(config, config.training, begun=begun)


@pytest.mark.parametrize(
    ("text", "setting", "line"),
    [
        ("  all: {bias_weight: 0.3}\n", "training.all.bias_weight", 3),
        ("  all:\n    shots: 2\n    contrast: logistic\n", "training.all.contrast", 5),
        (MIRRORED.replace("}", ", contrast: logistic, target: 6.0}"), "training.fspo.target", 3),
        (f"  ipo: {{target: 6.0}}\n{MIRRORED}", "training.ipo.target", 3),
        (f"{MIRRORED}  ipo: {{drafts: 8}}\n", "training.ipo.drafts", 4),
        ("  fspo: {gamma: 1.0}\n  ipo: {scale: 2.0}\n", "training.fspo.gamma", 3),
        ("  all: {rungs_per_query: one}\n", "training.all.rungs_per_query", 3),
        (MIRRORED.replace("}", ", episodes: 8, precompute_reference: true}"), "training.fspo.precompute_reference", 3),
    ],
)
def test_a_setting_that_no_method_uses_is_refused_by_its_line(
    tmp_path: Path, text: str, setting: str, line: int
) -> None:
    with pytest.raises(ConfigError) as caught:
        said_of(config(tmp_path, text))
    assert f"my.yaml, line {line}: {setting} " in str(caught.value)


def test_all_settings_without_effect_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        said_of(config(tmp_path, "  all: {target: 6.0, bias_weight: 0.3}\n"))
    assert "training.all.target" in str(caught.value) and "training.all.bias_weight" in str(caught.value)


def test_what_some_methods_use_is_said_of_the_others_that_compare_pairs(tmp_path: Path) -> None:
    text = f"  all: {{target: 6.0, bias_weight: 0.3}}\n{MIRRORED}"
    lines = said_of(config(tmp_path, text))
    assert len(lines) == 2
    assert all("line 3" in line and " ipo" in line and "pref-ft" not in line and "fspo" not in line for line in lines)


@pytest.mark.parametrize(
    ("method", "setting", "needs"),
    [
        ("aloe", "message_tokens: 64", "endpoint"),
        ("np-dpo", "embedding: sentence, layer: 1", "embedding backbone"),
        ("p-rlhf", "clusters: 3", "users clusters"),
        ("spin", "temperature: 0, top_p: 0.9", "temperature above 0"),
        ("spa", "noisy_share: 0, noise: 0.2", "noisy_share above 0"),
        ("spa", "noisy_share: 0, extrapolation: 1.0", "noisy_share above 0"),
    ],
)
def test_a_method_says_what_its_own_settings_need(tmp_path: Path, method: str, setting: str, needs: str) -> None:
    found = config(tmp_path, f"  {method}: {{{setting}}}\n", f"methods=[base, {method}]")
    (line,) = said_of(found)
    assert f"has no effect on {method}, since it needs {needs};" in line


@pytest.mark.parametrize(
    "text",
    [
        "  all: {pref_ft_weight: 0.1, beta: 0.1}\n",  # Pref-FT does not use the first, which surprises nobody
        "  all: {bias_weight: 0.0, contrast: squared}\n",  # the defaults
        f"  all: {{shots: 2, layout: conversation}}\n{MIRRORED}  pref-ft-cot: {{drafts: 3}}\n",  # a method of no run
    ],
)
def test_nothing_is_said_where_nothing_surprises(tmp_path: Path, text: str) -> None:
    assert said_of(config(tmp_path, text)) == []


def test_a_training_that_has_begun_is_not_refused_for_it(tmp_path: Path) -> None:
    assert len(said_of(config(tmp_path, "  all: {bias_weight: 0.3}\n"), begun=True)) == 1


def test_an_override_may_leave_settings_of_the_file_without_effect_but_not_itself(tmp_path: Path) -> None:
    text = MIRRORED.replace("}", ", target: 6.0}")
    (line,) = said_of(config(tmp_path, text, "training.fspo.objective=ipo"))
    assert "training.fspo.target" in line
    with pytest.raises(ConfigError, match=r"--set training\.ipo\.target=5"):
        said_of(config(tmp_path, MIRRORED, "training.ipo.target=5"))
    assert said_of(config(tmp_path, text, "methods=[base, few-shot]")) == []


def test_only_settings_of_methods_that_are_trained_now_are_looked_at(tmp_path: Path) -> None:
    found = config(tmp_path, "  ipo: {target: 6.0}\n  all: {bias_weight: 0.3}\n" + MIRRORED)
    assert check_unused_settings(found, ["fspo"], begun=False) == []
    (line,) = check_unused_settings(found, ["pref-ft", "ipo"], begun=True)[1:]
    assert "training.all.bias_weight has no effect on ipo" in line
    with pytest.raises(ConfigError, match=r"training\.ipo\.target"):
        check_unused_settings(found, ["ipo"], begun=False)
    unused = config(tmp_path, "  all: {bias_weight: 0.3}\n")
    with pytest.raises(ConfigError, match=r"training\.all\.bias_weight"):
        check_unused_settings(unused, ["fspo"], begun=False)


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_the_project_s_own_configurations_set_nothing_in_vain(path: Path) -> None:
    assert said_of(load_config(path)) == []


def test_endpoints_that_would_write_data_are_named_beside_data_that_exist(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    server = '{base_url: "http://127.0.0.1:9/v1", model: some-model}'
    path.write_text(f"data: some/data\nensemble: [{{endpoint: {server}}}]\nendpoint: {server}\n")
    (line,) = unused_writers(load_config(path))
    assert line.startswith(f"{path}, line 3: endpoint and ensemble have no effect")
    assert unused_writers(load_config(path, ["data=null"])) == []
    path.write_text(f"data: some/data\nevaluation: {{judges: [{{name: far, endpoint: {server}}}]}}\n")
    assert unused_writers(load_config(path)) == []
