from __future__ import annotations

import re
from pathlib import Path

import pytest

from fspo.errors import ConfigError
from fspo.methods.table import USUAL
from fspo.runs.config import RunConfig, load_config, methods_of
from tests.synthesis.helpers import write_domain

ROOT = Path(__file__).parents[2]


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_config_of_the_project_loads_and_is_named_after_its_file(path: Path) -> None:
    config = load_config(path)
    assert config.name == path.stem
    assert config.output == Path("runs") / path.stem
    left_out = {
        "reviews-rat": {"ipo"},
        "demo": {"pref-ft"},
        "written": {"pref-ft", "ipo", "oracle"},
        "compare": {"pref-ft"},
        "compare-readers": set(USUAL) - {"few-shot"},
    }
    assert set(USUAL) - set(config.methods) == left_out.get(path.stem, set())
    for row in methods_of(config):
        if row.trains:
            assert config.training[row.name].seed == config.seed


def test_the_defaults_are_a_whole_configuration() -> None:
    config = load_config(None)
    assert config.model == "smollm2-135m"
    assert config.output == Path("runs/run")


def test_the_resolved_configuration_loads_to_the_same(tmp_path: Path) -> None:
    import yaml

    config = load_config(ROOT / "configs" / "tiny.yaml", ["seed=7"])
    again = load_config(written(tmp_path, yaml.safe_dump(config.resolved())))
    assert again == config


def test_the_seed_of_the_run_is_the_seed_of_its_stages(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, "seed: 3\nevaluation: {seed: 9}\ntraining:\n  fspo: {seed: 5}\n"))
    assert (config.synthesis.seed, config.evaluation.seed) == (3, 9)
    assert (config.training["fspo"].seed, config.training["ipo"].seed) == (5, 3)


def test_a_seed_set_for_a_written_configuration_reaches_every_stage(tmp_path: Path) -> None:
    import yaml

    config = load_config(None, ["seed=3", "evaluation.seed=9"])
    path = written(tmp_path, yaml.safe_dump(config.written()))
    assert load_config(path) == config
    again = load_config(path, ["seed=1"])
    assert (again.seed, again.synthesis.seed, again.evaluation.seed) == (1, 1, 9)


def test_only_the_methods_of_the_run_must_hold_together(tmp_path: Path) -> None:
    text = "training:\n  all: {mirror: true}\nfrom_base: [fspo]\n"
    assert load_config(written(tmp_path, text + "methods: [base, fspo]\n")).methods == ("base", "fspo")


