"""`fspo serve`: a server with OpenAI's API, whose answers follow the preferences of each key's owner."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fspo.cli.options import DryRun, console
from fspo.cli.store_options import StorePlace, opened

__all__ = ["serve"]


def serve(
    policy: Annotated[
        str,
        typer.Option("--policy", help="Folder of a policy or of a run with one policy, or name of an untrained model."),
    ],
    store: StorePlace = "fspo-store",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    rate: Annotated[str, typer.Option(help="Limit of requests of a user without their own.")] = "60/minute",
    max_tokens: Annotated[int, typer.Option(min=1, help="Maximum length of an answer, in tokens, by default.")] = 512,
    memory: Annotated[float, typer.Option(min=0, help="GiB for what the model has read of the users' shots.")] = 1.0,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    dry_run: DryRun = False,
) -> None:
    """Serve a policy: an application gets personalised answers when it changes its base URL.

    Each user has a key (`fspo users add`, `fspo keys add`). The model `fspo` answers with the preferences of the key's
    owner, and `base` answers without.

    Examples:
      fspo serve --policy runs/reviews-cpu/methods/fspo

      fspo serve --policy smollm2-135m --store postgresql://fspo@localhost/fspo --port 8080
    """
    with opened(store) as people:
        import uvicorn

        from fspo.modeling.policy import Policy
        from fspo.modeling.quiet import quiet
        from fspo.serving.api import ServerSettings, create_app
        from fspo.serving.engines.local import LocalEngine
        from fspo.serving.rates import parse_rate

        quiet()
        parse_rate(rate)
        place = Path(policy)
        loaded = Policy.load(place if place.is_dir() else policy, dtype=dtype)
        if dry_run:
            count = len(people.users())
            console().print(f"Would serve {policy} on http://{host}:{port}/v1 for {count} users.", markup=False)
            return
        engine = LocalEngine(loaded, budget=int(memory * 2**30))
        settings = ServerSettings(rate=rate, max_tokens=max_tokens, most_tokens=max(max_tokens, 4096))
        console().print(f"Serving {policy} on http://{host}:{port}/v1; Ctrl-C ends.", markup=False)
        uvicorn.run(create_app(people, engine, settings), host=host, port=port, log_level="warning", access_log=False)
