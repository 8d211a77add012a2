"""`fspo serve`: a server with OpenAI's API, whose answers follow the preferences of each key's owner."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from fspo.cli.domain_questions import questions_of_domain
from fspo.cli.options import AccessLog, DryRun, console
from fspo.cli.store_options import look_at_store, opened
from fspo.errors import ConfigError
from fspo.keys import hidden
from fspo.printing import counted

if TYPE_CHECKING:
    from fspo.llm.endpoint_config import EndpointConfig
    from fspo.modeling.policy import Policy
    from fspo.serving.connection import StoreState
    from fspo.serving.engine import Engine
    from fspo.serving.store import Store

__all__ = ["serve"]

_UPSTREAM_SHOTS = 16
"""Where nothing here knows how many have room at the other server."""
_LONGEST_ANSWER = 512
"""Tokens."""
_KEY_OPTION = "--key-variable"
_DEMO_POLICY = Path("runs/demo/methods/fspo")
"""Where `make demo` puts it."""
_UNTRAINED = "There is no policy {place}, so the untrained model {model} answers; `make demo` trains the policy."
_DEMO_USER = "demo"
_DEMO_QUESTIONS = "elix-written"
_REQUEST = """Key of the user 'demo': {key}

curl {address}/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
  -d '{{"model": "fspo", "messages": [{{"role": "user", "content": "Recommend a book."}}]}}'

