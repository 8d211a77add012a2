"""The whole recipe: what comes to lie in the folder, and that being killed changes nothing."""

from __future__ import annotations

import hashlib
import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fspo.errors import ConfigError, DataError, StorageError
from fspo.files import read_jsonl
from fspo.llm.batching import CachedModel
from fspo.llm.cache import RequestCache
from fspo.llm.types import Completion, CompletionRequest, models_digests
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import check_no_leak
from fspo.preferences.splits import Splits
from fspo.progress import Silent, Task
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.disagreement import LEAST_SHARED
from fspo.synthesis.domain import load_domain
from fspo.synthesis.labels import InProcessExecutor
from fspo.synthesis.shards import Labeller, Shard
from fspo.synthesis.storage import load_questions, load_responses
from fspo.synthesis.synthesize import Writers, is_complete, synthesize
from tests.progress_lines import Lines
from tests.synthesis.helpers import ScriptedModel, Stopped, config_of, write_domain


def made(config: SynthesisConfig, out: Path, model: ScriptedModel | None = None) -> dict[str, Any]:
    model = model or ScriptedModel()
    synthesize(config, Writers(model, model), out, Silent())
    checks: dict[str, Any] = json.loads((out / "checks.json").read_text())
    return checks


def digests(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> SynthesisConfig:
    """Every stage, for the six users of a small domain."""
    domain = write_domain(tmp_path_factory.mktemp("everything") / "mine")
    wanted = {"questions": 14, "pairs": 12, "steering": "views", "portraits": True, "shard": 2}
    return config_of(domain=str(domain), **wanted)


@pytest.fixture(scope="module")
def writer() -> ScriptedModel:
    """The model that `whole` was made with."""
    return ScriptedModel()


@pytest.fixture(scope="module")
def whole(everything: SynthesisConfig, writer: ScriptedModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    made(everything, out, writer)
    return out


def test_the_dataset_holds_together(whole: Path) -> None:
    dataset, splits = PreferenceDataset.load(whole), Splits.load(whole / "splits.json")
    parts = {split: splits.part(dataset, split) for split in ("train", "validation", "test")}  # type: ignore[arg-type]
    for name in ("validation", "test"):
        check_no_leak(parts["train"], parts[name], name=name)
    assert len(dataset.users) == 6
    assert all(len(part) for part in parts.values())
    users = {user.id: user.description for user in dataset.users.values()}
    people = json.loads((whole / "people.json").read_text())
    for id, person in people.items():
        assert users[id] == " ".join([person["first"], *person["added"]])
    assert any(person["added"] for person in people.values())
    source = dataset.preferences[0].source
    assert source["judge"] == "llm"
    assert source["chosen"]["model"] == "scripted"
    assert source["chosen"]["steered"].startswith("Think of")


def test_every_pair_is_labelled_or_kept_apart_with_its_reason(whole: Path) -> None:
    checks = json.loads((whole / "checks.json").read_text())
    apart = [row for path in (whole / "undecided").glob("*.jsonl") for row in read_jsonl(path)]
    assert checks["counts"]["ties"] == len(apart) > 0
    assert {row["reason"] for row in apart} <= {"unclear", "inconsistent"}
    assert sum(checks["labels"]["undecided"].values()) == len(apart)
    assert checks["counts"]["preferences"] + len(apart) == 6 * 12
    assert len(list((whole / "labels").glob("*.jsonl"))) == 3


def test_the_card_says_how_it_was_made(whole: Path) -> None:
    card = (whole / "README.md").read_text()
    for said in (
        "| users | 6 |",
        "Licence",
        "viewpoints",
        "both orders",
        "portrayed",
        "scripted",
        "Limits",
        "entropy",
    ):
        assert said in card
    assert "nan" not in card.lower().replace("nance", "")


@pytest.mark.parametrize("seed", range(2))
def test_killed_anywhere_it_comes_out_the_same_and_nothing_is_asked_twice(
    seed: int, everything: SynthesisConfig, whole: Path, writer: ScriptedModel, tmp_path: Path
) -> None:
    out, rng = tmp_path / "data", random.Random(seed)
    asked: list[CompletionRequest] = []
    for _ in range(40):
        model = ScriptedModel(stop_at=rng.randrange(1, 4))
        remembered = CachedModel(model, RequestCache(tmp_path / "answers.sqlite"), batch=64)
        try:
            synthesize(everything, Writers(remembered, remembered), out, Silent())
        except Stopped:
            asked += model.asked
            for folder in (out, out / "labels"):
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f".views.jsonl.{rng.randbytes(16).hex()}.tmp").write_text("half")  # as kill -9 leaves it
            continue
        asked += model.asked
        break
    else:
        pytest.fail("it never came to its end")
    assert digests(out) == digests(whole)
    assert not Counter(asked) - Counter(writer.asked)
    model = ScriptedModel(stop_at=0)
    remembered = CachedModel(model, RequestCache(tmp_path / "answers.sqlite"), batch=64)
    synthesize(everything, Writers(remembered, remembered), out, Silent())


@pytest.mark.parametrize("domain", ["reviews", "elix-easy", "elix-hard", "roleplay"])
def test_every_domain_is_labelled_by_measures_without_a_judge(domain: str, tmp_path: Path) -> None:
    model = ScriptedModel()
    settings = {"domain": domain, "judge": "measured", "augment": False, "margin": 0.2, "responses": 8}
    if domain == "roleplay":  # the scripted texts have no emoji, bullets and so on
        settings["domain"] = str(write_domain(tmp_path / "mine"))
        settings["questions"] = 4
    checks = made(config_of(users=6 if domain == "roleplay" else 5, **settings), tmp_path / "out", model)
    assert not any("Two responses" in request.messages[-1].content for request in model.asked)
    assert checks["labels"]["consistency"] == 1.0
    assert (tmp_path / "out" / "judge.json").exists()
    assert checks["refinement"]["sentences"] == 0


def test_refinement_makes_labels_clearer(tmp_path: Path) -> None:
    class Vague(ScriptedModel):
        def judge(self, description: str, first: str, second: str, rng: random.Random) -> str:
            return "unclear" if "Adores" not in description else ("A" if first < second else "B")

    plain = made(config_of(refinement=None, disagreement=None, judge="llm", domain="elix-easy"), tmp_path / "a", Half())
    assert plain["refinement"]["sentences"] == 0
    checks = made(config_of(disagreement=None), tmp_path / "b", Vague())
    assert checks["refinement"]["sentences"] >= 5
    assert checks["labels"]["entropy"]["before"] > 0.6
    assert checks["labels"]["entropy"]["after"] < 0.1


class Half(ScriptedModel):
    """Leaves every second pair open."""

    def judge(self, description: str, first: str, second: str, rng: random.Random) -> str:
        if (len(first) + len(second)) % 2:
            return "unclear"
        return "A" if first < second else "B"


def test_users_who_are_too_much_alike_are_made_anew(tmp_path: Path) -> None:
    folder = str(write_domain(tmp_path / "mine"))
    bounds = {"least": 0.05, "most": 0.95, "attempts": 2}
    settings = {"domain": folder, "questions": 10, "refinement": None, "responses": 8}
    alike = made(config_of(**settings, disagreement=bounds), tmp_path / "a")["casting"]
    assert alike["made_anew"] >= 1
    left = made(config_of(**settings, disagreement=None), tmp_path / "b")["casting"]
    assert left == {"made_anew": 0, "outside": {}}


def test_disagreement_that_is_not_known_is_no_number(tmp_path: Path) -> None:
    found = made(config_of(shared_pairs=LEAST_SHARED - 1), tmp_path)["disagreement"]
    assert found["mean"] is None
    for place, row in enumerate(found["matrix"]):
        assert row[place] == 0.0
        assert {value for other, value in enumerate(row) if other != place} == {None}


def test_a_judge_of_the_first_place_leaves_no_labels_and_is_told(tmp_path: Path) -> None:
    class First(ScriptedModel):
        def judge(self, description: str, first: str, second: str, rng: random.Random) -> str:
            return "A"

    with pytest.raises(DataError, match=r"Only 0 of 100 pairs were decided; .*inconsistent \(100\)"):
        made(config_of(refinement=None, disagreement=None), tmp_path / "out", First())
    assert not (tmp_path / "out" / "splits.json").exists()


class Rambling(ScriptedModel):
    """As a judge it talks."""

    def judge(self, description: str, first: str, second: str, rng: random.Random) -> str:
        return f"I could not possibly say\nof {len(first)}"


@pytest.mark.parametrize(("users", "pairs"), [(5, 40), (40, 100)])
def test_a_judge_that_can_not_be_read_is_left_after_the_shared_pairs(users: int, pairs: int, tmp_path: Path) -> None:
    model = Rambling()
    told = rf"None .* first {pairs} pairs can be read; one of them was '.*could not possibly say of \d+.*'\. It has to"
    with pytest.raises(DataError, match=told):
        made(config_of(domain="roleplay" if users > 5 else "elix-easy", users=users, batch=256), tmp_path / "o", model)
    judged = [request for request in model.asked if "Two responses" in request.messages[-1].content]
    assert len(judged) <= 256
    assert not any("Write one more sentence" in request.messages[-1].content for request in model.asked)


def test_a_judge_that_can_not_be_read_at_times_goes_on(tmp_path: Path) -> None:
    class AtTimes(ScriptedModel):
        def judge(self, description: str, first: str, second: str, rng: random.Random) -> str:
            return super().judge(description, first, second, rng) if len(first + second) % 2 else "neither"

    checks = made(config_of(), tmp_path / "out", AtTimes())
    assert checks["labels"]["undecided"]["unreadable"]


def test_what_is_advised_fits_why_pairs_were_left(tmp_path: Path) -> None:
    settings = {"refinement": None, "disagreement": None, "shared_pairs": 0}
    with pytest.raises(DataError, match=r"unreadable \(100\)\. The judge has to answer with"):
        made(config_of(**settings), tmp_path / "out", Rambling())


def test_a_judge_biased_to_one_side_leaves_labels_whose_accuracy_is_stated(tmp_path: Path) -> None:
    class Biased(ScriptedModel):
        """Right in 70 of 100 when the better one comes first, in 50 of 100 otherwise."""

        def judge(self, description: str, first: str, second: str, rng: random.Random) -> str:
            better_first = (len(first), first) > (len(second), second)
            named = rng.random() < (0.9 if better_first else 0.5)
            return "A" if better_first == named else "B"

    settings = {"pairs": 400, "questions": 100, "responses": 8, "shared_pairs": 0}
    made(config_of(**settings, refinement=None, disagreement=None), tmp_path / "out", Biased())
    checks = json.loads((tmp_path / "out" / "checks.json").read_text())
    rows = PreferenceDataset.load(tmp_path / "out").preferences
    true = sum((len(row.chosen), row.chosen) > (len(row.rejected), row.rejected) for row in rows) / len(rows)
    assert checks["labels"]["order"]["estimated_accuracy"] == pytest.approx(true, abs=0.06)
    assert checks["labels"]["order"]["first_share"] == pytest.approx(0.7, abs=0.05)
    assert f"{checks['labels']['order']['estimated_accuracy']:.3f}" in (tmp_path / "out" / "README.md").read_text()


ASKED = {
    "questions": "new questions of the same kind",
    "views": "clearly different viewpoints",
    "responses": "from this viewpoint",
    "portraits": "short portrait",
    "refinement": "Write one more sentence",
    "judge": "Two responses",
}
"""Stage -> words in what it asks."""


class _Flaky(ScriptedModel):
    """Fails on a third of the requests of one stage."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self.failed = 0
        self._sign = ASKED[stage]

    def _complete(self, request: CompletionRequest) -> Completion:
        asked = "".join(message.content for message in request.messages)
        if self._sign in asked and random.Random(f"{request}, flaky").random() < 1 / 3:
            self.failed += 1
            return Completion("", 0, "failed")
        return super()._complete(request)


class _FirstShard(InProcessExecutor):
    """Labels one shard, and is killed."""

    def label(self, here: Labeller, shards: Sequence[Shard], task: Task) -> None:
        super().label(here, shards[:1], task)
        raise Stopped


@pytest.mark.parametrize("stage", list(ASKED))
def test_a_request_that_failed_is_asked_again_by_the_next_call(
    stage: str, everything: SynthesisConfig, whole: Path, tmp_path: Path
) -> None:
    flaky = _Flaky(stage)
    with pytest.raises(Stopped):
        synthesize(everything, Writers(flaky, flaky), tmp_path, Silent(), _FirstShard())
    assert flaky.failed
    made(everything, tmp_path)
    assert digests(tmp_path) == digests(whole)


@pytest.mark.parametrize("stage", list(ASKED))
def test_a_dataset_is_finished_without_what_failed_and_is_kept(
    stage: str, everything: SynthesisConfig, tmp_path: Path
) -> None:
    flaky = _Flaky(stage)
    checks = made(everything, tmp_path, flaky)
    assert flaky.failed
    if stage == "responses":
        assert checks["sampling"]["rejected"]["failed at the endpoint"] == flaky.failed
    if stage == "judge":
        assert checks["labels"]["undecided"]["failed"] > 0
    before, model = digests(tmp_path), ScriptedModel()
    synthesize(everything, Writers(model, model), tmp_path, Silent())
    assert not model.asked and digests(tmp_path) == before


def test_responses_that_somebody_has_edited_are_not_made_anew(everything: SynthesisConfig, tmp_path: Path) -> None:
    flaky = _Flaky("responses")
    with pytest.raises(Stopped):
        synthesize(everything, Writers(flaky, flaky), tmp_path, Silent(), _FirstShard())
    path = tmp_path / "responses.jsonl"
    edited = "".join(path.read_text().splitlines(keepends=True)[:-1])
    path.write_text(edited)
    made(everything, tmp_path)
    assert path.read_text() == edited


def test_a_finished_dataset_of_another_origin_is_refused_and_stays(tmp_path: Path) -> None:
    made(config_of(pairs=20), tmp_path, _Weighed("old"))
    before = digests(tmp_path)
    for config, weights, said in (
        (config_of(pairs=12), "old", r"holds a finished dataset that was made with synthesis\.pairs = 20; choose"),
        (config_of(pairs=20), "new", 'made by models with other weights; choose on_existing="overwrite"'),
    ):
        model = _Weighed(weights)
        with pytest.raises(ConfigError, match=said):
            synthesize(config, Writers(model, model), tmp_path, Silent())
        assert not model.asked and digests(tmp_path) == before


def test_a_domain_is_told_by_its_files_alone(tmp_path: Path) -> None:
    folder = write_domain(tmp_path / "mine")
    found = load_domain(str(folder)).fingerprint
    assert load_domain(str(write_domain(tmp_path / "copy"))).fingerprint == found
    (folder / "notes.txt").write_text("not part of it")
    assert load_domain(str(folder)).fingerprint == found
    (folder / "prompts.yaml").write_text("view: 'See it so: {view}'")
    assert load_domain(str(folder)).fingerprint != found


def test_another_configuration_makes_unfinished_data_anew(tmp_path: Path) -> None:
    first = made(config_of(pairs=20), tmp_path)
    (tmp_path / "splits.json").unlink()
    assert made(config_of(pairs=12), tmp_path)["counts"]["preferences"] < first["counts"]["preferences"]
    assert len(list((tmp_path / "labels").glob("*.jsonl"))) == 1


def test_a_call_killed_while_it_removes_unfinished_data_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, unlink = config_of(questions=8), Path.unlink
    made(config, tmp_path / "whole")
    made(config_of(questions=8, seed=1), tmp_path / "unfinished")
    for name in ("splits.json", "synthesis.json"):
        (tmp_path / "unfinished" / name).unlink()
    for kept in range(6):
        out = Path(shutil.copytree(tmp_path / "unfinished", tmp_path / f"{kept}"))
        removed: list[Path] = []

        def killed(path: Path, missing_ok: bool = False, kept: int = kept, removed: list[Path] = removed) -> None:
            if path.exists() and path.name.startswith(("begun", "people", "questions", "responses", "0")):
                if len(removed) == kept:
                    raise Stopped
                removed.append(path)
            unlink(path, missing_ok)

        with monkeypatch.context() as patched, pytest.raises(Stopped):
            patched.setattr(Path, "unlink", killed)
            made(config, out)
        made(config, out)
        assert digests(out) == digests(tmp_path / "whole")


class _Counting(Silent):
    """Progress that is added up: name of a task -> steps done, steps that were done before, steps in all."""

    def __init__(self) -> None:
        self.counts: dict[str, list[float]] = {}

    @contextmanager
    def task(self, name: str, total: float, done: float = 0.0) -> Iterator[Task]:
        counts = self.counts.setdefault(name, [0.0, 0.0, 0.0])
        counts[1] += done
        counts[2] += total

        class Counted:
            def advance(self, steps: float = 1.0, note: str = "") -> None:
                counts[0] += steps

            def skip(self, steps: float) -> None:
                counts[1] += steps

        yield Counted()


@pytest.mark.parametrize("judge", ["llm", "measured"])
def test_progress_comes_to_its_end_in_a_first_call_and_when_all_is_kept(tmp_path: Path, judge: str) -> None:
    folder = str(write_domain(tmp_path / "mine"))
    config = config_of(domain=folder, judge=judge, questions=14, responses=8, portraits=True, near_duplicate=1.0)
    stages = {"Writing questions", "Sampling responses", "Writing portraits", "Labelling pairs"}
    for out, kept in (("first", False), ("again", True)):
        model = CachedModel(ScriptedModel(), RequestCache(tmp_path / "answers.sqlite"))
        counting = _Counting()
        synthesize(config, Writers(model, model), tmp_path / out, counting)
        assert stages <= counting.counts.keys()
        assert ("Refining descriptions" in counting.counts) is (judge == "llm")
        for name, (done, before, total) in counting.counts.items():
            assert done + before == pytest.approx(total), name
            if judge == "llm":
                assert not kept or done == 0, name
        assert counting.counts["Writing questions"][:2] == ([0, 10] if kept else [10, 0])  # seeds are no work


class _Away(ScriptedModel):
    """As an endpoint: its name holds where it is."""

    name = "big at http://10.0.0.7:8000/v1"
    title = "big"


def test_no_file_of_the_dataset_tells_where_a_model_is(tmp_path: Path) -> None:
    made(config_of(), tmp_path, _Away())
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"10.0.0.7" in path.read_bytes()]
    assert {p.source["chosen"]["model"] for p in PreferenceDataset.load(tmp_path)} == {"big"}


def test_a_dataset_of_an_earlier_version_is_refused_and_stays(tmp_path: Path) -> None:
    made(config_of(), tmp_path)
    kept = json.loads((tmp_path / "synthesis.json").read_text())
    (tmp_path / "synthesis.json").write_text(json.dumps({**kept, "format": 2}))
    before = digests(tmp_path)
    assert not is_complete(tmp_path, config_of(), Writers(ScriptedModel(), ScriptedModel()))
    with pytest.raises(ConfigError, match="finished dataset that was made by another version of fspo; choose"):
        made(config_of(), tmp_path)
    assert digests(tmp_path) == before


class _Weighed(ScriptedModel):
    """As a model on this machine, whose folder keeps its name."""

    def __init__(self, weights: str | None, name: str = "models/my") -> None:
        super().__init__()
        self.identity = {"model": name, "weights": weights}


@pytest.mark.parametrize("name", ["judge_max_tokens", "refinement", "near_duplicate"])
def test_a_dataset_from_before_there_was_a_setting_stays_finished(tmp_path: Path, name: str) -> None:
    config, writers = SynthesisConfig(domain="roleplay"), Writers(ScriptedModel(), ScriptedModel())
    with pytest.raises(Stopped):
        synthesize(config, Writers(ScriptedModel(stop_at=0), ScriptedModel()), tmp_path)
    origin = json.loads((tmp_path / "begun.json").read_text())
    del origin["config"][name]
    (tmp_path / "synthesis.json").write_text(json.dumps(origin))
    (tmp_path / "splits.json").write_text("{}")
    assert is_complete(tmp_path, config, writers)
    other = {"judge_max_tokens": 2000, "refinement": None, "near_duplicate": 0.5}[name]
    assert not is_complete(tmp_path, config.model_copy(update={name: other}), writers)


def test_data_of_other_weights_of_the_same_name_are_other_data(tmp_path: Path) -> None:
    made(config_of(), tmp_path, _Weighed("old"))

    for weights, same in (("old", True), ("new", False), (None, True)):  # None: the folder is no longer there
        assert is_complete(tmp_path, config_of(), Writers(_Weighed(weights), _Weighed(weights))) is same


@pytest.mark.parametrize("name", ["./models/my", "models/my/", "models/../models/my"])
def test_a_model_s_folder_is_the_same_however_it_is_written(tmp_path: Path, name: str) -> None:
    made(config_of(), tmp_path, _Weighed("old"))
    assert is_complete(tmp_path, config_of(), Writers(*[_Weighed("old", name)] * 2))
    assert not is_complete(tmp_path, config_of(), Writers(*[_Weighed("new", name)] * 2))
    assert not is_complete(tmp_path, config_of(), Writers(*[_Weighed("old", f"{name}-other")] * 2))


def test_a_model_s_folder_is_no_model_of_a_hub_of_that_name(tmp_path: Path) -> None:
    made(config_of(), tmp_path, _Weighed("old", "./owner/mine"))
    assert is_complete(tmp_path, config_of(), Writers(*[_Weighed("old", "owner/mine/")] * 2))
    not_fetched = _Weighed(None, "owner/mine")
    assert not is_complete(tmp_path, config_of(), Writers(not_fetched, not_fetched))


def test_data_that_have_a_model_s_folder_as_it_was_written_stay_finished(tmp_path: Path) -> None:
    model = _Weighed("old", "./models/my")
    made(config_of(), tmp_path, model)
    path = tmp_path / "synthesis.json"
    record = json.loads(path.read_text())
    earlier = record | models_digests(model, model, as_written=True)
    assert earlier["models"] != record["models"]
    path.write_text(json.dumps(earlier))
    assert is_complete(tmp_path, config_of(), Writers(model, model))
    assert not is_complete(tmp_path, config_of(), Writers(*[_Weighed("new", "./models/my")] * 2))


def test_stages_by_another_model_are_made_anew_and_that_is_said(tmp_path: Path) -> None:
    made(config_of(), tmp_path, _Weighed("old"))
    (tmp_path / "splits.json").unlink()
    model, said = _Weighed("new"), Lines()

    synthesize(config_of(), Writers(model, model), tmp_path, said)

    assert model.calls and any("regenerated" in line for line in said.lines)


def test_a_finished_dataset_is_one_of_these_settings_and_models(tmp_path: Path) -> None:
    config, model = config_of(), ScriptedModel()
    writers, other = Writers(model, model), ScriptedModel()
    other.name = "another"
    assert not is_complete(tmp_path, config, writers)
    assert synthesize(config, writers, tmp_path) == tmp_path
    assert is_complete(tmp_path, config, writers)
    assert not is_complete(tmp_path, config, Writers(model, other))
    assert not is_complete(tmp_path, config_of(seed=1), writers)
    calls = model.calls
    synthesize(config, Writers(model, model), tmp_path)
    assert model.calls == calls


@pytest.mark.parametrize("file", ["questions.jsonl", "responses.jsonl", "views.jsonl", "labels/00001.jsonl"])
@pytest.mark.parametrize("line", [0, 3, -1])
@pytest.mark.parametrize("damage", ["torn", "another"])
def test_a_damaged_file_of_an_interrupted_call_is_named_with_its_line(
    everything: SynthesisConfig, whole: Path, tmp_path: Path, file: str, line: int, damage: str
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    for last in ("synthesis.json", "checks.json", *(["responses.jsonl"] if file == "views.jsonl" else [])):
        (out / last).unlink()
    lines = (out / file).read_bytes().splitlines(keepends=True)
    number = line % len(lines)
    lines[number] = {"torn": lines[number][:-3] + b"\n", "another": b'{"x": 1}\n'}[damage]
    (out / file).write_bytes(b"".join(lines))
    damaged = (out / file).read_bytes()
    with pytest.raises(StorageError, match=rf"{re.escape(file)}, line {number + 1}, is damaged"):
        made(everything, out)
    assert (out / file).read_bytes() == damaged


def test_a_file_without_its_header_is_damaged(whole: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    for file, load in (("questions.jsonl", load_questions), ("responses.jsonl", load_responses)):
        _, *rows = (out / file).read_bytes().splitlines(keepends=True)
        (out / file).write_bytes(b"".join(rows))
        with pytest.raises(StorageError, match=rf"{re.escape(file)}, line 1, is damaged"):
            load(out)


def test_a_file_cut_at_its_end_is_damaged(whole: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    for file in ("questions.jsonl", "responses.jsonl"):
        (out / file).write_bytes((out / file).read_bytes()[:-2])
    with pytest.raises(StorageError, match=r"questions\.jsonl, line \d+, is damaged"):
        load_questions(out)
    with pytest.raises(StorageError, match=r"responses\.jsonl, line \d+, is damaged"):
        load_responses(out)
    (out / "questions.jsonl").write_bytes(b"")
    with pytest.raises(StorageError, match=r"questions\.jsonl, line 1, is damaged"):
        load_questions(out)
