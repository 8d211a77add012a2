"""`python -m fspo` is the program `fspo`."""

from __future__ import annotations

from fspo.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
