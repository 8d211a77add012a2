from __future__ import annotations

import errno
import json
import multiprocessing
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError, StorageError
from fspo.llm.cache import RequestCache
from fspo.llm.types import Completion
from fspo.methods.table import METHODS
from fspo.runs.config import RunConfig, load_config
from fspo.runs.descriptions import DESCRIPTIONS_FILE, DescriptionBook
from fspo.runs.existing import Existing
from fspo.runs.folder import DATA, EVALUATION, RunFolder, benchmark_part, method_part, methods_of
from tests.synthesis.helpers import write_domain


def folder(tmp_path: Path, **values: object) -> RunFolder:
    return RunFolder(RunConfig.model_validate({"output": tmp_path / "run", **values}))


RESULTS = {
    "data": ("checks.json", "people.json"),
    "methods": ("training.json", "metrics.jsonl"),
    "evaluation": ("details.json", "items.jsonl"),
    "benchmarks": ("details.json", "items.jsonl"),
}


def result_of(part: str, number: int = 0) -> str:
    """The name of a file that a part holds."""
    return RESULTS[part.partition("/")[0]][number]


def make(run: RunFolder, *parts: str, policy: Existing = Existing.RESUME) -> None:
    """Open the folder for these parts, and leave something in each."""
    with run.opened(parts, policy):
        for part in parts:
            (run.path / part).mkdir(parents=True, exist_ok=True)
            (run.path / part / result_of(part)).write_text(part)


def keep(run: RunFolder, *parts: str) -> list[Path]:
    """Leave a file of an earlier call in each of these parts."""
    files = [run.path / part / result_of(part, 1) for part in parts]
    for file in files:
        file.write_text("kept")
    return files


def test_parts_come_in_the_order_they_are_made(tmp_path: Path) -> None:
    assert folder(tmp_path).parts() == [DATA, "methods/pref-ft", "methods/ipo", "methods/fspo", EVALUATION]
    assert folder(tmp_path, methods=["fspo"]).parts() == [DATA, "methods/pref-ft", "methods/fspo", EVALUATION]
    assert folder(tmp_path, methods=["fspo"], from_base=["fspo"]).parts() == [DATA, "methods/fspo", EVALUATION]
    assert [row.starts_from for row in methods_of(folder(tmp_path, methods=["fspo"], from_base=["fspo"]).config)] == [
        None
    ]


def test_what_was_asked_for_is_noted(tmp_path: Path) -> None:
    run = folder(tmp_path, seed=3)
    make(run, DATA)
    assert "seed: 3" in (run.path / "config.yaml").read_text()
    assert json.loads((run.path / "command.json").read_text())["command"][0] == "fspo"
    assert json.loads((run.path / "versions.json").read_text())["torch"]


def test_the_same_settings_go_on(tmp_path: Path) -> None:
    parts = (DATA, method_part("fspo"), EVALUATION)
    make(folder(tmp_path), *parts)
    files = keep(folder(tmp_path), *parts)
    make(folder(tmp_path), *parts)
    make(folder(tmp_path, name="renamed", methods=["base", "fspo"]), DATA, EVALUATION)
    assert [file.read_text() for file in files] == ["kept"] * 3


@pytest.mark.parametrize("name", [row.name for row in METHODS.values() if row.trains])
def test_every_training_goes_on(tmp_path: Path, name: str) -> None:
    run = folder(tmp_path, methods=["base", name])
    make(run, method_part(name))
    (file,) = keep(run, method_part(name))
    make(folder(tmp_path, methods=["base", name]), method_part(name))
    assert file.read_text() == "kept"


def test_each_part_keeps_the_versions_it_was_begun_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def noted() -> dict[str, object]:
        made = json.loads((tmp_path / "run/settings.json").read_text())
        return {part: settings.get("versions") for part, settings in made.items()}

    older, newer = {"torch": "2.13"}, {"torch": "2.14"}
    monkeypatch.setattr("fspo.runs.folder.versions", lambda: older)
    make(folder(tmp_path), DATA, method_part("ipo"))
    monkeypatch.setattr("fspo.runs.folder.versions", lambda: newer)
    make(folder(tmp_path), DATA, EVALUATION)
    assert noted() == {DATA: older, "methods/ipo": older, EVALUATION: newer}
    assert json.loads((tmp_path / "run/versions.json").read_text()) == newer
    make(folder(tmp_path), method_part("ipo"), policy=Existing.OVERWRITE)
    assert noted() == {DATA: older, "methods/ipo": newer, EVALUATION: newer}


