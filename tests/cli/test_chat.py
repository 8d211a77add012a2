"""A conversation on a run's folder: answers of the policy and of its base, and descriptions that people can replace."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from fspo.cli.chat import Chat
from fspo.cli.terminal import PrintableConsole
from fspo.errors import ConfigError, DataError
from fspo.files import read_json
from fspo.judging.declared import DeclaredJudge
from fspo.methods.adapted_policy import AdaptedPolicy
from fspo.modeling.loading import load_model
from fspo.modeling.policies import save_policy
from fspo.modeling.policy import Policy
from fspo.progress import Silent
from fspo.runs import pipeline
from fspo.runs.config import load_config
from fspo.runs.folder import RunFolder
from tests.evaluation.helpers import small_dataset
from tests.modeling.test_policies import adapted

DESCRIBING = {"objective": "ipo", "shots": 2, "describe": "own", "description_tokens": 12}


@pytest.fixture(scope="module")
def folder(speaking_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run on imported data with a policy that describes people."""
    place = tmp_path_factory.mktemp("run")
    small_dataset("mine").save(place / "mine")
    config = place / "mine.yaml"
    config.write_text(f"model: {speaking_model_path}\ndata: {place / 'mine'}\noutput: {place / 'run'}\n")
    run = RunFolder(load_config(config))
    pipeline.synth(run, Silent())
    policy = adapted(load_model(speaking_model_path, device="cpu"), 1)
    details = {"context": "both", "training": DESCRIBING}
    save_policy(policy, run.method("fspo-rat"), base=str(speaking_model_path), method="fspo-rat", details=details)
    return run


def talk(folder: RunFolder, method: str, user: str | None = None, shots: int = 2, **sampling: Any) -> Chat:
    return Chat.of(folder, method, user, shots, {"max_new_tokens": 8, "temperature": 1.0, **sampling}, seed=3)


def said(chat: Chat, *lines: str) -> str:
    file = io.StringIO()
    for line in lines:
        chat.react(line, PrintableConsole(file=file, force_terminal=False, width=200))
    return file.getvalue()


def test_the_method_and_the_base_answer_as_their_policies_do(folder: RunFolder, speaking_model_path: Path) -> None:
    user = "mine-length-more"
    personal, base = talk(folder, "few-shot", user).answers("What about it?")
    policy = Policy.load(speaking_model_path, context="shots", shots=2)
    how: dict[str, Any] = {"max_new_tokens": 8, "temperature": 1.0, "seed": 4}
    assert personal.text == policy.generate(small_dataset("mine").person(user), "What about it?", **how)
    assert base.text == policy.base.generate(None, "What about it?", **how)


def test_the_same_seed_gives_the_same_talk_and_a_prompt_asked_again_another_answer(folder: RunFolder) -> None:
    first, second = (said(talk(folder, "few-shot", guidance=1.0), "What about it?", "What about it?") for _ in "ab")
    assert first == second
    one, other = first.split("> What about it?")[1:]
    assert one != other


def test_a_method_that_adapts_answers_each_user_by_their_own_policy(folder: RunFolder) -> None:
    chat = talk(folder, "ttt", "mine-length-more", temperature=0.0)
    assert "ttt, for mine-length-more" in said(chat, "What about it?")
    assert said(chat, "/shots").count("chosen:") == 2
    assert isinstance(chat.policy, AdaptedPolicy)
    learned = chat.policy.adaptation.state(chat.person.shots[:2])
    said(chat, "/user mine-length-less")
    assert chat.policy.adaptation.state(chat.person.shots[:2]) is not learned
    plain = talk(folder, "base", "mine-length-more", temperature=0.0)
    assert chat.answers("Hm?")[1].text == plain.answers("Hm?")[1].text  # the base is as it was
    with pytest.raises(ConfigError, match="'ttt' changes the policy for each user"):
        talk(folder, "ttt", guidance=1.0)
    with pytest.raises(DataError, match="holds no trained policy yet"):
        talk(folder, "p-rlhf")


def test_commands_change_the_user_and_show_the_shots(folder: RunFolder) -> None:
    chat = talk(folder, "few-shot", "mine-length-more")
    assert "mine-exclamation-less" in said(chat, "/users")
    assert "has no user 'nobody'" in said(chat, "/user nobody")
    assert "Likes less exclamation." in said(chat, "/user mine-exclamation-less")
    assert said(chat, "/shots").count("chosen:") == 2
    assert "/quit" in said(chat, "/help")
    assert "few-shot writes no descriptions" in said(chat, "/describe")


