"""Rounds: a policy writes answers, a method makes preferences of them, and training on these gives the next policy.

Round r starts from the policy of round r - 1, which is its reference too; round 1 starts from the start of the whole
training. Everything is on disk: `rounds/R/` holds the answers that round R was trained on and its policy, and
`rounds.jsonl` what was measured after each round. The same call again continues in the middle of any of them, to the
same result. The policy of the last round goes to the folder itself, as one training from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, TypeVar

import torch

from fspo.errors import ConfigError, DataError, FspoError, TrainingError
from fspo.files import read_json, read_jsonl, to_json, write_text
from fspo.identity import seed_by
from fspo.judging.judge import Judge, can_judge
from fspo.judging.verdicts import SCORES
from fspo.methods.method import Job
from fspo.methods.round_settings import RoundSettings
from fspo.modeling.answering import Prompt, Reply, answer
from fspo.modeling.fitting import Fitted, Room, fitted
from fspo.modeling.generation import Sampling
from fspo.modeling.loading import context_length, fast_dtype, load_model, load_tokenizer
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.policies import is_policy, join_policies, load_policy
from fspo.modeling.preparing import prepare_model
from fspo.modeling.rendering import REMEMBERED_TEXTS, Context, EpisodeRenderer
from fspo.paths import expanded
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.sampling import EpisodeSampler, short_users_said
from fspo.preferences.types import Episode, Preference
from fspo.printing import counted
from fspo.records import KeyedLog
from fspo.training.long_rows import max_length_of
from fspo.training.processes import agreed, joined
from fspo.training.start import Start
from fspo.training.train import train_policy
from fspo.training.trainer import METRICS_FILE
from fspo.training.training_folder import TRAINING_FILE, check_record, move_policy, save_record

__all__ = ["FIGURES_FILE", "ROUNDS_FOLDER", "Pairs", "Round", "RoundFigures", "play"]

T = TypeVar("T")

ROUNDS_FOLDER = "rounds"
FIGURES_FILE = "rounds.jsonl"
"""What was measured after each round, beside the policy."""


@dataclass(frozen=True)
class Pairs:
    """The preferences of a round, and what could not be used."""

    episodes: tuple[Episode, ...]
    """The round's episodes; each query compares two responses."""
    same: int = 0
    """Pairs of equal responses, which teach nothing."""
    empty: int = 0
    """Pairs with an empty response."""

    @classmethod
    def of(cls, episodes: Iterable[Episode]) -> Pairs:
        """The pairs that can be trained on; episodes without any are left out."""
        kept, same, empty = [], 0, 0
        for episode in episodes:
            texts = [(query.chosen.strip(), query.rejected.strip()) for query in episode.queries]
            empty += sum(not (chosen and rejected) for chosen, rejected in texts)
            same += sum(bool(chosen) and chosen == rejected for chosen, rejected in texts)
            usable = [a != b and bool(a) and bool(b) for a, b in texts]
            queries = tuple(query for query, use in zip(episode.queries, usable, strict=True) if use)
            kept += [replace(episode, queries=queries)] if queries else []
        return cls(tuple(kept), same, empty)

    @property
    def count(self) -> int:
        """How many pairs can be trained on."""
        return sum(len(episode.queries) for episode in self.episodes)


@dataclass(frozen=True)
class RoundFigures:
    """What is measured after a round; round 0 is the start."""

    round: int
    pairs: int = 0
    """Pairs that the round was trained on."""
    same: int = 0
    """Pairs that were left out because both responses are equal."""
    empty: int = 0
    """Pairs that were left out because a response is empty."""
    right_labels: float | None = None
    """Share of the round's labels that the judge of the data agrees with, of those that are no tie to it."""
    probes: int = 0
    """Questions that were answered."""
    answer_words: float | None = None
    """Words of an answer, on average."""
    chosen_words: float | None = None
    """Words of the chosen responses to the same questions."""
    unfinished: float | None = None
    """Share of answers that ran into `max_new_tokens`."""
    win_over_start: float | None = None
    """Win rate over the answers of the start, by the judge of the data; a tie counts a half."""
    win_over_chosen: float | None = None
    """Win rate over the chosen responses."""

    @property
    def said(self) -> str:
        """The figures in a sentence."""
        left_out = [f"{n} {what}" for n, what in ((self.same, "equal"), (self.empty, "empty")) if n]
        more = f" (left out: {', '.join(left_out)})" if left_out else ""
        parts = [counted(self.pairs, "pairs") + more] if self.round else []
        if self.answer_words is not None:
            parts.append(f"answers of {self.answer_words:.1f} words (chosen: {self.chosen_words:.1f})")
        parts += [] if self.right_labels is None else [f"{100 * self.right_labels:.1f}% of the labels right"]
        for name, value in (("the start", self.win_over_start), ("the chosen responses", self.win_over_chosen)):
            parts += [] if value is None else [f"{100 * value:.1f}% wins over {name}"]
        return ", ".join(parts)


