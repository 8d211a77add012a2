"""Several processes that train together, as `accelerate launch` starts them: over one step, or over one set of weights.

Nothing here changes what a process that is alone does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TypeVar, cast

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import (
    DistributedType,
    FullyShardedDataParallelPlugin,
    broadcast_object_list,
    fsdp2_prepare_model,
    gather_object,
)
from peft import PeftModel
from torch import Tensor
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

from fspo.errors import ConfigError, FspoError

__all__ = [
    "agreed",
    "by_first",
    "check_launcher",
    "collected",
    "joined",
    "like",
    "loading_device",
    "reshard",
    "setup_sharding",
    "sharded_reference",
    "whole",
    "whole_state",
]

Value = TypeVar("Value")


def joined() -> PartialState:
    """This process among those that train together; it has its device, and knows the others."""
    return PartialState(cpu=not torch.accelerator.is_available())


def agreed(value: Value) -> Value:
    """The first process's value, at all of them."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


def by_first(compute: Callable[[], Value]) -> Value:
    """What the first process computes, at all of them; its error too.

    Raises:
        FspoError: the first process's `compute` raised it.
    """
    found: Value | FspoError | None = None
    if joined().is_main_process:
        try:
            found = compute()
        except FspoError as error:
            found = error
    shared = agreed(found)
    if isinstance(shared, FspoError):
        raise shared
    return cast("Value", shared)


def collected(value: Value) -> list[Value]:
    """All processes' values in their order, at all of them."""
    found: list[Value] = gather_object([value])
    return found


def loading_device() -> torch.device | None:
    """Where a model is put when it is loaded: None for where it will be trained.

    Weights that will be sharded wait in the memory of the machine, since the whole of them may be too large for a GPU.
    """
    return torch.device("cpu") if _asked_to_shard() else None


def check_launcher() -> None:
    """Check what the launcher's configuration asks for.

    Raises:
        ConfigError: a kind of sharding that is not supported.
    """
    if _is_set("ACCELERATE_USE_DEEPSPEED"):
        raise ConfigError("DeepSpeed is not supported; use configs/accelerate/fsdp2.yaml to shard the weights.")
    if _asked_to_shard() and os.environ.get("FSDP_VERSION") != "2":
        raise ConfigError("Weights are sharded by FSDP2 only; set fsdp_version: 2 in the configuration of accelerate.")
    if _asked_to_shard() and _is_set("FSDP_CPU_RAM_EFFICIENT_LOADING"):
        raise ConfigError(
            "Every process loads its model itself; set fsdp_cpu_ram_efficient_loading: false in the configuration of "
            "accelerate."
        )


def setup_sharding(accelerator: Accelerator) -> bool:
    """Whether weights will be sharded over processes by FSDP2, which the launcher's configuration decides."""
    if not _asked_to_shard():
        return False
    state = accelerator.state
    if state.distributed_type == DistributedType.MULTI_CPU:
        # accelerate shards on accelerators alone; all it does for them works over gloo as well.
        state.fsdp_plugin = FullyShardedDataParallelPlugin()
        state.distributed_type = DistributedType.FSDP
    plugin = getattr(state, "fsdp_plugin", None)
    if plugin is not None and accelerator.mixed_precision == "bf16":
        # accelerate's own policy would also round gradients and log-probabilities.
        plugin.mixed_precision_policy = MixedPrecisionPolicy(torch.bfloat16, reduce_dtype=torch.float32)
    return plugin is not None


def sharded_reference(accelerator: Accelerator, model: torch.nn.Module) -> torch.nn.Module:
    """A frozen model sharded like the one in training."""
    sharded: torch.nn.Module = fsdp2_prepare_model(accelerator, model)
    return sharded.eval()


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors gathered from all processes that hold a part of them; all processes must ask together.

    Only the first process keeps what was gathered, in the memory of the machine; the others get it empty.
    """
    first = PartialState().is_main_process
    gathered: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach()
        if isinstance(value, DTensor):
            full = value.full_tensor()
            value = full.cpu() if first else full.new_empty(0)
        gathered[name] = value
    return gathered


def whole_state(model: torch.nn.Module) -> dict[str, Tensor] | None:
    """What is to be saved of a sharded model, gathered: its adapters, or else all weights; None for any other model.

    Tied weights are there once.
    """
    if not isinstance(model, FSDPModule):
        return None
    reshard(model)
    once: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor.requires_grad or not isinstance(model, PeftModel):
            once.setdefault(id(tensor), (name, tensor))
    return whole(dict(once.values()))


def reshard(model: torch.nn.Module) -> None:
    """Let every process hold its part alone again, where a pass without gradients has left weights gathered."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def like(value: Tensor, weight: Tensor) -> Tensor:
    """A whole tensor as `weight` is: this process's part, if `weight` is sharded and `value` has its shape."""
    if isinstance(weight, DTensor) and value.shape == weight.shape:
        return distribute_tensor(value.to(weight.device), weight.device_mesh, weight.placements)
    return value


def _asked_to_shard() -> bool:
    return _is_set("ACCELERATE_USE_FSDP")


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true", "yes")
