"""What goes wrong for people: one clear sentence, and nothing finished is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT, run, tiny

pytestmark = pytest.mark.timeout(900)


def said(error: str) -> str:
    """The one line of an error."""
    assert error.startswith("Error: ")
    assert error.count("\n") == 1, error
    return error


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: x\n", "line 1: there is no setting 'modle'; did you mean 'model'?"),
        (
            "evaluation:\n  shotz: 2\n",
            "line 2: there is no setting 'evaluation.shotz'; did you mean",
        ),
        ("seed: [\n", "is not valid YAML"),
    ],
)
def test_a_wrong_configuration(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert message in said(run("run", path, "--dry-run", code=2).stderr)


def test_a_missing_configuration(tmp_path: Path) -> None:
    assert "There is no configuration file" in said(run("run", tmp_path / "no.yaml", code=2).stderr)


def test_a_model_that_no_hub_gives(tmp_path: Path) -> None:
    error = said(run("synth", *tiny(Path("nobody/nothing"), tmp_path / "run"), code=1).stderr)
    assert "nobody/nothing" in error
    assert "smollm2-135m" in error
    assert "does not exist" in said(run("synth", *tiny(tmp_path / "no", tmp_path / "run2"), code=1).stderr)


def ratings(path: Path, *, users: int = 6, questions: int = 10, short: int = 10) -> Path:
    """Preferences of users who like short or long answers; the last user has only `short` of them."""
    with path.open("w") as handle:
        for user in range(users):
            for question in range(questions if user < users - 1 else short):
                pair = [
                    f"The music of {question} is great.",
                    f"The plot of {question} is dull, and the cast too.",
                ]
                row = {"user": f"u{user}", "prompt": f"What of {question}?"}
                handle.write(json.dumps(row | {"chosen": pair[user % 2], "rejected": pair[1 - user % 2]}) + "\n")
    return path


def imported(folder: Path, **data: int) -> Path:
    """A dataset of one's own with its splits, in `folder`."""
    run("data", "import", ratings(folder / "ratings.jsonl", **data), folder / "data")
    run("data", "split", folder / "data", "--test-users", "0.34", "--test-questions", "0.4")
    return folder / "data"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of one's own that tests must not change."""
    return imported(tmp_path_factory.mktemp("mine"))


def options(tmp_path: Path, model: Path, data: Path) -> list[object]:
    """The options of a run on one's own data."""
    path = tmp_path / "own.yaml"
    path.write_text(
        f"name: own\noutput: {tmp_path / 'run'}\nmodel: {model}\ndata: {data}\n"
        "methods: [base, few-shot, ipo, fspo]\nfrom_base: [fspo]\n"
        "training:\n  all: {shots: 2, queries: 2, steps: 2, users_per_step: 1, lora: {r: 2}}\n"
        "evaluation: {shots: 2, queries: 2, ladder: [0, 2], max_new_tokens: 4}\n"
    )
    return ["--config", path]


def test_a_run_on_data_of_ones_own(dataset: Path, tmp_path: Path, tiny_model_path: Path) -> None:
    arguments = options(tmp_path, tiny_model_path, dataset)
    text = run("run", *arguments, undrawn=True).stdout
    assert "win rates and the ideal observer are left out" in " ".join(text.split())
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert list(metrics) == ["base", "few-shot", "ipo", "fspo"]
    assert "win_rate" not in metrics["fspo"]
    assert "reward_accuracy" in metrics["fspo"]


def test_an_evaluation_takes_over_ones_own_data(dataset: Path, tmp_path: Path, tiny_model_path: Path) -> None:
    arguments = [*options(tmp_path, tiny_model_path, dataset), "--set", "methods=[base, few-shot]"]
    missing = "evaluation.reward_models=[{name: mine, scorer: 'nowhere:mine'}]"
    error = said(run("eval", *arguments, "--set", missing, "--dry-run", code=2).stderr)
    assert "The scorer 'nowhere:mine' of the reward model 'mine' can't be imported" in error
    assert "data: to do" in run("eval", *arguments, "--dry-run").stdout
    run("eval", *arguments)
    assert "reward_accuracy" in json.loads((tmp_path / "run/metrics.json").read_text())["few-shot"]
    run("run", *arguments, undrawn=True)  # takes the folder for its own


def test_a_user_with_too_few_preferences(tmp_path: Path, tiny_model_path: Path) -> None:
    arguments = options(tmp_path, tiny_model_path, imported(tmp_path, short=1))
    for verb, *more in (["run", "--dry-run"], ["run"], ["synth"], ["train"]):
        error = run(verb, *arguments, *more, code=int(verb != "synth")).stderr
        if verb == "synth":  # which takes the data over, and trains nothing
            continue
        error = said(error)
        assert "User 'u5'" in error
        assert "needs 4" in error
        assert ".shots" in error
        assert (tmp_path / "run").exists() == (verb == "train")
    assert not (tmp_path / "run/methods").exists()


def test_data_that_changed_since_the_run_began_are_refused(
    dataset: Path, tmp_path: Path, tiny_model_path: Path
) -> None:
    data = Path(shutil.copytree(dataset, tmp_path / "data"))
    arguments = options(tmp_path, tiny_model_path, data)
    run("synth", *arguments)
    run("synth", *arguments)
    run("data", "split", data, "--test-users", "0.5", "--seed", "3", "--overwrite")
    for more in ([], ["--dry-run"]):
        error = said(run("synth", *arguments, *more, code=2).stderr)
        assert "have changed since" in error
        assert "--on-existing overwrite" in error
    run("synth", *arguments, "--on-existing", "overwrite")


def test_settings_that_changed_are_refused(finished: Path, speaking_model_path: Path) -> None:
    error = said(run("run", *tiny(speaking_model_path, finished), "--set", "training.all.steps=5", code=2).stderr)
    assert "steps = 4, and now" in error
    assert "--on-existing overwrite" in error
    error = said(run("run", *tiny(speaking_model_path, finished), "--on-existing", "fail", code=2).stderr)
    assert "holds results of an earlier call" in error


def test_a_context_too_short_for_all_shots_drops_whole_ones_and_says_so(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    overwrite = ["--on-existing", "overwrite"]
    run("eval", copy, *overwrite, "--set", "evaluation.max_length=120", "--set", "evaluation.answers=0")
    details = json.loads((copy / "evaluation/details.json").read_text())
    assert details["dropped_shots"]["few-shot"] > 0
    run("report", copy, undrawn=True)
    assert "left out because the context was too long" in (copy / "report.html").read_text()
    before = (copy / "evaluation/details.json").read_bytes()
    error = said(run("eval", copy, *overwrite, "--set", "evaluation.max_length=40", code=1).stderr)
    assert all(place in error for place in ("row ", "user ", "40"))
    assert (copy / "evaluation/details.json").read_bytes() == before


def test_a_damaged_dataset(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(finished, copy)
    path = copy / "data/preferences.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    assert "preferences.parquet" in said(run("eval", copy, code=1).stderr)


def test_configs_name_no_machine() -> None:
    for path in (ROOT / "configs").glob("*.yaml"):
        assert "/tmp" not in path.read_text()
