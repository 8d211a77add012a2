"""Models and tokenizers by name: the embedded model, a local folder or a hub id. Never anybody's code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.utils import logging as transformers_logging

from fspo.errors import ConfigError, ModelError
from fspo.files import read_json
from fspo.modeling import embedded
from fspo.modeling.places import INSTEAD, POLICY_FILE, locate
from fspo.paths import expanded

__all__ = [
    "context_length",
    "default_device",
    "load_configuration",
    "load_model",
    "load_reward_model",
    "load_tokenizer",
    "place_here",
    "policy_record",
    "quietly",
]

_ADAPTER = re.compile(r"adapter-[0-9]{1,9}")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(name: str | Path, dtype: str = "float32", device: str | torch.device | None = None) -> PreTrainedModel:
    """The causal language model of that name, in evaluation mode.

    `dtype` is float32, bfloat16 or float16; `device` is by default CUDA where there is one.

    Raises:
        ConfigError: the dtype is unknown.
        ModelError: the model can't be obtained; the sentence names the embedded one.
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}, but it is {dtype!r}.")
    place = locate(name)
    if (Path(place) / POLICY_FILE).is_file() and not (Path(place) / "config.json").is_file():
        raise ModelError(f"{place} holds adapters, not a whole model; load it as a policy.")
    _refuse_pickles(Path(place))
    with quietly(), _explained(name):
        place = _from_hub(place)
        model = AutoModelForCausalLM.from_pretrained(
            place, dtype=_DTYPES[dtype], trust_remote_code=False, use_safetensors=True
        )
    placed: Any = model
    loaded: PreTrainedModel = placed.to(device or default_device()).eval()
    return loaded