def test_a_folder_that_notes_no_versions_by_part_goes_on(tmp_path: Path) -> None:
    make(folder(tmp_path), DATA)
    path = tmp_path / "run/settings.json"
    made = json.loads(path.read_text())
    del made[DATA]["versions"]  # as an earlier version noted it
    path.write_text(json.dumps(made))
    make(folder(tmp_path), DATA, EVALUATION)
    made = json.loads(path.read_text())
    assert "versions" not in made[DATA]
    assert made[EVALUATION]["versions"]["python"]


def test_a_setting_without_effect_may_come_and_go_and_no_other(tmp_path: Path) -> None:
    idle = {"all": {"target": 6.0, "bias_weight": 0.3}, "fspo": {"objective": "mirrored-contrast"}}
    moved = {"fspo": {"objective": "mirrored-contrast", "target": 6.0, "bias_weight": 0.3}}
    parts = (method_part("ipo"), method_part("fspo"))
    make(folder(tmp_path, training=idle), *parts)
    make(folder(tmp_path, training=moved), *parts)
    make(folder(tmp_path, training=idle), *parts)
    with pytest.raises(ConfigError, match=r"fspo was made with training\.fspo\.target = 6\.0"):
        make(folder(tmp_path, training={"fspo": {**moved["fspo"], "target": 3.0}}), *parts)
    with pytest.raises(ConfigError, match=r"ipo was made with training\.ipo\.beta = 0\.01"):
        make(folder(tmp_path, training={**moved, "ipo": {"beta": 0.1}}), *parts)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"seed": 1},
            r"data was made with synthesis\.seed = 0, and now synthesis\.seed = 1; choose on_existing=\"overwrite\"",
        ),
        ({"model": "other"}, 'data was made with model = "smollm2-135m", and now model = "other"'),
        ({"training": {"fspo": {"steps": 3}}}, r"fspo was made with training\.fspo\.steps = 100"),
        (
            {"evaluation": {"shots": 3}},
            r"evaluation was made with evaluation\.shots = 8, and now evaluation\.shots = 3",
        ),
        ({"from_base": ["fspo"]}, r'fspo was made with from = "pref-ft", and now from = "base"'),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path: Path, change: dict[str, object], message: str) -> None:
    make(folder(tmp_path), DATA, method_part("fspo"), EVALUATION)
    with pytest.raises(ConfigError, match=message):
        make(folder(tmp_path, **change), DATA, method_part("fspo"), EVALUATION)


PAPER = {"synthesis": {"domain": "elix-easy"}}


@pytest.mark.parametrize(
    ("part", "settings", "name", "other"),
    [
        (DATA, PAPER, "judge_max_tokens", 2000),
        (DATA, PAPER, "refinement", None),
        (DATA, {}, "margin", 0.9),
        (EVALUATION, {}, "queries", 3),
        (method_part("fspo"), {}, "warmup", 7),
    ],
)
def test_a_part_from_before_there_was_a_setting_goes_on(
    tmp_path: Path, part: str, settings: dict[str, Any], name: str, other: object
) -> None:
    run = folder(tmp_path, **settings)
    make(run, DATA, method_part("fspo"), EVALUATION, part)
    path = run.path / "settings.json"
    noted = json.loads(path.read_text())
    inner = {DATA: "synthesis", EVALUATION: "evaluation"}.get(part, "training")
    of_part = noted[part][inner]["fspo"] if inner == "training" else noted[part][inner]
    del of_part[name]
    path.write_text(json.dumps(noted))
    make(run, part)
    path.write_text(json.dumps(noted))
    section = {**settings.get(inner, {}), **({"fspo": {name: other}} if inner == "training" else {name: other})}
    with pytest.raises(ConfigError, match=rf"was made with [a-z.]*{name} = .*and now [a-z.]*{name} "):
        make(folder(tmp_path, **{**settings, inner: section}), part)


