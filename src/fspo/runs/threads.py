"""How fast a part of a run is made: with how many threads (set, begun with, or free), and in which precision."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fspo.progress import Progress
from fspo.runs import processes

if TYPE_CHECKING:
    from fspo.runs.config import RunConfig
    from fspo.runs.folder import RunFolder

__all__ = ["slow_precision", "use_free_threads", "use_threads"]

_SLOW = "bfloat16"
"""A precision that is slow on processors without instructions for it."""


def use_threads(folder: RunFolder, part: str, progress: Progress) -> None:
    """Choose the threads for making a part, and say so when it is another number than for the part before.

    Before the first part of a command, also say whether the precision that is set is slow on this processor.

    A part keeps its number, since that decides how sums are rounded: a command that was killed goes on to the same
    bytes, whatever the load is by then. The launcher of several processes sets their number, and an accelerator needs
    none.
    """
    import torch

    from fspo.modeling import threads

    given, variable, begun = folder.config.threads, threads.explicit(), folder.threads(part)
    if processes.count() > 1 or (torch.accelerator.is_available() and given is None):
        threads.sleep_while_busy()
        return
    if given is not None:
        count, why = given, "as the setting `threads` says"
    elif variable:
        count, why = torch.get_num_threads(), f"as {variable} says"
    elif begun is not None:
        count, why = begun, f"as when {part} was begun"
    elif folder.begun(part):
        count, why = threads.usual(), f"torch's default, since no number was noted when {part} was begun"
    else:
        machine = threads.look()
        count, why = threads.choose(machine), str(machine)
    threads.use(count)
    threads.sleep_while_busy()
    if begun is None:
        folder.note_threads(part, count)
    elif begun != count:
        progress.say(
            f"{part} was begun with {_threads(begun)} and goes on with {count}; its figures may differ in the last "
            "digits from those of a run that was not interrupted."
        )
    if not folder.computes_with and (note := slow_precision(folder.config)):
        progress.say(note)
    if count != folder.computes_with:
        progress.say(f"{_threads(count)}: {why}")
        folder.computes_with = count


def slow_precision(config: RunConfig) -> str:
    """A sentence on the settings of training and evaluation that choose a slow precision here; empty without any."""
    from fspo.modeling.loading import slow_dtype_note

    chosen = {".".join(config.training_key(name, "dtype")): each.dtype for name, each in config.training.items()}
    slow = [key for key, dtype in {**chosen, "evaluation.dtype": config.evaluation.dtype}.items() if dtype == _SLOW]
    return slow_dtype_note(_SLOW, f"set {' and '.join(slow)} to auto or float32") if slow else ""


def use_free_threads(config: RunConfig) -> None:
    """Compute with as many threads as a part that begins now would; nothing is noted or said."""
    import torch

    from fspo.modeling import threads

    if config.threads is not None:
        threads.use(config.threads)
    elif not torch.accelerator.is_available() and not threads.explicit():
        threads.use(threads.choose(threads.look()))


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count != 1)}"
