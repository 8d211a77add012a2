"""Policies on disk: `policy.json`, and either adapters over a named base model or whole weights.

Adapters are a chain, oldest first: a policy that was trained on from another one keeps that one's adapters below its
own. Beside the chain lies the one adapter that it adds up to, for peft and whatever reads peft's folders. Only
safetensors and JSON are read or written.
"""

from __future__ import annotations

import os
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from fspo.errors import FspoError, ModelError
from fspo.files import check_replaceable, full_disk_explained, replace_folder, write_json
from fspo.modeling import builtin_model
from fspo.modeling.folders import ADAPTERS, MODEL, POLICY, TOKENIZER_FILES, has_tokenizer
from fspo.modeling.loading import load_model, load_tokenizer
from fspo.modeling.merging import ADAPTER_CONFIG, ADAPTER_WEIGHTS, join_adapters
from fspo.modeling.model_names import POLICY_FILE, policy_record
from fspo.modeling.quiet import quietly
from fspo.paths import expanded

__all__ = [
    "PolicyCard",
    "card_of_whole_weights",
    "check_adapter",
    "check_export",
    "check_whole",
    "export_policy",
    "is_policy",
    "join_policies",
    "load_policy",
    "read_card",
    "save_policy",
]

_FORMAT = 1
_TIED = "Model (has|with) `tie_word_embeddings=True`"
"""Begins peft's warnings of adapters on one of two layers with the same weight."""


_PARTS = ("adapter_*", ADAPTERS, *MODEL.needs, "model*.safetensors.index.json", "generation_config.json")
"""What a policy's folder holds of the model, without its tokenizer."""


@dataclass(frozen=True)
class PolicyCard:
    """What `policy.json` says."""

    base: str
    """Name of the model below all adapters; of a policy with whole weights, the model it was trained from."""
    adapters: tuple[str, ...] = ()
    """Folders inside the policy's, oldest first; none means whole weights."""
    method: str = ""
    starts_from: str | None = None
    """Folder of the policy whose weights training started from; None: the base model's."""
    details: Mapping[str, Any] = field(default_factory=dict)
    place: str | None = None
    """The folder of the base model as seen from the policy's, if the model is in a folder."""


def is_policy(folder: Path | str) -> bool:
    """Whether `folder` holds a policy."""
    return (Path(folder) / POLICY_FILE).is_file()


