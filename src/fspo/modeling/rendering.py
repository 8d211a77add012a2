"""Episodes as token ids.

A trunk holds the description and the shots, a branch a query and its responses; how they read is the layout's (see
`layouts`). The control tokens come from the chat template; the text of descriptions, shots, queries and responses
never turns into one (see `chat`).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, Literal

from fspo.errors import DataError
from fspo.identity import digest
from fspo.modeling.chat import ChatFormat, TurnEncoder, control_ids, takes_system
from fspo.modeling.layouts import DEFAULT_LAYOUT, LabelledLayout, LayoutName, Message, ShotTemplate, layout_named
from fspo.preferences.types import Episode, Preference, Turn, as_turns

__all__ = [
    "REMEMBERED_TEXTS",
    "Branch",
    "Context",
    "EpisodeRenderer",
    "RenderedPrompt",
    "TokenizedEpisode",
    "common_beginning",
]

Context = Literal["none", "shots", "description", "both"]
REMEMBERED_TEXTS = 1024
"""In each of the two caches of a renderer in a training or an evaluation. An id takes some 36 bytes, so texts of 1,000
tokens take 80 MB at most for each renderer."""


@dataclass(frozen=True)
class Branch:
    """One query hanging off the trunk: its prompt, and the responses to be scored after it."""

    prompt_ids: tuple[int, ...]
    responses: tuple[tuple[int, ...], ...]
    """Chosen, then rejected; each ends with the end-of-turn token."""
    boundary: int
    """How many tokens of the trunk the branch sees."""
    shots: int
    """How many shots those tokens hold."""
    query: int
    """Index of the query in the episode."""


@dataclass(frozen=True)
class TokenizedEpisode:
    """One episode as token ids: what all queries share, and what hangs off it."""

    trunk_ids: tuple[int, ...]
    boundaries: tuple[int, ...]
    """Token offsets in the trunk after 0, 1, ... N shots."""
    branches: tuple[Branch, ...]
    dropped_shots: int = 0
    """Shots left out, oldest first, because the episode was longer than the model's context."""

    @property
    def tokens(self) -> int:
        """Tokens that go through the model: every part once."""
        return len(self.trunk_ids) + sum(len(b.prompt_ids) + sum(map(len, b.responses)) for b in self.branches)

    @property
    def longest(self) -> int:
        """Tokens of the longest way from the trunk's start to a response's end."""
        ways = [b.boundary + len(b.prompt_ids) + max(map(len, b.responses), default=0) for b in self.branches]
        return max([len(self.trunk_ids), *ways])


@dataclass(frozen=True)
class RenderedPrompt:
    """One prompt to be answered, as token ids."""

    trunk_ids: tuple[int, ...]
    """What all prompts of one user share."""
    prompt_ids: tuple[int, ...]
    mirror_trunk_ids: tuple[int, ...] | None = None
    """The trunk with the labels of the same shots swapped, or with the mirror's description; needed for guidance.

    None where neither is shown."""
    seed: int | None = None
    """Which draw the answer is. With it, an answer does not depend on what else is asked; without, its place in the
    list counts."""
    dropped_shots: int = 0
    """Shots left out, oldest first, because they and the answer have no room in the model's context."""


