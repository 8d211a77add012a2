"""What a training starts from: a model by name or in memory, its tokenizer, and the adapters that it is given."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors import safe_open

from fspo.errors import ModelError
from fspo.files import replace_folder
from fspo.identity import WORKING, digest, file_digest
from fspo.modeling.builtin_model import BUILTIN_MODEL
from fspo.modeling.folders import MODEL, TOKENIZER_FILES
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.model_names import layers, place_here, weights_of
from fspo.modeling.policies import is_policy, load_policy
from fspo.modeling.quiet import quietly
from fspo.modeling.vocabulary import check_vocabulary, rows_of
from fspo.paths import expanded
from fspo.training.processes import joined, loading_device

__all__ = ["Start"]


@dataclass(frozen=True)
class Start:
    """What a training starts from."""

    model: Any
    """Name of a model, folder of a policy, or a transformers model in memory, whose weights training then changes."""
    out: Path
    """Folder of the policy that is trained."""
    tokenizer: Any = None
    """In the place of the model's own."""
    adapters: LoraConfig | None = None
    """In the place of the settings' own."""

    @property
    def in_memory(self) -> bool:
        """Whether the model is given itself, not by its name."""
        return not isinstance(self.model, str | Path)

    @cached_property
    def name(self) -> str | Path:
        """Where the model can be loaded again: its name, or the folder that one in memory came from or is kept in."""
        if not self.in_memory:
            return self.model  # type: ignore[no-any-return]
        place = self._origin
        return place if place and _holds(place_here(place, weights=True), self.model) else self._kept

    @property
    def policy(self) -> Path | None:
        """The policy that is trained on, if it is one."""
        place = Path(expanded(self.name))
        return place if is_policy(place) else None

    def identity(self) -> dict[str, Any]:
        """What decides the result, ready for JSON: contents of what is in memory or in a folder, names of all else."""
        known: dict[str, Any] = {"model": self._model_identity(), **self.hub_weights()}
        if self.tokenizer is not None:
            known["tokenizer"] = _tokenizer_identity(self.tokenizer)
        elif (files := self._tokenizer_files()) is not None:
            known["tokenizer_files"] = files
        if self.adapters is not None:
            known["adapters"] = _as_json(self.adapters)
        return known

    def peft_settings(self) -> dict[str, Any] | None:
        """The settings of `adapters` that are not peft's defaults, ready for JSON; None without adapters.

        The name of the base model is left out: it may be a folder.
        """
        if self.adapters is None:
            return None
        usual = _as_json(LoraConfig())
        found = {name: value for name, value in _as_json(self.adapters).items() if value != usual.get(name)}
        found.pop("base_model_name_or_path", None)
        return found

    def hub_weights(self) -> dict[str, Any]:
        """The identity of the weights of a hub's model, None while they are not on this machine; empty of any other."""
        if self.in_memory or str(self.model) == BUILTIN_MODEL or Path(expanded(self.model)).is_dir():
            return {}
        return {"weights": weights_of(self.model)}

    def load(self) -> Any:
        """The model to be trained: the one in memory itself, or a fresh one.

        One that is in memory alone is first written into the policy's folder, so that the policy can be loaded again.

        Raises:
            ModelError: it can't be obtained.
            StorageError: the disk is full or the folder can't be written.
        """
        if not self.in_memory:
            return self.load_again()
        kept, process = self._kept, joined()
        if process.is_main_process and self.name == kept and not kept.exists():
            with replace_folder(kept, MODEL) as staging, quietly():
                self.model.save_pretrained(staging)
                self.load_tokenizer().save_pretrained(staging)
        process.wait_for_everyone()
        return self.model

    def load_again(self) -> Any:
        """The model as it was at the start, apart from the one that was trained.

        Raises:
            ModelError: it can't be obtained.
        """
        device = loading_device()
        if self.policy is not None:
            return load_policy(self.policy, device=device)
        return load_model(self.name, device=device)

    def load_tokenizer(self) -> Any:
        """The tokenizer.

        Raises:
            ModelError: it can't be obtained.
        """
        if self.tokenizer is not None:
            return self.tokenizer
        if self.in_memory and not self._origin and not self._kept.exists():
            raise ModelError("The model does not say where it was loaded from; give its tokenizer as processing_class.")
        return load_tokenizer(self._tokenizer_place)

    def check_vocabulary(self) -> None:
        """Check, before the weights are loaded, that the model can read all that its tokenizer makes.

        Raises:
            ModelError: it can't, naming how many tokens either knows; or one of them can't be obtained.
        """
        name = self._origin or "the model in memory" if self.in_memory else str(self.model)
        check_vocabulary(self.load_tokenizer(), rows_of(self.model), name)

    @cached_property
    def _weights(self) -> str:
        """Digest of the weights of a model in memory, as they were before training."""
        return _weights_digest(self.model)

    @property
    def _kept(self) -> Path:
        """Folder that keeps a model in memory which no name leads to; other weights get another folder."""
        return self.out / f"base-{self._weights[:8]}"

    @property
    def _origin(self) -> str:
        """Where a model in memory says it was loaded from."""
        return str(getattr(self.model, "name_or_path", ""))

    @property
    def _tokenizer_place(self) -> Any:
        """Name of the model that has the tokenizer, where none is given."""
        return (self._origin or self._kept) if self.in_memory else self.model

    def _tokenizer_files(self) -> str | None:
        """The contents of a tokenizer and its chat template in a folder; None where they are in no folder of a user."""
        name = layers(self._tokenizer_place, "tokenizer_config.json")[-1]
        folder = Path(expanded(name))
        if name == BUILTIN_MODEL or not folder.is_dir():
            return None
        files = {path for pattern in TOKENIZER_FILES for path in folder.glob(pattern) if path.is_file()}
        found = [[path.relative_to(folder).as_posix(), file_digest(path)] for path in sorted(files)]
        return f"sha256:{digest(found, 64)}"

    def _model_identity(self) -> str:
        if self.in_memory:
            return f"in memory sha256:{self._weights}"
        folder = Path(expanded(self.model))
        if str(self.model) == BUILTIN_MODEL or not folder.is_dir():
            return str(self.model)
        # The weights alone, and digested as ever, so that trainings of earlier versions go on.
        weights = hashlib.sha256()
        for path in sorted(folder.rglob("*.safetensors")):
            if WORKING.isdisjoint(path.relative_to(folder).parts):
                weights.update(bytes.fromhex(file_digest(path)))
        return f"weights sha256:{weights.hexdigest()}"


