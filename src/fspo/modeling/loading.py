"""Models and tokenizers by name: the built-in model, a local folder or a hub id. Code in a repository never runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
)

from fspo.errors import ConfigError, ModelError
from fspo.modeling import hub
from fspo.modeling.model_names import INSTEAD, POLICY_FILE, instead_of, layers, locate, means_folder
from fspo.modeling.quiet import quietly
from fspo.paths import expanded
from fspo.printing import reason_of

__all__ = [
    "check_dtype",
    "check_loadable",
    "context_length",
    "default_device",
    "fast_dtype",
    "load_configuration",
    "load_model",
    "load_reward_model",
    "load_tokenizer",
    "pull",
    "reading_limit",
    "slow_dtype_note",
]

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(name: str | Path, dtype: str = "float32", device: str | torch.device | None = None) -> PreTrainedModel:
    """The causal language model of that name, in evaluation mode.

    `dtype` is float32, bfloat16 or float16; `device` is by default CUDA where there is one. On the device `meta`, the
    files of the weights are checked and not read.

    Raises:
        ConfigError: the dtype is unknown.
        ModelError: the model can't be obtained; the sentence names the built-in one.
    """
    place = locate(name)
    if (Path(place) / POLICY_FILE).is_file() and not (Path(place) / "config.json").is_file():
        raise ModelError(f"{place} holds adapters, not a whole model; load it as a policy.")
    model, missing = _loaded(AutoModelForCausalLM, name, dtype, device)
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise ModelError(
            f"The weights of the model {name} are incomplete: they lack {missing[0]}{more}; save or fetch the model "
            f"again. {INSTEAD}"
        )
    return model


def load_reward_model(
    name: str | Path, dtype: str = "float32", device: str | torch.device | None = None
) -> PreTrainedModel:
    """The sequence-classification model of that name, in evaluation mode: its one output is the reward of what it read.

    Raises:
        ConfigError: the dtype is unknown.
        ModelError: the model can't be obtained, or it gives more than one number or has no trained head for one.
    """
    model, missing = _loaded(AutoModelForSequenceClassification, name, dtype, device)
    if missing:
        raise ModelError(
            f"The model {name} is no trained reward model: its weights lack {missing[0]}; name one that was trained "
            "and saved for sequence classification."
        )
    if model.config.num_labels != 1:
        raise ModelError(
            f"The model {name} gives {model.config.num_labels} numbers, and a reward is one; name another."
        )
    return model


def check_dtype(dtype: str) -> None:
    """Check the name of a precision.

    Raises:
        ConfigError: it is unknown.
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype must be one of {', '.join(_DTYPES)}, but it is {dtype!r}.")