@pytest.mark.parametrize("part", [EVALUATION, benchmark_part("personalllm"), method_part("fspo")])
def test_a_part_from_before_there_were_layouts_had_labelled_shots(tmp_path: Path, part: str) -> None:
    run = folder(tmp_path, layout="labelled", evaluation={"layout": "labelled"})
    make(run, DATA, method_part("fspo"), EVALUATION, part)
    path = run.path / "settings.json"
    noted = json.loads(path.read_text())
    for of_part in (EVALUATION, part):
        section = noted[of_part].get("evaluation") or noted[of_part]["training"]["fspo"]
        section.pop("layout", None)
    path.write_text(json.dumps(noted))
    make(run, part)
    path.write_text(json.dumps(noted))
    with pytest.raises(ConfigError, match=r'layout = "labelled", and now .*layout = "conversation"'):
        make(folder(tmp_path), part)


@pytest.mark.parametrize("part", [EVALUATION, benchmark_part("personalllm")])
def test_other_settings_of_an_adaptation_are_refused_by_name(tmp_path: Path, part: str) -> None:
    def run(methods: list[str], **settings: object) -> RunFolder:
        return folder(tmp_path, methods=["base", *methods], adaptations=settings, seed=3)

    make(run(["ttt"]), part)
    make(run(["ttt", "asls"], asls={"steps": 7}), part)  # a method may join
    make(run(["ttt", "asls"], all={"seed": 3}, asls={"steps": 7}), part)
    with pytest.raises(ConfigError, match=r"was made with adaptations\.asls\.steps = 7, and now adapt.*steps = 8;"):
        make(run(["ttt", "asls"], asls={"steps": 8}), part)
    make(run(["ttt"]), part)  # and leave
    path = tmp_path / "run" / "settings.json"
    noted = json.loads(path.read_text())
    del noted[part]["adaptations"]  # as earlier versions noted it
    path.write_text(json.dumps(noted))
    make(run(["ttt"], ttt={"steps": 9}), part)


def test_settings_that_decide_nothing_may_change(tmp_path: Path) -> None:
    def run(rows: int, retries: int) -> RunFolder:
        endpoint = {"base_url": "http://127.0.0.1:1/v1", "model": "m", "retries": retries}
        return folder(tmp_path, training={"all": {"row_tokens": rows, "save_every": rows}}, endpoint=endpoint)

    make(run(100, 1), DATA, method_part("fspo"))
    files = keep(run(100, 1), DATA, method_part("fspo"))
    make(run(200, 2), DATA, method_part("fspo"))
    noted = json.loads((run(100, 1).path / "settings.json").read_text())
    noted["methods/fspo"]["training"]["fspo"]["row_tokens"] = 7  # as an earlier version noted it
    (run(100, 1).path / "settings.json").write_text(json.dumps(noted))
    make(run(200, 2), DATA, method_part("fspo"))
    assert [file.read_text() for file in files] == ["kept"] * 2


def test_other_writers_are_other_data_and_what_is_asked_ahead_is_not(tmp_path: Path) -> None:
    endpoint = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}

    def run(batch: int, *weights: float) -> RunFolder:
        members = [{"endpoint": endpoint, "weight": weight} for weight in weights]
        synthesis = {"domain": "roleplay", "batch": batch}
        return folder(tmp_path, endpoint=endpoint, synthesis=synthesis, ensemble=members)

    make(run(100, 1.0, 2.0), DATA)
    make(run(50, 1.0, 2.0), DATA)
    with pytest.raises(ConfigError, match="ensemble"):
        make(run(50, 1.0, 3.0), DATA)


