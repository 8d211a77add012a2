"""The domain that docs/domains.md builds, as it is printed; and that the page says what is so."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.errors import DataError
from fspo.judging.attributes import ATTRIBUTES
from fspo.llm.local import LocalModel
from fspo.llm.types import CompletionRequest, Message
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import check_no_leak
from fspo.preferences.splits import Splits
from fspo.synthesis.config import SynthesisConfig
from fspo.synthesis.domain import NEEDED, PROMPTS, load_domain
from fspo.synthesis.domain_files import (
    Directions,
    DomainFile,
    PersonRow,
    SteeringRow,
    StylesFile,
    TraitRow,
    TraitsOfText,
    TraitValue,
    UsersFile,
    domain_names,
)
from fspo.synthesis.user_slots import slots_of
from tests.synthesis.helpers import TopicalModel

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/domains.md").read_text(encoding="utf-8")
DATA = Path("runs/my-domain/data")


def blocks(language: str, part: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", part, re.DOTALL | re.MULTILINE)


FOLDER, WITH_TOPICS = [block for block in blocks("sh") if "my-domain/users.yaml <<'END'" in block]
CONFIG = next(block for block in blocks("yaml") if block.startswith("# my-run.yaml"))
LINES = [
    line
    for block in blocks("sh")
    for line in block.splitlines()
    if line.startswith(".venv/bin/fspo") and "my-answers" not in line
]


def paste(block: str) -> None:
    subprocess.run(["bash", "-eu", "-c", block], check=True, stdin=subprocess.DEVNULL)


def fspo(line: str, *more: object) -> str:
    program, *arguments = shlex.split(line, comments=True)
    assert program == ".venv/bin/fspo"
    done = CliRunner().invoke(app, [*arguments, *map(str, more)])
    assert done.exit_code == 0, f"{line}\n{done.output}"
    return done.output


def printed(command: str) -> str:
    (line,) = [line for line in LINES if command in line]
    return line


@pytest.fixture(autouse=True)
def pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paste(FOLDER)
    Path("my-run.yaml").write_text(CONFIG, encoding="utf-8")


def test_what_the_page_prints_makes_a_dataset(speaking_model_path: Path) -> None:
    model = ["--set", f"model={speaking_model_path}"]
    assert "data: to do" in fspo(printed("--dry-run"), *model)
    assert not Path("runs").exists()
    (line,) = [line for line in LINES if line.endswith("synth my-run.yaml")]
    assert "16 users are in" in fspo(line, *model)
    assert "alone-cheerful-00" in fspo(printed("data show"), "--limit", 20)
    dataset, splits = PreferenceDataset.load(DATA), Splits.load(DATA / "splits.json")
    assert len(dataset.users) == 16
    assert len(dataset) > 300
    check_no_leak(splits.part(dataset, "train"), splits.part(dataset, "test"))
    plain = dataset.users["family-plain-01"]
    assert plain.traits["first_person"] < 0 > plain.traits["reading_grade"]
    assert "with two small children" in plain.description
    # The line that needs no file says the same.
    fspo(printed("--output runs/by-hand"), *model)
    assert PreferenceDataset.load("runs/by-hand/data") == dataset


def test_topics_join_the_domain_and_the_data_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    model = writer_on(WITH_TOPICS)
    monkeypatch.setattr(LocalModel, "load", classmethod(lambda cls, name: model))
    (line,) = [line for line in LINES if line.endswith("synth my-run.yaml")]
    fspo(line)
    before = len(model.asked)
    assert before == 16 * 6
    paste(WITH_TOPICS)
    assert "6 users are in" in fspo(line, "--on-existing", "overwrite")
    assert len(model.asked) == before  # the questions and personas are the same
    users = PreferenceDataset.load(DATA).users
    assert users["nature-plain"].traits.keys() == {"topic.nature", "reading_grade", "length@nature"}
    checks = json.loads((DATA / "checks.json").read_text())
    assert {"topic.food", "topic.nature"} <= checks["attributes"].keys()


def writer_on(block: str) -> TopicalModel:
    """A model whose texts hold the words of the topics that a block lists."""
    listed = re.findall(r"^\w+: \[(.*)\]$", block.split("END\n")[0], re.MULTILINE)
    return TopicalModel([word for line in listed for word in line.split(", ")])


@pytest.mark.builtin_model
@pytest.mark.slow
def test_what_the_page_prints_runs_on_the_builtin_model(builtin_model_path: Path) -> None:
    (line,) = [line for line in LINES if line.endswith("synth my-run.yaml")]
    short = ("--set", "synthesis.max_tokens=16", "--set", "synthesis.responses=3")  # a seventh of what is printed
    assert "16 users are in" in fspo(line, *short)
    paste(WITH_TOPICS)
    assert "6 users are in" in fspo(line, *short, "--on-existing", "overwrite")


def test_the_commands_for_the_domains_of_the_package_are_those_of_their_configurations() -> None:
    assert printed("configs/elix-hard.yaml")
    for name in ("elix-easy", "roleplay", "reviews-paper"):
        assert name in printed("configs/elix-hard.yaml")
        assert (ROOT / f"configs/{name}.yaml").is_file()


def test_the_table_of_domains_counts_right() -> None:
    rows = dict(re.findall(r"^\| `([\w-]+)` \| ([^|]*\|[^|]*) \|$", PAGE.split("```")[0], re.MULTILINE))
    assert set(rows) == set(domain_names())
    for name, row in rows.items():
        domain = load_domain(name)
        users = len(slots_of(SynthesisConfig(domain=name), domain))
        assert re.search(rf"\| {users:,}[: ]", row), name
    assert f"{len({seed.topic for seed in load_domain('elix-hard').seeds})} fields" in rows["elix-hard"]
    assert f"{len({seed.topic for seed in load_domain('roleplay').seeds})} topics" in rows["roleplay"]


def test_every_key_prompt_and_variable_of_the_page_is_known_and_none_is_left_out() -> None:
    files = PAGE[PAGE.index("## The files") : PAGE.index("## Error messages")]
    kinds = (DomainFile, PersonRow, TraitRow, UsersFile, Directions, SteeringRow, StylesFile, TraitsOfText, TraitValue)
    for kind in kinds:
        for key in kind.model_fields:
            assert f"`{key}`" in files, key
    rows = re.findall(r"^\| `(\w+)` \| [^\n]* \| ([^|\n]*) \|$", files[files.index("| prompt |") :], re.MULTILINE)
    assert {name: frozenset(re.findall(r"`(\w+)`", told)) for name, told in rows} == PROMPTS
    assert {name: frozenset(re.findall(r"\*\*`(\w+)`\*\*", told)) for name, told in rows} == NEEDED
    listed = files[files.index("Attributes:") : files.index("`topic.NAME`")]
    assert set(re.findall(r"`(\w+)`", listed)) == set(ATTRIBUTES)


def test_the_pieces_of_files_that_the_page_shows_can_be_read() -> None:
    directions, listed, prompt = blocks("yaml", PAGE[PAGE.index("## The files") :])
    Path("my-domain/users.yaml").write_text(directions)
    domain = load_domain("my-domain")
    assert domain.weighed() == ("sentiment", "length", "formality")
    assert len(slots_of(SynthesisConfig(domain="my-domain", judge="measured"), domain)) == 50
    Path("my-domain/users.yaml").write_text(listed)
    Path("my-domain/prompts.yaml").write_text(prompt)
    domain = load_domain("my-domain")
    assert [person.held_out for person in domain.users.users] == [False, False, True]
    assert domain.prompts["view"].fill(view="cheap", question="", about="").endswith("Your point of view: cheap")


def replaced(file: str, old: str, new: str) -> Callable[[], None]:
    def change() -> None:
        path = Path("my-domain") / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return change


def written(file: str, text: str) -> Callable[[], None]:
    def change() -> None:
        Path("my-domain", file).write_text(text)

    return change


def of_another_topic() -> None:
    paste(WITH_TOPICS)
    replaced("users.yaml", "name: food", "name: sport")()


CHANGES: dict[str, Callable[[], None]] = {
    "no `steering.yaml`": lambda: Path("my-domain/steering.yaml").unlink(),
    "an empty `users.yaml`": written("users.yaml", "# nobody yet\n"),
    "`licens:` in place of `licence:`": replaced("domain.yaml", "licence:", "licens:"),
    "no questions": written("questions.yaml", ""),
    "two questions": written("questions.yaml", "- Why?\n- Where?\n- Why?\n"),
    "nothing below a topic": written("questions.yaml", "planning: [Why so, Where to, When]\nfood:\n"),
    "a colon without quotation marks": written(
        "questions.yaml", "culture:\n  - What is there?\n  - Rome: what to see?\n  - And in Lima?\n"
    ),
    "a number for a question": written("questions.yaml", "- Why?\n- Where?\n- 1984\n"),
    "`{titel}` in a question": replaced("questions.yaml", "Lisbon", "{titel}"),
    "a `titles.yaml`, and no `{title}`": written("titles.yaml", "city: [Rome, Lima]"),
    "a persona twice": replaced("steering.yaml", "name: professor", "name: child"),
    "`{qestion}` in a prompt": written("prompts.yaml", "view: '{qestion}'"),
    "`judge: 'A: {first} B: {second}'` in `prompts.yaml`": written("prompts.yaml", "judge: 'A: {first} B: {second}'"),
    "`juge:` in `prompts.yaml`": written("prompts.yaml", "juge: x"),
    "`combine: [compny, manner]`": replaced("users.yaml", "[company", "[compny"),
    "`{frm}` in the description": replaced("users.yaml", "{form}", "{frm}"),
    "`weights: {lenght: 1}`": replaced("users.yaml", "{length", "{lenght"),
    "`weights: {topic.sea: 1}`": replaced("users.yaml", "{length", "{topic.sea"),
    "an own topic without questions": of_another_topic,
    "neither `users` nor `traits`": written("users.yaml", "users: []"),
    "one user": written("users.yaml", "users: [{id: a, text: b, weights: {length: 1}}]"),
    "`held_out: true` for all": written(
        "users.yaml",
        "users:\n- {id: a, text: b, weights: {length: 1}, held_out: true}\n"
        "- {id: c, text: d, weights: {length: -1}, held_out: true}\n",
    ),
    "no `weights`, with `judge: measured`": written(
        "users.yaml", "users: [{id: brief, text: a, weights: {length: -1}}, {id: any, text: b}]"
    ),
}
TABLE = PAGE[PAGE.index("| in the folder | message |") : PAGE.index("With written responses:")]
REFUSED: Sequence[tuple[str, str]] = re.findall(r"^\| (.+?) \| `(.*)` \|$", TABLE, re.MULTILINE)


def test_every_refusal_of_the_page_is_tried() -> None:
    assert [row for row, _ in REFUSED] == list(CHANGES)


@pytest.mark.parametrize(("row", "told"), REFUSED, ids=[row for row, _ in REFUSED])
def test_what_is_refused_is_told_as_the_page_says(row: str, told: str) -> None:
    CHANGES[row]()
    with pytest.raises(DataError) as caught:
        slots_of(SynthesisConfig(domain="./my-domain", judge="measured"), load_domain("./my-domain"))
    assert str(caught.value) == told
    done = CliRunner().invoke(app, ["synth", "my-run.yaml", "--dry-run"])
    assert (done.exit_code, done.stderr) == (1, f"Error: {told}\n")


def test_a_writer_is_asked_for_what_it_can_give() -> None:
    """The stand-in of these tests varies in every attribute, or else they would show nothing."""
    model = TopicalModel(["sea", "food"])
    asked = (Message("user", "Where is the sea?"),)
    texts = [answer.text for answer in model.complete([CompletionRequest(asked, seed=seed) for seed in range(200)])]
    for name, attribute in ATTRIBUTES.items():
        assert len({attribute.measure(text) for text in texts}) > 1, name
