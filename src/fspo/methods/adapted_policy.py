"""A policy that adapts to each person by code of a method, with the verbs of every policy.

What `Adaptation.for_user` enters is the policy of one person, so people are answered one after the other. The states of
the last ones stay in memory: only the first answer for somebody takes the steps on their preferences.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch

from fspo.errors import ConfigError, DataError
from fspo.methods.adaptation import Adaptation, AdaptationRow
from fspo.methods.table import ADAPTATIONS, METHODS
from fspo.modeling.answering import Prompt, Reply, answer_per_user, stream_answer
from fspo.modeling.layouts import DEFAULT_LAYOUT, EARLIER_LAYOUT, LayoutName
from fspo.modeling.loading import load_model
from fspo.modeling.model_names import policy_in
from fspo.modeling.policies import is_policy, load_policy, read_card
from fspo.modeling.policy import NO_LABELS, Policy, SamplingOptions, renderer_of, sampling_of
from fspo.modeling.sharing import PolicyWeights
from fspo.preferences.formats import person_of
from fspo.preferences.types import Preference

if TYPE_CHECKING:
    from fspo.preferences.formats import PersonLike
    from fspo.preferences.types import PromptLike

__all__ = ["AdaptedPolicy"]


class AdaptedPolicy(Policy):
    """A policy that a method's own code changes for each person, such as that of `p-rlhf` or `ttt`.

    It answers and ranks as every `Policy` does. All that it knows of a person comes from the preferences: descriptions
    are not shown. There is no guidance, which would need the policies of two people at once.

    Attributes:
        row: the method and its settings.
    """

    def __init__(
        self,
        place: str | Path,
        row: AdaptationRow,
        *,
        shots: int | None = None,
        layout: LayoutName | None = None,
        max_length: int | None = None,
        dtype: str = "float32",
        device: str | torch.device | None = None,
    ) -> None:
        """Made by `adapt`; nothing is loaded yet.

        Args:
            place: the folder of the policy that the method trained or changes, or the name of a model.
            row: the method and its settings.
            shots: how many preferences are used at most; by default all.
            layout: how shots are shown; by default as in training, and `conversation` where nothing was trained.
            max_length: most tokens that are read at once, with the answer.
            dtype: float32, bfloat16 or float16.
            device: by default CUDA where there is one.

        Raises:
            ConfigError: a setting of the method is wrong, or the model can't read `max_length` tokens.
            ModelError: there is no such model.
        """
        card = read_card(Path(place)) if is_policy(place) else None
        training: dict[str, Any] = dict(card.details.get("training") or {}) if card is not None else {}
        usual = training.get("layout", EARLIER_LAYOUT) if training else DEFAULT_LAYOUT
        longest = training.get("max_length") if max_length is None else max_length
        super().__init__(
            self._enter_plain,
            renderer_of(place, longest, layout or usual).with_context(row.kind.in_context),
            reference=self._enter_start,
            base=self._base_policy,
            training={**training, "describe": "none", "reference": "none"},
            weights=PolicyWeights(place, dtype, device),
            **({} if shots is None else {"shots": shots}),
        )
        self.row = row
        self._settings = row.settings  # a wrong one is an error before anything is loaded
        self._place, self._card, self._dtype, self._device = place, card, dtype, device

    @classmethod
    def adapt(
        cls, place: str | Path, method: str = "", settings: Mapping[str, Any] | None = None, **more: Any
    ) -> AdaptedPolicy:
        """The policy of a method that adapts to each person.

        Args:
            place: the folder of the method's own policy (`p-rlhf`, `np-dpo`), as a run has it in `methods/NAME`; of
                other methods, the model or the policy that they change.
            method: the method; by default the one that trained the policy.
            settings: of the adaptation, as below `adaptations.NAME` in a run's file.
            **more: see the class.

        Raises:
            ConfigError: the method adapts to nobody, trains a policy of its own that is not in `place`, or a setting is
                wrong.
            ModelError: there is no such policy or model.
        """
        found = policy_in(place) or place
        trained = read_card(Path(found)).method if is_policy(found) else ""
        name = method or trained
        if name not in ADAPTATIONS:
            what = f"The method '{name}'" if name else str(place)
            raise ConfigError(
                f"{what} adapts to no user by code of its own; choose from {', '.join(ADAPTATIONS)}, or load it with "
                "Policy.load."
            )
        if METHODS[name].trains and trained != name:
            raise ConfigError(f"'{name}' trains a policy of its own, and {place} does not hold it; name its folder.")
        return cls(found, AdaptationRow(name, ADAPTATIONS[name], dict(settings or {})), **more)

    @property
    def _method(self) -> dict[str, str]:
        return {"method": self.row.name}

    @property
    def reads_shots(self) -> bool:
        """A person's preferences always matter."""
        return True

    @cached_property
    def adaptation(self) -> Adaptation:
        """The method's code over the weights, which are read now.

        Raises:
            ModelError: the weights, or those of the method beside them, can't be loaded.
        """
        folder = None if self._card is None else Path(self._place)
        return self.row.kind(self._settings, self._loaded, self.renderer, folder)

    def generate_batch(
        self,
        requests: Iterable[tuple[PersonLike, PromptLike]],
        *,
        seed: int = 0,
        description: str | None = None,
        batch_size: int = 64,
        **sampling: Unpack[SamplingOptions],
    ) -> list[Reply]:
        """As of `Policy`; the prompts of one person are answered side by side."""
        settings = self._plain(sampling)
        prompts = self._numbered(self.shown(person_of(person), prompt) for person, prompt in requests)
        return answer_per_user(self.adaptation, prompts, settings, seed=seed, batch_size=batch_size)

    def stream(
        self,
        person: PersonLike,
        prompt: PromptLike,
        *,
        seed: int = 0,
        description: str | None = None,
        **sampling: Unpack[SamplingOptions],
    ) -> Iterator[str]:
        """As of `Policy`."""
        settings = self._plain(sampling)
        (shown,) = self._numbered([self.shown(person_of(person), prompt)])

        @contextmanager
        def enter() -> Iterator[torch.nn.Module]:
            with self.adaptation.for_user(shown.shots) as view:
                yield view.model

        with self.adaptation.for_user(shown.shots) as view:
            renderer, asked = view.renderer, replace(shown, description=view.text)
        return stream_answer(enter, renderer, asked, settings, seed=seed)

    def margins(self, person: PersonLike, pairs: Sequence[Preference]) -> list[float]:
        """As of `Policy`."""
        known = person_of(person)
        rewards = (self.reward(known, pair.messages, [pair.chosen, pair.rejected], against="mirror") for pair in pairs)
        return [chosen - rejected for chosen, rejected in rewards]

    def _for_person(self, shown: Prompt, texts: tuple[tuple[int, ...], ...]) -> torch.Tensor:
        with self.adaptation.for_user(shown.shots) as view:
            model, asked = view.model, replace(shown, description=view.text)
            return self._seen(lambda: nullcontext(model), asked, texts, view.renderer)

    def _antisymmetric(self, shown: Sequence[Prompt], texts: tuple[tuple[int, ...], ...]) -> list[float]:
        if not all(one.shots for one in shown) or not shown:
            raise DataError(NO_LABELS)
        total = torch.zeros(len(texts), dtype=torch.float64)
        for one in shown:
            swapped = replace(one, shots=tuple(shot.swap() for shot in one.shots))
            own, mirrored = (self._for_person(side, texts).double().cpu() for side in (one, swapped))
            total += self._beta * (own - mirrored) / 2
        return total.tolist()

    def _plain(self, sampling: SamplingOptions) -> Any:
        settings = sampling_of(sampling)
        if settings.guidance:
            raise ConfigError(
                f"'{self.row.name}' changes the policy for each person, and guidance would need those of two people at "
                "once; leave guidance out."
            )
        return settings

    @cached_property
    def _loaded(self) -> Any:
        """The weights, without anything of a person."""
        if self._card is None:
            model: Any = load_model(self._place, dtype=self._dtype, device=self._device)
            return model.eval()
        adapters: Any = "switchable" if self.row.kind.keeps_adapters else "merged"
        return load_policy(Path(self._place), adapters=adapters, dtype=self._dtype, device=self._device)

    def _base_policy(self) -> Policy:
        """The base model, in the same memory where it can be had without the policy's adapters."""
        renderer, weights = self.renderer.with_context("both"), self.weights
        if self._card is None or self.row.kind.keeps_adapters or weights is None:
            return Policy(self._enter_start, renderer)
        base = PolicyWeights(weights.base_name, self._dtype, self._device)
        return Policy(base.policy, renderer, weights=base)

    def _enter_plain(self) -> AbstractContextManager[torch.nn.Module]:
        """The policy while no person is entered."""
        return nullcontext(self._loaded)

    @contextmanager
    def _enter_start(self) -> Iterator[torch.nn.Module]:
        """What the method's own training started from, or else the weights that it changes."""
        if not self.row.kind.keeps_adapters:
            yield self._loaded
            return
        with self._loaded.disable_adapter():
            yield self._loaded
