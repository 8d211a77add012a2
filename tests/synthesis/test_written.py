"""Domains with written responses: those of the package, the one that docs/domains.md prints, and bad input."""

from __future__ import annotations

import functools
import json
import re
import shlex
import subprocess
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.errors import ConfigError, DataError
from fspo.files import read_json
from fspo.judging.by_topic import load_judge
from fspo.judging.declared import DeclaredJudge
from fspo.judging.traits import features_of
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import check_no_leak
from fspo.preferences.splits import Splits
from fspo.preferences.types import Split, User
from fspo.runs.config import load_config
from fspo.synthesis.config import SynthesisConfig, asks_models
from fspo.synthesis.domain import load_domain
from fspo.synthesis.domain_files import TraitsOfText
from fspo.synthesis.judges import with_readers
from fspo.synthesis.storage import load_responses
from fspo.synthesis.synthesize import Writers, check_plan, synthesize
from fspo.synthesis.user_slots import slots_of
from fspo.synthesis.written import read_written, values_of
from tests.synthesis.helpers import ScriptedModel

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/domains.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
(FOLDER,) = [block for block in BLOCKS if "responses.jsonl <<" in block]
LINES = [line for line in PAGE.splitlines() if line.startswith(".venv/bin/fspo") and "my-answers" in line]
WRITTEN = {"advice": (100, 8, 120, 150), "elix-written": (64, 10, 60, 70), "reviews-written": (60, 8, 120, 150)}
"""Domain -> questions, responses to each, users, users of its configuration."""
FEW = 40
"""Users of the datasets here: the first of all, since more users leave these as they are."""


class Nobody(ScriptedModel):
    """Must not be asked."""

    def __init__(self) -> None:
        super().__init__(stop_at=0)


