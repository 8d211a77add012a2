"""`fspo chat`: answers for one user of a dataset, personalised beside base."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fspo.cli.options import ConfigFile, DryRun, OutputFolder, Overrides, configured, console
from fspo.identity import digest
from fspo.runs.descriptions import DESCRIPTIONS_FILE, DescriptionBook

if TYPE_CHECKING:
    from rich.console import Console

    from fspo.evaluation.scoring.weights import Weights
    from fspo.preferences.dataset import PreferenceDataset
    from fspo.preferences.types import Preference

__all__ = ["Chat", "Draw", "chat", "shots_of"]

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
    method: Annotated[str, typer.Option("--method", "-m", help="Method that personalises.")] = "fspo",
    shots: Annotated[int | None, typer.Option(min=0, help="Number of shots; by default as in the evaluation.")] = None,
    guidance: Annotated[float, typer.Option(min=0, help="Push away from the mirrored user; 0 samples plainly.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 96,
    temperature: Annotated[float, typer.Option(min=0, help="0 always takes the most likely token.")] = 0.7,
    seed: Annotated[int, typer.Option(help="Same seed, same answers.")] = 0,
    dry_run: DryRun = False,
) -> None:
    """Answer prompts for one user of a run's dataset: the chosen method beside the base model.

    Examples:
      fspo chat --config configs/reviews-cpu.yaml

      fspo chat runs/reviews-cpu --user high-sentiment-low-length --prompt "Write a short review of the film Alien."

      fspo chat runs/reviews-cpu --method few-shot --guidance 2
    """
    settings = configured(file, config, overrides, output)
    from fspo.modeling.threads import sleep_while_busy
    from fspo.runs.folder import RunFolder
    from fspo.runs.notices import quiet

    folder = RunFolder(settings)
    draw = Draw(guidance, max_tokens, temperature, seed)
    talk = Chat.of(folder, method, user, settings.evaluation.shots if shots is None else shots, draw)
    out = console()
    if dry_run:
        out.print(f"Would answer for {talk.user} with {method} and {talk.count} shots.", markup=False)
        return
    quiet()
    sleep_while_busy()
    if prompt:
        for text in prompt:
            talk.show(text, out)
        return
    talk.greet(out)
    for line in _lines():
        talk.react(line, out)


@dataclass(frozen=True)
class Draw:
    """How answers are drawn."""

    guidance: float = 0.0
    max_tokens: int = 96
    temperature: float = 0.7
    seed: int = 0


@dataclass
class Chat:
    """One conversation: whose preferences are shown, to which weights. Weights are read at the first answer."""

    dataset: PreferenceDataset
    user: str
    method: str
    count: int
    draw: Draw
    personal: Weights
    base: Weights
    book: DescriptionBook
    """Descriptions that the method wrote itself, or a person for it."""
    asked: int = field(default=0)

    @classmethod
    def of(cls, folder: Any, method: str, user: str | None, count: int, draw: Draw) -> Chat:
        """A conversation on what lies in a run's folder.

        Raises:
            ConfigError: there is no such method.
            DataError: the method is not trained yet, or there is no such user.
        """
        from fspo.errors import DataError
        from fspo.evaluation.scoring.weights import Weights
        from fspo.methods.table import method as method_named
        from fspo.preferences.dataset import PreferenceDataset
        from fspo.runs import pipeline

        row = method_named(method)
        if not (folder.data / "splits.json").is_file():
            raise DataError(f"{folder.data} holds no finished dataset; run `fspo synth` or `fspo run` first.")
        splits = pipeline.splits_of(folder)
        dataset = PreferenceDataset.load(folder.data)
        chosen = user if user is not None else min(splits.users["test"] or dataset.users)
        dataset.of_user(chosen)
        policies = {method: pipeline.policy_of(folder, method) if row.trains else None}
        settings = folder.config.evaluation
        model = folder.config.model
        options: dict[str, Any] = {"dtype": settings.dtype, "max_length": settings.max_length}
        personal, base = Weights(model, policies, **options), Weights(model, {}, **options)
        book = DescriptionBook(folder.path / DESCRIPTIONS_FILE)
        return cls(dataset, chosen, method, count, draw, personal, base, book)

    def answers(self, prompt: str) -> tuple[str, str, int]:
        """The personalised and the base model's answer to one prompt, and how many shots had no room beside them.

        Both are drawn with the same numbers.
        """
        from fspo.methods.table import METHODS

        self.asked += 1
        row = METHODS[self.method]
        shown = shots_of(self.dataset, self.user, self.count, prompt) if row.context in ("shots", "both") else ()
        personal, dropped = self._answer(self.personal, self.method, row.context, shown, prompt)
        base, _ = self._answer(self.base, "base", "none", (), prompt)
        return personal, base, dropped

    def _answer(
        self, weights: Weights, name: str, context: Any, shown: Sequence[Preference], prompt: str
    ) -> tuple[str, int]:
        from fspo.methods.table import METHODS
        from fspo.modeling.generation import AnswerRequest, generate

        renderer = weights.renderer(context)
        description, mirrored = self.dataset.users[self.user].description, None
        if METHODS[name].describes:
            description = self.description()
            mirrored = self._mirror_description() if self.draw.guidance else ""
        asked = renderer.render_prompt(
            shown, prompt, description, mirror_description=mirrored, reserve=self.draw.max_tokens
        )
        (text,) = generate(
            weights.load(weights.source(name)),
            weights.tokenizer,
            [AnswerRequest(asked.trunk_ids, asked.prompt_ids, asked.mirror_trunk_ids, seed=self.asked)],
            max_new_tokens=self.draw.max_tokens,
            temperature=self.draw.temperature,
            guidance=self.draw.guidance,
            seed=self.draw.seed,
        )
        return text, asked.dropped_shots

    def description(self) -> str:
        """How the method describes the user, or what a person made of it; written once."""
        shots = shots_of(self.dataset, self.user, self.count, "")
        origin = digest([self._fingerprint, str(shots)])
        return self.book.of(self.method, self.user, origin, lambda: self._written(shots))

    def _mirror_description(self) -> str:
        """How the method describes whoever would have given the opposite labels; not kept, since it is nobody."""
        return self._written([shot.swap() for shot in shots_of(self.dataset, self.user, self.count, "")])

    def _written(self, shots: Sequence[Preference]) -> str:
        from fspo.modeling.descriptions import write_descriptions

        weights = self.personal.load(self.personal.source(self.method))
        return write_descriptions(weights, self.personal.renderer("both"), [shots])[0].text

    @property
    def _fingerprint(self) -> str:
        return self.personal.fingerprint(self.personal.source(self.method))

    def describe(self, text: str, out: Console) -> None:
        """Show the method's description of the user, after replacing it by `text` if there is one."""
        from fspo.methods.table import METHODS

        if not METHODS[self.method].describes:
            out.print(f"The method {self.method} describes nobody in words of its own.", markup=False)
            return
        if text:
            self.book.edit(self.method, self.user, "" if text == "-" else text)
        out.print(f"{self.method} on {self.user}: {self.description() or '(nothing)'}", markup=False)

    def show(self, prompt: str, out: Console) -> None:
        """Print both answers, side by side where there is room."""
        personal, base, dropped = self.answers(prompt)
        title = f"{self.method}, for {self.user}"
        if dropped:
            title += f" (no room for the oldest shots: {dropped})"
        if not out.is_terminal:
            out.print(f"> {prompt}\n\n[{title}]\n{personal}\n\n[base]\n{base}\n", markup=False)
            return
        from rich.columns import Columns
        from rich.panel import Panel
        from rich.text import Text

        from fspo.printing import printable

        width = max(30, (out.width - 2) // 2)
        panels = [
            # Printable here already, since an escape is longer than what a line was broken for.
            Panel(Text(printable(text)), title=Text(printable(name)), width=width)
            for name, text in ((title, personal), ("base", base))
        ]
        out.print(Columns(panels, padding=(0, 1)))

    def greet(self, out: Console) -> None:
        """Say for whom the model speaks, and what can be typed."""
        description = self.dataset.users[self.user].description
        from fspo.methods.table import METHODS

        more = f" {_DESCRIBING}" if METHODS[self.method].describes else ""
        out.print(f"Speaking for {self.user}: {description}\n{_HELP}{more}\n", markup=False)

    def react(self, line: str, out: Console) -> None:
        """Do what was typed; a mistake is told and the conversation goes on."""
        from fspo.errors import FspoError

        word, _, rest = line.strip().partition(" ")
        try:
            if word == "/users":
                out.print(", ".join(self.dataset.users), markup=False)
            elif word == "/user":
                self.dataset.of_user(rest.strip())
                self.user = rest.strip()
                self.greet(out)
            elif word == "/describe":
                self.describe(rest.strip(), out)
            elif word == "/shots":
                for shot in shots_of(self.dataset, self.user, self.count, ""):
                    out.print(
                        f"prompt:   {shot.prompt}\nchosen:   {shot.chosen}\nrejected: {shot.rejected}\n", markup=False
                    )
            elif word.startswith("/"):
                out.print(_HELP, markup=False)
            elif line.strip():
                self.show(line.strip(), out)
        except FspoError as error:
            out.print(str(error), markup=False)


def shots_of(dataset: PreferenceDataset, user: str, count: int, prompt: str) -> tuple[Preference, ...]:
    """The preferences of a user that are shown beside `prompt`."""
    from fspo.preferences.sampling import shots_beside

    return shots_beside(prompt, dataset.of_user(user), count)


def _lines() -> Iterator[str]:
    while True:
        try:
            line = input("> ") if sys.stdin.isatty() else sys.stdin.readline()
        except EOFError:
            return
        if line.strip() == "/quit" or (not line and not sys.stdin.isatty()):
            return
        yield line
