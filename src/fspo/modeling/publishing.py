"""Policies on a hub: an adapter, where its base model is there too, or else the whole model."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import HfApi, ModelInfo
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from fspo.errors import ConfigError, FspoError, ModelError, StorageError
from fspo.modeling.loading import check_dtype, check_loadable
from fspo.modeling.merging import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from fspo.modeling.model_names import is_hub_id, layers
from fspo.modeling.policies import PolicyCard, card_of_whole_weights, check_whole, export_policy, read_card
from fspo.modeling.quiet import quietly
from fspo.modeling.size import count_weights
from fspo.printing import option, reason_of

__all__ = ["goes_whole", "publish"]

_CARD = "README.md"
_OURS = [
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    "model.safetensors",
    "model-[0-9][0-9][0-9][0-9][0-9]-of-[0-9][0-9][0-9][0-9][0-9].safetensors",
    "model.safetensors.index.json",
    "config.json",
    "generation_config.json",
]
"""What an earlier upload may have left: an adapter beside a whole model would be taken for a part of it."""
_TAG = "fspo"
"""Marks a repository as one that an upload has filled."""
_TAGS = [_TAG, "personalization", "preference-optimization"]


def goes_whole(folder: Path) -> bool:
    """Whether the policy in `folder` is published with its base model's weights.

    An adapter alone is of use to those who can get what it was trained on: by a hub id, not a folder or a package.

    Raises:
        ModelError: there is no policy.
    """
    return not (is_hub_id(read_card(folder).base) and (folder / ADAPTER_WEIGHTS).is_file())


def publish(folder: Path, repo: str, *, private: bool = True, whole: bool = False, dtype: str = "float32") -> str:
    """Upload the policy in `folder` to a hub, and return where it is.

    Goes up: the one adapter that the policy adds up to, or the whole model (if `whole`, or if it must be, see
    `goes_whole`); the tokenizer; the model card, with its settings and figures. Nothing of the data, and no name of
    a folder of this machine. Weights of an earlier upload that this one does not replace are deleted there. In
    a repository that no upload of fspo has filled, nothing is replaced or deleted. The same call begins an interrupted
    upload again.

    `repo` is `name` or `owner/name`; if it is not there, it is made, and then `private`. `dtype` is that of whole
    weights: float32, bfloat16 or float16.

    Raises:
        ModelError: there is no policy or no base model, the method has weights beside the model, or the hub can't be
            reached or refuses.
        StorageError: the disk is full.
        ConfigError: `dtype` is unknown, or `repo` is no name of a repository, or holds files of somebody else that
            would be lost.
    """
    card = read_card(folder)
    check_whole(folder)
    check_dtype(dtype)
    whole = whole or goes_whole(folder)
    if whole:
        check_loadable(folder)
        _check_room(folder, dtype)
    api = HfApi()
    # The hub is asked before the weights are merged, which may take minutes; only creating the repository shows that it
    # may be written. A failure after that (a download, the disk during it, the upload) leaves a new repository empty.
    with _explained(repo), quietly():
        if not whole and not api.repo_exists(card.base):
            raise ModelError(
                f"The base model {card.base} is not on the hub; upload it too, with "
                f"{option('whole', python='whole=True')}."
            )
        made = api.create_repo(repo, private=private, exist_ok=True)
        there = api.model_info(made.repo_id)
        _check_ours(there, {_CARD})
    with tempfile.TemporaryDirectory(prefix="fspo-push-") as temporary:
        staging = Path(temporary) / "model"
        if whole:
            export_policy(folder, staging, dtype=dtype)
        else:
            _stage_adapter(folder, staging)
        (staging / _CARD).write_text(_model_card(folder, card, whole=whole), encoding="utf-8")
        _check_ours(there, {path.relative_to(staging).as_posix() for path in staging.rglob("*") if path.is_file()})
        with _explained(repo), quietly():
            message = "Upload a policy of fspo"
            api.upload_folder(repo_id=made.repo_id, folder_path=staging, commit_message=message, delete_patterns=_OURS)
        return str(made)


def _check_room(folder: Path, dtype: str) -> None:
    """Check that there is room for the whole model, if its size is known before its base model is fetched."""
    place = tempfile.gettempdir()
    size = (count_weights(layers(folder)[-1]) or 0) * (4 if dtype == "float32" else 2)
    free = shutil.disk_usage(place).free
    if size > free:
        raise StorageError(
            f"The whole model takes {size / 2**30:.1f} GiB in {place}, where {free / 2**30:.1f} GiB are free; free "
            "more, or set TMPDIR to a folder on another disk."
        )


def _check_ours(there: ModelInfo, sent: Set[str]) -> None:
    """Check that the upload replaces or deletes only files of earlier uploads; the card's tag marks those."""
    if _TAG in (there.tags or ()):
        return
    names = sorted(file.rfilename for file in there.siblings or ())
    lost = [name for name in names if name in sent or any(fnmatchcase(name, pattern) for pattern in _OURS)]
    if lost:
        raise ConfigError(
            f"The repository {there.id} holds {lost[0]}, which fspo did not put there and would replace or delete; "
            "name another repository, or delete that file there first."
        )


def _stage_adapter(folder: Path, staging: Path) -> None:
    staging.mkdir()
    names = [ADAPTER_CONFIG, ADAPTER_WEIGHTS, "chat_template.jinja"]
    for path in [*map(folder.joinpath, names), *folder.glob("tokenizer*"), *folder.glob("special_tokens*")]:
        if path.is_file():
            shutil.copy(path, staging / path.name)


def _model_card(folder: Path, card: PolicyCard, *, whole: bool) -> str:
    """The card that the run wrote, with what a hub reads at its head."""
    head: dict[str, Any] = {"library_name": "transformers" if whole else "peft", "tags": _TAGS}
    if not whole:
        head["base_model"] = card.base
    path = folder / _CARD
    text = path.read_text(encoding="utf-8") if path.is_file() else f"# {card.method or 'A policy'}, trained by fspo\n"
    text = card_of_whole_weights(_without_head(text)) if whole else _without_head(text)
    if not is_hub_id(card.base) and "/" in card.base:
        text = text.replace(card.base, Path(card.base).name)
    return f"---\n{_yaml(head)}---\n{text}"


def _without_head(text: str) -> str:
    parts = text.split("---\n", 2)
    return parts[2] if len(parts) == 3 and not parts[0] else text


def _yaml(head: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(dict(head), sort_keys=False)
    return text


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    try:
        yield
    except FspoError:
        raise
    except HFValidationError as error:
        raise ConfigError(f"'{repo}' is no name of a repository; name it as owner/name.") from error
    except LocalTokenNotFoundError as error:
        raise ModelError("The hub asks who you are; set HF_TOKEN to a token that may write.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise ModelError(
                f"The hub refuses to write to {repo} ({status}); set HF_TOKEN to a token that may write there."
            ) from error
        raise ModelError(f"The hub could not take {repo} ({reason_of(error)}); run the command again.") from error
    except Exception as error:  # whichever HTTP library the hub's client is built on
        raise ModelError(
            f"The hub can't be reached ({reason_of(error)}); run the command again where it can, or share the folder "
            "that `fspo model export` writes."
        ) from error