def _holds(folder: Path | None, model: Any) -> bool:
    """Whether the safetensors of `folder` are exactly the weights of `model`; tied ones may be there once."""
    if folder is None:
        return False
    state = model.state_dict()
    found: set[int] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                saved, current = file.get_tensor(name), state.get(name)
                if current is None or saved.shape != current.shape:
                    return False
                if not torch.equal(saved.to(current.dtype), current.detach().cpu()):
                    return False
                found.add(state[name].data_ptr())
    return bool(found) and all(tensor.data_ptr() in found for tensor in state.values())


def _weights_digest(model: Any) -> str:
    weights = hashlib.sha256()
    for name, held in model.state_dict().items():
        tensor = held.detach().cpu()
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return weights.hexdigest()


def _tokenizer_identity(tokenizer: Any) -> str:
    facts = [
        sorted(tokenizer.get_vocab().items()),
        str(tokenizer.chat_template),
        str(tokenizer.special_tokens_map),
    ]
    return "sha256:" + hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _as_json(adapters: Any) -> Any:
    def plain(value: Any) -> Any:
        return sorted(value) if isinstance(value, set | frozenset) else str(value)

    settings = {name: value for name, value in adapters.to_dict().items() if name != "peft_version"}
    return json.loads(json.dumps(settings, sort_keys=True, default=plain))
