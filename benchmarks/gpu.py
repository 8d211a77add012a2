"""The comparison of `training_step` on a CUDA machine: random weights in bfloat16, nothing to download.

    python -m benchmarks.gpu --out docs/results/gpu                        # 0.5B and 3B, under 10 minutes, 80 GB
    python -m benchmarks.gpu --shape 0.5b                                  # 24 GB will do
    python -m benchmarks.gpu --device cpu --shape tiny --rows 2x2x6        # to see that it runs

The shapes are those of Qwen2.5-0.5B and Llama-3.2-3B, the tokens are random, and weights, gradients and AdamW states
are in the model's precision on both sides. There, unlike on a processor, TRL's head scores response positions only, and
`flop_ratio` counts that. Rows, settings of TRL and meaning of all figures are those of `training_step`; memory is the
peak that CUDA allocated. A row for which the device is too small is noted under `failures`, and the other rows are
measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.models import SHAPE, SHAPES
from benchmarks.training_step import Row, Settings, device_name, measure_rows
from fspo.errors import FspoError

__all__ = ["main"]

_ROWS = [Row(shots=8, queries=8, response_tokens=250), Row(shots=4, queries=4, response_tokens=60)]
_DEFAULT_SHAPES = ("0.5b", "3b")


def measure(
    shapes: Sequence[str], rows: Sequence[Row], *, device: str, repeats: int, out: Path | None, seed: int
) -> dict[str, Any]:
    """The rows of each shape, and what failed; with `out`, one folder for each shape."""
    dtype = "float32" if torch.device(device).type == "cpu" else "bfloat16"
    figures: dict[str, Any] = {"benchmark": "gpu", "device": device_name(device), "rows": [], "failures": []}
    for shape in shapes:
        settings = Settings(model=SHAPE + shape, device=device, dtype=dtype, seed=seed)
        measured = measure_rows(settings, rows, rows, out=out and out / shape, repeats=repeats, program="gpu")
        for part in ("rows", "failures"):
            figures[part] += [{"shape": shape, **one} for one in measured[part]]
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.gpu", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shape", choices=sorted(SHAPES), action="append", help="0.5b and 3b by default; repeatable")
    parser.add_argument("--rows", type=Row.of, nargs="+", default=_ROWS, help="such as 8x8x250 4x4x60")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps of ours in each row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="folder for the figures of each shape")
    options = parser.parse_args(arguments)
    if torch.device(options.device).type == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device here; --device cpu --shape tiny shows that the program runs.", file=sys.stderr)
        return 2
    try:
        figures = measure(
            options.shape or _DEFAULT_SHAPES,
            options.rows,
            device=options.device,
            repeats=options.repeats,
            out=options.out,
            seed=options.seed,
        )
    except FspoError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(figures))
    return 1 if figures["failures"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
