"""Requests that are answered with the same weights: read piece by piece, then decoded side by side."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fspo.errors import FspoError, ModelError
from fspo.modeling.answering import AnswerText, Enter
from fspo.modeling.chat import TextReader
from fspo.modeling.continuous import ContinuousDecoder, read_on
from fspo.modeling.decoding import NOTHING, KeyValues
from fspo.modeling.generation import Sampling, draw, end_tokens, evaluating, guided, noise
from fspo.modeling.preparing import prepare_model
from fspo.modeling.rendering import EpisodeRenderer, RenderedPrompt
from fspo.serving.engine import GenerationRequest, Piece
from fspo.serving.engines.stop_texts import StopTexts
from fspo.serving.engines.trunk_cache import Trunk, TrunkCache
from fspo.serving.logged_errors import outlined

__all__ = ["Job", "Lane", "Track"]

PIECE_TOKENS = 512
"""Tokens that are read in one round, so that answers under way do not wait long for a new request."""

_PLAUSIBILITY = Sampling().plausibility
_LOG = logging.getLogger(__name__)
_NO_NUMBERS = "The model's scores are not numbers; use float32 or bfloat16, or other weights."


@dataclass(eq=False)
class Track:
    """What is read and decoded of a request: the shots, the prompt, and the answer; under guidance twice."""

    trunk_ids: tuple[int, ...]
    prompt_ids: tuple[int, ...]
    trunk: Trunk | None = None
    own: KeyValues = NOTHING
    """What was read of the prompt."""
    scores: Tensor | None = None
    """[V]: the logits of the first token, once the prompt is read."""

    @property
    def unread(self) -> tuple[int, ...]:
        """The tokens of the prompt that remain to be read."""
        return self.prompt_ids[self.own.length :]

    @property
    def unread_tokens(self) -> int:
        """Tokens of trunk and prompt that remain to be read."""
        return len(self.unread) + (0 if self.trunk is None else len(self.trunk.unread))

    @property
    def before(self) -> KeyValues:
        """The keys and values before the prompt."""
        return NOTHING if self.trunk is None else self.trunk.key_values


@dataclass(eq=False)
class Job:
    """One request under way."""

    request: GenerationRequest
    deliver: Callable[[Piece | FspoError], None]
    """Takes the pieces of the answer, or what went wrong; called in the engine's thread."""
    seed: int
    cancelled: bool = False
    tracks: tuple[Track, ...] = ()
    """What the model reads, once it is rendered; under guidance also with the mirrored shots."""
    cached: int = 0
    """Tokens of the trunk that were there before."""
    token: int = 0
    """The token sampled last."""
    count: int = 0
    """Tokens sampled."""
    random: Tensor = field(default_factory=lambda: torch.empty(0))
    text: AnswerText | None = None
    stops: StopTexts = field(default_factory=lambda: StopTexts(()))

    @property
    def unread_tokens(self) -> int:
        """Tokens of trunks and prompts that remain to be read."""
        return sum(track.unread_tokens for track in self.tracks)

    def piece(self, text: str, finish: str | None) -> Piece:
        """A piece of the answer with the counts so far."""
        prompt = len(self.tracks[0].trunk_ids) + len(self.tracks[0].prompt_ids)
        return Piece(text, finish, prompt, self.count, self.cached)  # type: ignore[arg-type]