def test_a_key_in_an_address_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="key_variable") as caught:
        load_config(written(tmp_path, "endpoint: {base_url: 'http://me:secret@host/v1', model: m}\n"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "assignment",
    [
        "endpoint.base_url=http://me:secret@host/v1",
        "endpoint.base_url=me:secret@host/v1",
        "endpoint.api_key=secret",
        "endpoint.key_variable=sk-secret",
        "endpoint={base_url: secret",
        "endpoint.base_url.key=secret",
    ],
)
def test_a_key_on_the_command_line_is_refused_and_not_repeated(assignment: str) -> None:
    with pytest.raises(ConfigError, match="--set endpoint") as caught:
        load_config(None, ["endpoint.model=m", "endpoint.base_url=http://host/v1", assignment])
    assert "secret" not in str(caught.value)


def test_precedence_defaults_file_overrides_options(tmp_path: Path) -> None:
    path = written(tmp_path, "name: a\noutput: from-file\ntraining:\n  all: {steps: 5, shots: 3}\n  fspo: {steps: 6}\n")
    assert load_config(path).output == Path("from-file")
    assert load_config(path, ["output=from-set"]).output == Path("from-set")
    assert load_config(path, ["output=from-set"], tmp_path / "option").output == tmp_path / "option"
    training = load_config(path).training
    assert list(training) == ["pref-ft", "ipo", "fspo"]  # all that the run trains, each after the one it starts from
    assert {name: (each.steps, each.shots, each.seed) for name, each in training.items()} == {
        "pref-ft": (5, 3, 0),
        "ipo": (5, 3, 0),
        "fspo": (6, 3, 0),
    }
    assert load_config(path, ["training.fspo.steps=7"]).training["fspo"].steps == 7
    assert {each.steps for each in load_config(path, ["training.all.steps=8"]).training.values()} == {8}


def test_a_later_override_for_all_methods_replaces_what_the_file_has_for_one(tmp_path: Path) -> None:
    path = written(tmp_path, "training:\n  ipo: {lora: null}\n  fspo: {steps: 6, lora: {r: 4, dropout: 0.1}}\n")
    steps = ["training.fspo.steps=3", "training.all.steps=8"]
    assert load_config(path, steps).training["fspo"].steps == 8
    assert load_config(path, reversed(steps)).training["fspo"].steps == 3
    training = load_config(path, ["training.all.lora.r=2", "training.fspo.lora.alpha=1"]).training
    assert {
        name: each.lora and (each.lora.r, each.lora.alpha, each.lora.dropout) for name, each in training.items()
    } == {
        "pref-ft": (2, 32, 0),
        "ipo": None,
        "fspo": (2, 1, 0.1),
    }
    shared = load_config(path, ["training.all.lora={r: 2}", "training.fspo.lora.r=3"]).training
    assert {name: each.lora and each.lora.r for name, each in shared.items()} == {"pref-ft": 2, "ipo": 2, "fspo": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: x\n", r"run\.yaml, line 1: there is no setting 'modle'; did you mean 'model'\?"),
        (
            "evaluation:\n  shots: 2\n  querys: 3\n",
            r"line 3: .*'evaluation\.querys'; did you mean 'evaluation\.queries'\?",
        ),
        ("evaluation:\n  floors:\n    fluencie: 1\n", r"line 3: there is no setting 'evaluation\.floors\.fluencie'; "),
        ("synthesis:\n  question: 3\n", r"'synthesis\.question'; did you mean 'synthesis\.questions'\?"),
        ("synthesis:\n  titles: 3\n", r"line 2: 'synthesis\.titles' is gone; write synthesis\.works; "),
        (
            "synthesis:\n  seed: 1\n  samples: 3\n",
            r"line 3: .*samples' is gone; write .*\.restyling\.samples",
        ),
        ("synthesis: {recipe: paper}\n", r"'synthesis\.recipe' is gone; write synthesis\.domain: reviews-restyled"),
        (
            "synthesis:\n  restyling: {long_word: 3}\n",
            r"line 2: .*'synthesis\.restyling\.long_word'; did you mean 'synthesis\.restyling\.long_words'\?",
        ),
        ("training:\n  fspo:\n    learning_rat: 1\n", r"line 3: .*; did you mean 'training\.fspo\.learning_rate'\?"),
        ("training:\n  fspo:\n    lora: {rank: 2}\n", r"line 3: there is no setting 'training\.fspo\.lora\.rank'"),
        ("training:\n  fsop: {steps: 1}\n", r"line 2: there is no method 'fsop'; did you mean 'fspo'\?"),
        ("methods: [base, oracel]\n", r"line 1: there is no method 'oracel'; did you mean 'oracle'\?"),
        ("methods: [base, base]\n", "a method is named twice"),
        ("methods: []\n", "no method is named"),
        ("from_base: [fspoo]\n", r"did you mean 'fspo'\?"),
        ("training:\n  few-shot: {steps: 1}\n", "line 2: the method 'few-shot' trains nothing"),
        ("seed: many\n", r"line 1: 'seed': must be a whole number, not 'many'"),
        ("seed: -1\n", "'seed': input should be greater than or equal to 0, not -1"),
        ("seed: 4294967296\n", "line 1: 'seed': input should be less than or equal to 4294967295, not 4294967296"),
        ("evaluation: 3\n", "line 1: 'evaluation'"),
        ("training: {fspo: 3}\n", r"line 1: 'training\.fspo' takes settings by name, such as training\.fspo\.steps"),
        ("training:\n  steps: 5\n", r"line 2: .* write training\.all\.steps .* or training\.METHOD\.steps for one"),
        ("training:\n  lora: {r: 2}\n", r"line 2: .* write training\.all\.lora to set it for all methods"),
        ("training:\n  learning_rat: 1\n", r"line 2: .* write training\.all\.learning_rate to set it"),
        ("steps: 5\n", r"line 1: 'steps' belongs in a section; write training\.all\.steps\.$"),
        ("shots: 5\n", r"write training\.all\.shots or evaluation\.shots"),
        ("training:\n  fspo:\n    lora: {r: few}\n", r"line 3: 'training\.fspo\.lora\.r'"),
        ("training:\n  fspo:\n    steps: 0\n", r"line 3: 'training\.fspo\.steps': input should be greater"),
        ("training:\n  fspo:\n    shots: 0\n", "line 2: .*without shots there are no labels to swap"),
        ("training:\n  all:\n    shots: 2\n    ladder: [4]\n", "line 2: .*highest rung is 4"),
        ("training:\n  all: {mirror: true}\n", "line 2: 'ipo' shows the model no shots"),
        ("training:\n  all:\n    steps: 0\n  fspo:\n    shots: 3\n", r"line 3: 'training\.all\.steps': input should"),
        ("methods: [fspo]\ntraining:\n  ipo:\n    stps: 0\n", r"line 4: .*'training\.ipo\.stps'; did you mean"),
        ("methods: [base]\ntraining:\n  all:\n    stps: 0\n", r"line 4: .*'training\.all\.stps'; did you mean"),
        ("name: a/b\n", "'name'"),
        (
            "synthesis:\n  seed: 1\n  attributes: [sentimnt, length]\n",
            r"line 3: 'synthesis\.attributes': there is no attribute 'sentimnt'; did you mean 'sentiment'\?$",
        ),
        ("synthesis: {attributes: [length, length]}\n", r"line 1: .*'length' is listed twice; list it once\.$"),
        (
            "evaluation:\n  learning_rate: 1\n",
            r"line 2: .*'evaluation\.learning_rate'; write training\.all\.learning_rate\.",
        ),
        ("training: {all: {answers: 2}}\n", r"'training\.all\.answers'; write evaluation\.answers\."),
        ("methods: [fspo]\ntraining: {fspo: {model: m}}\n", r"'training\.fspo\.model'; write model at the top\."),
        ("evaluation: {tax: {steps: 2}}\n", r"'evaluation\.tax\.steps'; (did you mean|the known)"),
        ("zzz: 1\n", "there is no setting 'zzz'; the known ones are name, seed,"),
        ("modle: x\nseed: many\n", r"no setting 'modle' \(1 more after it\)"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(written(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value).lower()


@pytest.mark.parametrize(
    ("own", "place"), [("", "domain.yaml, settings: 'synthesis.pairs'"), (", pairs: few", "run.yaml, line 1: ")]
)
def test_a_wrong_setting_of_a_domain_is_told_by_its_file(own: str, place: str, tmp_path: Path) -> None:
    folder = write_domain(tmp_path / "mine", domain="{about: Talk., licence: ours, settings: {pairs: many}}")
    with pytest.raises(ConfigError, match=re.escape(place)):
        load_config(written(tmp_path, f"synthesis: {{domain: {folder}{own}}}"))


def test_a_bad_override_is_told_as_an_override() -> None:
    with pytest.raises(ConfigError, match=r"--set evaluation\.shotz=2: there is no setting .*'evaluation\.shots'\?"):
        load_config(None, ["evaluation.shotz=2"])


def test_settings_may_need_another_section_to_hold_together(tmp_path: Path) -> None:
    path = written(tmp_path, "training:\n  all: {shots: 8}\n  fspo: {ladder: [1, 8]}\n")
    assert load_config(path).training["fspo"].ladder == [1, 8]


def test_a_configuration_never_changes() -> None:
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().seed = 3  # type: ignore[misc]


def test_reward_models_are_configured_and_their_faults_told(tmp_path: Path) -> None:
    plain, asked = "{name: plain, model: somebody/reward-model}", "{name: asked, endpoint: {base_url: %s, model: m}}"
    text = f"evaluation:\n  reward_models:\n    - {plain}\n    - {asked}\n"
    found = load_config(written(tmp_path, text % "http://127.0.0.1:8000/v1")).evaluation.reward_models
    assert [entry.name for entry in found] == ["plain", "asked"]
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, text % "http://me:secret@host/v1"))
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"did you mean 'evaluation\.reward_models\.0\.model'"):
        load_config(written(tmp_path, "evaluation: {reward_models: [{name: x, modle: y}]}"))


def test_the_layout_of_the_run_is_that_of_training_and_evaluation(tmp_path: Path) -> None:
    import yaml

    config = load_config(written(tmp_path, "layout: labelled\n"))
    assert config.evaluation.layout == "labelled"
    assert {training.layout for training in config.training.values()} == {"labelled"}
    again = load_config(written(tmp_path, yaml.safe_dump(config.written())), ["layout=conversation"])
    assert again.evaluation.layout == "conversation"
    with pytest.raises(ConfigError, match=r"layout.*table"):
        load_config(written(tmp_path, "layout: table\n"))


@pytest.mark.parametrize("text", ["training:\n  fspo: {layout: labelled}\n", "evaluation: {layout: labelled}\n"])
def test_no_stage_has_another_layout_than_its_run(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="set layout at the top"):
        load_config(written(tmp_path, text))
