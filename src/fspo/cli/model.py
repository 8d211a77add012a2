"""`fspo model`: which models there are, obtaining one ahead of time, and what is known of one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fspo.cli.options import (
    ConfigFile,
    DryRun,
    Overrides,
    add_verb,
    check_one_named,
    configured,
    console,
    help_text,
)
from fspo.cli.progress import terminal_progress
from fspo.errors import ConfigError, ModelError
from fspo.files import is_empty, read_json
from fspo.modeling import builtin_model
from fspo.modeling.chat import takes_system
from fspo.modeling.model_names import check_folder, layers, locate, place_here, policy_in
from fspo.modeling.quiet import quiet
from fspo.paths import expanded
from fspo.printing import command

__all__ = ["app", "export", "list_", "pull", "push", "show"]

_HELP = """List, download, show, export and push models.

Examples:
  fspo model list

  fspo model show models/my-model
"""

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help=help_text(_HELP))
Name = Annotated[
    str | None,
    typer.Argument(help="The built-in model's name, a local folder, or a hub id; by default the model of --config."),
]
PolicyFolder = Annotated[
    Path,
    typer.Argument(help="Folder of a policy, such as runs/NAME/methods/fspo, or of a run, for its policy of fspo."),
]


@add_verb(app, "list")
def list_() -> None:
    """List the models that need no hub.

    Examples:
      fspo model list
    """
    state = f"obtained, in {builtin_model.folder()}" if builtin_model.is_obtained() else "not obtained yet"
    package = builtin_model.WHEEL.requirement
    name = f"{builtin_model.BUILTIN_MODEL}: SmolLM2-135M-Instruct, Apache-2.0, out of the Python package {package}"
    console().print(f"{name}; {state}.", markup=False)
    console().print("Any other model is named by a local folder or by its hub id.", markup=False)


@add_verb(app, "pull")
def pull(name: Name = None, config: ConfigFile = None, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Download a model now, so that a run needs no network; the built-in one comes from the Python package index.

    For a model on a hub, this fetches the newest revision. Runs use the revision that was fetched last.

    Examples:
      fspo model pull

      fspo model pull Qwen/Qwen3-0.6B

      fspo model pull --config configs/demo.yaml
    """
    from fspo.modeling import loading
    from fspo.modeling.vocabulary import check_vocabulary, rows_of

    out = console()
    name = _chosen(name, config, overrides)
    check_folder(name)
    if dry_run:
        out.print(f"Would obtain {name}.", markup=False)
        return
    quiet()
    if name == builtin_model.BUILTIN_MODEL:
        out.print(f"{name} is in {builtin_model.obtain(terminal_progress(out))}.", markup=False)
        return
    loading.pull(name)
    check_vocabulary(loading.load_tokenizer(name), rows_of(loading.load_model(name)), name)
    out.print(f"{name} can be loaded.", markup=False)


@add_verb(app, "show")
def show(name: Name = None, config: ConfigFile = None, overrides: Overrides = None) -> None:
    """Show architecture, size, context, tokenizer and licence of a model on this machine.

    Warns if fspo can't score responses with the model, or if its weights are damaged or incomplete. Exits with 1 if the
    model lacks embeddings for tokens of its tokenizer.

    Examples:
      fspo model show

      fspo model show models/my-model
    """
    from fspo.modeling.loading import check_loadable, load_model, load_tokenizer
    from fspo.modeling.preparing import prepare_model
    from fspo.modeling.vocabulary import check_vocabulary, rows_of

    name = _chosen(name, config, overrides)
    if name != builtin_model.BUILTIN_MODEL:
        locate(name)
    check_folder(name)
    folder = place_here(name)
    if folder is None:
        obtain = command("fspo", "model", "pull", name)
        raise ModelError(f"{name} is not on this machine; run `{obtain}`, or name a folder with a model.")
    if not (folder / "config.json").is_file():
        below = command("fspo", "model", "show", layers(name)[-1])
        raise ModelError(f"{name} is a trained policy; show the model that it is built on: `{below}`.")
    quiet()
    facts: dict[str, Any] = {"model": name, "folder": str(folder)}
    architecture = read_json(folder / "config.json")
    for key in ("architectures", "hidden_size", "num_hidden_layers", "vocab_size", "max_position_embeddings"):
        if key in architecture:
            value = architecture[key]
            facts[key.replace("_", " ")] = ", ".join(value) if isinstance(value, list) else value
    facts["size"] = f"{sum(path.stat().st_size for path in folder.glob('*.safetensors')) / 1e6:.0f} MB"
    if (folder / "model.json").is_file():
        facts |= read_json(folder / "model.json")
    tokenizer = load_tokenizer(folder) if (folder / "tokenizer_config.json").is_file() else None
    if tokenizer is not None:
        facts["tokens of the tokenizer"] = len(tokenizer)
    if tokenizer is not None and tokenizer.chat_template:
        facts["system role"] = "yes" if takes_system(tokenizer) else "no, its text goes in front of the first user's"
    for key, value in facts.items():
        console().print(f"{key}: {value}", markup=False)
    try:
        check_loadable(folder)
        prepare_model(load_model(folder, device="meta"))
    except ModelError as error:
        console().print(f"Warning: fspo can't score responses with this model. {error}", markup=False)
    if tokenizer is not None:
        check_vocabulary(tokenizer, rows_of(folder), name)


