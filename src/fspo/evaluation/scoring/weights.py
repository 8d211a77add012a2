"""The weights under evaluation: the base model and the policies, loaded when they are needed, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fspo.errors import ConfigError, DataError
from fspo.identity import digest
from fspo.methods.table import method
from fspo.modeling.layouts import LayoutName
from fspo.modeling.model_names import weights_of
from fspo.modeling.rendering import Context, EpisodeRenderer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

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
        layout: LayoutName = "labelled",
    ) -> None:
        """Take stock; nothing is loaded yet.

        Raises:
            ConfigError: a method is unknown, or one that trains has no policy.
            DataError: a policy folder does not exist.
        """
        for name, folder in policies.items():
            if method(name).trains and folder is None:
                raise ConfigError(f"The method '{name}' has no policy to evaluate; train it first, or leave it out.")
            if folder is not None and not folder.is_dir():
                raise DataError(f"{folder}, the policy of '{name}', does not exist; run `fspo train` first.")
        self.model = model
        self._policies = dict(policies)
        self._dtype, self._max_length, self._layout = dtype, max_length, layout
        self._loaded: tuple[Source, Any] | None = None

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

    @cached_property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        from fspo.modeling.loading import load_tokenizer

        return load_tokenizer(self.model)

    def renderer(self, context: Any) -> EpisodeRenderer:
        """Renders episodes for the base model and every policy."""
        longest = self._longest
        if self._max_length is None:
            self._max_length = longest
        elif longest and self._max_length > longest:
            raise ConfigError(
                f"evaluation.max_length is {self._max_length}, and the model reads at most {longest} tokens; lower it "
                "or leave it out."
            )
        return EpisodeRenderer(
            self.tokenizer, context=context, max_length=self._max_length or None, layout=self._layout
        )

    def loadable(self, source: Source, context: Context) -> LoadableModel:
        """The weights of `source`, shown what `context` says."""
        return LoadableModel(lambda: self.load(source), self.renderer(context), self.fingerprint(source))

    def load(self, source: Source) -> Any:
        """The weights in evaluation mode; those loaded before are let go."""
        if self._loaded is None or self._loaded[0] != source:
            self._loaded = None
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
        self._loaded = None

    @cached_property
    def _longest(self) -> int:
        """Tokens the base model can read at once; 0 where its configuration doesn't say."""
        from fspo.modeling.loading import load_configuration
        from fspo.modeling.vocabulary import check_vocabulary

        config = load_configuration(self.model).get_text_config()
        check_vocabulary(self.tokenizer, getattr(config, "vocab_size", None), self.model)
        return int(getattr(config, "max_position_embeddings", None) or 0)

    def _read(self, source: Source) -> Any:
        if source is None:
            from fspo.modeling.loading import load_model

            return load_model(self.model, dtype=self._dtype)
        from fspo.modeling.policies import load_policy

        return load_policy(source, dtype=self._dtype)