For OpenAI's client: export OPENAI_BASE_URL={address} OPENAI_API_KEY={key}
"""


def serve(
    policy: Annotated[
        str | None,
        typer.Option("--policy", help="Folder of a policy or of a run, or name of an untrained model."),
    ] = None,
    upstream: Annotated[
        str | None,
        typer.Option("--upstream", metavar="URL", help="Address of an OpenAI-compatible server that runs the model."),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Name of the model at --upstream.")] = None,
    adapter: Annotated[
        str | None, typer.Option("--adapter", help="Name of the trained adapter at --upstream; answers for `fspo`.")
    ] = None,
    key_variable: Annotated[
        str | None,
        typer.Option(_KEY_OPTION, help="Environment variable that holds the key of --upstream, if it needs one."),
    ] = None,
    cache_salt: Annotated[
        bool, typer.Option(help="Send --upstream a salt that keeps users apart in its cache, as vLLM can.")
    ] = True,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Serve the demo's policy, or else the built-in model; print a key and a request."),
    ] = False,
    questions: Annotated[
        str | None,
        typer.Option("--questions", metavar="DOMAIN", help="Domain with written responses to ask users about."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store",
            help="Folder of the store, made if missing, or URL of a Postgres database; by default that of the variable "
            "FSPO_STORE, or else fspo-store; with --demo a temporary folder.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    rate: Annotated[
        str, typer.Option(help="Limit of answers for users who have no limit of their own (`fspo users limit`).")
    ] = "120/minute",
    request_rate: Annotated[
        str,
        typer.Option(help="Limit of a user's cheaper requests, such as adding and listing preferences."),
    ] = "600/minute",
    max_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Maximum length of an answer where a request does not say it, in tokens; by default 512, or half of "
            "what the policy reads if that is less.",
        ),
    ] = None,
    shots: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Most preferences that the model sees; by default as many as in training, and 16 with --upstream and "
            "no --policy.",
        ),
    ] = None,
    guidance: Annotated[
        float,
        typer.Option(min=0, help="Push answers away from those for the mirrored user; takes twice the work. 0: plain."),
    ] = 0.0,
    memory: Annotated[
        float, typer.Option(min=0, max=2**20, help="GiB for what the model has read of the users' shots.")
    ] = 1.0,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    access_log: AccessLog = True,
    dry_run: DryRun = False,
) -> None:
    """Serve a policy: an application gets personalised answers when it changes its base URL.

    Each user has a key (`fspo users add`, `fspo keys add`). The model `fspo` answers with the preferences of the key's
    owner, and `base` answers without.

    With --upstream another server runs the model, and gets the preferences as turns of the conversation. Name the
    policy too, and its tokenizer says how many preferences have room.

    With --questions the server asks its users what they prefer (`GET /v1/next-question`).

    With --dry-run it checks the policy, the store, and that --upstream answers and knows the models.

    Examples:
      fspo serve --demo

      fspo serve --policy runs/demo/methods/fspo

      fspo serve --policy smollm2-135m --store postgresql://fspo@localhost/fspo --port 8080

      fspo serve --policy runs/elix-written/methods/fspo --questions elix-written

      fspo serve --upstream http://127.0.0.1:9000/v1 --model qwen3-8b --adapter fspo
    """
    endpoint = _endpoint(upstream, model, adapter, key_variable)
    local = {"--guidance": bool(guidance), "--memory": memory != 1, "--dtype": dtype != "float32"}
    _check_place_of_model(endpoint, local, cache_salt=cache_salt)
    if demo:
        policy = _demo_policy() if policy is None and endpoint is None else policy
        questions = questions or _DEMO_QUESTIONS
    if policy is None and endpoint is None:
        raise ConfigError("Name what to serve: --policy FOLDER, or --upstream URL with --model NAME.")
    with ExitStack() as held:
        from fspo.serving.listening import bound, listen
        from fspo.serving.rates import parse_rate

        place = held.enter_context(bound(host, port))
        for option, limit in (("--rate", rate), ("--request-rate", request_rate)):
            parse_rate(limit, option)
        kept = store or (None if demo else os.environ.get("FSPO_STORE") or "fspo-store")
        state = look_at_store(kept) if dry_run and kept is not None else None
        people = None if dry_run else held.enter_context(_store(kept))
        from fspo.modeling.loading import slow_dtype_note
        from fspo.modeling.quiet import quiet
        from fspo.serving.api import ServerSettings, create_app

        quiet()
        loaded = _policy(policy, dtype, shots)
        bank = None if questions is None else questions_of_domain(questions)
        name = policy if endpoint is None else endpoint.name
        options = _EngineOptions(loaded, endpoint, model, int(memory * 2**30), shots, cache_salt, guidance)
        if people is None:
            options.check()
            for line in _plan(f"{name} on http://{host}:{port}/v1", endpoint, model, kept, state):
                console().print(line, markup=False)
            return
        longest = _longest_answer(loaded) if max_tokens is None else max_tokens
        settings = ServerSettings(
            rate=rate, request_rate=request_rate, max_tokens=longest, most_tokens=max(longest, 4096)
        )

        def announce(address: str) -> None:
            if demo:
                console().print(_demo_request(people, address), markup=False)
            console().print(f"Serving {name} on {address}; Ctrl-C ends.", markup=False)

        if loaded is not None and (note := slow_dtype_note(dtype, "leave --dtype out, or set it to float32")):
            console().print(note, markup=False)
        site = create_app(people, options.engine(), settings, questions=bank)
        listen(site, place, announce, access_log=access_log)


def _endpoint(
    upstream: str | None, model: str | None, adapter: str | None, key_variable: str | None
) -> EndpointConfig | None:
    """Where the model runs on another server; None where it runs here.

    Raises:
        ConfigError: an option is missing, or invalid.
    """
    if upstream is None:
        for option, given in (("--model", model), ("--adapter", adapter), (_KEY_OPTION, key_variable)):
            if given is not None:
                raise ConfigError(f"{option} belongs to --upstream; add --upstream URL, or leave {option} out.")
        return None
    if model is None:
        raise ConfigError("--upstream needs the model's name at that server; add --model NAME.")
    from pydantic import ValidationError

    from fspo.llm.endpoint_config import EndpointConfig
    from fspo.pydantic_errors import first_fault

    try:
        return EndpointConfig.model_validate(
            {"base_url": upstream, "model": adapter or model, "key_variable": key_variable},
            context={"key_setting": _KEY_OPTION},
        )
    except ValidationError as error:
        names = {"base_url": "--upstream", "model": "--adapter" if adapter else "--model", "key_variable": _KEY_OPTION}
        raise ConfigError(first_fault(error, EndpointConfig, names=names).sentence) from None


def _check_place_of_model(endpoint: EndpointConfig | None, local: Mapping[str, bool], *, cache_salt: bool) -> None:
    """Check that the options fit the place where the model runs; `local` says which of those for this process are set.

    Raises:
        ConfigError: an option is for the other place.
    """
    if endpoint is None and not cache_salt:
        raise ConfigError("--no-cache-salt belongs to --upstream; add --upstream URL, or leave --no-cache-salt out.")
    for option, given in local.items():
        if endpoint is not None and given:
            raise ConfigError(f"{option} needs the model in this process; leave it out, or serve --policy alone.")


def _policy(place: str | None, dtype: str, shots: int | None) -> Policy | None:
    if place is None:
        return None
    from fspo.modeling.policy import Policy

    path = Path(place) if Path(place).is_dir() else place
    return Policy.load(path, shots=shots, dtype=dtype)


def _longest_answer(policy: Policy | None) -> int:
    """The usual limit of an answer, in tokens, which leaves room for a prompt."""
    read = None if policy is None else policy.renderer.max_length
    return _LONGEST_ANSWER if read is None else max(1, min(_LONGEST_ANSWER, read // 2))


@contextmanager
def _store(place: str | None) -> Iterator[Store]:
    """The store; without a place, one in a folder that is removed at the end."""
    with ExitStack() as held:
        yield held.enter_context(opened(place or held.enter_context(TemporaryDirectory(prefix="fspo-demo-"))))


def _demo_policy() -> str:
    """The demo's policy, or the built-in model where it is not trained yet, which is said."""
    from fspo.modeling.builtin_model import BUILTIN_MODEL
    from fspo.modeling.model_names import POLICY_FILE

    if (_DEMO_POLICY / POLICY_FILE).is_file():
        return str(_DEMO_POLICY)
    console().print(_UNTRAINED.format(place=_DEMO_POLICY, model=BUILTIN_MODEL), markup=False)
    return BUILTIN_MODEL


