"""A policy: a model that sees a few preferences of a person, and answers that person or ranks answers for them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, cast, get_args, overload

import torch

from fspo.errors import ConfigError, DataError, ModelError
from fspo.modeling.answering import Enter, Prompt, Reply, answer, stream_answer
from fspo.modeling.descriptions import write_descriptions
from fspo.modeling.generation import Sampling
from fspo.modeling.layouts import DEFAULT_LAYOUT, EARLIER_LAYOUT, LayoutName, Message
from fspo.modeling.loading import context_length, load_tokenizer, reading_limit
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.model_names import policy_in
from fspo.modeling.policies import check_whole, export_policy
from fspo.modeling.reduction import Reduction
from fspo.modeling.rendering import Branch, Context, EpisodeRenderer, TokenizedEpisode
from fspo.modeling.sharing import PolicyWeights
from fspo.modeling.vocabulary import check_vocabulary, rows_of
from fspo.paths import expanded
from fspo.preferences.formats import person_of
from fspo.preferences.sampling import shots_beside
from fspo.preferences.types import Episode, Person, Preference, PromptLike, Turn, as_turns, transcript
from fspo.preferences.validation import prompt_of
from fspo.preferences.wording import wording
from fspo.printing import suggestion

if TYPE_CHECKING:
    from fspo.preferences.formats import PersonLike

__all__ = ["NO_LABELS", "Policy", "RewardAgainst", "SamplingOptions", "check_against", "renderer_of", "sampling_of"]

RewardAgainst = Literal["reference", "mirror", "pooled"]
_ALL = sys.maxsize
_PAIRS = 32
"""Pairs of responses that are compared in one pass."""
_BATCH = 64
"""Answers sampled side by side, by default."""
_DESCRIPTIONS = 256
"""Descriptions that a policy remembers."""
NO_LABELS = "There are no labels to swap: no preference is shown; give some, or measure by the reference."


class SamplingOptions(TypedDict, total=False):
    """How answers are sampled. The defaults are those of `Sampling`, except for a temperature of 0.7."""

    max_new_tokens: int
    """Maximum length of an answer, in tokens; 128 by default."""
    temperature: float
    """0 takes the most probable token each time."""
    top_p: float
    guidance: float
    """How far to push away from the answers for a person with the opposite labels; 0 samples plainly."""
    plausibility: float


def check_against(against: str) -> None:
    """Check the value of `against`.

    Raises:
        ConfigError: it is not one of `RewardAgainst`.
    """
    if against not in get_args(RewardAgainst):
        raise ConfigError(f"A reward is measured against 'reference', 'mirror' or 'pooled', not {against!r}.")


class Policy:
    """A model that sees preferences of a person, and answers that person or ranks answers for them.

    A person is one of these: their preferences (rows with `prompt`, `chosen` and `rejected`, `Preference` objects, a
    pandas DataFrame, or a dataset of one user); a `Person`, which may have a description too, such as
    `dataset.person("ann")`; a `User`; or None, for no person.

    The weights are loaded at the first use. Policies over one base model share it in memory.

    A `description` that is given to a policy which sees preferences alone has no effect, and a Python warning says so.

    Attributes:
        renderer: turns people and prompts into tokens.
        shots: how many preferences are shown at most.
        describes: whether the policy reads a description of the person that it has written itself from the shots.
        description_tokens: maximum length of such a description.
        weights: where the weights come from; None during training.
    """

    def __init__(
        self,
        model: Enter,
        renderer: EpisodeRenderer,
        *,
        reference: Enter | None = None,
        base: Callable[[], Policy] | None = None,
        training: dict[str, Any] | None = None,
        shots: int = _ALL,
        weights: PolicyWeights | None = None,
    ) -> None:
        """Made by `load`, or by a trainer from its model in memory.

        Args:
            model: enters the weights.
            renderer: renders with the context that the policy was trained with.
            reference: enters the weights that training started from; None: the reward is measured against the policy
                itself without context.
            base: gives the base model as a policy.
            training: settings of the training, some of which say what the reward is (`objective`, `beta`, `reduction`,
                `reference`), and whether the policy describes people (`describe`, `description_tokens`).
            shots: how many preferences are shown at most.
            weights: where the weights come from.
        """
        settings = training or {}
        self.renderer, self.shots, self.weights = renderer, shots, weights
        self.describes = settings.get("describe", "none") != "none"
        self._model, self._base = model, base
        self._beta = float(settings.get("beta", 1.0))
        self._reduction: Reduction = settings.get("reduction", "sum")
        # Pref-FT has no reference model: what it has learned shows against the same weights without context.
        self._reference = None if settings.get("objective") == "pref-ft" else reference
        self._bare_reference = self._reference is None or settings.get("reference") == "none"
        self.description_tokens = int(settings.get("description_tokens", 40))
        self._written: dict[tuple[Preference, ...], str] = {}

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        context: Context | None = None,
        layout: LayoutName | None = None,
        shots: int | None = None,
        max_length: int | None = None,
        dtype: str = "float32",
        device: str | torch.device | None = None,
    ) -> Policy:
        """The policy in a folder, or a model that was not trained.

        Args:
            path: the folder of a policy (`output_dir` of a trainer, `methods/NAME` of a run), of a run (its policy of
                fspo, or else its only one), or of a transformers model; the built-in model's name, or a hub id.
            context: what the model sees of the person; by default what the policy was trained with, and all there is
                where the model was not trained.
            layout: how shots are shown; by default as in training, and `conversation` where the model was not trained.
            shots: how many preferences are shown at most; by default as many as in training, or all.
            max_length: most tokens that are read at once, with the answer; by default as many as in training, or as the
                model can read.
            dtype: float32, bfloat16 or float16.
            device: by default CUDA where there is one.

        Raises:
            ModelError: there is no policy and no model, or the run has several policies and none of fspo; the sentence
                names them.
            ConfigError: the model can't read `max_length` tokens, or the dtype is unknown.
        """
        weights = PolicyWeights(policy_in(path) or path, dtype, device)
        details: Mapping[str, Any] = weights.card.details if weights.card else {"context": "both"}
        if weights.card:
            check_whole(Path(weights.name))
        training: dict[str, Any] = details.get("training") or {}
        renderer = renderer_of(weights.name, training, layout=layout, max_length=max_length)

        def base() -> Policy:
            return cls(
                weights.base, renderer.with_context("both"), weights=PolicyWeights(weights.base_name, dtype, device)
            )

        return cls(
            weights.policy,
            renderer.with_context(context or details.get("context", "shots")),
            reference=weights.start if weights.card else None,
            base=base,
            training=training,
            shots=training.get("shots", _ALL) if shots is None else shots,
            weights=weights,
        )

    def __repr__(self) -> str:
        """The model, the folder, the method and the layout; no weights are read."""
        weights = self.weights
        about: dict[str, str] = {"layout": self.renderer.layout}
        if weights is not None:
            folder = {"folder": str(weights.folder)} if weights.folder else {}
            about = {"model": weights.base_name, **folder, **self._method, **about}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in about.items())})"

    @property
    def _method(self) -> dict[str, str]:
        """The method, if there is one, for people."""
        return {"method": self.weights.card.method} if self.weights and self.weights.card else {}

    @property
    def reads_shots(self) -> bool:
        """Whether a person's preferences matter."""
        return self.renderer.reads_shots

    @property
    def base(self) -> Policy:
        """The base model, in the same memory: for a person it sees the shots, for None it sees no context."""
        if self._base is None:
            raise ModelError("This policy is in training and has no base model beside it; load it with Policy.load.")
        return self._base()

    def reward(
        self,
        person: PersonLike,
        prompt: PromptLike,
        responses: Sequence[str],
        *,
        against: RewardAgainst = "reference",
        description: str | None = None,
    ) -> list[float]:
        """How much the person would like each response, in nats; only differences between them mean something.

        Args:
            person: see the class.
            prompt: the prompt of the responses, a text or a conversation as for `generate`; a preference of the person
                on this same prompt is not shown.
            responses: the texts to compare.
            against: `reference` is the implicit reward of the paper, beta (log pi(y | S, x) - log pi_ref(y | S, x))
                (FSPO, arXiv 2502.19312), where pi_ref are the weights that training started from; without such a
                training (base models, Pref-FT) the same weights without context. `mirror` is the antisymmetric reward,
                beta (log pi(y | S, x) - log pi(y | S', x)) / 2, where S' are the shots with swapped labels, so that
                what the contents do by themselves cancels. `pooled` is the sum of the antisymmetric rewards under each
                shot alone: the order of the shots has no part in it, and a shot can be added or taken away by itself.
            description: in the place of the person's own, or of the one that the policy writes.

        Returns:
            One reward for each response.

        Raises:
            ConfigError: `against` is unknown.
            DataError: the person is not given as above, there is no preference to swap, a response is missing or empty,
                or the prompt with a response is too long.
        """
        check_against(against)
        if not responses or isinstance(responses, str) or not all(response.strip() for response in responses):
            raise DataError("A reward is of responses that are texts; give at least one, and none that is empty.")
        texts = tuple(map(self.renderer.render_response, responses))
        shown = self.shown(person_of(person), prompt, description, mirrored=against != "reference")
        self._warn_of_unread(description)
        if against == "pooled":
            return self._antisymmetric([replace(shown, shots=(shot,)) for shot in shown.shots], texts)
        if against == "mirror":
            return self._antisymmetric([shown], texts)
        other = Prompt(shown.text) if self._bare_reference else shown
        reference = self._seen(self._reference or self._model, other, texts)
        return (self._beta * (self._for_person(shown, texts) - reference)).tolist()

    def margins(self, person: PersonLike, pairs: Sequence[Preference]) -> list[float]:
        """How much more the person would like the chosen response of each pair than the rejected one, in nats.

        The difference of the two antisymmetric rewards (see `reward`), for many pairs in one pass over the person's
        preferences; those on the prompt of any of the pairs are not shown.

        Args:
            person: see the class.
            pairs: the responses to compare; which one is called chosen has no part in it but the sign.

        Raises:
            DataError: the person is not given as above, there is no preference to swap, or a pair is too long.
        """
        known = person_of(person)
        prompts = {wording(pair.prompt) for pair in pairs}
        others = tuple(shot for shot in known.shots if wording(shot.prompt) not in prompts)
        found: list[float] = []
        for start in range(0, len(pairs), _PAIRS):
            some = tuple(pairs[start : start + _PAIRS])
            shown = self.shown(replace(known, shots=others), some[0].messages, mirrored=True)
            episode = Episode("", tuple(shown.shots), some, shown.description)
            twins = self.renderer.render_twins(episode, shown.mirror_description)
            if not twins[0].boundaries[1:]:
                raise DataError(NO_LABELS)
            with torch.no_grad(), self._model() as model:
                own, mirrored = (one.reduced(self._reduction) for one in branch_logprobs(model, twins))
            rewards = self._beta * (own - mirrored) / 2
            found += (rewards[:, 0] - rewards[:, 1]).tolist()
        return found

    def _for_person(self, shown: Prompt, texts: tuple[tuple[int, ...], ...]) -> torch.Tensor:
        """[R]: log-probabilities of texts under the policy, for the person of the prompt."""
        return self._seen(self._model, shown, texts)

    def _seen(
        self,
        enter: Enter,
        shown: Prompt,
        texts: tuple[tuple[int, ...], ...],
        renderer: EpisodeRenderer | None = None,
    ) -> torch.Tensor:
        """[R]: log-probabilities of texts under a model that sees what the prompt says of the person."""
        reserve = max(map(len, texts))
        seen = (renderer or self.renderer).render_prompt(shown.shots, shown.text, shown.description, reserve=reserve)
        return self._logps(enter, [_one_branch(seen.trunk_ids, seen.prompt_ids, texts)])[0]

    def _antisymmetric(self, shown: Sequence[Prompt], texts: tuple[tuple[int, ...], ...]) -> list[float]:
        """The sum over contexts of beta (log pi(y | S, x) - log pi(y | S', x)) / 2 for each text."""
        reserve = max(map(len, texts))
        total = torch.zeros(len(texts), dtype=torch.float64)
        for one in shown:
            seen = self.renderer.render_prompt(
                one.shots, one.text, one.description, mirror_description=one.mirror_description, reserve=reserve
            )
            trunks = (seen.trunk_ids, seen.mirror_trunk_ids)
            twins = [_one_branch(trunk, seen.prompt_ids, texts) for trunk in trunks if trunk is not None]
            if len(twins) < 2:
                raise DataError(NO_LABELS)
            own, mirrored = self._logps(self._model, twins)
            total += (self._beta * (own - mirrored) / 2).double().cpu()
        if not shown:
            raise DataError(NO_LABELS)
        return total.tolist()

    @overload
    def generate(
        self,
        person: PersonLike,
        prompts: PromptLike,
        *,
        seed: int = ...,
        description: str | None = ...,
        **sampling: Unpack[SamplingOptions],
    ) -> str: ...

    @overload
    def generate(
        self,
        person: PersonLike,
        prompts: list[PromptLike] | list[str] | tuple[str, ...],
        *,
        seed: int = ...,
        description: str | None = ...,
        **sampling: Unpack[SamplingOptions],
    ) -> list[str]: ...

    def generate(
        self,
        person: PersonLike,
        prompts: PromptLike | list[PromptLike] | list[str] | tuple[str, ...],
        *,
        seed: int = 0,
        description: str | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> str | list[str]:
        """Answer one prompt, or several, for one person.

        Args:
            person: see the class.
            prompts: one prompt (the user's message, or a conversation: its turns, or its messages {"role", "content"}),
                or a list of prompts; a repeated prompt gets a different answer each time.
            seed: the same seed gives the same answers, whatever else the same call contains.
            description: replaces the person's own description, or the one that the policy writes.
            **sampling: see `SamplingOptions`.

        Returns:
            One text for one prompt, or a list of texts for a list.

        Raises:
            ConfigError: a setting is out of its range.
            DataError: the person is not given as above, or a prompt is too long.
        """
        one = _one_prompt(prompts)
        several: list[PromptLike] = list(prompts) if one is None else [one]  # type: ignore[arg-type]
        known = person_of(person)
        replies = self._replies([(known, prompt) for prompt in several], seed, description, _BATCH, sampling)
        texts = [reply.text for reply in replies]
        return texts if one is None else texts[0]

    def generate_batch(
        self,
        requests: Iterable[tuple[PersonLike, PromptLike]],
        *,
        seed: int = 0,
        description: str | None = None,
        batch_size: int = _BATCH,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Reply]:
        """Answer prompts of many people at once; arguments and errors as of `generate`.

        Args:
            requests: (person, prompt) pairs.
            seed: as of `generate`.
            description: as of `generate`, of all people.
            batch_size: answers sampled side by side.
            **sampling: see `SamplingOptions`.

        Returns:
            A reply to each request, in order, which also says whether it is finished and which shots had no room.
        """
        return self._replies(requests, seed, description, batch_size, sampling)

    def _replies(
        self,
        requests: Iterable[tuple[PersonLike, PromptLike]],
        seed: int,
        description: str | None,
        batch_size: int,
        sampling: SamplingOptions,
    ) -> list[Reply]:
        """What `generate_batch` gives. Only public methods call this: a warning names the line that called those."""
        settings = sampling_of(sampling)
        prompts = self._numbered(
            self.shown(person_of(person), prompt, description, mirrored=settings.guidance > 0)
            for person, prompt in requests
        )
        self._warn_of_unread(description, frames=2)
        with self._model() as model:
            return answer(model, self.renderer, prompts, settings, seed=seed, batch_size=batch_size)

    def stream(
        self,
        person: PersonLike,
        prompt: PromptLike,
        *,
        seed: int = 0,
        description: str | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Iterator[str]:
        """Yield the parts of an answer as they are sampled; joined they are what `generate` gives.

        Arguments and errors as of `generate`. Other policies over the same base may be used in between.
        """
        settings = sampling_of(sampling)
        shown = self.shown(person_of(person), prompt, description, mirrored=settings.guidance > 0)
        self._warn_of_unread(description)
        (numbered,) = self._numbered([shown])
        return stream_answer(self._model, self.renderer, numbered, settings, seed=seed)

    def messages(
        self, person: PersonLike, prompt: PromptLike, *, description: str | None = None, reserve: int = 128
    ) -> list[Message]:
        """What the policy reads before it answers, as turns (`role`, `content`) for a chat template or a chat server.

        `tokenizer.apply_chat_template(messages, add_generation_prompt=True)` has the ids that the policy was trained
        on, unless a text holds a control token or white space at its ends. Of a template that asks for reasoning, leave
        the reasoning out.

        Args:
            person: see the class.
            prompt: what is answered, as for `generate`.
            description: in the place of the person's own, or of the one that the policy writes.
            reserve: tokens kept free for the answer; the oldest shots without room are left out.

        Raises:
            DataError: the person is not given as above, or the prompt is too long.
        """
        shown = self.shown(person_of(person), prompt, description, mirrored=False)
        self._warn_of_unread(description)
        return self.renderer.messages(shown.shots, shown.text, shown.description, reserve=reserve)

    def save_pretrained(self, folder: str | Path, *, dtype: str = "float32") -> Path:
        """Write the policy as a whole model, adapters merged, with its tokenizer: a plain folder of transformers.

        Args:
            folder: a new folder, or one that holds an exported model, which is replaced.
            dtype: float32, bfloat16 or float16.

        Raises:
            ConfigError: the folder holds something else.
            ModelError: this is no trained policy, or its base model can't be obtained.
            StorageError: the disk is full.
        """
        return export_policy(self._folder(), Path(expanded(folder)), dtype=dtype)

    def push_to_hub(self, repo: str, *, private: bool = True, whole: bool = False, dtype: str = "float32") -> str:
        """Upload the policy to a hub, as `fspo model push` does, and return its address; see `publish`.

        Args:
            repo: `owner/name`; made if it is missing.
            private: whether a repository that is made is private.
            whole: upload the base model's weights too, as is done if the base model is on no hub.
            dtype: of whole weights, float32, bfloat16 or float16.

        Raises:
            ConfigError: `dtype` is unknown, or `repo` is no name of a repository, or holds files of somebody else that
                would be lost.
            ModelError: this is no trained policy, it has weights beside the model, its base model can't be obtained,
                or the hub can't be reached or refuses.
            StorageError: the disk is full.
        """
        from fspo.modeling.publishing import publish

        return publish(self._folder(), repo, private=private, whole=whole, dtype=dtype)

    def _folder(self) -> Path:
        """The folder of the policy."""
        if self.weights is None:
            raise ModelError("This policy is in training; train it to the end, and load it from its output_dir.")
        if self.weights.card is None:
            raise ModelError(
                f"{self.weights.name} is a model that was not trained by fspo; there is no policy to write."
            )
        return Path(self.weights.name)

    def describe(self, person: PersonLike) -> str:
        """Describe a person in the model's own words, from their preferences; empty if there are none.

        Nothing of the person stays in memory.
        """
        return self._describe(shots_beside("", person_of(person).shots, self.shots))

    def shown(
        self, person: Person, prompt: PromptLike, description: str | None = None, *, mirrored: bool = False
    ) -> Prompt:
        """A prompt with what the policy sees of the person; what stands for the mirror only where `mirrored`."""
        text = prompt_of(prompt)
        shots, mirror = shots_beside(transcript(as_turns(text)), person.shots, self.shots), None
        if self.describes:
            description = self._description(shots) if description is None else description
            mirror = self._description(tuple(shot.swap() for shot in shots)) if mirrored else ""
        return Prompt(text, shots, person.description if description is None else description, mirror)

    def _warn_of_unread(self, description: str | None, *, frames: int = 1) -> None:
        """Warn of a description that the model is not shown; `frames` functions of this class lie above this one."""
        if description and not self.renderer.reads_description:
            warnings.warn(
                f"description has no effect: this policy has the context '{self.renderer.context}', which shows no "
                "description; leave it out.",
                stacklevel=2 + frames,
            )

    def _description(self, shots: tuple[Preference, ...]) -> str:
        if shots not in self._written:
            if len(self._written) >= _DESCRIPTIONS:
                del self._written[next(iter(self._written))]
            self._written[shots] = self._describe(shots)
        return self._written[shots]

    def _describe(self, shots: tuple[Preference, ...]) -> str:
        with self._model() as model:
            (found,) = write_descriptions(model, self.renderer, [shots], max_new_tokens=self.description_tokens)
        return found.text

    @staticmethod
    def _numbered(prompts: Iterable[Prompt]) -> list[Prompt]:
        """The prompts with the number of the draw of each: what occurs again is drawn again."""
        seen: dict[Prompt, int] = {}
        numbered = []
        for prompt in prompts:
            seen[prompt] = seen.get(prompt, -1) + 1
            numbered.append(replace(prompt, seed=seen[prompt]))
        return numbered

    def _logps(self, enter: Enter, episodes: Sequence[TokenizedEpisode]) -> list[torch.Tensor]:
        """[R] each: log-probabilities of the responses, by the reduction of the training."""
        with torch.no_grad(), enter() as model:
            scored = branch_logprobs(model, episodes)
        return [one.reduced(self._reduction)[0] for one in scored]


def _one_prompt(prompts: PromptLike | list[PromptLike] | list[str] | tuple[str, ...]) -> PromptLike | None:
    """The one prompt that is given; None where several are."""
    if isinstance(prompts, str):
        return prompts
    messages = isinstance(prompts, list | tuple) and all(isinstance(part, Turn | Mapping) for part in prompts or "?")
    return cast("PromptLike", prompts) if messages or isinstance(prompts, Mapping) else None


def _one_branch(
    trunk: Sequence[int], prompt: Sequence[int], responses: tuple[tuple[int, ...], ...]
) -> TokenizedEpisode:
    branch = Branch(tuple(prompt), responses, boundary=len(trunk), shots=0, query=0)
    return TokenizedEpisode(tuple(trunk), (len(trunk),), (branch,))


def sampling_of(options: SamplingOptions) -> Sampling:
    """The options as settings.

    Raises:
        ConfigError: one is unknown or out of its range.
    """
    settings: dict[str, Any] = {"temperature": 0.7, **options}
    known = SamplingOptions.__annotations__
    for name in settings.keys() - known.keys():
        raise ConfigError(f"Sampling has no setting '{name}'{suggestion(name, known)}")
    return Sampling(**settings)


def renderer_of(
    name: str | Path, training: Mapping[str, Any], *, layout: LayoutName | None, max_length: int | None
) -> EpisodeRenderer:
    """Renders for a policy or a model by its name, by default as in its training (empty: it was not trained).

    Raises:
        ConfigError: the model can't read `max_length` tokens.
        ModelError: there is no such model, or it can't read all that its tokenizer makes.
    """
    tokenizer = load_tokenizer(name)
    check_vocabulary(tokenizer, rows_of(name), str(name))
    longest = training.get("max_length") if max_length is None else max_length
    limit = reading_limit(longest, context_length(name))
    usual = training.get("layout", EARLIER_LAYOUT) if training else DEFAULT_LAYOUT
    return EpisodeRenderer(tokenizer, max_length=limit, layout=layout or usual)
