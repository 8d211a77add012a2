"""The weights of policies in memory: read when they are first used, and one base model for all policies over it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from threading import Lock, RLock
from typing import Any
from weakref import WeakValueDictionary

import torch
from peft import PeftModel

from fspo.modeling.loading import check_dtype, default_device, load_model
from fspo.modeling.merging import ADAPTER_WEIGHTS
from fspo.modeling.model_names import place_here, weights_of
from fspo.modeling.policies import PolicyCard, check_adapter, is_policy, load_policy, read_card
from fspo.modeling.quiet import quietly

__all__ = ["PolicyWeights", "SharedModel", "shared_model"]


@dataclass(frozen=True)
class Adapter:
    """An adapter on a shared model, which keeps it in memory as long as this object lives."""

    name: str


class SharedModel:
    """A model in memory and the adapters that policies have put on it, of which one policy's are active at a time."""

    def __init__(self, model: torch.nn.Module) -> None:
        """`model` gets the adapters; no caller holds it otherwise."""
        self._model: Any = model
        self._adapters: WeakValueDictionary[tuple[Any, ...], Adapter] = WeakValueDictionary()
        self._numbers = count()
        self._active: tuple[str, ...] | None = None
        self._lock = RLock()

    def add(self, folder: Path) -> Adapter:
        """Read the adapter in `folder`, unless it is in memory as it is on disk.

        Adapters that no policy uses any more are then removed from memory.

        Raises:
            ModelError: the adapter is missing.
        """
        check_adapter(folder)
        with self._lock:
            key = (folder, _stamps(folder, "adapter_*"))
            found = self._adapters.get(key)
            if found is None:
                found = Adapter(f"adapter{next(self._numbers)}")
                with quietly(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    if isinstance(self._model, PeftModel):
                        self._model.load_adapter(str(folder), adapter_name=found.name)
                    else:
                        self._model = PeftModel.from_pretrained(self._model, str(folder), adapter_name=found.name)
                    self._adapters[key], self._active = found, None
                    for unused in self._model.peft_config.keys() - {used.name for used in self._adapters.values()}:
                        self._model.delete_adapter(unused)
                self._model.eval()
            return found

    @contextmanager
    def active(self, adapters: Sequence[Adapter] = ()) -> Iterator[torch.nn.Module]:
        """Inside, the model computes with these adapters added up, and with no other; other threads wait."""
        names = tuple(adapter.name for adapter in adapters)
        with self._lock:
            if isinstance(self._model, PeftModel) and self._active != names:
                tuner: Any = self._model.base_model
                tuner.enable_adapter_layers()
                if names:
                    tuner.set_adapter(list(names), inference_mode=True)
                else:
                    tuner.disable_adapter_layers()
                self._active = names
            yield self._model


_models: WeakValueDictionary[tuple[Any, ...], SharedModel] = WeakValueDictionary()
_loading = Lock()


def shared_model(name: str | Path, dtype: str, device: str | torch.device | None) -> SharedModel:
    """The model of that name; one in memory is given again as long as it is used and its files are the same.

    Raises:
        ModelError: it can't be obtained.
    """
    with _loading:
        found = _models.get(_key(name, dtype, device))
        if found is None:
            found = SharedModel(load_model(name, dtype=dtype, device=device))
            _models[_key(name, dtype, device)] = found  # only now a hub's model is sure to be on this machine
        return found


def _key(name: str | Path, dtype: str, device: str | torch.device | None) -> tuple[Any, ...]:
    folder = place_here(name, weights=True)
    stamps = _stamps(folder, "*.safetensors") if folder else ()
    return str(folder.resolve()) if folder else str(name), stamps, dtype, str(device or default_device())


def _stamps(folder: Path, pattern: str) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of files, which tell that one of them was written again."""
    files = sorted(folder.glob(pattern))
    return tuple((file.name, stat.st_size, stat.st_mtime_ns) for file in files for stat in [file.stat()])


@dataclass(frozen=True)
class PolicyWeights:
    """Where a policy's weights come from; each method enters a model, which is read at the first use.

    `name` is the folder of a policy, or the name of a model that was not trained; `device` is by default CUDA where
    there is one.

    Raises:
        ConfigError: the dtype is unknown.
    """

    name: str | Path
    dtype: str = "float32"
    device: str | torch.device | None = None

    def __post_init__(self) -> None:
        check_dtype(self.dtype)

    @cached_property
    def card(self) -> PolicyCard | None:
        """What is on record of the policy; None of a model that was not trained.

        Raises:
            ModelError: the record is damaged or of another version.
        """
        return read_card(Path(self.name)) if is_policy(self.name) else None

    @property
    def folder(self) -> Path | None:
        """The policy's folder; None of a model that was not trained."""
        return None if self.card is None else Path(self.name)

    @property
    def identity(self) -> str | None:
        """Distinguishes other weights; None while those of a hub's model are not on this machine."""
        return weights_of(self.name)

    @property
    def base_name(self) -> str:
        """The model below all adapters, or that whole weights were trained from."""
        return str(self.name) if self.card is None else self.card.base

    def policy(self) -> AbstractContextManager[torch.nn.Module]:
        """Enter the policy itself."""
        if self.card is None:
            return self._base.active()
        if not self.card.adapters:
            return self._whole.active()
        return self._base.active(self._adapters) if self._adds_up else nullcontext(self._switchable)

    def start(self) -> AbstractContextManager[torch.nn.Module]:
        """Enter the weights that training started from; of a model that was not trained, its own.

        Raises:
            ModelError: they are another policy, which is no longer there.
        """
        card = self.card
        if card is None:
            return self._base.active()
        if not card.adapters:
            return self._origin.policy()
        return self._base.active(self._adapters[:-1]) if self._adds_up else _without_newest(self._switchable)

    def base(self) -> AbstractContextManager[torch.nn.Module]:
        """Enter the model below all adapters."""
        return self._base.active()

    @cached_property
    def _adds_up(self) -> bool:
        """Whether the adapters, side by side on the base model, compute what they do on top of each other."""
        assert self.card is not None
        return len(self.card.adapters) == 1 or (Path(self.name) / ADAPTER_WEIGHTS).is_file()

    @cached_property
    def _base(self) -> SharedModel:
        return shared_model(self.base_name, self.dtype, self.device)

    @cached_property
    def _adapters(self) -> tuple[Adapter, ...]:
        folder = Path(self.name).resolve()
        return tuple(self._base.add(folder / name) for name in (self.card.adapters if self.card else ()))

    @cached_property
    def _whole(self) -> SharedModel:
        return shared_model(self.name, self.dtype, self.device)

    @cached_property
    def _switchable(self) -> Any:
        return load_policy(Path(self.name), adapters="switchable", dtype=self.dtype, device=self.device)

    @cached_property
    def _origin(self) -> PolicyWeights:
        assert self.card is not None
        return PolicyWeights(self.card.starts_from or self.card.base, self.dtype, self.device)


@contextmanager
def _without_newest(model: Any) -> Iterator[torch.nn.Module]:
    with model.disable_adapter():
        yield model
