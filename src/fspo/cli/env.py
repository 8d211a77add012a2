"""`fspo env`: what this machine and this installation are, for bug reports and for planning a run."""

from __future__ import annotations

import json
import os
import platform
import sys
from typing import Annotated, Any

import typer

from fspo.cli.options import ConfigFile, DryRun, Overrides, configured, console
from fspo.files import cache_folder
from fspo.runs.versions import versions

__all__ = ["describe", "env"]


def env(
    config: ConfigFile = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Show versions, cores, memory, accelerators and folders; with --config, also the resolved configuration.

    Examples:
      fspo env

      fspo env --json

      fspo env --config configs/demo.yaml --set seed=1
    """
    facts = describe()
    if config is not None or overrides:
        facts["config"] = configured(None, config, overrides, None).resolved()
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    out = console()
    for name, value in facts.items():
        if isinstance(value, dict):
            import yaml

            out.print(f"{name}:", markup=False)
            text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip()
            out.print("\n".join(f"  {line}" for line in text.splitlines()), markup=False)
        else:
            out.print(f"{name}: {value}", markup=False)


def describe() -> dict[str, Any]:
    """What `fspo env` shows; importing torch for it takes seconds."""
    import torch

    from fspo.modeling import builtin_model, threads

    machine = threads.look()
    accelerators = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        accelerators.append("mps")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "python": sys.executable,
        "cores": machine.cores,
        "cores busy with other work": round(machine.busy, 1),
        "threads": torch.get_num_threads() if threads.explicit() else threads.choose(machine),
        "memory": _memory(),
        "accelerators": ", ".join(accelerators) or "none",
        "cache": str(cache_folder()),
        "built-in model": "obtained" if builtin_model.is_obtained() else "not obtained yet",
        "versions": versions(),
    }


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return "unknown"
    return f"{total / 2**30:.1f} GiB"