def _loaded(
    kind: Any, name: str | Path, dtype: str, device: str | torch.device | None
) -> tuple[PreTrainedModel, list[str]]:
    """A model of this class of transformers, and the weights that its files lack; they are drawn at random.

    It has its own name, not that of the folder in a hub's cache: policies record what they are built on.
    """
    check_dtype(dtype)
    place = locate(name)
    _refuse_pickles(Path(place))
    with quietly(), _explained(name):
        model, info = kind.from_pretrained(
            _folder(place, weights=True),
            dtype=_DTYPES[dtype],
            device_map="meta" if str(device) == "meta" else None,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    if not Path(place).is_dir():
        model.name_or_path = model.config.name_or_path = place
    return model.to(device or default_device()).eval(), sorted(info["missing_keys"])


def load_tokenizer(name: str | Path) -> Any:
    """The tokenizer of the model of that name; a policy without one has its base model's.

    Raises:
        ModelError: it can't be obtained; the sentence names the built-in model.
    """
    place = locate(layers(name, "tokenizer_config.json")[-1])
    with quietly(), _explained(name):
        return AutoTokenizer.from_pretrained(_folder(place), trust_remote_code=False)


def load_configuration(name: str | Path) -> Any:
    """The configuration of the model of that name, without its weights; a policy's adapters have their base model's.

    Raises:
        ModelError: it can't be obtained; the sentence names the built-in model.
    """
    place = locate(layers(name)[-1])
    with quietly(), _explained(name):
        return AutoConfig.from_pretrained(_folder(place), trust_remote_code=False)


def pull(name: str, *, newest: bool = True) -> None:
    """Fetch a hub's model, with `newest` in its newest revision; offline, one that was fetched before is kept.

    Raises:
        ModelError: the model can't be obtained.
    """
    place = locate(name)
    if not Path(place).is_dir():
        with quietly(), _explained(name):
            hub.fetched(place, weights=True, newest=newest)


def check_loadable(name: str | Path, *, rewards: bool = False) -> None:
    """Check that a model can be loaded, by its configuration and the names of its files; weights are not read.

    Args:
        name: the model; a hub's that was not fetched yet is fetched as far as that is needed.
        rewards: whether it is to give rewards (sequence classification), and not text.

    Raises:
        ModelError: it can't: it is not there, of an unknown architecture, or has no weights in safetensors.
    """
    configuration = load_configuration(name)
    known = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING if rewards else MODEL_FOR_CAUSAL_LM_MAPPING
    if type(configuration) not in known:
        what = "no reward model" if rewards else "no language model that writes text"
        raise ModelError(f"The model {name} is {what}: its architecture is {configuration.model_type}. {INSTEAD}")
    folder = Path(locate(layers(name)[-1]))
    if folder.is_dir():
        _refuse_pickles(folder)
        if not any(folder.glob("*.safetensors")):
            raise ModelError(f"{folder} has no weights: it has no .safetensors file. {INSTEAD}")


def context_length(model: PreTrainedModel | str | Path) -> int | None:
    """Tokens a model, in memory or by its name, can read at once, where its configuration says so.

    Raises:
        ModelError: the configuration can't be obtained.
    """
    config = load_configuration(model) if isinstance(model, str | Path) else model.config
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return None if length is None else int(length)


def reading_limit(asked: int | None, longest: int | None, place: str = "") -> int | None:
    """The limit on tokens: `asked`, or else `longest`, which the model can read; None for no limit.

    Raises:
        ConfigError: `asked` is more than `longest`. `place` comes before the setting's name, such as `evaluation.`.
    """
    if asked is not None and longest is not None and asked > longest:
        raise ConfigError(
            f"{place}max_length is {asked}, and the model reads at most {longest} tokens; lower it or leave it out."
        )
    return asked or longest


def default_device() -> torch.device:
    """The CUDA device where there is one, or else the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fast_dtype() -> Literal["bfloat16", "float32"]:
    """bfloat16 where the default device has instructions for it, and else float32."""
    if default_device().type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    able = torch.cpu.get_capabilities()
    return "bfloat16" if able.get("avx512_bf16") or able.get("amx_bf16") else "float32"


def slow_dtype_note(dtype: str, remedy: str) -> str:
    """A sentence on bfloat16 on a processor without instructions for it, with the remedy; empty where it is fast."""
    if dtype != "bfloat16" or default_device().type != "cpu" or fast_dtype() == "bfloat16":
        return ""
    return (
        "This processor has no instructions for bfloat16, in which matrix products take about ten times as long as in "
        f"float32; {remedy}."
    )


def _folder(place: str, *, weights: bool = False) -> str:
    """The folder to load from: `place` itself, or that of a hub's model."""
    return place if Path(place).is_dir() else str(hub.fetched(place, weights=weights))


def _refuse_pickles(folder: Path) -> None:
    """Weights are read from safetensors alone: reading a pickle can run code."""
    if any(folder.glob("*.bin")) and not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} has its weights in .bin files, which can hold code, and none in safetensors; save the model "
            "again as safetensors."
        )


@contextmanager
def _explained(name: str | Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise ModelError(
            f"The weights of the model {name} are damaged ({error}): a file is cut off, or is a pointer of git LFS; "
            f"fetch the model again. {INSTEAD}"
        ) from error
    except (OSError, ValueError, ImportError) as error:
        if Path(expanded(name)).is_dir():
            raise ModelError(f"The model {name} could not be loaded ({reason_of(error)}). {INSTEAD}") from error
        if means_folder(name):
            what = f"There is no model folder {name}, and it could not be fetched from the hub"
        else:
            what = f"The model {name} could not be fetched from the hub"
        # Without the errors of the HTTP library below: they say no more, in many lines.
        raise ModelError(f"{what} ({reason_of(error)}). {instead_of(name)}") from None