@dataclass(frozen=True)
class Round:
    """One round: which policy answers, and where the answers go."""

    number: int
    """From 1."""
    chain: tuple[str | Path, ...]
    """The start of the whole training, and the policies of all rounds before, as names or folders."""
    folder: Path
    """Of this round."""
    job: Job
    setup: _Setup

    @property
    def policy(self) -> str | Path:
        """What the round starts from, and what answers in it."""
        return self.chain[-1]

    @property
    def config(self) -> Any:
        """The settings: an instance of the method's `settings`."""
        return self.job.config

    @property
    def renderer(self) -> EpisodeRenderer:
        """Renders with the method's context."""
        return self.setup.renderer

    @property
    def dataset(self) -> PreferenceDataset:
        """The training part, without what the model can't read whole."""
        return self.setup.read.dataset

    def seed(self, *parts: Any) -> int:
        """A seed for something in this round."""
        return seed_by("rounds", self.config.seed, "round", self.number, *parts)

    def sampler(
        self, dataset: PreferenceDataset | None = None, *, shots: int | None = None, skip: bool = False
    ) -> EpisodeSampler:
        """Draws the round's episodes, as `draw` does; the first round says which users are left out."""
        dataset, seed = dataset or self.dataset, self.seed("episodes")
        found = self.setup.sampler(dataset, seed, self.config.queries, shots=shots, skip=skip)
        for line in short_users_said(found.skipped, "the training part") if self.number == 1 else ():
            self.job.progress.say(line)
        return found

    def draw(
        self, dataset: PreferenceDataset | None = None, *, shots: int | None = None, skip: bool = False
    ) -> list[Episode]:
        """The round's episodes: as many as its steps show, or `episodes` of them; every round draws its own.

        `shots` are by default those that the method shows; `skip` leaves out users with too few preferences.
        """
        config, sampler = self.config, self.sampler(dataset, shots=shots, skip=skip)
        return [sampler.episode(n) for n in range(config.episodes or config.steps * config.users_per_step)]

    def answers(
        self,
        prompts: Mapping[str, Prompt],
        *,
        name: str = "answers",
        model: str | Path | None = None,
        context: Context | None = None,
        max_new_tokens: int | None = None,
    ) -> dict[str, Reply]:
        """The reply to each prompt, by its key, which also says which draw it is; the file `name` has them.

        The model, what it sees of the user, and the longest answer are those of the round unless others are given.
        """
        renderer = self.renderer if context is None else self.renderer.with_context(context)
        seeded = {key: replace(prompt, seed=self.seed(name, key)) for key, prompt in prompts.items()}
        title = f"Round {self.number} of {self.config.rounds}, {name}"
        path = self.folder / f"{name}.jsonl"
        title = f"{self.job.method.name}: {title}"
        return self.setup.written(seeded, path, model or self.policy, renderer, title, max_new_tokens)

    def once(self, compute: Callable[[], T]) -> T:
        """What the first process computes, at all of them; an error of its too."""
        return _by_first(compute)

    def train(self, name: str, episodes: Sequence[Episode], steps: int, *, context: Context | None = None) -> Path:
        """Fine-tune the round's policy on the chosen responses of other episodes: a tool of the round, named `name`."""
        return self._tool(self.folder / name, self.policy, self.seed(name), episodes, steps, context)

    def train_once(self, name: str, episodes: Sequence[Episode], steps: int, *, context: Context | None = None) -> Path:
        """The same from the start, once for all rounds."""
        seed = seed_by("rounds", self.config.seed, name)
        return self._tool(self.folder.parent / "0" / name, self.chain[0], seed, episodes, steps, context)

    def _tool(
        self,
        folder: Path,
        model: str | Path,
        seed: int,
        episodes: Sequence[Episode],
        steps: int,
        context: Context | None,
    ) -> Path:
        return train_policy(
            self.config.of_fine_tuning(len(episodes), steps, seed=seed),
            self.dataset,
            model=model,
            out=folder,
            context=context or self.job.method.context,
            progress=self.job.progress,
            method=f"{self.job.method.name} {folder.name}",
            callbacks=self.job.callbacks,
            episodes=episodes,
        )

    def own_answers(
        self, episodes: Sequence[Episode], count: int = 1, *, name: str = "answers"
    ) -> Iterator[tuple[Episode, list[list[Reply]]]]:
        """Each episode with `count` answers of the round's policy to each query, given the episode's shots."""
        prompts = {
            f"{place}.{number}.{draw}": Prompt(query.messages, episode.shots)
            for place, episode in enumerate(episodes)
            for number, query in enumerate(episode.queries)
            for draw in range(count)
        }
        found = iter(self.answers(prompts, name=name).values())
        for episode in episodes:
            yield episode, [[next(found) for _ in range(count)] for _ in episode.queries]

    def margins(self, episodes: Sequence[Episode], place: int) -> list[list[float]]:
        """Log pi(chosen) - log pi(rejected) of each query of each episode, under one policy of the chain.

        `place` is that of the policy; they are of sums over tokens or of means, as in training.
        """
        keyed = {str(number): episode for number, episode in enumerate(episodes)}
        title = f"{self.job.method.name}: Round {self.number} of {self.config.rounds}, scoring"
        path = self.folder / f"margins-{place % len(self.chain)}.jsonl"
        return self.setup.scored(keyed, path, self.chain[place], title)


