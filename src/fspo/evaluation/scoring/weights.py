"""The weights under evaluation: the base model and the policies, loaded when they are needed, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fspo.errors import ConfigError, DataError
from fspo.identity import digest
from fspo.methods.adaptation import AdaptationRow, TextAdaptation
from fspo.methods.table import ADAPTATIONS, METHODS, method
from fspo.modeling.layouts import DEFAULT_LAYOUT, LayoutName
from fspo.modeling.model_names import weights_of
from fspo.modeling.rendering import REMEMBERED_TEXTS, Context, EpisodeRenderer
from fspo.preferences.types import Preference

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fspo.methods.adaptation import Adaptation, UserView
    from fspo.modeling.answering import Prompt, Reply
    from fspo.modeling.generation import Sampling

__all__ = ["LoadableModel", "Source", "Weights"]

Source = Path | None
"""A policy folder; None for the base model."""


@dataclass(frozen=True)
class LoadableModel:
    """Some weights under evaluation, and what they are shown of a user."""

    load: Callable[[], PreTrainedModel]
    """Gives the weights in evaluation mode; called only where something is to be computed."""
    renderer: EpisodeRenderer
    fingerprint: str
    """Distinguishes these weights from others."""
    adaptation: Callable[[], Adaptation] | None = None
    """Gives what changes the weights for each user; None where they are the same for all."""
    writer: Callable[[], TextAdaptation] | None = None
    """Writes the text about a user that the model is shown; None: it is the user's own, or the model writes it."""

    @property
    def context(self) -> Context:
        """What the model gets from the user, in its context or by an adaptation."""
        return self.renderer.context if self.adaptation is None and self.writer is None else "shots"

    @property
    def describes(self) -> bool:
        """Whether an adaptation puts a text of its own into the context."""
        return self.adaptation is not None and self.renderer.context in ("description", "both")

    @contextmanager
    def for_user(self, shots: Sequence[Preference]) -> Iterator[UserView | None]:
        """Enter what an adaptation makes of the shots of a user; None where there is no adaptation."""
        if self.adaptation is None:
            yield None
            return
        with self.adaptation().for_user(shots) as view:
            yield view

    def answer(self, prompts: Sequence[Prompt], sampling: Sampling, *, seed: int = 0) -> list[Reply]:
        """A reply to every prompt, in order, all sampled side by side; with an adaptation those of each user.

        Raises:
            DataError: a prompt alone is too long.
            ModelError: the architecture can't decode over shared trunks.
        """
        from fspo.modeling.answering import answer, answer_per_user

        together = max(1, len(prompts))
        if self.adaptation is not None:
            return answer_per_user(self.adaptation(), prompts, sampling, seed=seed, batch_size=together)
        return answer(self.load(), self.renderer, prompts, sampling, seed=seed, batch_size=together)

    @property
    def key(self) -> str:
        """Distinguishes other weights, and other ways to show them the same texts."""
        return f"{self.fingerprint}/{self.renderer.identity}"