@dataclass
class EpisodeRenderer:
    """Turns episodes into token ids."""

    tokenizer: Any
    context: Context = "shots"
    """What the model is told of the user."""
    max_length: int | None = None
    """Tokens the model may read at once, prompt and response included; None: no limit."""
    layout: LayoutName = DEFAULT_LAYOUT
    """How shots and queries are laid out."""
    template: ShotTemplate | None = None
    """Other words of the labelled layout."""
    prefix: tuple[int, ...] = ()
    """Ids in front of everything, such as virtual tokens."""
    remembered: int = 0
    """The ids of so many texts are remembered, where each text is read many times."""

    def __post_init__(self) -> None:
        """Read the chat format and the control tokens once."""
        turns = TurnEncoder(self.tokenizer, remembered=self.remembered)
        encode = turns.text.encode
        self._encode = lru_cache(self.remembered)(encode) if self.remembered else encode
        self.format = ChatFormat.of(self.tokenizer)
        self._layout = layout_named(self.layout, self.tokenizer, turns)
        if self.template is not None and isinstance(self._layout, LabelledLayout):
            self._layout = replace(self._layout, template=self.template)

    @cached_property
    def identity(self) -> str:
        """Tells apart ways to show the same texts: the words around them, the chat format, the place of each part."""
        first, second, query = (
            Preference("user", f"Question {name}?", f"Answer {name}.", f"No answer {name}.") for name in "abc"
        )
        shots, told = (first, second), "Someone who likes short answers."
        wide = self._with(max_length=None)
        shown = [
            asdict(wide.render(Episode("user", shots, (query,), description=told), shots=(0, 2))),
            asdict(wide.render_prompt(shots, query.prompt, told)),
            asdict(wide.render_prompt((), query.prompt)),
            asdict(wide.render_descriptions("user", shots, told, told)),
        ]
        for parts in shown:
            parts.pop("seed", None)
        return digest([self.context, self.max_length, self.layout, self._layout.settings, shown])

    def render(
        self, episode: Episode, *, shots: Sequence[int] | None = None, responses: Sequence[Sequence[str]] = ()
    ) -> TokenizedEpisode:
        """The episode's trunk, and every query attached after all shots, or after each number in `shots` (a ladder).

        Too long an episode loses whole shots, oldest first; a ladder's steps then count the shots that are left.
        Without shots in the context (`none`, `description`) every query is attached once. `responses` are those of each
        query; by default the chosen and the rejected one.

        Raises:
            DataError: a query and its responses alone are longer than `max_length`; they are never cut.
        """
        (rendered,) = self._rendered([episode], shots, responses)
        return rendered

    def render_twins(
        self,
        episode: Episode,
        mirror_description: str | None = None,
        *,
        shots: Sequence[int] | None = None,
        responses: Sequence[Sequence[str]] = (),
    ) -> tuple[TokenizedEpisode, TokenizedEpisode]:
        """The episode and the same queries under shots with swapped labels, both with the same shots; see `render`.

        Swapping labels can change a length by a token, so a shot that one of the two has no room for is in neither.
        `mirror_description` stands in the mirror; by default it is the episode's own.

        Raises:
            DataError: a query and its responses alone are longer than `max_length`.
        """
        plain, mirrored = self._rendered([episode, _mirror(episode, mirror_description)], shots, responses)
        return plain, mirrored

    def _rendered(
        self, twins: Sequence[Episode], shots: Sequence[int] | None, responses: Sequence[Sequence[str]]
    ) -> list[TokenizedEpisode]:
        """Episodes that differ in the labels of their shots and in the description, with the same shots left out."""
        first = twins[0]
        described, shown_any = bool(self._described(first.description)), bool(self._visible(first.shots))
        compared = responses or [(query.chosen, query.rejected) for query in first.queries]
        queries = [
            (
                self._layout.prompt(query.messages, after_shots=shown_any, described=described),
                tuple(self.render_response(text) for text in texts),
            )
            for query, texts in zip(first.queries, compared, strict=True)
        ]
        longest = max((len(prompt) + max(map(len, answers)) for prompt, answers in queries), default=0)
        prefixes = [(*self.prefix, *self._start(twin.description)) for twin in twins]
        fitting = [
            self._fit(prefix, self._visible(twin.shots), longest, described)
            for prefix, twin in zip(prefixes, twins, strict=True)
        ]
        kept = min(map(len, fitting))
        rendered = []
        for twin, prefix, parts in zip(twins, prefixes, fitting, strict=True):
            shown = self._visible(twin.shots)
            if len(parts) > kept:  # the introduction moves to the oldest shot that is left
                parts = self._shot_parts(shown[len(shown) - kept :], described)
            boundaries = _offsets(len(prefix), parts)
            trunk = (*prefix, *(i for part in parts for i in part))
            opened = None if self._described(twin.description) else prefix
            branches = tuple(
                self._branch(index, query, queries[index], count, boundaries, described)
                if count or opened is None
                else self._bare_branch(index, query, queries[index][1], opened)
                for count in _steps(shots, kept)
                for index, query in enumerate(twin.queries)
            )
            if not kept:
                self._check_branches(twin, branches)
            rendered.append(TokenizedEpisode(trunk, boundaries, branches, len(shown) - kept))
        return rendered

    def bare_length(self, query: Preference, description: str = "", *, answer: int = 0) -> int:
        """Tokens of a query without shots and of its longer response, or of an answer of so many tokens if more."""
        longest = max(answer, *(len(self.render_response(text)) for text in (query.chosen, query.rejected)))
        return sum(map(len, self._bare(query.messages, description))) + longest

    def _bare(self, prompt: Sequence[Turn], description: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What comes before a prompt without shots, and the prompt."""
        described = bool(self._described(description))
        own = None if described else self._layout.opening_prompt(prompt)
        start, shown = own or (
            self._start(description),
            self._layout.prompt(prompt, after_shots=False, described=described),
        )
        return (*self.prefix, *start), shown

    @property
    def overhead(self) -> int:
        """At least the tokens around a prompt, a response and a description without shots."""
        return self._layout.overhead

    @cached_property
    def takes_system(self) -> bool:
        """Whether the chat template takes a system role."""
        return takes_system(self.tokenizer)

    def holds_control(self, text: str) -> bool:
        """Whether a program that parses control tokens would find one in the text."""
        return not self._control.isdisjoint(self.tokenizer.encode(text, add_special_tokens=False))

    @cached_property
    def _control(self) -> frozenset[int]:
        return control_ids(self.tokenizer)

    def describing_length(self, description: str) -> int:
        """Tokens of a description as a response, without shots."""
        return self._describing.bare_length(Preference("", self._layout.describe, description, ""))

    def trim(self, episode: Episode, mirror_description: str | None = None, *, reserve: int = 0) -> tuple[Episode, int]:
        """The episode without the oldest shots that it or its mirror has no room for, and how many these are.

        Swapping labels can change a length by a token, so a comparison of the two must show both the same shots.
        `mirror_description` stands in the mirror; by default it is the episode's own. `reserve` tokens are kept free.
        """
        if self.max_length is None:
            return episode, 0
        narrow = self._with(max_length=self.max_length - reserve)
        try:
            dropped = narrow.render_twins(episode, mirror_description)[0].dropped_shots
        except DataError:
            if not reserve:
                raise
            dropped = len(episode.shots)  # without shots there is nothing to keep room for
        return (episode.with_shots(episode.shots[dropped:]), dropped) if dropped else (episode, 0)

    def render_prompt(
        self,
        shots: Sequence[Preference],
        prompt: str | Sequence[Turn],
        description: str = "",
        *,
        mirror_description: str | None = None,
        reserve: int = 0,
    ) -> RenderedPrompt:
        """What is read before `prompt` is answered, leaving `reserve` tokens of the context for the answer.

        `prompt` is the user's message, or the turns of a conversation. `mirror_description` describes the person
        who would have given the mirrored shots; by default it is `description`.

        Raises:
            DataError: the prompt alone is too long, or the turns are none (see `as_turns`).
        """
        shots, turns, described = self._visible(shots), as_turns(prompt), bool(self._described(description))
        prompt_ids = self._layout.prompt(turns, after_shots=bool(shots), described=described)
        mirrored = description if mirror_description is None else mirror_description
        twins = (
            ((*self.prefix, *self._start(description)), shots),
            ((*self.prefix, *self._start(mirrored)), [shot.swap() for shot in shots]),
        )
        kept = min(len(self._fit(prefix, side, len(prompt_ids) + reserve, described)) for prefix, side in twins)
        dropped = len(shots) - kept
        if not kept:
            bare = [self._bare(turns, told) for told in (description, mirrored)]
            longest = max(sum(map(len, parts)) for parts in bare)
            self._check_prompt_room(turns[-1].text, longest, reserve)
            (start, asked), (mirror_start, mirror_asked) = bare
            opposed = start != mirror_start and asked == mirror_asked  # else the mirror is not another trunk alone
            return RenderedPrompt(start, asked, mirror_start if opposed else None, dropped_shots=dropped)
        trunk, mirror = (
            (*prefix, *(i for part in self._shot_parts(side[dropped:], described) for i in part))
            for prefix, side in twins
        )
        return RenderedPrompt(trunk, prompt_ids, mirror, dropped_shots=dropped)

    def messages(
        self,
        shots: Sequence[Preference],
        prompt: str | Sequence[Turn],
        description: str = "",
        *,
        reserve: int = 0,
    ) -> list[Message]:
        """What `render_prompt` renders, as turns for a chat template or a chat server.

        Texts that hold no control token and no white space at their ends have the ids of `render_prompt` there.

        Raises:
            DataError: the prompt alone is too long, or the turns are none (see `as_turns`).
        """
        dropped = self.render_prompt(shots, prompt, description, reserve=reserve).dropped_shots
        return self._layout.messages(self._visible(shots)[dropped:], as_turns(prompt), self._described(description))

    def render_describing(self, shots: Sequence[Preference], *, question: str = "", reserve: int = 0) -> RenderedPrompt:
        """What is read before a description of the user is written, leaving `reserve` tokens for it.

        `question` asks for it; by default it is the layout's.

        Raises:
            DataError: the question alone is too long.
        """
        return self._describing.render_prompt(shots, question or self._layout.describe, reserve=reserve)

    def render_descriptions(self, user: str, shots: Sequence[Preference], better: str, worse: str) -> TokenizedEpisode:
        """Two descriptions of the user who gave the shots, to be scored as the responses of one query."""
        query = Preference(user, self._layout.describe, better, worse)
        return self._describing.render(Episode(user, tuple(shots), (query,)))

    @property
    def _describing(self) -> EpisodeRenderer:
        # A description is an answer to a question of our own, given the shots alone.
        return self._with(context="shots", _layout=self._layout.describing())

    def with_context(self, context: Context) -> EpisodeRenderer:
        """The same renderer for a model that sees other things of the user."""
        return self._with(context=context)

    def with_prefix(self, ids: tuple[int, ...]) -> EpisodeRenderer:
        """The same renderer with ids in front of everything, and as many tokens more in `max_length`."""
        more = len(ids) - len(self.prefix)
        return self._with(prefix=ids, max_length=None if self.max_length is None else self.max_length + more)

    def _with(self, **changes: Any) -> EpisodeRenderer:
        """The same renderer with other settings; the chat format is not read again."""
        other = copy(self)
        vars(other).pop("identity", None)
        vars(other).update(changes)
        return other

    def render_response(self, text: str) -> tuple[int, ...]:
        """A response's ids, with the end-of-turn token."""
        return (*self._encode(text), self.format.end_of_answer)

    def _branch(
        self,
        index: int,
        query: Preference,
        full: tuple[tuple[int, ...], tuple[tuple[int, ...], ...]],
        count: int,
        boundaries: tuple[int, ...],
        described: bool,
    ) -> Branch:
        prompt = full[0] if count else self._layout.prompt(query.messages, after_shots=False, described=described)
        return Branch(prompt, full[1], boundaries[count], count, index)

    def _bare_branch(
        self, index: int, query: Preference, responses: tuple[tuple[int, ...], ...], opening: tuple[int, ...]
    ) -> Branch:
        """A query without anything of the user: with a system message it shares only part of the opening."""
        before, prompt = self._bare(query.messages, "")
        shared = common_beginning(before, opening)
        return Branch((*before[shared:], *prompt), responses, shared, 0, index)

    def _check_branches(self, episode: Episode, branches: Sequence[Branch]) -> None:
        """Check that queries without shots have room."""
        for branch in branches:
            query = episode.queries[branch.query]
            what = f"The query {query.prompt[:60]!r} of user {episode.user!r} and its longer response"
            self._check_room(
                branch.boundary + len(branch.prompt_ids) + max(map(len, branch.responses), default=0), what
            )

    def _start(self, description: str) -> tuple[int, ...]:
        return self._layout.start(self._described(description))

    @property
    def reads_description(self) -> bool:
        """Whether a description of the person is shown."""
        return self.context in ("description", "both")

    def _described(self, description: str) -> str:
        """What is shown of a description."""
        return description if self.reads_description else ""

    @property
    def reads_shots(self) -> bool:
        """Whether the person's preferences are shown."""
        return self.context in ("shots", "both")

    def _visible(self, shots: Sequence[Preference]) -> Sequence[Preference]:
        return shots if self.reads_shots else ()

    def _shot_parts(self, shots: Sequence[Preference], described: bool) -> list[tuple[int, ...]]:
        return [self._layout.shot(shot, first=index == 0, described=described) for index, shot in enumerate(shots)]

    def _fit(
        self, prefix: tuple[int, ...], shots: Sequence[Preference], rest: int, described: bool
    ) -> list[tuple[int, ...]]:
        """The newest shots that have room beside `rest` tokens, as they are shown."""
        parts = self._shot_parts(shots, described)
        if self.max_length is None:
            return parts
        room = self.max_length - len(prefix) - rest
        while sum(map(len, parts)) > room and parts:
            parts = parts[1:]
            if parts:
                # The introduction moves to the oldest shot that is left.
                oldest = shots[len(shots) - len(parts)]
                parts[0] = self._layout.shot(oldest, first=True, described=described)
        return parts

    def _check_prompt_room(self, prompt: str, tokens: int, reserve: int) -> None:
        """Check that a prompt of `tokens` tokens has room beside `reserve` tokens for the answer."""
        if self.max_length is None or tokens + reserve <= self.max_length:
            return
        room = self.max_length - reserve
        share = f", with {reserve:,} for the answer" if reserve else ""
        remedies = [f"shorten the prompt to {room:,} tokens"] * (room > 0) + ["ask for a shorter answer"] * (
            reserve > 0
        )
        raise DataError(
            f"The prompt {prompt[:60]!r} has {tokens:,} tokens, and the limit is {self.max_length:,}{share}; "
            f"{', or '.join(remedies)}."
        )

    def _check_room(self, tokens: int, what: str) -> None:
        if self.max_length is not None and tokens > self.max_length:
            raise DataError(
                f"{what} make {tokens:,} tokens, and the limit is {self.max_length:,}; raise the maximal length or "
                "leave it out."
            )


def _mirror(episode: Episode, description: str | None) -> Episode:
    flipped = episode.flip_shots()
    return flipped if description is None else replace(flipped, description=description)


def common_beginning(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens both begin with."""
    places = (place for place, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs)
    return next(places, min(len(one), len(other)))


def _steps(shots: Sequence[int] | None, available: int) -> list[int]:
    if shots is None:
        return [available]
    return sorted({min(count, available) for count in shots})


def _offsets(start: int, parts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    offsets = [start]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return tuple(offsets)