def load_reward_model(
    name: str | Path, dtype: str = "float32", device: str | torch.device | None = None
) -> PreTrainedModel:
    """The sequence-classification model of that name, in evaluation mode: its one output is the reward of what it read.

    Raises:
        ConfigError: the dtype is unknown.
        ModelError: the model can't be obtained, or it gives more than one number or has no trained head for one.
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}, but it is {dtype!r}.")
    place = locate(name)
    _refuse_pickles(Path(place))
    with quietly(), _explained(name):
        place = _from_hub(place)
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            place, dtype=_DTYPES[dtype], trust_remote_code=False, use_safetensors=True, output_loading_info=True
        )
    model, info = loaded
    if info["missing_keys"]:
        # transformers would have drawn what is missing at random.
        raise ModelError(
            f"The model {name} is no trained reward model: its weights lack {min(info['missing_keys'])}; name one that "
            "was trained and saved for sequence classification."
        )
    if model.config.num_labels != 1:
        raise ModelError(
            f"The model {name} gives {model.config.num_labels} numbers, and a reward is one; name another."
        )
    reward_model: PreTrainedModel = model.to(device or default_device()).eval()
    return reward_model


def load_tokenizer(name: str | Path) -> Any:
    """The tokenizer of the model of that name; a policy without one has its base model's.

    Raises:
        ModelError: it can't be obtained; the sentence names the embedded model.
    """
    place = locate(name)
    if (Path(place) / POLICY_FILE).is_file() and not (Path(place) / "tokenizer_config.json").is_file():
        place = locate(policy_record(Path(place))["base"])
        if (Path(place) / POLICY_FILE).is_file() and not (Path(place) / "tokenizer_config.json").is_file():
            raise ModelError(f"{name} is built on {place}, which has no tokenizer; train the policy again.")
    with quietly(), _explained(name):
        place = _from_hub(place)
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)


def load_configuration(name: str | Path) -> Any:
    """The configuration of the model of that name, without its weights; a policy's adapters have their base model's.

    Raises:
        ModelError: it can't be obtained; the sentence names the embedded model.
    """
    place = locate(name)
    if (Path(place) / POLICY_FILE).is_file() and not (Path(place) / "config.json").is_file():
        return load_configuration(policy_record(Path(place))["base"])
    with quietly(), _explained(name):
        return AutoConfig.from_pretrained(_from_hub(place), trust_remote_code=False)


def place_here(name: str | Path) -> Path | None:
    """The folder of the model of that name on this machine, if it is here; nothing is fetched and no hub is asked."""
    if str(name) == embedded.EMBEDDED_MODEL:
        return embedded.folder() if embedded.is_obtained() else None
    if expanded(Path(name)).is_dir():
        return expanded(Path(name))
    try:
        return Path(_fetched_before(str(name)))
    except (OSError, ValueError):
        return None


def policy_record(folder: Path) -> dict[str, Any]:
    """The contents of a policy's `policy.json`; the place of a policy beside it, which it began from, in full.

    Raises:
        ModelError: it is not what training writes; a policy may come from anybody.
        StorageError: there is none, or it can't be read.
    """
    record = read_json(folder / POLICY_FILE)
    wrong = _wrong_in(record)
    if wrong:
        raise ModelError(f"{folder / POLICY_FILE} is not accepted: {wrong}; name a folder that training wrote.")
    record = dict(record)
    start = record.get("starts_from")
    if isinstance(start, str) and start.startswith("../"):
        place = str((folder / start).resolve())
        record |= {"starts_from": place, "base": place if record["base"] == start else record["base"]}
    return record


def _wrong_in(record: object) -> str:
    """What a `policy.json` of fspo does not hold. Names in it become paths, so each must have its form."""
    if not isinstance(record, dict):
        return "it holds no object"
    base, adapters = record.get("base"), record.get("adapters")
    if not isinstance(base, str) or not base:
        return "base must be the name of a model"
    if not isinstance(adapters, list):
        return "adapters must be a list"
    strange = [name for name in adapters if not (isinstance(name, str) and _ADAPTER.fullmatch(name))]
    if strange:
        return f"adapters holds {json.dumps(strange[0])}, and the folder of an adapter is named adapter- and a number"
    if not isinstance(record.get("starts_from"), str | None):
        return "starts_from must be a folder or null"
    return ""


def context_length(model: PreTrainedModel | str | Path) -> int | None:
    """Tokens a model, in memory or by its name, can read at once, where its configuration says so.

    Raises:
        ModelError: the configuration can't be obtained.
    """
    config = load_configuration(model) if isinstance(model, str | Path) else model.config
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return None if length is None else int(length)


def default_device() -> torch.device:
    """The CUDA device where there is one, or else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def quietly() -> Iterator[None]:
    """Load without transformers' own progress bars and notes; fspo shows its own progress."""
    log: Any = transformers_logging
    shown, level = log.is_progress_bar_enabled(), log.get_verbosity()
    log.disable_progress_bar()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if shown:
            log.enable_progress_bar()


def _from_hub(place: str) -> str:
    """`place` itself where it is a folder or the hub answers, or else the folder of what was fetched earlier.

    The hub is asked once and briefly; transformers itself would try for minutes.
    """
    if Path(place).is_dir():
        return place
    try:
        HfApi().model_info(place, timeout=10)
    except HfHubHTTPError:
        return place  # the hub has something to say, such as that there is no such model: transformers reports it
    except Exception:  # whichever HTTP library the hub's client is built on
        return _fetched_before(place)
    return place


def _fetched_before(name: str) -> str:
    try:
        return snapshot_download(name, local_files_only=True)
    except LocalEntryNotFoundError as error:
        raise OSError("the hub can't be reached, and the model was not fetched before") from error


def _refuse_pickles(folder: Path) -> None:
    """Weights are read from safetensors alone: reading a pickle can run anybody's code."""
    if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} has its weights in .bin files, which can hold code, and none in safetensors; save the model "
            "again as safetensors."
        )


@contextmanager
def _explained(name: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        what = "could not be loaded" if Path(name).is_dir() else "could not be fetched from the hub"
        raise ModelError(f"The model {name} {what} ({reason}). {INSTEAD}") from error