class Weights:
    """Where each method's weights, and those its reward is measured against, come from."""

    def __init__(
        self,
        model: str,
        policies: Mapping[str, Path | None],
        *,
        dtype: str,
        max_length: int | None,
        layout: LayoutName = DEFAULT_LAYOUT,
        adaptations: Mapping[str, AdaptationRow] | None = None,
    ) -> None:
        """Take stock; nothing is loaded yet. `adaptations` are the settings of methods that have them, by name.

        Raises:
            ConfigError: a method is unknown, or one that trains has no policy.
            DataError: a policy folder does not exist.
        """
        for name, folder in policies.items():
            self.check(name, folder)
        self.model = model
        self._policies = dict(policies)
        self._dtype, self._max_length, self._layout = dtype, max_length, layout
        rows = {name: AdaptationRow(name, ADAPTATIONS[name]) for name in policies if name in ADAPTATIONS}
        self._adaptations = {name: (adaptations or {}).get(name, row) for name, row in rows.items()}
        self._loaded: tuple[Source, Any] | None = None
        self._renderers: dict[tuple[Context, str], EpisodeRenderer] = {}
        self._tokenizers: dict[str, Any] = {}
        """Method -> its policy's own tokenizer; None where it shows texts as the base model's does."""
        self._adapting: dict[str, Adaptation] = {}
        """Of the weights that are loaded."""

    def check(self, name: str, folder: Path | None) -> None:
        """Check that a method's weights can be found."""
        if method(name).trains and folder is None:
            raise ConfigError(f"The method '{name}' has no policy to evaluate; train it first, or leave it out.")
        if folder is not None and not folder.is_dir():
            raise DataError(f"{folder}, the policy of '{name}', does not exist; run `fspo train` first.")

    def source(self, name: str) -> Source:
        """A method's own weights."""
        folder = self._policies.get(name)
        return None if folder is None else folder.resolve()

    def start(self, name: str) -> Source:
        """The weights a method's training started from, as its policy says.

        Raises:
            DataError: they are another policy, which is no longer there.
        """
        from fspo.modeling.policies import read_card

        source = self.source(name)
        recorded = read_card(source).starts_from if source is not None else None
        if source is None or recorded is None:
            return None
        # A run folder may have been moved since: its methods still lie side by side.
        for place in (Path(recorded), source.parent / Path(recorded).name):
            if place.is_dir():
                return place.resolve()
        raise DataError(
            f"The policy of '{name}' was trained on from {recorded}, which is gone; its reward is measured "
            "against that one, so train again or put it back."
        )

    def reads_no_shots(self, name: str) -> bool:
        """Whether what a method's reward is measured against sees the bare prompt, as it did in the training."""
        from fspo.modeling.policies import read_card

        source = self.source(name)
        training = {} if source is None else read_card(source).details.get("training") or {}
        return bool(training.get("reference") == "none")

    @cached_property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        from fspo.modeling.loading import load_tokenizer

        return load_tokenizer(self.model)

    def shown_by(self, name: str) -> str:
        """The method by whose tokenizer a method and what its reward is measured against are shown texts.

        It is the method itself if its policy was trained with another tokenizer or chat template than the base model's,
        and empty for the base model's own.

        Raises:
            ModelError: a tokenizer can't be obtained, or makes tokens that the policy can't read.
        """
        if name not in self._tokenizers:
            self._tokenizers[name] = self._own_tokenizer(self.source(name))
        return "" if self._tokenizers[name] is None else name

    def renderer(self, context: Context, name: str = "") -> EpisodeRenderer:
        """Renders episodes for a method, by default for the base model; one for each context and tokenizer."""
        from fspo.modeling.loading import reading_limit

        own = self.shown_by(name)
        if (context, own) not in self._renderers:
            limit = reading_limit(self._max_length, self._longest, "evaluation.")
            tokenizer = self._tokenizers.get(own) or self.tokenizer
            self._renderers[context, own] = EpisodeRenderer(
                tokenizer,
                context=context,
                max_length=limit,
                layout=self._layout,
                remembered=REMEMBERED_TEXTS,
            )
        return self._renderers[context, own]

    def loadable(self, source: Source, context: Context, name: str = "") -> LoadableModel:
        """The weights of `source`, shown what `context` says, as a method is shown it."""
        return LoadableModel(lambda: self.load(source), self.renderer(context, name), self.fingerprint(source))

    def of(self, name: str) -> LoadableModel:
        """A method's own weights, shown what the method says, and changed for each user where it has an adaptation."""
        source, row = self.source(name), METHODS[name]
        plain = self.loadable(source, row.shown, name)
        if row.adaptation is None:
            return plain
        known = digest([plain.fingerprint, self._adaptations[name].identity()])
        if issubclass(row.adaptation, TextAdaptation):
            return replace(plain, fingerprint=known, writer=lambda: self._adaptation(name, plain.renderer))
        return replace(plain, fingerprint=known, adaptation=lambda: self._adaptation(name, plain.renderer))

    def _adaptation(self, name: str, renderer: EpisodeRenderer) -> Any:
        source, row = self.source(name), self._adaptations[name]
        model = self.load(source)
        if name not in self._adapting:
            self._adapting[name] = row.kind(row.settings, model, renderer, source)
        return self._adapting[name]

    def load(self, source: Source) -> Any:
        """The weights in evaluation mode; those loaded before are let go."""
        if self._loaded is None or self._loaded[0] != source:
            self.let_go()
            self._loaded = (source, self._read(source).eval())
        return self._loaded[1]

    def fingerprint(self, source: Source) -> str:
        """Tells other weights, or another precision, apart."""
        base = weights_of(self.model)
        if base is None:  # not fetched yet, so that nothing can be known of it either
            self.load(None)
            base = weights_of(self.model) or self.model
        return digest([base, None if source is None else weights_of(source), self._dtype])

    def let_go(self) -> None:
        """Forget the weights that are loaded, so that another model has room."""
        self._loaded, self._adapting = None, {}

    @cached_property
    def _longest(self) -> int | None:
        """Tokens the base model can read at once, where its configuration says so."""
        from fspo.modeling.loading import context_length
        from fspo.modeling.vocabulary import check_vocabulary, rows_of

        check_vocabulary(self.tokenizer, rows_of(self.model), self.model)
        return context_length(self.model)

    def _own_tokenizer(self, source: Source) -> Any:
        """The tokenizer of a policy, or None if it shows texts as the base model's does."""
        from fspo.modeling.loading import load_tokenizer
        from fspo.modeling.model_names import layers
        from fspo.modeling.policies import is_policy
        from fspo.modeling.vocabulary import check_vocabulary, rows_of

        if source is None or not is_policy(layers(source, "tokenizer_config.json")[-1]):
            return None
        own = load_tokenizer(source)
        if _alike(own, self.tokenizer):
            return None
        check_vocabulary(own, rows_of(source), str(source))
        return own

    def _read(self, source: Source) -> Any:
        if source is None:
            from fspo.modeling.loading import load_model

            return load_model(self.model, dtype=self._dtype)
        from fspo.modeling.policies import load_policy

        keeps = any(ADAPTATIONS[name].keeps_adapters for name in self._adaptations if self.source(name) == source)
        return load_policy(source, adapters="switchable" if keeps else "merged", dtype=self._dtype)


def _alike(own: Any, base: Any) -> bool:
    """Whether two tokenizers show the same texts by the same tokens."""
    if own.chat_template != base.chat_template or own.get_vocab() != base.get_vocab():
        return False
    return EpisodeRenderer(own, context="both").identity == EpisodeRenderer(base, context="both").identity