class Lane:
    """One model, the requests that wait for it, those that it reads and those that it answers.

    All methods are called from one thread.
    """

    def __init__(
        self,
        enter: Enter,
        renderer: EpisodeRenderer,
        render: Callable[[GenerationRequest], RenderedPrompt],
        cache: TrunkCache,
        batch_size: int,
        times_forgotten: Callable[[str], int],
        guidance: float = 0.0,
    ) -> None:
        """Nothing is loaded yet. `render` gives what the model reads of a request.

        `batch_size` requests are read and answered side by side. The prompt of a request without shots is not kept in
        the cache, nor is the trunk of a request that was made before the latest time that its owner was forgotten.
        `guidance`: see `fspo.modeling.generation`.
        """
        self._enter, self._render, self._cache, self._batch_size = enter, render, cache, batch_size
        self._times_forgotten = times_forgotten
        self._guidance = guidance
        self._ends = end_tokens(renderer.tokenizer)
        self._reader = TextReader(renderer.tokenizer)
        self._waiting: list[Job] = []
        self._turns: dict[str, int] = {}
        """The number of the last request of each owner that was let in, while there are requests."""
        self._reading: list[Job] = []
        self._running: list[Job] = []
        self._rows: list[Track] = []
        """Those of the running requests, in the order of the decoder's rows."""
        self._decoder: ContinuousDecoder | None = None
        self._token_bytes = 0

    @property
    def jobs(self) -> list[Job]:
        """All requests under way."""
        return [*self._waiting, *self._reading, *self._running]

    def __len__(self) -> int:
        """How many requests are under way."""
        return len(self._waiting) + len(self._reading) + len(self._running)

    @property
    def waiting(self) -> int:
        """How many requests are not begun."""
        return len(self._waiting)

    def add(self, job: Job) -> None:
        """Let a request wait for its turn."""
        self._waiting.append(job)

    def work(self) -> None:
        """One round: read up to `PIECE_TOKENS` tokens of new requests, and write a token of every answer.

        What goes wrong with one request ends that one; what goes wrong with the model ends all that it works on.
        """
        try:
            self._leave(job for job in self.jobs if job.cancelled)
            if not len(self):
                self._turns.clear()
                return
            with self._enter() as model, evaluating(model), torch.no_grad():
                self._prepare(model)
                self._admit()
                self._read()
                self._write()
        except Exception as error:  # any code of any architecture, or a machine without memory
            self.fail(_explained(error))

    def fail(self, error: FspoError) -> None:
        """End all requests, wherever the work on them stopped."""
        jobs = self.jobs
        self._decoder, self._rows = None, []
        self._waiting, self._reading, self._running = [], [], []
        for job in jobs:
            job.deliver(error)
        for job in jobs:
            self._release(job)

    def _prepare(self, model: torch.nn.Module) -> None:
        if self._decoder is not None:
            return
        base = prepare_model(model)
        if not self._token_bytes:
            (one,), _ = read_on(base, [((next(iter(self._ends)),), NOTHING)])
            self._token_bytes = one.nbytes
        self._decoder = ContinuousDecoder(base)

    def _admit(self) -> None:
        """Let requests in while there is room for them and for their trunks, until a round is full.

        Users take turns: first the one whose last request was let in the longest time ago.
        """
        unread = sum(job.unread_tokens for job in self._reading)
        while self._waiting and unread < PIECE_TOKENS and len(self._reading) + len(self._running) < self._batch_size:
            job = min(self._waiting, key=lambda job: self._turns.get(job.request.owner, -1))
            try:
                if not job.tracks:
                    self._begin(job)
            except Exception as error:
                self._waiting.remove(job)
                job.deliver(_explained(error))
                continue
            if not self._take_trunk(job):
                return
            self._waiting.remove(job)
            self._reading.append(job)
            self._turns[job.request.owner] = max(self._turns.values(), default=-1) + 1
            unread += job.unread_tokens

    def _begin(self, job: Job) -> None:
        request, shown = job.request, self._render(job.request)
        assert self._decoder is not None
        prepare_model(self._decoder.base, len(shown.trunk_ids) + len(shown.prompt_ids) + request.max_tokens)
        prompt = tuple(shown.prompt_ids)
        if shown.mirror_trunk_ids is None:  # no shots: nothing that comes again
            tracks = [Track((), (*shown.trunk_ids, *prompt))]
        else:
            trunks = [shown.trunk_ids, *([shown.mirror_trunk_ids] if self._guidance else [])]
            tracks = [Track(tuple(ids), prompt) for ids in trunks]
        job.text, job.stops = AnswerText(self._reader), StopTexts(request.stop)
        job.random = noise(job.seed, 0, 0, request.max_tokens)
        job.tracks = tuple(tracks)

    def _take_trunk(self, job: Job) -> bool:
        if not job.tracks[0].trunk_ids:
            return True
        owner = job.request.owner
        found = self._cache.acquire(owner, [track.trunk_ids for track in job.tracks], self._token_bytes)
        if found is None:
            return False
        for track, (trunk, _) in zip(job.tracks, found, strict=True):
            track.trunk = trunk
        job.cached = found[0][1]
        if job.request.times_forgotten != self._times_forgotten(owner):
            self._cache.forget(owner)
        return True

    def _read(self) -> None:
        """Read the next piece of every new request, as far as the tokens of a round go."""
        room = PIECE_TOKENS
        trunks: dict[Trunk, int] = {}
        prompts: dict[Track, int] = {}
        for track in (track for job in self._reading for track in job.tracks if track.unread_tokens):
            trunk = track.trunk
            if trunk is not None and trunk.unread:
                if trunk not in trunks:
                    # From fixed places on, so that what is kept does not depend on what else there was to read.
                    whole = PIECE_TOKENS - trunk.key_values.length % PIECE_TOKENS
                    count = min(whole, len(trunk.unread))
                    if count <= room or not (trunks or prompts):
                        trunks[trunk] = count
                        room -= count
            elif room > 0:
                prompts[track] = min(room, len(track.unread))
                room -= prompts[track]
        if not trunks and not prompts:
            return
        pieces = [(trunk.unread[:count], trunk.key_values) for trunk, count in trunks.items()]
        pieces += [(track.unread[:count], track.before.followed_by(track.own)) for track, count in prompts.items()]
        assert self._decoder is not None
        found, scores = read_on(self._decoder.base, pieces)
        for trunk, more in zip(trunks, found, strict=False):
            trunk.key_values = trunk.key_values.followed_by(more)
        for row, track in enumerate(prompts, start=len(trunks)):
            track.own = track.own.followed_by(found[row])
            if not track.unread:
                track.scores = scores[row]
        ready = [job for job in self._reading if all(track.scores is not None for track in job.tracks)]
        if ready:
            self._start(ready)

    def _start(self, jobs: Sequence[Job]) -> None:
        """Sample the first token of answers whose prompts are read, and decode on from there."""
        assert self._decoder is not None
        rows = [track for job in jobs for track in job.tracks]
        ended = self._sample(jobs, self._mixed(jobs, rows, torch.stack([track.scores for track in rows])))  # type: ignore[misc]
        for job in jobs:
            self._reading.remove(job)
            if job in ended:
                self._release(job)
                continue
            self._running.append(job)
            for track in job.tracks:
                self._decoder.add(track.own, track.before)
                track.own, track.scores = NOTHING, None
                self._rows.append(track)

    def _write(self) -> None:
        """Write the next token of every answer."""
        if not self._running:
            return
        assert self._decoder is not None
        tokens = {track: job.token for job in self._running for track in job.tracks}
        device = self._decoder.base.device
        self._decoder.step(torch.tensor([tokens[track] for track in self._rows], device=device))
        running = list(self._running)
        self._leave(self._sample(running, self._mixed(running, self._rows, self._decoder.scores)))

    def _mixed(self, jobs: Sequence[Job], rows: Sequence[Track], scores: Tensor) -> Tensor:
        """[jobs, V]: of logits [rows, V] those of each request, under guidance mixed with its mirror's."""
        place = {track: row for row, track in enumerate(rows)}
        own = scores[[place[job.tracks[0]] for job in jobs]]
        pairs = [(row, place[job.tracks[1]]) for row, job in enumerate(jobs) if len(job.tracks) > 1]
        if pairs:
            mine, mirrors = map(list, zip(*pairs, strict=True))
            own[mine] = guided(own[mine], scores[mirrors], self._guidance, _PLAUSIBILITY)
        return own

    def _sample(self, jobs: Sequence[Job], scores: Tensor) -> list[Job]:
        """Sample a token for each row of `scores`, deliver the text, and return those that ended."""
        tokens = torch.zeros(len(jobs), dtype=torch.long, device=scores.device)
        errors: dict[int, FspoError] = {
            row: ModelError(_NO_NUMBERS) for row in scores.isnan().any(dim=-1).nonzero()[:, 0].tolist()
        }
        kinds: dict[tuple[float, float], list[int]] = {}
        for row, job in enumerate(jobs):
            if row not in errors:
                kinds.setdefault((job.request.temperature, job.request.top_p), []).append(row)
        for (temperature, top_p), rows in kinds.items():
            points = torch.stack([jobs[row].random[jobs[row].count] for row in rows])
            try:
                tokens[rows] = draw(scores[rows], points.to(scores.device), temperature, top_p)
            except Exception as error:  # of these settings: other answers go on
                errors |= dict.fromkeys(rows, _explained(error))
        ended = []
        for row, (job, token) in enumerate(zip(jobs, tokens.tolist(), strict=True)):
            if row in errors:
                job.deliver(errors[row])
                ended.append(job)
            elif self._deliver(job, token):
                ended.append(job)
        return ended

    def _deliver(self, job: Job, token: int) -> bool:
        """Pass on what a token adds to the answer; whether this ended it."""
        assert job.text is not None
        job.token, job.count = token, job.count + 1
        if token in self._ends:
            text = job.stops.add(job.text.end())
            text += "" if job.stops.stopped else job.stops.end()
            job.deliver(job.piece(text, "stop"))
            return True
        text = job.stops.add(job.text.add(token))
        last = job.count == job.request.max_tokens
        if last and not job.stops.stopped:
            text += job.stops.add(job.text.end())
            text += "" if job.stops.stopped else job.stops.end()
        finish = "stop" if job.stops.stopped else "length" if last else None
        if text or finish:
            job.deliver(job.piece(text, finish))
        return finish is not None

    def _leave(self, jobs: Iterable[Job]) -> None:
        """Forget requests, wherever they are."""
        for job in list(jobs):
            if job in self._running:
                assert self._decoder is not None
                for track in job.tracks:
                    row = self._rows.index(track)
                    self._decoder.remove(row)
                    self._rows[row] = self._rows[-1]
                    self._rows.pop()
                self._running.remove(job)
            elif job in self._reading:
                self._reading.remove(job)
            elif job in self._waiting:
                self._waiting.remove(job)
            self._release(job)

    def _release(self, job: Job) -> None:
        for track in job.tracks:
            if track.trunk is not None:
                self._cache.release(track.trunk)
                track.trunk = None


def _explained(error: Exception) -> FspoError:
    """The error for the person who waits. The text of an unknown one is not shown or logged: it may quote a request."""
    if isinstance(error, FspoError):
        return error
    _LOG.error("The model failed while it answered (%s).", outlined(error))
    return ModelError("The model failed while it answered; ask again, or lower the batch size or the cache's budget.")