def play(job: Job, make: Callable[[Round], Pairs]) -> Path:
    """Train in rounds; `make` gives the pairs that a round is trained on, and none if there is nothing to learn.

    Returns `job.out`, with the policy of the last round.

    Raises:
        ConfigError: `job.out` holds another training.
        DataError: a user has too few preferences.
        TrainingError: the first round has nothing to learn.
    """
    job = replace(job, out=expanded(job.out), model=expanded(job.model))
    setup = _Setup(job)
    done = (job.out / TRAINING_FILE).exists() and check_record(job.out, setup.identity, job.config)
    if done and is_policy(job.out):
        return job.out
    if joined().is_main_process:
        save_record(job.out, setup.identity, finished=False)
    for line in setup.read.said("the training part"):
        job.progress.say(line)
    log = KeyedLog(job.out / FIGURES_FILE, RoundFigures)
    policies: list[Path] = []
    for number in range(1, setup.config.rounds + 1):
        one = Round(number, (job.model, *policies), job.out / ROUNDS_FOLDER / str(number), job, setup)
        pairs = make(one)
        if not pairs.count:
            _nothing_left(one, pairs)
            break
        if number == 1:  # after the data have turned out to be enough
            _measure(setup, log, 0, job.model, Pairs(()))
        policies.append(_train(one, pairs))
        _measure(setup, log, number, policies[-1], pairs)
    _publish(setup, policies, log)
    return job.out


def _nothing_left(one: Round, pairs: Pairs) -> None:
    """Say that a round has nothing to learn.

    Raises:
        TrainingError: it is the first one.
    """
    name = one.job.method.name
    why = f"{pairs.same} pairs have two equal responses and {pairs.empty} an empty one"
    if one.number == 1:
        raise TrainingError(
            f"'{name}' has nothing to learn from the answers of {one.policy}: {why}; leave the method out, or raise "
            f"training.{name}.temperature or episodes."
        )
    one.job.progress.say(f"{name} ends after round {one.number - 1}, since nothing is left to learn: {why}.")


def _train(one: Round, pairs: Pairs) -> Path:
    """The policy of a round."""
    job = one.job
    return train_policy(
        one.config.of_round(len(pairs.episodes), seed=one.seed("training")),
        one.dataset,
        model=one.policy,
        out=one.folder,
        context=job.method.context,
        progress=job.progress,
        validation=job.validation,
        method=job.method.name,
        callbacks=job.callbacks,
        episodes=pairs.episodes,
    )


def _measure(setup: _Setup, log: KeyedLog[RoundFigures], number: int, policy: str | Path, pairs: Pairs) -> None:
    """Let a round's policy answer the probes, and add what that says to the log; once for each round."""
    figures = RoundFigures(number, pairs.count, pairs.same, pairs.empty)
    if str(figures.round) not in log:
        figures = replace(figures, right_labels=setup.right_labels(pairs))
        answered = setup.probed(figures.round, policy)
        if answered:
            figures = replace(figures, **setup.compared(answered))
        if joined().is_main_process:
            log.put(str(figures.round), figures)
        joined().wait_for_everyone()
    else:
        figures = log[str(figures.round)]
    title = f"round {figures.round} of {setup.config.rounds}" if figures.round else "the start"
    if figures.said:
        setup.job.progress.say(f"{setup.job.method.name}, {title}: {figures.said}.")