def _demo_request(people: Store, address: str) -> str:
    """A new key of the demo's user, and a request with it."""
    if _DEMO_USER not in {account.name for account in people.users()}:
        people.add_user(_DEMO_USER)
    key = people.add_key(people.user_named(_DEMO_USER)).key
    return _REQUEST.format(key=key, address=address)


def _plan(
    what: str, endpoint: EndpointConfig | None, model: str | None, place: str | None, state: StoreState | None
) -> Iterator[str]:
    """What a dry run says: what would be served from where, and what would become of the store."""
    users = 1 if place is None else 0 if state is None else state.users  # without a store's name it is the demo's user
    yield f"Would serve {what} for {counted(users, 'users')}."
    if endpoint is not None:
        yield f"{endpoint.base_url} answers, and takes the models {' and '.join(_models_of(endpoint, model))}."
    if state is None or place is None:
        yield "Would create a store in a temporary folder, and remove it at the end."
    elif not state.version:
        yield f"Would create a store in {hidden(place)}."
    elif state.outdated:
        yield (
            f"Would change the tables of the store {hidden(place)} from version {state.version} to that of this fspo."
        )
    else:
        yield f"The store {hidden(place)} can be used as it is; its tables have version {state.version}."


def _models_of(endpoint: EndpointConfig, model: str | None) -> list[str]:
    """The names at the other server: what answers for `fspo`, and what answers for `base`."""
    return list(dict.fromkeys((endpoint.model, model or endpoint.model)))


@dataclass(frozen=True)
class _EngineOptions:
    """What the options say of the engine."""

    policy: Policy | None
    endpoint: EndpointConfig | None
    model: str | None
    budget: int
    shots: int | None
    cache_salt: bool
    guidance: float

    def check(self) -> None:
        """Check what the engine needs, without loading weights.

        Raises:
            ConfigError: a setting is invalid, or the other server refuses the key or the name of a model.
            ModelError: the other server can't be reached.
        """
        if self.endpoint is None:
            from fspo.serving.engines.local import check_settings

            assert self.policy is not None
            check_settings(self.policy, budget=self.budget, guidance=self.guidance)
            return
        from fspo.llm.reach import check_endpoint
        from fspo.llm.transport import WebTransport

        self.engine()
        for name in _models_of(self.endpoint, self.model):
            config = self.endpoint.model_copy(update={"model": name, "retries": 0})
            check_endpoint(config, transport=WebTransport(config, keeps=False, key_setting=_KEY_OPTION))

    def engine(self) -> Engine:
        """The engine, in this process or at the other server."""
        if self.endpoint is None:
            from fspo.serving.engines.local import LocalEngine

            assert self.policy is not None
            return LocalEngine(self.policy, budget=self.budget, guidance=self.guidance)
        from fspo.serving.engines.upstream import UpstreamEngine

        if self.policy is None:
            renderer, most = None, _UPSTREAM_SHOTS if self.shots is None else self.shots
        else:
            renderer, most = self.policy.renderer, self.policy.shots
        return UpstreamEngine(
            self.endpoint, base_model=self.model, renderer=renderer, most_shots=most, cache_salt=self.cache_salt
        )
