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
from fspo.modeling.layouts import LayoutName, Message
from fspo.modeling.loading import load_model
from fspo.modeling.model_names import policy_in
from fspo.modeling.policies import is_policy, load_policy, read_card
from fspo.modeling.policy import NO_LABELS, Policy, SamplingOptions, renderer_of, sampling_of
from fspo.modeling.sharing import PolicyWeights
from fspo.preferences.formats import person_of
from fspo.preferences.types import Person, Preference

if TYPE_CHECKING:
    from fspo.preferences.formats import PersonLike
    from fspo.preferences.types import PromptLike

__all__ = ["AdaptedPolicy"]


class AdaptedPolicy(Policy):
    """A policy that a method's own code changes for each person, such as that of `p-rlhf` or `ttt`.

    It answers and ranks as every `Policy` does. All that it knows of a person comes from the preferences: a person's
    description is not shown, and the argument `description` is refused. Its reward is measured against the same
    reference as in an evaluation: the weights that training started from, which see the shots that the policy sees; or,
    of a model that was not trained, the bare model. There is no guidance, which would need the policies of two people
    at once.

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

        `place` is the folder of the policy that the method trained or changes, or the name of a model; `row` is the
        method with its settings. The others are those of `Policy.load`, but by default all preferences are used.

        Raises:
            ConfigError: a setting of the method is wrong, or one of `Policy.load`.
            ModelError: there is no such model.
        """
        weights = PolicyWeights(place, dtype, device)
        training: dict[str, Any] = (weights.card.details.get("training") if weights.card else None) or {}
        super().__init__(
            self._enter_plain,
            renderer_of(place, training, layout=layout, max_length=max_length).with_context(row.kind.in_context),
            # What a policy learned shows against what its training started from, whatever its objective was.
            reference=self._enter_start if weights.card else None,
            base=self._base_policy,
            training={**training, "describe": "none", "objective": ""},
            weights=weights,
            **({} if shots is None else {"shots": shots}),
        )
        self.row = row
        self._settings = row.settings  # a wrong one is an error before anything is loaded
        self._weights = weights

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
        return self.row.kind(self._settings, self._loaded, self.renderer, self._weights.folder)

    def shown(
        self, person: Person, prompt: PromptLike, description: str | None = None, *, mirrored: bool = False
    ) -> Prompt:
        """As of `Policy`, without any description.

        Raises:
            ConfigError: a description is given.
        """
        if description:
            raise ConfigError(
                f"'{self.row.name}' adapts to preferences alone and shows no description; leave description out."
            )
        return super().shown(person, prompt, "", mirrored=mirrored)

    def _replies(
        self,
        requests: Iterable[tuple[PersonLike, PromptLike]],
        seed: int,
        description: str | None,
        batch_size: int,
        sampling: SamplingOptions,
    ) -> list[Reply]:
        """As of `Policy`; the prompts of one person are answered side by side."""
        settings = self._plain(sampling)
        prompts = self._numbered(self.shown(person_of(person), prompt, description) for person, prompt in requests)
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
        (shown,) = self._numbered([self.shown(person_of(person), prompt, description)])

        @contextmanager
        def enter() -> Iterator[torch.nn.Module]:
            with self.adaptation.for_user(shown.shots) as view:
                yield view.model

        with self.adaptation.for_user(shown.shots) as view:
            renderer, asked = view.renderer, replace(shown, description=view.text)
        return stream_answer(enter, renderer, asked, settings, seed=seed)

    def messages(
        self, person: PersonLike, prompt: PromptLike, *, description: str | None = None, reserve: int = 128
    ) -> list[Message]:
        """As of `Policy`, with the text that the method writes about the person; no message shows changed weights."""
        shown = self.shown(person_of(person), prompt, description)
        with self.adaptation.for_user(shown.shots) as view:
            return view.renderer.messages(shown.shots, shown.text, view.text, reserve=reserve)

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
        name, dtype, device = self._weights.name, self._weights.dtype, self._weights.device
        if self._weights.card is None:
            model: Any = load_model(name, dtype=dtype, device=device)
            return model.eval()
        adapters: Any = "switchable" if self.row.kind.keeps_adapters else "merged"
        return load_policy(Path(name), adapters=adapters, dtype=dtype, device=device)

    def _base_policy(self) -> Policy:
        """The base model, in the same memory where it can be had without the policy's adapters."""
        renderer, weights = self.renderer.with_context("both"), self._weights
        if weights.card is None or self.row.kind.keeps_adapters:
            return Policy(self._enter_start, renderer)
        base = PolicyWeights(weights.base_name, weights.dtype, weights.device)
        return Policy(base.policy, renderer, weights=base)

    def _enter_plain(self) -> AbstractContextManager[torch.nn.Module]:
        """The policy while no person is entered."""
        return nullcontext(self._loaded)

    def _enter_start(self) -> AbstractContextManager[torch.nn.Module]:
        """What the policy's training started from, in the same memory where it can; of a model, the model itself."""
        if self._weights.card is None:
            return nullcontext(self._loaded)
        return self._without_newest() if self.row.kind.keeps_adapters else self._weights.start()

    @contextmanager
    def _without_newest(self) -> Iterator[torch.nn.Module]:
        with self._loaded.disable_adapter():
            yield self._loaded