def _publish(setup: _Setup, policies: Sequence[Path], log: KeyedLog[RoundFigures]) -> None:
    """Write the last policy and the metrics of all rounds beside `training.json`, which comes last."""
    job = setup.job
    if joined().is_main_process:
        staged = join_policies(policies, job.out / ".policy", start=setup.start.policy, home=job.out)
        move_policy(staged, job.out)
        rows = _metrics(policies, log)
        write_text(job.out / METRICS_FILE, "".join(f"{to_json(row)}\n" for row in rows))
        left_out = {"left_out": len(setup.read.left_out)} if setup.read.left_out else {}
        save_record(job.out, setup.identity, finished=True, **left_out)
    joined().wait_for_everyone()


def _metrics(policies: Sequence[Path], log: KeyedLog[RoundFigures]) -> Iterator[dict[str, Any]]:
    """The metrics of all rounds as of one training, and the figures of each round at its last step."""
    done = 0
    for number, folder in enumerate([None, *policies]):
        for row in [] if folder is None else read_jsonl(folder / METRICS_FILE):
            yield {**row, "step": done + row["step"], "round": number}
        done += 0 if folder is None else int(read_json(folder / TRAINING_FILE)["identity"]["config"]["steps"])
        found = {name: value for name, value in vars(log[str(number)]).items() if value is not None}
        yield {"step": done, **found}


@dataclass(frozen=True)
class _Margins:
    """The margins of an episode's queries."""

    margins: list[float]