def made(config: SynthesisConfig, out: Path) -> PreferenceDataset:
    synthesize(config, Writers(Nobody(), Nobody()), out)
    return PreferenceDataset.load(out)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name of a domain of the package -> its dataset for a few users, made once; not to be changed."""

    @functools.cache
    def folder(name: str) -> Path:
        made(SynthesisConfig(domain=name, users=FEW), out := tmp_path_factory.mktemp(name))
        return out

    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The domain that the page prints, in the working folder."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["bash", "-eu", "-c", FOLDER], check=True, stdin=subprocess.DEVNULL)
    return tmp_path / "my-answers"


SIZES = [{"value": value, "text": ["long"]} for value in ("1", 2)]
LENGTHS = {"size": TraitsOfText.model_validate({"about": "words", "values": SIZES})}


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    rows = [{"question": "Why?", "text": text, "traits": {"size": 2}} for text in ("Because.", "Who knows.")]
    (tmp_path / "rows").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8-sig")
    assert len(read_written(tmp_path / "rows", LENGTHS)) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[" * 100_000, r"not JSON \(too many values inside one another\)"),
        (json.dumps({"question": "Why?", "text": "\ud800", "traits": {}}), "'text' holds half of a surrogate pair"),
        (json.dumps({"question": "Why?", "text": "So.", "traits": {"size": 1}}), "is 1; declare one of '1', 2"),
    ],
    ids=["nested", "surrogate", "number for text"],
)
def test_a_row_that_can_not_be_read_is_named(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "rows").write_text(line)
    with pytest.raises(DataError, match=f"rows, line 1: .*{said}"):
        read_written(tmp_path / "rows", LENGTHS)


@pytest.mark.parametrize("name", WRITTEN)
def test_the_domains_of_the_package_make_datasets_whose_labels_follow_the_traits(
    name: str, data: Callable[[str], Path]
) -> None:
    questions, answers, *_ = WRITTEN[name]
    config, domain = SynthesisConfig(domain=name), load_domain(name)
    assert not asks_models(config)
    dataset, splits = PreferenceDataset.load(data(name)), Splits.load(data(name) / "splits.json")
    checks = read_json(data(name) / "checks.json")
    assert (len(domain.seeds), len(dataset.users)) == (questions, FEW)
    assert checks["counts"]["responses"] == questions * answers
    check_no_leak(splits.part(dataset, "train"), splits.part(dataset, "test"))
    tested = [dataset.users[id] for id in splits.users["test"]]
    trained = {tuple(sorted(dataset.users[id].traits.items())) for id in splits.users["train"]}
    assert 0.15 * FEW < len(tested) < 0.3 * FEW
    assert not any(tuple(sorted(user.traits.items())) in trained for user in tested)
    declared = {row.text: features_of(row.traits, values_of(domain.traits)) for row in domain.written}
    for row in dataset:
        weights = dataset.users[row.user].traits
        chosen, rejected = (
            sum(weight * declared[text][trait] for trait, weight in weights.items())
            for text in (row.chosen, row.rejected)
        )
        assert chosen - rejected > config.margin - 1e-6
        assert row.source["judge"] == "declared"
    per_user = Counter(row.user for row in splits.part(dataset, "test"))
    assert min(per_user.values()) >= 16  # eight shots and eight queries


@pytest.mark.parametrize("name", WRITTEN)
def test_their_configurations_have_enough_users_and_questions_for_their_episodes(
    name: str, data: Callable[[str], Path]
) -> None:
    *_, usual, users = WRITTEN[name]
    config, domain = load_config(ROOT / "configs" / f"{name}.yaml"), load_domain(name)
    assert config.synthesis == SynthesisConfig(domain=name, users=users)  # so that `data` has the first of these users
    assert len(slots_of(SynthesisConfig(domain=name), domain)) == usual
    parts = Counter(slot.part for slot in slots_of(config.synthesis, domain))
    assert parts.total() == users and parts["test"] >= (config.evaluation.users or 1)
    dataset, splits = PreferenceDataset.load(data(name)), Splits.load(data(name) / "splits.json")
    needed: dict[Split, int] = {"train": 8, "test": config.evaluation.shots + config.evaluation.queries}
    for part, least in needed.items():
        questions: dict[str, set[str]] = {}
        for preference in splits.part(dataset, part):
            questions.setdefault(preference.user, set()).add(preference.question)
        assert min(map(len, questions.values())) >= least, part


@pytest.mark.parametrize("name", WRITTEN)
def test_no_two_traits_of_a_domain_go_together(name: str, data: Callable[[str], Path]) -> None:
    correlation = read_json(data(name) / "checks.json")["correlation"]
    for one, row in zip(correlation["attributes"], correlation["matrix"], strict=True):
        for other, r in zip(correlation["attributes"], row, strict=True):
            if one.partition("=")[0] != other.partition("=")[0]:
                assert abs(r) < 0.02, (one, other)


def test_the_card_says_how_the_texts_were_made(data: Callable[[str], Path]) -> None:
    card = (data("advice") / "README.md").read_text()
    assert "Questions and answers were written for this project (Apache-2.0)." in card
    assert "written, each to declared traits: length (12 to 22 words, or 40 to 60)" in card
    assert "language model" not in card.replace("No language model was asked.", "")
    assert "scripted" not in card


def test_more_users_leave_the_first_ones_and_their_parts_as_they_are() -> None:
    domain = load_domain("advice")
    few, many = (slots_of(SynthesisConfig(domain="advice", users=users), domain) for users in (40, 400))
    assert [(slot.id, slot.part, slot.direction) for slot in few] == [
        (slot.id, slot.part, slot.direction) for slot in many[:40]
    ]
    shares = Counter(slot.part for slot in many)
    assert shares["test"] / 400 == pytest.approx(0.2, abs=0.02)
    assert shares["validation"] / 400 == pytest.approx(0.1, abs=0.02)


def test_users_of_ordered_values_like_others_less_the_farther_they_are() -> None:
    domain = load_domain("elix-written")
    values = values_of(domain.traits)
    texts = {level: {"level": level, "approach": 0} for level in values["level"]}
    judge = DeclaredJudge(values, {str(level): traits for level, traits in texts.items()}, 0.3)
    user = User("u", traits={"level=teenager": 1.0})
    utilities = [judge.utility(user, str(level)) for level in values["level"]]
    assert utilities == [0.0, 0.5, 1.0, 0.5, 0.0]
    assert judge.compare(user, "", "child", "expert") == "tie"
    assert judge.compare(user, "", "preteen", "child") == "first"
    with pytest.raises(DataError, match=r"'unheard of' are not declared"):
        judge.utility(user, "unheard of")


def test_the_judge_is_read_again_as_it_was(data: Callable[[str], Path]) -> None:
    folder = data("reviews-written")
    dataset, judge = PreferenceDataset.load(folder), load_judge(folder / "judge.json")
    assert isinstance(judge, DeclaredJudge)
    assert judge.knows({name for user in dataset.users.values() for name in user.traits})
    for row in dataset.preferences[::7]:
        assert judge.compare(dataset.users[row.user], row.prompt, row.chosen, row.rejected) == "first"
        assert judge.compare(dataset.users[row.user], row.prompt, row.rejected, row.chosen) == "second"
    assert judge.answers is not None
    train = Splits.load(folder / "splits.json").questions["train"]
    responses = load_responses(folder).items
    assert with_readers(replace(judge, answers=None), responses, train) == judge  # what `eval` does with older data
    readings = judge.answers.readings
    assert {name for name, reading in readings.items() if reading.readable} == {"length", "focus"}
    assert readings["length"].questions == len({row.question for row in responses} - train)
    assert read_json(folder / "checks.json")["readers"]["focus"]["ordered"] == readings["focus"].ordered
    card = (folder / "README.md").read_text()
    assert "| trait 'length' as read in answers | right order in 100.0% of" in card
    assert "too little to judge answers by it" in card
    praise = "A wonderful film about a family, and I loved how its story ends."
    by_length = User("u", traits={"length": 1.0})
    assert judge.answers.compare(by_length, "", praise * 4, praise) == "first"
    assert not judge.answers.has_weights(User("u", traits={"sentiment": 1.0}))


def test_descriptions_say_what_users_like() -> None:
    domain = load_domain("advice")
    config = SynthesisConfig(domain="advice")
    from fspo.synthesis.user_slots import make_user

    users = [make_user(config, domain, slot) for slot in slots_of(config, domain)]
    assert len({user.description for user in users}) > 0.95 * len(users)
    for user in users:
        for trait, weight in user.traits.items():
            liked = domain.traits[trait].values[1 if weight > 0 else 0].text
            assert any(phrase in user.description for phrase in liked), user


def test_what_the_page_prints_makes_a_dataset(folder: Path) -> None:
    def fspo(line: str, *more: str) -> str:
        _, *arguments = shlex.split(line, comments=True)
        done = CliRunner().invoke(app, [*arguments, *more])
        assert done.exit_code == 0, done.output
        return done.output

    synth, show = LINES
    said = fspo(synth, "--dry-run")
    assert "20 users, and ask no language model." in said
    assert "Responses that come with the domain; pairs judged by the traits that they declare" in said
    assert not Path("runs").exists()
    assert "20 users are in" in fspo(synth)
    assert "my-answers-0000" in fspo(show, "--limit", "40")
    dataset = PreferenceDataset.load("runs/my-answers/data")
    assert {row.source["chosen"]["model"] for row in dataset} == {"people"}
    # Another model is no other data, since none is asked.
    assert "20 users are in" in fspo(synth, "--set", "model=some/other")
    assert not list(Path("runs/my-answers").glob("answers*"))


def lines_of(folder: Path) -> list[str]:
    return (folder / "responses.jsonl").read_text().splitlines()


def third(change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        lines = lines_of(folder)
        assert change(lines[2]) != lines[2]
        lines[2] = change(lines[2])
        (folder / "responses.jsonl").write_text("\n".join(lines) + "\n")

    return apply


def same_text(line: str) -> str:
    return json.dumps({**json.loads(line), "text": " it gets  too much Water."})


def alone(folder: Path) -> None:
    row = {"question": "Why?", "traits": {"length": "short", "tone": "plain"}, "text": "So."}
    (folder / "responses.jsonl").write_text("\n".join([*lines_of(folder), json.dumps(row)]) + "\n")


def listed(*weights: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        people = zip(("keen", "calm"), weights, strict=True)
        rows = [f"- {{id: {name}, text: Likes it., weights: {weight}}}" for name, weight in people]
        (folder / "users.yaml").write_text("users:\n" + "\n".join(rows) + "\n")

    return apply


def alike(folder: Path) -> None:
    listed("{length: 1}", "{tone: 1}")(folder)
    path = folder / "responses.jsonl"
    path.write_text(path.read_text().replace('"tone": "warm"', '"tone": "plain"'))


CHANGES: dict[str, Callable[[Path], None]] = {
    "a line that is not JSON": third(lambda line: line.replace(', "traits"', ' "traits"')),
    '`"txt"` in place of `"text"`': third(lambda line: line.replace('"text"', '"txt"')),
    "an unknown trait": third(lambda line: line.replace('"tone"', '"ton"')),
    "a trait without a value": third(lambda line: line.replace(', "tone": "plain"', "")),
    "an unknown value": third(lambda line: line.replace("plain", "cold")),
    "the same text twice": third(same_text),
    "a question with one answer": alone,
    "a weight on an unknown trait": listed("{length: 1}", "{lenght: 1}"),
    "a user who likes all texts alike": alike,
}
TABLE = PAGE[PAGE.rindex("| in the folder | message |") :]
REFUSED = re.findall(r"^\| (.+?) \| `(.*)` \|$", TABLE[: TABLE.index("\n\n")], re.MULTILINE)


def test_every_refusal_of_the_page_is_tried() -> None:
    assert [row for row, _ in REFUSED] == list(CHANGES)


@pytest.mark.parametrize(("row", "said"), REFUSED, ids=[row for row, _ in REFUSED])
def test_what_is_refused_is_said_as_the_page_says(row: str, said: str, folder: Path) -> None:
    CHANGES[row](folder)
    done = CliRunner().invoke(app, ["synth", "--domain", "./my-answers", "--output", "runs/x", "--dry-run"])
    assert (done.exit_code, done.stderr) == (1, f"Error: {said}\n")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"judge": "measured"}, "users of the domain 'advice' weigh declared traits; set it to declared or llm"),
        ({"attributes": ("length", "humor")}, "declares no trait 'humor'; did you mean 'humour'"),
        ({"domain": "elix-written", "users": 90}, r"can differ in about \d+ ways; ask for fewer"),
        ({"margin": 2.5}, "likes no response better than another to the same question by the margin of 2.5"),
    ],
)
def test_settings_that_can_not_be_met_are_refused_before_anything(settings: dict[str, object], said: str) -> None:
    config = SynthesisConfig.model_validate({"domain": "advice"} | settings)
    with pytest.raises((ConfigError, DataError), match=said):
        check_plan(config, load_domain(config.domain))


def test_a_trait_that_does_not_vary_is_named_before_anything() -> None:
    whole = load_domain("advice")
    same = tuple(replace(text, traits={**text.traits, "humour": 0}) for text in whole.written)
    config = SynthesisConfig.model_validate({"domain": "advice", "attributes": ("length", "humour"), "users": 8})
    with pytest.raises(DataError, match=r"The trait 'humour' is 0 in all [\d,]+ responses of the domain 'advice'"):
        check_plan(config, replace(whole, written=same))
    check_plan(config, whole)


def test_a_language_model_may_judge_written_responses(tmp_path: Path) -> None:
    settings = {"domain": "reviews-written", "judge": "llm", "users": 6, "questions": 12, "shared_pairs": 8}
    config = SynthesisConfig.model_validate(settings | {"refinement": None, "disagreement": None})
    model = ScriptedModel()
    synthesize(config, Writers(model, model), tmp_path)
    assert all("Two responses" in request.messages[-1].content for request in model.asked)
    checks = read_json(tmp_path / "checks.json")
    assert 0 <= checks["labels"]["agreement_with_measures"] <= 1
    assert {row.source["judge"] for row in PreferenceDataset.load(tmp_path)} == {"llm"}
