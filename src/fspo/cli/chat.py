"""`fspo chat`: answers for one user of a dataset, personalised beside base."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fspo.cli.options import ConfigFile, DryRun, OutputFolder, Overrides, configured, console
from fspo.errors import ConfigError
from fspo.identity import digest
from fspo.preferences.sampling import shots_beside
from fspo.printing import option
from fspo.runs.descriptions import DESCRIPTIONS_FILE, DescriptionBook

if TYPE_CHECKING:
    from rich.console import Console

    from fspo.methods.method import Method
    from fspo.modeling.answering import Reply
    from fspo.modeling.policy import Policy, SamplingOptions
    from fspo.preferences.dataset import PreferenceDataset
    from fspo.preferences.response_pair import ResponsePair
    from fspo.preferences.types import Person, Preference
    from fspo.runs.folder import RunFolder

__all__ = ["Chat", "chat"]

_YOU = "you"
"""The person who types."""
_ASKED = "Which of these do you prefer? Type 1 or 2; Enter skips the question, and a prompt skips all of them."
_HELP = "Type a prompt. /user ID switches to another user, /users lists them, /shots prints the shots, /quit ends."
_DESCRIBING = (
    "/describe prints the method's description of this user, /describe TEXT replaces it, /describe - resets it."
)


def chat(
    file: Annotated[Path | None, typer.Argument(help="YAML file of the run, or the folder of a run.")] = None,
    config: ConfigFile = None,
    overrides: Overrides = None,
    output: OutputFolder = None,
    user: Annotated[str | None, typer.Option("--user", "-u", help="Id of the user; by default a held-out one.")] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="Answer this prompt and stop. Can be repeated.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", help="Method that personalises; by default fspo, or else the only one."),
    ] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="Number of shots; by default as in the evaluation.")] = None,
    ask: Annotated[
        int,
        typer.Option(min=0, help="Questions to you at the beginning, where responses declare traits; 0 asks nothing."),
    ] = 2,
    guidance: Annotated[float, typer.Option(min=0, help="Push away from the mirrored user; 0 samples plainly.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of an answer, in tokens.")] = 96,
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the most likely token.")] = 0.7,
    seed: Annotated[int, typer.Option(help="Same seed, same answers.")] = 0,
    dry_run: DryRun = False,
) -> None:
    """Answer prompts for one user of a run's dataset: the chosen method beside the base model.

    On a domain with written responses it first asks which of two responses you prefer. Your answers become the shots,
    and the method speaks for you. With --user or --prompt, or without an answer, it speaks for a user of the dataset.

    Examples:
      fspo chat --config configs/demo.yaml

      fspo chat runs/demo --user elix-written-0001 --prompt "Why is the sky blue?"

      fspo chat runs/demo --method few-shot --guidance 2
    """
    settings = configured(file, config, overrides, output)
    from fspo.modeling.quiet import quiet
    from fspo.modeling.threads import sleep_while_busy
    from fspo.runs.folder import RunFolder

    folder = RunFolder(settings)
    method = method or _only_method(folder)
    sampling: SamplingOptions = {"guidance": guidance, "max_new_tokens": max_tokens, "temperature": temperature}
    talk = Chat.of(folder, method, user, settings.evaluation.shots if shots is None else shots, sampling, seed)
    out = console()
    if dry_run:
        out.print(f"Would answer for {talk.user} with {method} and {talk.policy.shots} shots.", markup=False)
        return
    quiet()
    sleep_while_busy()
    if prompt:
        for text in prompt:
            talk.show(text, out)
        return
    lines = _lines()
    typed = talk.open(talk.questions(folder, ask) if user is None else (), lines, out)
    talk.greet(out)
    for line in chain(typed, lines):
        talk.react(line, out)


@dataclass
class Chat:
    """One conversation: whose preferences the policy sees, and how answers are sampled."""

    dataset: PreferenceDataset
    user: str
    method: str
    policy: Policy
    """Its weights are read at the first answer."""
    sampling: SamplingOptions
    seed: int
    book: DescriptionBook
    """Descriptions that the method wrote itself, or a person for it."""
    own: tuple[Preference, ...] = ()
    """The preferences of the person who types."""
    prompts: int = field(default=0)
    """How many were answered, so that a prompt that is repeated is answered differently."""

    @classmethod
    def of(
        cls, folder: RunFolder, method: str, user: str | None, shots: int, sampling: SamplingOptions, seed: int
    ) -> Chat:
        """A conversation on what lies in a run's folder.

        Raises:
            ConfigError: there is no such method, or it adapts to each user and is to be guided.
            DataError: the method is not trained yet, or there is no such user.
        """
        from fspo.methods.table import method as method_named
        from fspo.preferences.dataset import PreferenceDataset
        from fspo.runs import pipeline

        row = method_named(method)
        if not (folder.data / "splits.json").is_file():
            raise pipeline.no_data(folder)
        splits = pipeline.splits_of(folder)
        dataset = PreferenceDataset.load(folder.data)
        chosen = user if user is not None else min(splits.users["test"] or dataset.users)
        dataset.of_user(chosen)
        policy = _policy_of(folder, row, shots)
        if sampling.get("guidance") and row.adaptation is not None:
            raise ConfigError(
                f"{option('guidance')}: '{method}' changes the policy for each user, and guidance would need those of "
                "two users at once; leave the option out."
            )
        return cls(dataset, chosen, method, policy, sampling, seed, DescriptionBook(folder.path / DESCRIPTIONS_FILE))

    @property
    def person(self) -> Person:
        """What the method may see of the user."""
        from fspo.preferences.types import Person

        return Person(self.own) if self.user == _YOU and self.own else self.dataset.person(self.user)

    def questions(self, folder: RunFolder, count: int) -> list[ResponsePair]:
        """What to ask the person who types: pairs of held-out responses; none where these declare no traits.

        Nor where the method sees no shots.
        """
        from fspo.judging.by_topic import load_judge
        from fspo.judging.declared import DeclaredJudge
        from fspo.runs import pipeline
        from fspo.runs.opening import opening_questions

        path = folder.data / "judge.json"
        count = min(count, self.policy.shots)
        if not count or not self.policy.reads_shots or not path.is_file():
            return []
        judge = load_judge(path)
        if not isinstance(judge, DeclaredJudge):
            return []
        rows = pipeline.splits_of(folder).part(self.dataset, "test")
        return opening_questions(rows, judge, count, self.seed)

    def open(self, questions: Sequence[ResponsePair], lines: Iterator[str], out: Console) -> list[str]:
        """Ask the questions; the answers become the shots. What is typed in place of an answer ends it.

        Returns:
            What was typed in place of an answer, if anything was.
        """
        for number, question in enumerate(questions, start=1):
            if number == 1:
                out.print(_ASKED, markup=False)
            out.print(f"\n({number} of {len(questions)}) {question.prompt}", markup=False)
            out.print(f"\n1: {question.first}\n\n2: {question.second}\n", markup=False)
            line = next(lines, None)
            if line is None:
                return []
            if line.strip() in ("1", "2"):
                self.own += (question.answered(_YOU, second=line.strip() == "2"),)
                self.user = _YOU
            elif line.strip():
                return [line]
        return []

    def answers(self, prompt: str) -> tuple[Reply, Reply]:
        """The personalised and the base model's answer to one prompt, sampled with the same random numbers."""
        self.prompts += 1
        seed = self.seed + self.prompts
        description = self.description() if self.policy.describes else None
        (personal,) = self.policy.generate_batch(
            [(self.person, prompt)], seed=seed, description=description, **self.sampling
        )
        (base,) = self.policy.base.generate_batch([(None, prompt)], seed=seed, **self.sampling)
        return personal, base

    def description(self) -> str:
        """How the method describes the user, or what a person made of it; written once."""
        weights = self.policy.weights
        origin = digest([weights and weights.identity, str(shots_beside("", self.person.shots, self.policy.shots))])
        return self.book.of(self.method, self.user, origin, lambda: self.policy.describe(self.person))

    def describe(self, text: str, out: Console) -> None:
        """Show the method's description of the user, after replacing it by `text` if there is one."""
        if not self.policy.describes:
            out.print(f"The method {self.method} writes no descriptions of users.", markup=False)
            return
        if text:
            self.book.edit(self.method, self.user, "" if text == "-" else text)
        out.print(f"{self.method} on {self.user}: {self.description() or '(nothing)'}", markup=False)

    def show(self, prompt: str, out: Console) -> None:
        """Print both answers, side by side where there is room."""
        personal, base = self.answers(prompt)
        title = f"{self.method}, for {self.user}"
        if personal.dropped_shots:
            title += f" (no room for the oldest shots: {personal.dropped_shots})"
        if not out.is_terminal:
            out.print(f"> {prompt}\n\n[{title}]\n{personal.text}\n\n[base]\n{base.text}\n", markup=False)
            return
        from rich.columns import Columns
        from rich.panel import Panel
        from rich.text import Text

        from fspo.printing import printable

        width = max(30, (out.width - 2) // 2)
        panels = [
            # Printable here already, since an escape is longer than what a line was broken for.
            Panel(Text(printable(text)), title=Text(printable(name)), width=width)
            for name, text in ((title, personal.text), ("base", base.text))
        ]
        out.print(Columns(panels, padding=(0, 1)))

    def greet(self, out: Console) -> None:
        """Say for whom the model speaks, and what can be typed."""
        more = f" {_DESCRIBING}" if self.policy.describes else ""
        about = self.person.description or f"{len(self.person.shots)} preferences"
        out.print(f"Speaking for {self.user}: {about}\n{_HELP}{more}\n", markup=False)

    def react(self, line: str, out: Console) -> None:
        """Do what was typed; after a mistake the conversation goes on."""
        from fspo.errors import FspoError

        word, _, rest = line.strip().partition(" ")
        try:
            if word == "/users":
                out.print(", ".join([*([_YOU] if self.own else []), *self.dataset.users]), markup=False)
            elif word == "/user":
                if rest.strip() != _YOU or not self.own:
                    self.dataset.of_user(rest.strip())
                self.user = rest.strip()
                self.greet(out)
            elif word == "/describe":
                self.describe(rest.strip(), out)
            elif word == "/shots":
                for shot in shots_beside("", self.person.shots, self.policy.shots):
                    out.print(
                        f"prompt:   {shot.prompt}\nchosen:   {shot.chosen}\nrejected: {shot.rejected}\n", markup=False
                    )
            elif word.startswith("/"):
                out.print(_HELP, markup=False)
            elif line.strip():
                self.show(line.strip(), out)
        except FspoError as error:
            out.print(str(error), markup=False)


def _policy_of(folder: RunFolder, row: Method, shots: int) -> Policy:
    """The policy of a method in a run; its weights are read at the first answer.

    Raises:
        DataError: it is not trained yet.
    """
    from fspo.methods.adaptation import AdaptationRow
    from fspo.methods.adapted_policy import AdaptedPolicy
    from fspo.modeling.policy import Policy
    from fspo.runs import pipeline

    config = folder.config
    settings = config.evaluation
    if row.adaptation is not None:
        adapted = config.adaptations.get(row.name) or AdaptationRow(row.name, row.adaptation)
        start = row.name if row.trains else adapted.settings.start
        return AdaptedPolicy(
            pipeline.policy_of(folder, start) if start else config.model,
            adapted,
            shots=shots,
            layout=settings.layout,
            max_length=settings.max_length,
            dtype=settings.dtype,
        )
    return Policy.load(
        pipeline.policy_of(folder, row.name) if row.trains else config.model,
        context=row.context,
        shots=shots,
        dtype=settings.dtype,
        max_length=settings.max_length,
        layout=None if row.trains else settings.layout,  # a policy sees shots as in its training
    )


def _only_method(folder: RunFolder) -> str:
    """The method whose policy the run stands for; fspo where none is trained yet."""
    from fspo.modeling.model_names import MAIN_METHOD, policy_in

    policy = policy_in(folder.path)
    return MAIN_METHOD if policy is None else policy.name


def _lines() -> Iterator[str]:
    while True:
        try:
            line = input("> ") if sys.stdin.isatty() else sys.stdin.readline()
        except EOFError:
            return
        if line.strip() == "/quit" or (not line and not sys.stdin.isatty()):
            return
        yield line