def read_card(folder: Path) -> PolicyCard:
    """What is on record of the policy in `folder`.

    Raises:
        ModelError: there is no policy, it is of another format, or it names what a policy does not name.
    """
    if not folder.is_dir():
        raise ModelError(f"There is no model folder {folder}; name a folder that training wrote.")
    try:
        record = policy_record(folder)
        if record.pop("format") != _FORMAT:
            raise ModelError(f"{folder} holds a policy of another version of fspo; train it again with this one.")
        return PolicyCard(**{**record, "adapters": tuple(record["adapters"])})
    except (FspoError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{folder} holds no readable policy ({error}); name a folder that training wrote.") from error


@full_disk_explained()
def save_policy(
    model: torch.nn.Module,
    folder: Path,
    *,
    base: str,
    method: str = "",
    start: Path | None = None,
    details: Mapping[str, Any] | None = None,
    home: Path | None = None,
    tokenizer: Any = None,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Write a policy whole or not at all, and return its folder.

    A model with adapters (peft) is saved as these, on top of those of the policy `start` that it was trained from; any
    other as whole weights, with the tokenizer, so that every tool for transformers models reads it. `base` is the name
    of the model that training began with. `home` is where the caller will move the folder, if elsewhere: a `start`
    that lies beside it is recorded relative to it, so that a folder of policies can be moved. `tokenizer` is written
    too, where it is another one than that of `start` or of the base model. `weights` are the model's by name, where the
    model itself holds but a part of them. There is no model card.

    Raises:
        StorageError: the disk is full or the folder can't be written.
        ModelError: `start` is no policy.
        ConfigError: `folder` holds something else than a saved policy, or what this policy is built on.
    """
    below = read_card(start) if start is not None else PolicyCard(base)
    origin = None if start is None else _written(start.resolve(), (home or folder).resolve())
    with replace_folder(folder, POLICY, spare=_built_on(base, start)) as staging:
        if isinstance(model, PeftModel):
            base, adapters = _save_adapters(model, staging, below, start, weights)
            join_adapters([staging / name for name in adapters], staging, base=_for_others(base or str(start)))
            base = base or str(origin)
        else:
            base, adapters = below.base, ()
            with quietly():
                model.save_pretrained(staging, state_dict=weights)  # type: ignore[operator]
        inherited = start is not None and below.adapters and has_tokenizer(start)
        if tokenizer is None and (inherited or not adapters):
            tokenizer = load_tokenizer(start or base)
        if tokenizer is not None:
            tokenizer.save_pretrained(staging)
        place = _place(base, (home or folder).resolve())
        card = PolicyCard(base, adapters, method, origin, dict(details or {}), place)
        write_json(staging / POLICY_FILE, {"format": _FORMAT, **asdict(card)})
    return folder


@full_disk_explained()
def join_policies(chain: Sequence[Path], folder: Path, *, start: Path | None = None, home: Path | None = None) -> Path:
    """Write the last of several policies, each trained on from the one before, as one training from `start`.

    The adapters of the chain become one. Adapters that don't add up (DoRA, embeddings) stay a chain, and the policy
    then starts from the one before. `start` and `home` are as for `save_policy`. There is no model card.

    Raises:
        ModelError: a policy is missing.
        StorageError: the disk is full or the folder can't be written.
    """
    last, below = read_card(chain[-1]), read_card(start) if start is not None else PolicyCard("")
    home = (home or folder).resolve()
    with replace_folder(folder, POLICY) as staging:
        for path in sorted(chain[-1].iterdir()):
            if _is_weights_or_tokenizer(path.name):
                (shutil.copytree if path.is_dir() else shutil.copyfile)(path, staging / path.name)
        older, newer = last.adapters[: len(below.adapters)], last.adapters[len(below.adapters) :]
        origin = None if start is None else _written(start.resolve(), home)
        adapters, base = last.adapters, _for_others(last.base)
        if len(newer) > 1:
            joined = staging / ".joined"
            joined.mkdir()
            if join_adapters([staging / name for name in newer], joined, base=base):
                for name in newer:
                    shutil.rmtree(staging / name)
                adapters = (*older, newer[0])
                joined.rename(staging / newer[0])
            else:
                shutil.rmtree(joined)
                origin = _written(chain[-2].resolve(), home)
        place = _place(last.base, home)
        card = replace(last, adapters=adapters, starts_from=origin, place=place)
        write_json(staging / POLICY_FILE, {"format": _FORMAT, **asdict(card)})
    return folder


def _is_weights_or_tokenizer(name: str) -> bool:
    """Whether a file or folder of a policy's folder is a part of the model."""
    return any(fnmatch(name, pattern.partition("/")[0]) for pattern in (*_PARTS, *TOKENIZER_FILES))


def load_policy(
    folder: Path,
    *,
    adapters: Literal["merged", "switchable"] = "merged",
    dtype: str = "float32",
    device: str | torch.device | None = None,
) -> PreTrainedModel | PeftModel:
    """The policy in `folder`, in evaluation mode.

    `merged` folds all adapters into the weights, which is fastest. `switchable` folds all but the newest: inside
    `with policy.disable_adapter():` the model is then the one that training started from.

    Raises:
        ModelError: there is no policy, a part of it is missing, or its base model can't be obtained; or
            `switchable` was asked of whole weights.
    """
    card = read_card(folder)
    if not card.adapters:
        if adapters == "switchable":
            raise ModelError(
                f"{folder} holds whole weights, without adapters to switch off; load its starting point apart."
            )
        return load_model(folder, dtype=dtype, device=device)
    model: Any = load_model(card.base, dtype=dtype, device=device)
    for index, name in enumerate(card.adapters):
        newest = index + 1 == len(card.adapters)
        model = _with_adapter(model, folder / name)
        if adapters == "merged" or not newest:
            model = _merged(model)
            # What is left of peft on a merged model would be taken for adapters under way.
            vars(model).pop("peft_config", None)
    return model.eval()  # type: ignore[no-any-return]


@full_disk_explained()
def export_policy(folder: Path, out: Path, *, dtype: str = "float32", card: str | None = None) -> Path:
    """Write the policy in `folder` as whole weights, with its tokenizer, into `out`: a plain transformers folder.

    `card` is the text of the policy's `README.md`.

    Raises:
        ConfigError: `out` holds something else than an exported model, or what the policy is built on.
        ModelError: there is no policy, or its base model can't be obtained.
        StorageError: the disk is full or `out` can't be written.
    """
    check_export(folder, out)
    model: Any = load_policy(folder, dtype=dtype, device="cpu")
    with replace_folder(out, MODEL, spare=_needed_by(folder)) as staging, quietly():
        model.save_pretrained(staging)
        load_tokenizer(folder).save_pretrained(staging)
        if card is not None:
            (staging / "README.md").write_text(card_of_whole_weights(card), encoding="utf-8")
    return out


def card_of_whole_weights(card: str) -> str:
    """A policy's model card whose code loads whole weights and their tokenizer, and no adapters."""
    plain = card.replace("from peft import AutoPeftModelForCausalLM", "from transformers import AutoModelForCausalLM")
    plain = plain.replace("AutoPeftModelForCausalLM", "AutoModelForCausalLM")
    return plain.replace('model.peft_config["default"].base_model_name_or_path', '"FOLDER"')


def check_export(folder: Path, out: Path) -> None:
    """Check that the policy in `folder` may be exported to `out`, before anything is loaded.

    Raises:
        ConfigError: `out` holds something else than an exported model, or what the policy is built on.
        ModelError: there is no policy, or it is not whole without weights of its method.
    """
    check_whole(folder)
    check_replaceable(out, MODEL, spare=_needed_by(folder))


def check_whole(folder: Path) -> None:
    """Check that a policy is all in its model.

    Raises:
        ModelError: its method has weights beside the model, such as soft tokens of each user.
    """
    if read_card(folder).details.get("companion"):
        raise ModelError(
            f"The policy in {folder} has weights of its method beside the model, for each user. `fspo eval` and `fspo "
            "chat` can use it, and `fspo.AdaptedPolicy.adapt` in Python; choose another policy for this."
        )


def _needed_by(folder: Path) -> list[Path]:
    """The policy's own folder and those of the models and policies below it."""
    card = read_card(folder)
    return [folder, *_built_on(card.base, None if card.starts_from is None else Path(card.starts_from))]


def _built_on(base: str, start: Path | None) -> list[Path]:
    places = [Path(expanded(base)), *([] if start is None else [start])]
    return [place for place in places if base and place.exists()]


def _for_others(base: str) -> str:
    """The name of a base model as other tools know it: they know neither the built-in one by its name, nor `~`.

    A relative folder stays relative, so that a project can be moved as a whole.
    """
    return str(builtin_model.folder()) if base == builtin_model.BUILTIN_MODEL else str(expanded(base))


def _written(start: Path, home: Path) -> str:
    """A policy's place as `policy.json` records it: from `home` if the two lie side by side, else in full."""
    return f"../{start.name}" if start.parent == home.parent else str(start)


def _place(base: str, home: Path) -> str | None:
    """Where the folder of a model lies as seen from a policy's; None for a model that has no folder of its own."""
    folder = Path(expanded(base))
    if base == builtin_model.BUILTIN_MODEL or base.startswith("../") or not folder.is_dir():
        return None
    return Path(os.path.relpath(folder.resolve(), home)).as_posix()


def _save_adapters(
    model: PeftModel,
    staging: Path,
    below: PolicyCard,
    start: Path | None,
    weights: Mapping[str, torch.Tensor] | None,
) -> tuple[str, tuple[str, ...]]:
    """The name of the base model, empty where `start` itself is the base; and the names of all adapters."""
    older: tuple[str, ...] = ()
    base = below.base
    if start is not None and below.adapters:
        older = below.adapters
        for name in older:
            (staging / name).mkdir()
            for file in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
                shutil.copyfile(start / name / file, staging / name / file)
    elif start is not None:
        base = ""
    name = f"adapter-{len(older)}"
    with warnings.catch_warnings(), _without_card(model):
        # peft asks the hub for the base model's configuration, and warns where it can't
        warnings.simplefilter("ignore")
        model.save_pretrained(str(staging / name), save_embedding_layers=False, state_dict=weights)
    return base, (*older, name)


@contextmanager
def _without_card(model: PeftModel) -> Iterator[None]:
    """Let peft write no model card beside an adapter: its form, not filled in, takes longer than the weights."""
    vars(model)["create_or_update_model_card"] = lambda output_dir: None
    try:
        yield
    finally:
        del vars(model)["create_or_update_model_card"]


def check_adapter(folder: Path) -> None:
    """Check that `folder` holds an adapter.

    Raises:
        ModelError: it is missing.
    """
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise ModelError(f"The policy's adapter {folder} is missing or has no safetensors; train the policy again.")


def _with_adapter(model: Any, folder: Path) -> Any:
    check_adapter(folder)
    with quietly(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", message=_TIED)  # see `_merged`
        return PeftModel.from_pretrained(model, str(folder))


def _merged(model: Any) -> Any:
    """The model with its adapters in its weights.

    An adapter on one of two layers with the same weight (tied embeddings) is for that layer alone, so the layer gets a
    weight of its own first.
    """
    owners: Counter[int] = Counter()
    for part in model.modules():
        owners.update({id(weight) for weight in part.parameters(recurse=False)})
    for part in model.modules():
        if isinstance(part, BaseTunerLayer):
            layer = part.get_base_layer()
            weight = getattr(layer, "weight", None)
            if isinstance(weight, torch.nn.Parameter) and owners[id(weight)] > 1:
                layer.weight = torch.nn.Parameter(weight.detach().clone(), requires_grad=False)
    with warnings.catch_warnings():
        for message in (_TIED, "Input and output embeddings are no longer tied"):
            warnings.filterwarnings("ignore", message=message)
        return model.merge_and_unload()