def _by_first(compute: Callable[[], T]) -> T:
    """What the first process computes, at all of them; an error of its too."""
    found: Any = None
    if joined().is_main_process:
        try:
            found = compute()
        except FspoError as error:
            found = error
    found = agreed(found)
    if isinstance(found, FspoError):
        raise found
    return found  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Setup:
    """What all rounds of one training share."""

    job: Job

    @property
    def config(self) -> RoundSettings:
        """The settings.

        Raises:
            ConfigError: they are of no training in rounds.
        """
        if not isinstance(self.job.config, RoundSettings):
            raise ConfigError(f"'{self.job.method.name}' trains in rounds and needs the settings of rounds.")
        return self.job.config

    @cached_property
    def start(self) -> Start:
        """What the first round starts from."""
        return Start(self.job.model, self.job.out)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides which weights come out, ready for JSON."""
        validation = self.job.validation
        return {
            "config": self.config.identity(),
            "dataset": self.job.dataset.fingerprint,
            **self.start.identity(),
            "context": self.job.method.context,
            **({"validation": validation.fingerprint} if validation is not None else {}),
        }

    @cached_property
    def renderer(self) -> EpisodeRenderer:
        """Renders with the method's context."""
        limit = max_length_of(self.config, context_length(self.job.model))
        tokenizer = load_tokenizer(self.job.model)
        return EpisodeRenderer(
            tokenizer,
            context=self.job.method.context,
            max_length=limit,
            layout=self.config.layout,
            remembered=REMEMBERED_TEXTS,
        )

    @cached_property
    def read(self) -> Fitted:
        """The training part, and what of it the model can't read whole or has no room to answer."""
        shown = [self.renderer, *([self.renderer.with_context("both")] if self.config.shows_descriptions else [])]
        rooms = [Room(renderer, answer=self.config.room) for renderer in shown]
        part, number = "The training part", self.job.row_number
        return fitted(self.job.dataset, rooms, self.config.long_rows, setting="long_rows", file=part, number=number)

    def sampler(
        self, dataset: PreferenceDataset, seed: int, queries: int, *, shots: int | None = None, skip: bool = False
    ) -> EpisodeSampler:
        """Draws episodes, by default with as many shots as the method shows."""
        if shots is None:
            shots = self.config.shots if self.job.method.context == "shots" else 0
        skip = skip or self.config.skip_short_users
        return EpisodeSampler(dataset, shots=shots, queries=queries, seed=seed, skip_short_users=skip)

    def written(
        self,
        prompts: Mapping[str, Prompt],
        path: Path,
        model: str | Path,
        renderer: EpisodeRenderer,
        title: str,
        max_new_tokens: int | None = None,
    ) -> dict[str, Reply]:
        """The replies of a model by the keys of the prompts; the first process writes them, and all get them.

        Raises:
            DataError: a prompt is too long.
            ModelError: the model can't be had.
        """
        longest = max_new_tokens or self.config.max_new_tokens
        sampling = Sampling(longest, self.config.temperature, self.config.top_p)
        loaded: list[Any] = []

        def write(some: Sequence[Prompt]) -> list[Reply]:
            if not loaded:
                loaded.append(_load(model, self.config.dtype))
            return answer(loaded[0], renderer, some, sampling, batch_size=self.config.answer_batch)

        def complete() -> list[Reply]:
            batch, progress = self.config.answer_batch, self.job.progress
            return KeyedLog(path, Reply).complete(prompts, write, batch=batch, title=title, progress=progress)

        return dict(zip(prompts, _by_first(complete), strict=True))

    def scored(self, episodes: Mapping[str, Episode], path: Path, model: str | Path, title: str) -> list[list[float]]:
        """The margins of each episode's queries under a model, by the keys of the episodes."""
        loaded: list[Any] = []

        def score(some: Sequence[Episode]) -> list[_Margins]:
            if not loaded:
                loaded.append(_load(model, self.config.dtype))
            with torch.no_grad():
                (found,) = branch_logprobs(loaded[0], [self.renderer.render(some[0])])
            logps = found.reduced(self.config.reduction)
            return [_Margins((logps[:, 0] - logps[:, 1]).tolist())]

        def complete() -> list[_Margins]:
            return KeyedLog(path, _Margins).complete(episodes, score, title=title, progress=self.job.progress)

        return [row.margins for row in _by_first(complete)]

    @cached_property
    def _probes(self) -> list[Episode]:
        """Held-out questions with the shots of their users; the same in every round."""
        if not self.config.probes:
            return []
        room = Room(self.renderer, answer=self.config.room)
        part = self.job.validation or self.read.dataset
        readable = fitted(part, [room], "leave-out", setting="long_rows", file="The validation part").dataset
        try:
            sampler = self.sampler(readable, seed_by("rounds", self.config.seed, "probes"), 1, skip=True)
        except DataError as error:
            self.job.progress.say(f"{self.job.method.name}: rounds are not measured on held-out questions. {error}")
            return []
        return [sampler.episode(number) for number in range(self.config.probes)]

    def probed(self, number: int, policy: str | Path) -> list[Reply]:
        """The answers of a round's policy to the probes."""
        prompts = {
            str(place): Prompt(
                episode.queries[0].messages, episode.shots, seed=seed_by("rounds", self.config.seed, "probe", place)
            )
            for place, episode in enumerate(self._probes)
        }
        if not prompts:
            return []
        path = self.job.out / ROUNDS_FOLDER / str(number) / "probes.jsonl"
        title = f"{self.job.method.name}: measuring round {number}"
        return list(self.written(prompts, path, policy, self.renderer, title).values())

    def compared(self, replies: Sequence[Reply]) -> dict[str, Any]:
        """The figures of answers to the probes."""
        queries = [episode.queries[0] for episode in self._probes]
        first = self.probed(0, self.job.model)
        texts, chosen = [reply.text for reply in replies], [query.chosen for query in queries]
        return {
            "probes": len(queries),
            "answer_words": fmean(len(text.split()) for text in texts),
            "chosen_words": fmean(len(text.split()) for text in chosen),
            "unfinished": fmean(not reply.finished for reply in replies),
            "win_over_start": self._wins(queries, texts, [reply.text for reply in first]),
            "win_over_chosen": self._wins(queries, texts, chosen),
        }

    def right_labels(self, pairs: Pairs) -> float | None:
        """How often the judge agrees with the labels; None where nobody judges."""
        queries = [query for episode in pairs.episodes for query in episode.queries]
        scores = self._scores(queries, [query.chosen for query in queries], [query.rejected for query in queries])
        decided = [score for score in scores if score != SCORES["tie"]]
        return fmean(decided) if decided else None

    @cached_property
    def _judge(self) -> Judge | None:
        return self.job.judge()

    def _wins(self, queries: Sequence[Preference], texts: Sequence[str], others: Sequence[str]) -> float | None:
        """The share of wins; None where nobody judges."""
        scores = self._scores(queries, texts, others)
        return fmean(scores) if scores else None

    def _scores(self, queries: Sequence[Preference], texts: Sequence[str], others: Sequence[str]) -> list[float]:
        """1, 0.5 or 0 for each query that the judge can judge."""
        judge = self._judge
        people = {**self.job.dataset.users, **(self.job.validation.users if self.job.validation else {})}
        return [
            SCORES[judge.compare(people[query.user], query.prompt, text, other)]
            for query, text, other in zip(queries, texts, others, strict=True)
            if judge is not None and can_judge(judge, people[query.user], query.prompt)
        ]


def _load(model: str | Path, dtype: str) -> Any:
    """A model or a policy, ready to answer."""
    dtype = fast_dtype() if dtype == "auto" else dtype
    loaded = load_policy(Path(model), dtype=dtype) if is_policy(model) else load_model(model, dtype=dtype)
    prepare_model(loaded)
    return loaded.eval()