def test_a_description_is_written_once_and_a_person_may_replace_it(folder: RunFolder) -> None:
    chat = talk(folder, "fspo-rat", "mine-length-more", guidance=1.0)
    written = chat.description()
    book = folder.path / "descriptions.json"
    assert read_json(book)["fspo-rat"]["mine-length-more"]["text"] == written == chat.policy.describe(chat.person)
    by_model = chat.policy.generate_batch([(chat.person, "Hm?")], seed=4, **chat.sampling)
    personal, base = chat.answers("Hm?")
    assert personal == by_model[0] and personal.text != base.text
    assert "Likes it short." in said(chat, "/describe Likes it short.")
    assert talk(folder, "fspo-rat", "mine-length-more").description() == "Likes it short."
    assert written in said(chat, "/describe -")


def test_what_there_is_no_talk_about_is_refused(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no method 'fsop'; did you mean 'fspo'"):
        talk(folder, "fsop")
    with pytest.raises(DataError, match="holds no trained policy yet"):
        talk(folder, "fspo")
    with pytest.raises(DataError, match="has no user 'nobody'"):
        talk(folder, "few-shot", "nobody")
    (tmp_path / "new.yaml").write_text(f"output: {tmp_path / 'run'}\n")
    with pytest.raises(DataError, match="no finished dataset"):
        talk(RunFolder(load_config(tmp_path / "new.yaml")), "base")


@pytest.fixture(scope="module")
def declared(folder: RunFolder) -> RunFolder:
    """The same run, whose responses declare two traits: no two of them on one question the same."""
    dataset = pipeline.dataset_of(folder)
    traits: dict[str, dict[str, int | str]] = {}
    for row in dataset:
        traits |= {text: {"tone": place, "order": place} for place, text in enumerate((row.chosen, row.rejected))}
    DeclaredJudge({"tone": (0, 1), "order": (0, 1)}, traits).save(folder.data / "judge.json")
    return folder


def opened(chat: Chat, folder: RunFolder, *typed: str, count: int = 2) -> tuple[list[str], str]:
    """What is left to answer, and what was printed."""
    file = io.StringIO()
    out = PrintableConsole(file=file, force_terminal=False, width=200)
    return chat.open(chat.questions(folder, count), iter(typed), out), file.getvalue()


def test_answers_to_the_opening_questions_become_the_shots(declared: RunFolder) -> None:
    chat = talk(declared, "few-shot")
    left, printed = opened(chat, declared, "2\n", "1\n", "What about it?\n")
    assert not left and chat.user == "you" and "(2 of 2)" in printed
    first, second = chat.questions(declared, 2)
    assert [(shot.chosen, shot.rejected) for shot in chat.person.shots] == [
        (first.second, first.first),
        (second.first, second.second),
    ]
    assert "few-shot, for you" in said(chat, "What about it?")
    assert said(chat, "/shots").count("chosen:") == 2
    assert said(chat, "/users").startswith("you, ")
    assert "Likes" in said(chat, "/user mine-exclamation-less")
    assert "Speaking for you" in said(chat, "/user you")


@pytest.mark.parametrize(
    ("typed", "left", "shots"),
    [
        (("\n", "1\n"), [], 1),
        (("1\n", "What about it?\n"), ["What about it?\n"], 1),
        (("Why?\n", "1\n"), ["Why?\n"], 0),
        (("\n", "\n"), [], 0),
        ((), [], 0),
    ],
)
def test_the_opening_questions_can_be_skipped(
    declared: RunFolder, typed: tuple[str, ...], left: list[str], shots: int
) -> None:
    chat = talk(declared, "few-shot")
    user = chat.user
    assert opened(chat, declared, *typed)[0] == left
    assert len(chat.own) == shots and chat.user == ("you" if shots else user)


def test_nothing_is_asked_where_no_answer_could_be_shown(declared: RunFolder) -> None:
    assert talk(declared, "base").questions(declared, 2) == []
    assert talk(declared, "few-shot", shots=0).questions(declared, 2) == []
    assert talk(declared, "few-shot").questions(declared, 0) == []
    assert len(talk(declared, "few-shot", shots=1).questions(declared, 2)) == 1