@add_verb(app, "export")
def export(
    policy: PolicyFolder,
    target: Annotated[Path, typer.Argument(help="Folder for the transformers model.")],
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an exported model, and nothing else.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Write a policy as a whole model, with its adapters merged into the weights, for any tool that reads such models.

    The policy's own folder is an adapter that peft reads directly.

    Examples:
      fspo model export runs/demo/methods/fspo models/my-fspo

      fspo model export runs/demo/methods/fspo models/my-fspo --dtype bfloat16 --overwrite
    """
    from fspo.modeling.loading import check_dtype
    from fspo.modeling.policies import check_export, export_policy, read_card

    out = console()
    check_dtype(dtype)
    policy = policy_in(policy) or policy
    card = read_card(policy)
    check_export(policy, target)
    if not is_empty(target) and not overwrite:
        raise ConfigError(f"{target} is there already; name another folder, or replace it with --overwrite.")
    if dry_run:
        out.print(
            f"Would write {card.method or 'the policy'} over {card.base} as a whole model to {target}.", markup=False
        )
        return
    quiet()
    readme = policy / "README.md"
    text = readme.read_text(encoding="utf-8") if readme.is_file() else None
    out.print(f"The whole model is in {export_policy(policy, target, dtype=dtype, card=text)}.", markup=False)


@add_verb(app, "push")
def push(
    policy: PolicyFolder,
    repo: Annotated[str, typer.Argument(help="Repository on the hub, as owner/name; created if missing.")],
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public; by default private.")] = False,
    whole: Annotated[bool, typer.Option("--whole", help="Upload the base model's weights too.")] = False,
    dtype: Annotated[str, typer.Option(help="Type of whole weights: float32, bfloat16 or float16.")] = "float32",
    dry_run: DryRun = False,
) -> None:
    """Upload a policy to a hub: its adapter, tokenizer and model card, but no data and no folder names.

    If the base model is on no hub, like the built-in one, the whole model is uploaded. Weights and configuration from
    an earlier upload are replaced or deleted. The token comes from HF_TOKEN, the hub's address from HF_ENDPOINT.

    Examples:
      fspo model push runs/demo/methods/fspo me/my-fspo

      fspo model push runs/demo/methods/fspo me/my-fspo --whole --dtype bfloat16 --public
    """
    from fspo.modeling.loading import check_dtype
    from fspo.modeling.policies import check_whole
    from fspo.modeling.publishing import goes_whole, publish

    out = console()
    check_dtype(dtype)
    policy = policy_in(policy) or policy
    check_whole(policy)
    whole = whole or goes_whole(policy)
    if not whole and dtype != "float32":
        raise ConfigError("--dtype is for whole weights; add --whole, or leave --dtype out.")
    what = "a whole model" if whole else "an adapter"
    if dry_run:
        out.print(f"Would upload {policy} as {what} to {repo}.", markup=False)
        return
    quiet()
    out.print(f"Uploading {policy} as {what} ...", markup=False)
    out.print(f"The policy is at {publish(policy, repo, private=not public, whole=whole, dtype=dtype)}.", markup=False)


def _chosen(name: str | None, config: Path | None, overrides: list[str] | None) -> str:
    """The model named, or else the configuration's, or else the built-in one."""
    if name is not None:
        check_one_named(name, config, overrides)
        return expanded(name)
    if config is not None or overrides:
        return configured(None, config, overrides, None).model

    return builtin_model.BUILTIN_MODEL
