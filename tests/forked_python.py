"""In place of the interpreter where a program starts one: `forked_python.py -m MODULE ...` or `-c CODE ...`.

The module or code runs in a process of `tests.preloaded`, which has the libraries already, with the streams,
environment and folder of this one. A signal and the end of one of the two are those of the other.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[1])

from tests import preloaded

__all__ = ["command", "executable"]

_AS_IMPORTED = "import transformers\ntransformers.logging.set_verbosity_warning()\n"
"""The process that forks has set up its libraries for the program `fspo`."""


def command() -> str:
    """What starts it, for a shell."""
    return shlex.join([sys.executable, __file__])


def executable(folder: Path) -> Path:
    """A file in `folder` that starts it, for what takes no more than the name of one."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nexec {command()} "$@"\n')
    path.chmod(0o755)
    return path


def _main(arguments: list[str]) -> int:
    kind, what, *rest = (argument for argument in arguments if argument != "-u")
    program = preloaded.start(
        *((what,) if kind == "-m" else ("-c", _AS_IMPORTED + what)),
        *rest,
        env=os.environ,
        cwd=Path.cwd(),
        stdin=sys.stdin,
        stdout=sys.stdout,
        stderr=sys.stderr,
    )

    def pass_on(number: int, _: object) -> None:
        with suppress(ProcessLookupError):  # it has ended
            os.kill(program.pid, number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
    if (code := program.wait()) < 0:
        with suppress(OSError):  # nothing can be said of SIGKILL
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