@pytest.mark.parametrize("policy", [Existing.RESUME, Existing.OVERWRITE])
def test_a_folder_may_be_written_in_another_way(
    policy: Existing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_domain(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    for name in ("mine/", "./mine", str(tmp_path / "mine")):
        make(folder(tmp_path / "domain", synthesis={"domain": name}), DATA, policy=policy)
        make(folder(tmp_path / "data", data=name), DATA, policy=policy)
        model = folder(tmp_path / "model", model=name, ensemble=[{"model": name}])
        make(model, DATA, method_part("ipo"), EVALUATION, policy=policy)
    write_domain(tmp_path / "other" / "mine")
    with pytest.raises(ConfigError, match=r"other/mine"):
        make(folder(tmp_path / "domain", synthesis={"domain": "other/mine"}), DATA, policy=policy)


def test_a_stage_refuses_inputs_of_other_settings_and_names_the_verb(tmp_path: Path) -> None:
    make(folder(tmp_path), DATA)
    with pytest.raises(ConfigError, match="run `fspo synth --on-existing overwrite` first"):
        make(folder(tmp_path, seed=1), method_part("fspo"))


def test_fail_refuses_whatever_is_there(tmp_path: Path) -> None:
    make(folder(tmp_path), DATA, policy=Existing.FAIL)
    make(folder(tmp_path), method_part("ipo"), policy=Existing.FAIL)
    with pytest.raises(ConfigError, match="holds results of an earlier call"):
        make(folder(tmp_path), DATA, policy=Existing.FAIL)


def test_overwriting_takes_what_was_made_from_it_along(tmp_path: Path) -> None:
    def there(run: RunFolder) -> list[str]:
        return [part for part in run.parts() if (run.path / part / result_of(part)).exists()]

    run = folder(tmp_path)
    make(run, *run.parts())
    (run.path / "metrics.json").write_text("{}")
    (run.path / "my-notes.txt").write_text("mine")
    with run.opened([method_part("pref-ft")], Existing.OVERWRITE):
        assert there(run) == [DATA, "methods/ipo"]
        assert not (run.path / "metrics.json").exists()
    make(run, *run.parts())
    with run.opened([EVALUATION], Existing.OVERWRITE):
        assert there(run) == [DATA, "methods/pref-ft", "methods/ipo", "methods/fspo"]
    with run.opened([DATA], Existing.OVERWRITE):
        assert there(run) == []
    assert (run.path / "my-notes.txt").read_text() == "mine"


def test_what_was_made_from_a_part_is_known_by_name(tmp_path: Path) -> None:
    run = folder(tmp_path)
    make(run, DATA, method_part("ipo"))
    assert run.made_from([method_part("ipo")]) == []
    make(run, method_part("fspo"), EVALUATION, benchmark_part("here"))
    for name in ("metrics.json", "report.html", "descriptions.json", "my-notes.txt"):
        (run.path / name).write_text("{}")
    measured = [EVALUATION, "benchmarks/here", "metrics.json", "report.html"]
    assert run.made_from([method_part("ipo")]) == measured
    assert run.made_from([DATA]) == ["methods/fspo", "methods/ipo", *measured, "descriptions.json"]
    assert run.made_from([EVALUATION]) == run.made_from([benchmark_part("here")]) == []
    assert run.made_from(run.parts()) == ["benchmarks/here"]
    for part in (method_part("ipo"), DATA):
        named = run.made_from([part])
        with run.opened([part], Existing.OVERWRITE):
            assert not any((run.path / name).exists() for name in named)
    assert (run.path / "my-notes.txt").exists()


def test_answers_that_were_paid_for_outlive_an_overwritten_evaluation(tmp_path: Path) -> None:
    run = folder(tmp_path)
    benchmark = benchmark_part("here")
    make(run, *run.parts(), benchmark)
    places = ("answers.sqlite", "answers-far.sqlite")
    for place in places:
        with closing(RequestCache(run.path / place)) as cache:
            for key in ("good", "bad"):
                cache.put(key, Completion("A", 1, "stop"))
            cache.mark_unusable(["bad"])
    with run.opened([DATA], Existing.OVERWRITE):
        assert not run.begun(EVALUATION) and not run.begun(benchmark)
    for place in places:
        with closing(RequestCache(run.path / place)) as cache:
            assert cache.get("good") and not cache.get("bad")


def test_overwriting_allows_other_settings(tmp_path: Path) -> None:
    make(folder(tmp_path), DATA, method_part("fspo"))
    files = keep(folder(tmp_path), DATA, method_part("fspo"))
    make(folder(tmp_path, seed=1), DATA, policy=Existing.OVERWRITE)
    assert not any(file.exists() for file in files)
    make(folder(tmp_path, seed=1), method_part("fspo"))
    assert "seed: 1" in (tmp_path / "run/config.yaml").read_text()
    assert json.loads((tmp_path / "run/settings.json").read_text())[DATA]["synthesis"]["seed"] == 1


def test_overwriting_takes_every_method_along_that_starts_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {
        "second": replace(METHODS["fspo"], name="second"),
        "third": replace(METHODS["fspo"], name="third", starts_from="second"),
    }
    monkeypatch.setattr("fspo.runs.folder.METHODS", {**METHODS, **more})
    run = folder(tmp_path)
    make(run, *(method_part(name) for name in ("pref-ft", "ipo", "fspo", "second", "third")))
    with run.opened([method_part("pref-ft")], Existing.OVERWRITE):
        assert [path.name for path in (run.path / "methods").iterdir()] == ["ipo"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    run = folder(tmp_path)
    (run.path / DATA).mkdir(parents=True)
    (run.path / DATA / "photos").write_text("mine")
    for policy in (Existing.RESUME, Existing.OVERWRITE):
        with pytest.raises(ConfigError, match="was not made by a run"):
            make(run, DATA, policy=policy)
    assert (run.path / DATA / "photos").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        make(folder(tmp_path, output=tmp_path / "file"), DATA)


@pytest.mark.parametrize("name", ["command.json", "versions.json", "metrics.json", "report.html", "settings.json"])
@pytest.mark.parametrize("policy", [Existing.RESUME, Existing.OVERWRITE])
def test_files_that_no_run_made_are_left_alone(tmp_path: Path, name: str, policy: Existing) -> None:
    run = folder(tmp_path)
    run.path.mkdir()
    (run.path / name).write_text('{"mine": 1}')
    with pytest.raises(ConfigError, match=rf"{name} was not made by a run that is known here; name another folder"):
        make(run, DATA, policy=policy)
    assert {path.name: path.read_text() for path in run.path.iterdir()} == {name: '{"mine": 1}'}


def test_locks_that_outlive_a_run_are_no_files_of_something_else(tmp_path: Path) -> None:
    run = folder(tmp_path)
    DescriptionBook(run.path / DESCRIPTIONS_FILE).edit("fspo", "ada", "Likes cats.")
    (run.path / DESCRIPTIONS_FILE).unlink()
    assert list(run.path.iterdir())
    make(run, DATA)


def test_a_configuration_written_by_hand_stays_as_it_is(tmp_path: Path) -> None:
    run = folder(tmp_path, seed=3)
    run.path.mkdir()
    own, resolved = run.path / "config.yaml", run.path / "resolved.yaml"
    own.write_text("# mine\nseed: 3\n")
    for policy in (Existing.RESUME, Existing.RESUME, Existing.OVERWRITE):
        make(run, DATA, policy=policy)
        assert own.read_text() == "# mine\nseed: 3\n"
        assert load_config(resolved, output=run.path) == run.config
    own.unlink()
    make(run, DATA)
    assert load_config(own, output=run.path) == run.config
    assert not resolved.exists()
    own.write_text(own.read_text().replace("seed: 3", "seed: 4  # a line of fspo's own file"))
    make(run, DATA)
    assert "seed: 3\n" in own.read_text()


def test_a_configuration_of_something_else_is_left_alone(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.path.mkdir()
    (run.path / "config.yaml").write_text("theme: dark\n")
    with pytest.raises(ConfigError, match=r"no setting 'theme'.* is no run's folder; name another folder with output"):
        make(run, DATA)
    assert [path.name for path in run.path.iterdir()] == ["config.yaml"]


def test_a_part_that_is_a_link_is_overwritten_where_it_points(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/data").symlink_to(disk)
    with folder(tmp_path).opened([DATA], Existing.RESUME):
        (disk / "checks.json").write_text("old")
        (disk / "labels").mkdir()
    with folder(tmp_path, seed=1).opened([DATA], Existing.OVERWRITE) as run:
        assert run.data.is_symlink()
        assert list(disk.iterdir()) == []


@pytest.mark.parametrize("part", [DATA, "methods/pref-ft", "methods/fspo", EVALUATION])
@pytest.mark.parametrize("others", ["photos/1.jpg", "notes.txt", "checkpoints/mine.txt", "labels/mine.txt"])
def test_a_part_with_files_of_others_is_not_overwritten(tmp_path: Path, part: str, others: str) -> None:
    run = folder(tmp_path)
    make(run, *run.parts())
    own = run.path / part / others
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text("mine")
    before = sorted(run.path.rglob("*"))
    for chosen in ([part], run.parts()):
        with pytest.raises(ConfigError, match=f"{part}/{others.partition('/')[0]}.* is no part of a run"):
            run.check(chosen, Existing.OVERWRITE)
        with pytest.raises(ConfigError, match="is no part of a run"):
            make(run, *chosen, policy=Existing.OVERWRITE)
    assert sorted(run.path.rglob("*")) == before
    make(run, *run.parts())


def test_what_can_not_be_removed_is_told_and_not_noted_as_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(folder(tmp_path), DATA)
    before = (tmp_path / "run/settings.json").read_text()

    def refuse(path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("shutil.rmtree", refuse)
    with pytest.raises(StorageError, match=r"run/data could not be removed \(Permission denied\)"):
        make(folder(tmp_path, seed=1), DATA, policy=Existing.OVERWRITE)
    assert (tmp_path / "run/settings.json").read_text() == before


def test_a_lock_that_can_not_be_had_is_told_as_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with monkeypatch.context() as patch:
        patch.setattr("fcntl.flock", fail)
        with pytest.raises(StorageError, match=r"can't be locked \(No locks available\)"):
            make(folder(tmp_path), DATA)
    (tmp_path / "run/.lock").unlink()
    (tmp_path / "run/.lock").mkdir()
    with pytest.raises(StorageError, match=r"\.lock could not be written \(Is a directory\)"):
        make(folder(tmp_path), DATA)


def test_checking_writes_nothing(tmp_path: Path) -> None:
    run = folder(tmp_path)
    run.check(run.parts(), Existing.OVERWRITE)
    assert not run.path.exists()


def _hold(path: Path, ready: object, done: object) -> None:
    with folder(path).opened([DATA], Existing.RESUME):
        ready.set()  # type: ignore[attr-defined]
        done.wait(60)  # type: ignore[attr-defined]


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path, ready, done))
    other.start()
    try:
        assert ready.wait(120)
        with pytest.raises(StorageError, match="Another fspo is at work"):
            make(folder(tmp_path), DATA)
    finally:
        done.set()
        other.join(60)
    make(folder(tmp_path), DATA)


def test_what_another_process_makes_before_the_lock_is_had_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fspo.runs import folder as module

    lock = module.locked

    @contextmanager
    def late(path: Path, *, busy: str) -> Iterator[None]:
        monkeypatch.setattr(module, "locked", lock)
        make(folder(tmp_path, seed=1), DATA)
        with lock(path, busy=busy):
            yield

    monkeypatch.setattr(module, "locked", late)
    with pytest.raises(ConfigError, match="was made with"):
        make(folder(tmp_path, seed=2), DATA)
    assert "seed: 1" in (tmp_path / "run/config.yaml").read_text()


def test_a_setting_that_is_removed_is_refused_by_name(tmp_path: Path) -> None:
    plain = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    quiet = {**plain, "extra_body": {"chat_template_kwargs": {"enable_thinking": False}}}
    make(folder(tmp_path, endpoint=quiet), DATA)

    with pytest.raises(ConfigError, match=r"endpoint\.extra_body = .*thinking.*now endpoint\.extra_body not set"):
        make(folder(tmp_path, endpoint=plain), DATA)


def test_an_ensemble_that_is_removed_is_refused_by_name(tmp_path: Path) -> None:
    endpoint = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}
    synthesis = {"domain": "roleplay"}
    make(folder(tmp_path, endpoint=endpoint, synthesis=synthesis, ensemble=[{"endpoint": endpoint}]), DATA)

    with pytest.raises(ConfigError, match="ensemble"):
        make(folder(tmp_path, endpoint=endpoint, synthesis=synthesis), DATA)


def test_a_server_may_move_also_in_a_run_of_an_earlier_version(tmp_path: Path) -> None:
    def run(port: int) -> RunFolder:
        return folder(tmp_path, endpoint={"base_url": f"http://127.0.0.1:{port}/v1", "model": "m"})

    make(run(1), DATA)
    path = run(1).path / "settings.json"
    assert "127.0.0.1" not in path.read_text()
    make(run(2), DATA)
    noted = json.loads(path.read_text())
    noted[DATA]["endpoint"]["base_url"] = "http://127.0.0.1:1/v1"  # as an earlier version noted it
    path.write_text(json.dumps(noted))
    make(run(2), DATA)


def test_a_model_trained_on_in_place_is_refused(tmp_path: Path) -> None:
    model = tmp_path / "my"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"old")
    make(folder(tmp_path, model=str(model)), DATA)
    make(folder(tmp_path, model=str(model)), DATA)

    (model / "model.safetensors").write_bytes(b"new")

    with pytest.raises(ConfigError, match="data was made with weights = "):
        make(folder(tmp_path, model=str(model)), DATA)
