"""What a verb needs is checked before it removes or writes anything."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.errors import ConfigError, ModelError
from fspo.modeling.loading import load_tokenizer
from fspo.runs.api import synthesize
from fspo.runs.config import RunConfig, load_config
from fspo.runs.existing import Existing
from fspo.runs.folder import DATA, RunFolder
from fspo.runs.preflight import check_inputs
from tests.conftest import draw_nothing
from tests.tiny_model import build_tiny_model

KEY = "right-key"


def fspo(*arguments: object, code: int = 0) -> str:
    """Run the program here; its output and its error, on one line."""
    result = CliRunner().invoke(app, [*map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    return " ".join((result.stdout + result.stderr).split())


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


class _Server(BaseHTTPRequestHandler):
    """An endpoint that wants a key and knows one model."""

    protocol_version = "HTTP/1.1"
    lists = True
    """Whether it gives a list of its models."""
    asked = 0
    """Requests for answers."""

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            self._reply(401, {"error": {"message": "wrong key"}})
        elif type(self).lists and self.path == "/v1/models":
            self._reply(200, {"data": [{"id": "known"}]})
        else:
            self._reply(404, {"error": {"message": "nothing here"}})

    def do_POST(self) -> None:
        type(self).asked += 1
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            self._reply(401, {"error": {"message": "wrong key"}})
        elif asked["model"] != "known":
            self._reply(404, {"error": {"message": f"no model {asked['model']}", "code": "model_not_found"}})
        else:
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Yes."}}
            self._reply(200, {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def server(*, lists: bool = True) -> Iterator[str]:
    _Server.lists, _Server.asked = lists, 0
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as held:
        thread = threading.Thread(target=held.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{held.server_address[1]}/v1"
        finally:
            held.shutdown()
            thread.join()


def endpoint(address: str, model: str = "known", **more: str) -> str:
    fields = {"base_url": address, "model": model, "retries": "0", **more}
    return (
        "{"
        + ", ".join(f"{name}: '{value}'" if name != "retries" else "retries: 0" for name, value in fields.items())
        + "}"
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a dataset of one's own, beside its model and its dataset; not to be changed."""
    base = tmp_path_factory.mktemp("made")
    build_tiny_model(base / "model")
    rows = [
        {
            "user": f"u{user}",
            "prompt": f"What of {q}?",
            "chosen": f"{q} is fine.",
            "rejected": f"{q} is not for {user}.",
        }
        for user in range(6)
        for q in range(10)
    ]
    (base / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fspo("data", "import", base / "rows.jsonl", base / "set")
    fspo("data", "split", base / "set", "--test-users", 0.34, "--test-questions", 0.3)
    settings = {
        "name": "small",
        "model": str(base / "model"),
        "data": str(base / "set"),
        "methods": ["base", "few-shot", "fspo"],
        "training": {"all": {"shots": 1, "queries": 1, "users_per_step": 1, "steps": 1, "lora": {"r": 2, "alpha": 2}}},
        "evaluation": {"shots": 1, "ladder": [0, 1], "queries": 1, "users": 2, "answers": 0},
    }
    (base / "run.yaml").write_text(json.dumps(settings))
    with pytest.MonkeyPatch.context() as patch:
        draw_nothing(patch)
        fspo("run", "--config", base / "run.yaml", "--output", base / "run")
    return base


@pytest.fixture
def there(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    settings = (copy / "run.yaml").read_text().replace(str(made), str(copy))
    (copy / "run.yaml").write_text(settings)
    noted = copy / "run/settings.json"
    noted.write_text(noted.read_text().replace(str(made), str(copy)))
    return copy


def no_model(there: Path) -> None:
    shutil.rmtree(there / "model")


def no_weights(there: Path) -> None:
    (there / "model/model.safetensors").unlink()


def no_template(there: Path) -> None:
    tokenizer = load_tokenizer(there / "model")
    tokenizer.chat_template = None
    shutil.rmtree(there / "model/chat_template.jinja", ignore_errors=True)
    for file in (there / "model").glob("chat_template*"):
        file.unlink()
    tokenizer.save_pretrained(str(there / "model"))


def another_architecture(there: Path) -> None:
    path = there / "model/config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "unheard-of"}))


def damaged_rows(there: Path) -> None:
    path = there / "set/preferences.parquet"
    path.write_bytes(path.read_bytes()[:-50])


def damaged_own_rows(there: Path) -> None:
    path = there / "run/data/preferences.parquet"
    path.write_bytes(path.read_bytes()[:-50])


def no_start(there: Path) -> None:
    shutil.rmtree(there / "run/methods/pref-ft")


def no_policy(there: Path) -> None:
    shutil.rmtree(there / "run/methods/fspo")


def no_data_of_the_run(there: Path) -> None:
    shutil.rmtree(there / "run/data")


def no_splits_of_the_run(there: Path) -> None:
    (there / "run/data/splits.json").unlink()


def damaged_answers(there: Path) -> None:
    (there / "run/answers-some-model.sqlite").write_text("no database")


def nothing(there: Path) -> None:
    """All is there."""


NOBODY = endpoint("http://127.0.0.1:9/v1")
ONE_METHOD = ("--method", "fspo")


@pytest.mark.parametrize(
    ("verb", "damage", "more"),
    [
        ("run", no_model, ()),
        ("train", no_model, ()),
        ("eval", no_model, ()),
        ("train", no_weights, ()),
        ("eval", no_template, ()),
        ("run", another_architecture, ()),
        ("run", damaged_rows, ()),
        ("synth", damaged_rows, ()),
        ("train", damaged_own_rows, ()),
        ("eval", damaged_own_rows, ()),
        ("train", no_start, ONE_METHOD),
        ("eval", no_policy, ()),
        ("eval", no_data_of_the_run, ()),
        ("eval", no_splits_of_the_run, ()),
        ("run", damaged_answers, ()),
        ("train", damaged_answers, ()),
        ("train", nothing, ("--set", "training.all.shots=50")),
        ("eval", nothing, ("--set", "evaluation.queries=50")),
        ("eval", nothing, ("--set", "evaluation.reward_models=[{name: other, model: ./nowhere}]")),
        ("eval", nothing, ("--set", f"evaluation.reward_models=[{{name: other, endpoint: {NOBODY}}}]")),
        (
            "run",
            nothing,
            ("--set", f"evaluation.judges=[{{name: far, endpoint: {NOBODY}}}]", "--set", "evaluation.answers=1"),
        ),
    ],
)
def test_nothing_is_removed_where_something_is_missing(
    there: Path, verb: str, damage: Callable[[Path], None], more: tuple[str, ...]
) -> None:
    damage(there)
    before = contents(there)
    line = [verb, "--config", there / "run.yaml", "--output", there / "run", "--on-existing", "overwrite", *more]
    line += [] if verb == "eval" else ["--yes"]  # so that only what is missing can be in the way
    result = CliRunner().invoke(app, [*map(str, line)])
    assert result.exit_code in (1, 2), result.output
    assert result.stderr.startswith("Error: ")
    assert contents(there) == before


@pytest.mark.parametrize("verb", ["run", "synth"])
def test_a_run_does_not_remove_the_data_that_it_reads(there: Path, verb: str) -> None:
    before = contents(there / "run")
    line = ["--config", there / "run.yaml", "--output", there / "run", "--set", f"data={there / 'run/data'}"]
    assert "is to be read" in fspo(verb, *line, "--on-existing", "overwrite", code=2)
    assert contents(there / "run") == before


def test_a_benchmark_that_cannot_be_measured_removes_nothing(there: Path) -> None:
    line = ["eval", "--config", there / "run.yaml", "--output", there / "run", "--benchmark", "prism"]
    done = there / "run/benchmarks/prism"
    fspo(*line, "--data", published(there))
    before = contents(done)
    assert "comparison.json" in before
    for source, code in (("run/data", 1), ("run/benchmarks/prism", 2), ("nowhere", 1)):
        fspo(*line, "--on-existing", "overwrite", "--data", there / source, code=code)
        assert contents(done) == before, source


def published(there: Path) -> Path:
    """People who never occur in the run, as a dataset."""
    rows = [
        {"user": f"other{user}", "prompt": f"And {q}?", "chosen": f"{q}, yes.", "rejected": f"{q}, no, {user}."}
        for user in range(4)
        for q in range(10)
    ]
    (there / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fspo("data", "import", there / "other.jsonl", there / "other")
    return there / "other"


def test_what_is_there_is_overwritten(there: Path) -> None:
    fspo("eval", "--config", there / "run.yaml", "--output", there / "run", "--on-existing", "overwrite")
    assert (there / "run/metrics.json").is_file()


def test_what_depends_on_a_policy_is_not_removed_without_consent(there: Path) -> None:
    line = ["train", "--config", there / "run.yaml", "--output", there / "run", *ONE_METHOD]
    line += ["--on-existing", "overwrite"]
    before = contents(there)
    assert "evaluation: removed" in fspo(*line, "--dry-run")
    said = fspo(*line, code=2)
    assert all(name in said for name in ("evaluation", "metrics.json", "report.html", "--yes"))
    assert contents(there) == before
    fspo(*line, "--yes")
    assert (there / "run/methods/fspo/policy.json").exists()
    assert not (there / "run/evaluation").exists() and not (there / "run/report.html").exists()


def synthetic(output: Path, address: str, **more: Any) -> RunFolder:
    """A run that asks an endpoint for its data, and whose folder holds some."""
    asked = {"base_url": address, "model": "known", "key_variable": "PREFLIGHT_KEY", "retries": 0, **more}
    synthesis = {"domain": "elix-easy", "questions": 12}
    folder = RunFolder(RunConfig.model_validate({"output": output, "endpoint": asked, "synthesis": synthesis}))
    if folder.is_new:
        with folder.opened([DATA], Existing.RESUME):
            folder.data.mkdir()
            (folder.data / "checks.json").write_text("weeks of labels")
    return folder


@pytest.mark.parametrize("wrong", ["away", "no key", "another key", "another model"])
def test_data_stay_where_the_endpoint_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    key = {"no key": "", "another key": "another"}.get(wrong, KEY)
    monkeypatch.setenv("PREFLIGHT_KEY", key)
    with server() as address:
        folder = synthetic(tmp_path / "run", address)
        before = contents(folder.path)
        line = ["synth", folder.path, "--on-existing", "overwrite"]
        line += ["--set", "endpoint.base_url=http://127.0.0.1:9/v1"] if wrong == "away" else []
        line += ["--set", "endpoint.model=unknown"] if wrong == "another model" else []
        said = fspo(*line, code=1 if wrong == "away" else 2)
    assert said.startswith("Error: ")
    assert contents(folder.path) == before


def test_data_stay_where_python_asks_an_endpoint_that_is_away(tmp_path: Path) -> None:
    folder = synthetic(tmp_path / "run", "http://127.0.0.1:9/v1", key_variable=None)
    before = contents(folder.path)
    with pytest.raises(ModelError, match="can't be reached"):
        synthesize(folder.config, on_existing="overwrite")
    assert contents(folder.path) == before


@pytest.mark.parametrize("lists", [True, False])
def test_an_endpoint_that_answers_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lists: bool) -> None:
    monkeypatch.setenv("PREFLIGHT_KEY", KEY)
    with server(lists=lists) as address:
        folder = synthetic(tmp_path / "run", address)
        assert check_inputs(folder, [DATA], Existing.OVERWRITE) == []
        assert _Server.asked == (0 if lists else 1)
        new = RunFolder(folder.config.model_copy(update={"output": tmp_path / "new"}))
        assert check_inputs(new, [DATA], Existing.RESUME) == []
        assert _Server.asked == (0 if lists else 1)
    assert check_inputs(folder, [DATA], Existing.RESUME) == []  # nothing would be lost, so nobody is asked


def test_a_new_folder_is_not_made_for_an_endpoint_that_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("seed: 0\n")
    line = ["--config", tmp_path / "run.yaml", "--output", tmp_path / "run"]
    line += ["--set", "synthesis={domain: elix-easy, questions: 12}", "--set", f"endpoint={NOBODY}"]
    for verb in ("synth", "run"):
        assert "127.0.0.1:9" in fspo(verb, *line, code=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.yaml"]


@pytest.mark.parametrize("verb", ["run", "synth", "train", "eval"])
@pytest.mark.parametrize("others", ["notes.txt", "photos/1.jpg", ".profile"])
def test_no_run_is_made_in_a_folder_of_something_else(
    there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, others: str
) -> None:
    own = tmp_path / "mine" / others
    own.parent.mkdir(parents=True)
    own.write_text("mine")
    monkeypatch.chdir(tmp_path / "mine")
    for output in (".", tmp_path / "mine"):
        said = fspo(verb, "--config", there / "run.yaml", "--output", output, code=2)
        assert "was not made by a run that is known here; name another folder" in said
    assert contents(tmp_path / "mine") == {others: b"mine"}


def test_a_run_may_be_made_in_an_empty_folder(there: Path, tmp_path: Path) -> None:
    (tmp_path / "empty/data").mkdir(parents=True)
    (tmp_path / "empty/.settings.json.0.tmp").write_text("{")  # of a call that was killed
    fspo("synth", "--config", there / "run.yaml", "--output", tmp_path / "empty")
    assert (tmp_path / "empty/data/preferences.parquet").is_file()


def test_a_run_of_another_name_is_not_overwritten(there: Path) -> None:
    before = contents(there / "run")
    line = ["--config", there / "run.yaml", "--set", "name=other", "--output", there / "run"]
    for verb in ("run", "synth", "train", "eval"):
        for dry in ([], ["--dry-run"]):
            said = fspo(verb, *line, "--on-existing", "overwrite", *dry, code=2)
            assert "holds the run 'small', and this is the run 'other', so nothing is overwritten" in said
    assert contents(there / "run") == before
    fspo("synth", *line)  # the same settings go on, whatever they are called


def test_data_of_another_domain_are_not_overwritten(tmp_path: Path) -> None:
    folder = synthetic(tmp_path / "run", "http://127.0.0.1:9/v1")
    before = contents(folder.path)
    said = fspo("synth", folder.path, "--set", "synthesis.domain=roleplay", "--on-existing", "overwrite", code=2)
    assert "was made on the domain elix-easy, and this run is on the domain roleplay" in said
    assert contents(folder.path) == before


def test_a_dry_run_misses_a_model_folder(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(there)
    line = ["--config", there / "run.yaml", "--output", there / "new", "--dry-run"]
    for name in ("./nowhere", "set/nowhere", str(there / "nowhere")):
        assert "nowhere" in fspo("run", *line, "--set", f"model={name}", code=1)
    close = fspo("run", *line, "--set", "model=smollm2-135", code=1)
    assert "no model smollm2-135 here" in close and "Did you mean smollm2-135m?" in close
    said = fspo("run", *line, "--set", "model=somebody/else")
    assert "somebody/else is not on this machine" in said


def test_a_setting_of_training_without_effect_is_refused_before_anything_is_made(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    settings = [f"model={tiny_model_path}", "methods=[base,ipo]", "training.all.bias_weight=0.3"]
    folder = RunFolder(load_config(None, settings, tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"training\.all\.bias_weight"):
        check_inputs(folder, folder.parts(), Existing.RESUME, dry=True)
    assert not folder.path.exists()
    check_inputs(folder, [DATA], Existing.RESUME, dry=True)  # without training it is of no matter


def test_a_tracker_that_does_not_exist_is_named_by_its_line_before_anything_is_made(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(f"model: {tiny_model_path}\nmethods: [base, ipo]\ntraining:\n  all: {{report_to: tensorbord}}\n")
    folder = RunFolder(load_config(path, output=tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"my\.yaml, line 4: training\.all\.report_to: .*'tensorboard'"):
        check_inputs(folder, folder.parts(), Existing.RESUME)
    assert not folder.path.exists()
