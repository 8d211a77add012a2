from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fspo.errors import ConfigError
from fspo.runs.yaml_file import Settings, read_settings


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_values_and_lines(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, "# a comment\nseed: 3\ntraining:\n  fspo:\n    steps: 4\n"))
    assert settings.values == {"seed": 3, "training": {"fspo": {"steps": 4}}}
    assert settings.where(("training", "fspo", "steps")).endswith("run.yaml, line 5")
    assert settings.where(("training", "fspo", "no such key")).endswith("line 4")
    assert settings.where(("elsewhere",)).endswith("run.yaml")


def test_an_exponent_without_a_point_is_a_number(tmp_path: Path) -> None:
    assert read_settings(written(tmp_path, "a: 1e-3\nb: 2E5\nc: 1.5e3\nd: e5\n")).values == {
        "a": 0.001,
        "b": 200000.0,
        "c": 1500.0,
        "d": "e5",
    }


def test_dates_are_text_and_an_anchor_may_be_used_twice(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, "name: 2024-13-45\nother: 2024-05-01\na: &x {b: 1}\nc: [*x, *x]\n"))
    expected = {"name": "2024-13-45", "other": "2024-05-01", "a": {"b": 1}, "c": [{"b": 1}, {"b": 1}]}
    assert settings.values == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "run.yaml holds no settings; write them into it"),
        ("# nothing\n", "run.yaml holds no settings"),
        ("- a\n- b\n", "must hold keys and values"),
        ("a: [1\n", "not valid YAML"),
        ("a: 1\nb: 2\na: 3\n", "line 3: a is given twice \\(first in line 1\\)"),
        ("a: !!python/object:os.system {}\n", "not valid YAML"),
        ("a: 1\nb: !!int many\n", "not valid YAML: 'many' is not of the type int in line 2"),
        ("b: !!timestamp soon\n", "not valid YAML: 'soon' is not of the type timestamp in line 1"),
        ("b: 0b_\n", "not valid YAML: '0b_' is not of the type int in line 1"),
        ("training: &x {all: *x}\n", "not valid YAML: a value that holds itself in line 1"),
        ("training: &x [1, [*x]]\n", "not valid YAML: a value that holds itself in line 1"),
        ("a: " + "[" * 700, "not valid YAML: too many values inside one another"),
    ],
)
def test_a_bad_file_is_refused_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_settings(written(tmp_path, text))


@pytest.mark.parametrize("name", ["ratings.csv", "ratings.csv.gz", "ratings.parquet"])
def test_a_table_is_refused_with_how_to_import_it(tmp_path: Path, name: str) -> None:
    table = tmp_path / name
    table.write_bytes(b"user,prompt,chosen,rejected\nada,Why?,So.,\xff\n")
    with pytest.raises(ConfigError, match=r"is a table.*`fspo data import .* data/ratings`.*`data: data/ratings`"):
        read_settings(table)


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    written(tmp_path, "")
    with pytest.raises(ConfigError, match=r"There is no configuration file .*runs\.yaml; did you mean .*run\.yaml\?"):
        read_settings(tmp_path / "runs.yaml")


def test_a_folder_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; name a YAML file"):
        read_settings(tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="can't be read"):
        read_settings(tmp_path / "binary")


def test_overrides_go_over_the_file_in_order() -> None:
    settings = Settings("file", {"a": {"b": 1, "c": 2}})
    settings.override(["a.b=5", "a.b=6", "d.e=[x, y]", "f=1e-4", "g=null"])
    assert settings.values == {"a": {"b": 6, "c": 2}, "d": {"e": ["x", "y"]}, "f": 1e-4, "g": None}
    assert settings.where(("a", "b")) == "--set a.b=6"


@pytest.mark.parametrize(
    "assignment", ["a", "=3", ".a=3", "a..b=3", "a=[", "a.b.c=1", "a=!!int x", "a=&x [*x]", "a=" + "[" * 700]
)
def test_a_bad_override_is_refused(assignment: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        Settings("file", {"a": {"b": 1}}).override([assignment])


@given(
    st.dictionaries(st.from_regex(r"[a-z]{1,6}", fullmatch=True), st.integers() | st.booleans() | st.text(), max_size=4)
)
def test_an_override_reads_back_what_yaml_writes(values: dict[str, object]) -> None:
    settings = Settings("file")
    settings.override(f"{key}={yaml.safe_dump(value).removesuffix('...' + chr(10))}" for key, value in values.items())
    assert settings.values == values


def test_an_override_below_a_value_is_named_with_it(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, "training:\n  fspo: {steps: 4}\n"))
    settings.override(["training.fspo.beta=1", "evaluation.tax.users=2"])
    assert settings.where(("evaluation", "tax")) == "--set evaluation.tax.users=2"
    assert settings.where(("training", "fspo")).endswith("line 2, with --set training.fspo.beta=1")
    assert settings.where(("training", "fspo", "steps")).endswith("line 2")


def test_only_a_similar_name_is_suggested(tmp_path: Path) -> None:
    written(tmp_path, "seed: 0\n")
    with pytest.raises(ConfigError, match=r"nope\.yaml\.$"):
        read_settings(tmp_path / "nope.yaml")
    with pytest.raises(ConfigError, match=r"; did you mean .*run\.yaml\?$"):
        read_settings(tmp_path / "runs.yaml")


def test_nothing_is_set_below_a_list_or_a_single_value() -> None:
    settings = Settings("run.yaml", {"ensemble": [{"weight": 1}], "seed": 3})
    with pytest.raises(ConfigError, match="ensemble is a list, which is set as a whole"):
        settings.override(["ensemble.0.weight=2"])
    with pytest.raises(ConfigError, match="seed is a single value"):
        settings.override(["seed.x=2"])
