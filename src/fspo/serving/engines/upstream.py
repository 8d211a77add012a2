"""An engine on another server: an OpenAI-compatible API (vLLM, SGLang, llama.cpp) answers, and gets the shots.

The shots go as the messages of the conversation layout, before the messages of the request, so that a server which
keeps prefixes reads them once. `cache_salt` separates the users in a server's prefix cache (vLLM): it is an HMAC of the
owner with a random secret of this process, so the server never learns who asks. It changes when the owner is forgotten,
and with a restart, so no salt from before a deletion comes back.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import secrets
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ValidationError, ValidatorFunctionWrapHandler, field_validator

from fspo.errors import ConfigError, DataError, FspoError, ModelError
from fspo.llm.endpoint_config import EndpointConfig, need_client
from fspo.llm.http_errors import told
from fspo.llm.parameters import SYSTEM, renamed
from fspo.llm.quoting import disarmed
from fspo.llm.transport import certificates, proxy_for
from fspo.modeling.layouts import conversation_messages
from fspo.preferences.sampling import shots_beside
from fspo.preferences.types import Preference, Turn, as_turns, transcript
from fspo.serving.engine import EngineState, GenerationRequest, Piece
from fspo.serving.engines.requests import check_length, check_request, within_reach

if TYPE_CHECKING:
    import aiohttp

    from fspo.modeling.rendering import EpisodeRenderer

__all__ = ["UpstreamEngine"]

_LOG = logging.getLogger(__name__)
_CONNECTING = 10.0
"""Seconds to wait for a connection."""
_LOOK_PAUSE, _LOOKING = 5.0, 2.0
"""Seconds between two looks whether the server answers, and how long one may take."""
_LONGEST_LINE = 2**20
"""Bytes of one event."""


class _Details(BaseModel):
    cached_tokens: int | None = None


class _Usage(BaseModel):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _Details | None = None


class _Delta(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Event(BaseModel):
    """What is read of an event of the server."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None

    @field_validator("choices", mode="before")
    @classmethod
    def _first(cls, choices: Any) -> Any:
        """Further choices are not read, so they may be anything."""
        return choices[:1] if isinstance(choices, list) else choices

    @field_validator("usage", mode="wrap")
    @classmethod
    def _valid_or_unknown(cls, usage: Any, validate: ValidatorFunctionWrapHandler) -> _Usage | None:
        """Invalid counts end no answer."""
        try:
            found: _Usage | None = validate(usage)
        except ValidationError:
            return None
        return found


@dataclass
class _Answer:
    """What the server has said so far."""

    finish: Literal[None, "stop", "length"] = None
    chunks: int = 0
    usage: _Usage = field(default_factory=_Usage)

    def piece(self, text: str, finish: Literal[None, "stop", "length"]) -> Piece:
        used = self.usage
        cached = used.prompt_tokens_details.cached_tokens if used.prompt_tokens_details else None
        return Piece(text, finish, used.prompt_tokens or 0, used.completion_tokens or self.chunks, cached or 0)


class UpstreamEngine:
    """Answers with the model of a server. See `Engine`.

    The endpoint's model answers personalised requests, such as a LoRA adapter by its name at the server, and
    `base_model` the others. Before the end of an answer, `completion_tokens` counts the server's events, and
    `prompt_tokens` is 0.
    """

    def __init__(
        self,
        endpoint: EndpointConfig,
        *,
        base_model: str | None = None,
        renderer: EpisodeRenderer | None = None,
        most_shots: int = sys.maxsize,
        cache_salt: bool = True,
    ) -> None:
        """Nothing is sent.

        Args:
            endpoint: where the server is; its model answers personalised requests.
            base_model: answers the other requests; by default the same model.
            renderer: of the policy, in the layout `conversation`: it says how many shots have room, and what a system
                message becomes. Without it all shots are sent, and the server refuses what is too long.
            most_shots: how many shots are sent at most; a policy that was trained without shots gets none.
            cache_salt: whether salts are sent; some providers refuse fields that they don't know.

        Raises:
            ConfigError: the package aiohttp is missing, the key can't be read, the proxy is of an unknown kind, or the
                renderer has another layout.
        """
        need_client()
        if renderer is not None and renderer.layout != "conversation":
            raise ConfigError(
                "A server gets the shots as a conversation, and this policy was trained with the layout "
                f"'{renderer.layout}'; train one with layout: conversation, or serve it in this process."
            )
        self._endpoint, self._base_model = endpoint, base_model or endpoint.model
        self._renderer = renderer
        self._most_shots = most_shots if renderer is None or renderer.reads_shots else 0
        self._secret, self._salted = secrets.token_bytes(32), cache_salt
        self._key = endpoint.key()
        variable, self._proxy = proxy_for(endpoint.base_url)
        self._way = f" by the proxy in {variable}" if variable else ""
        self._forgotten: Counter[str] = Counter()
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._looking = asyncio.Lock()
        self._answers, self._next_look = False, 0.0

    async def stream(self, request: GenerationRequest) -> AsyncIterator[Piece]:
        """See `Engine`."""
        import aiohttp

        check_request(request)
        if self._closed:
            raise ModelError("The engine is closed; start the server again.")
        check_length(request.turns, self._longest)
        body = await asyncio.to_thread(self._body, request)  # it may have to tokenize long texts
        answer = _Answer()
        try:
            where = f"{self._address}/chat/completions"
            async with self._open().post(where, json=body, proxy=self._proxy) as reply:
                if reply.status >= 400:
                    raise self._refused(reply.status, await reply.read())
                async for text in self._texts(reply, answer):
                    answer.chunks += 1
                    yield answer.piece(text, None)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError) as error:
            _LOG.warning("%s can't be reached%s.", self._address, self._way)
            raise ModelError(
                f"{self._address} can't be reached{self._way}; start the server, or correct the address"
                f"{' or the proxy' if self._way else ''}."
            ) from error
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:  # cut, silent for too long, or no HTTP
            raise self._cut(answer) from error
        if answer.finish is None:
            raise self._cut(answer)
        yield answer.piece("", answer.finish)

    @property
    def reads_description(self) -> bool:
        """See `Engine`; it is sent as the system message."""
        return self._renderer is None or self._renderer.reads_description

    async def fits(
        self, shots: Sequence[Preference], turns: Sequence[Turn], max_tokens: int, description: str = ""
    ) -> int:
        """See `Engine`. Without a renderer, all shots are taken to have room."""
        check_length(turns, self._longest)
        prompt = as_turns(turns)
        shown = shots_beside(transcript(prompt), within_reach(shots, self._longest), self._most_shots)
        if self._renderer is None:
            return len(shown)
        return len(await asyncio.to_thread(self._fitting, shown, prompt, description, max_tokens))

    def times_forgotten(self, owner: str) -> int:
        """See `Engine`."""
        return self._forgotten[owner]

    async def forget(self, owner: str) -> None:
        """See `Engine`. The owner's salt changes, so that nothing in the server's cache serves them again."""
        self._forgotten[owner] += 1

    async def state(self) -> EngineState:
        """See `Engine`. The server is asked for its models, once in a few seconds however often this is called."""
        async with self._looking:
            if time.monotonic() >= self._next_look and not self._closed:
                self._answers = await self._look()
                self._next_look = time.monotonic() + _LOOK_PAUSE
        return EngineState(self._answers and not self._closed, Path(self._endpoint.model).name)

    async def _look(self) -> bool:
        """Whether the server answers and accepts the key; it need not have a list of models."""
        import aiohttp

        limit = aiohttp.ClientTimeout(total=_LOOKING)
        try:
            async with self._open().get(f"{self._address}/models", timeout=limit, proxy=self._proxy) as reply:
                return reply.status < 500 and reply.status not in (401, 403)
        except (TimeoutError, aiohttp.ClientError, ValueError):
            return False

    async def close(self) -> None:
        """See `Engine`."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def _longest(self) -> int | None:
        """Most tokens that are sent, if that is known."""
        return None if self._renderer is None else self._renderer.max_length

    @property
    def _address(self) -> str:
        return self._endpoint.base_url.rstrip("/")

    def salt(self, owner: str, times_forgotten: int = 0) -> str:
        """What separates the owner from others in the server's cache, until they are forgotten once more."""
        name = f"{times_forgotten}:{owner}".encode("utf-8", "surrogatepass")
        return hmac.new(self._secret, name, hashlib.sha256).hexdigest()

    def _body(self, request: GenerationRequest) -> dict[str, Any]:
        prompt = as_turns(request.turns)
        shots: Sequence[Preference] = ()
        description = ""
        if request.personalised:
            description = request.description if self.reads_description else ""
            shots = shots_beside(transcript(prompt), request.shots, self._most_shots)
            if self._renderer is not None:
                shots = self._fitting(shots, prompt, description, request.max_tokens)
        body: dict[str, Any] = {
            "model": self._endpoint.model if request.personalised else self._base_model,
            "messages": self._messages(shots, prompt, description),
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if request.stop:
            body["stop"] = list(request.stop)
        if request.seed is not None:
            body["seed"] = request.seed
        if self._salted:
            body["cache_salt"] = self.salt(request.owner, request.times_forgotten)
        return renamed(body, self._endpoint.parameters) | self._endpoint.extra_body

    def _messages(self, shots: Sequence[Preference], prompt: Sequence[Turn], description: str) -> list[dict[str, str]]:
        """The turns for the server, in which no text holds what its tokenizer takes for a control token."""

        def safe(turns: Sequence[Turn]) -> list[Turn]:
            return [Turn(turn.role, self._safe(turn.text)) for turn in turns]

        shown = [
            Preference.after(shot.user, safe(shot.messages), self._safe(shot.chosen), self._safe(shot.rejected))
            for shot in shots
        ]
        role = self._endpoint.parameters.get(SYSTEM, SYSTEM)
        system = role is not None and (self._renderer is None or self._renderer.takes_system)
        messages = conversation_messages(shown, safe(prompt), self._safe(description), system=system)
        return [one | {"role": role} if role and one["role"] == SYSTEM else one for one in messages]

    def _safe(self, text: str) -> str:
        """The text; with a space after brackets where the server would read a control token, or may do so."""
        if self._renderer is not None and not self._renderer.holds_control(text):
            return text
        return disarmed(text)

    def _fitting(
        self, shots: Sequence[Preference], prompt: tuple[Turn, ...], description: str, max_tokens: int
    ) -> Sequence[Preference]:
        assert self._renderer is not None
        shown = self._renderer.render_prompt(shots, prompt, description, reserve=max_tokens)
        return shots[shown.dropped_shots :]

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        if self._session is None:
            headers = {"User-Agent": "fspo"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
            self._session = aiohttp.ClientSession(
                # A server may close a connection after an answer just when the next request is sent on it.
                connector=aiohttp.TCPConnector(limit=0, force_close=True, ssl=certificates(self._address)),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECTING, sock_read=self._endpoint.timeout),
                headers=headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=_LONGEST_LINE,
            )
        return self._session

    async def _texts(self, reply: aiohttp.ClientResponse, answer: _Answer) -> AsyncIterator[str]:
        """The parts of the text; the rest of what the server says goes into `answer`."""
        async for line in reply.content:
            kind, _, data = line.decode("utf-8", "replace").strip().partition(":")
            data = data.strip()
            if kind != "data" or not data:
                if kind == "error":
                    raise self._failed(json.loads(data))
                continue
            if data == "[DONE]":
                return
            event = _Event.model_validate_json(data)
            if event.error is not None:
                raise self._failed({"error": event.error})
            answer.usage = event.usage or answer.usage
            for choice in event.choices or ():
                if choice.delta and choice.delta.content and answer.finish is None:
                    yield choice.delta.content
                if choice.finish_reason:
                    answer.finish = self._finish(choice.finish_reason)

    def _finish(self, reason: str) -> Literal["stop", "length"]:
        if reason in ("stop", "length"):
            return reason  # type: ignore[return-value]
        raise ModelError(f"{self._address} ended an answer for the reason '{reason}'; ask in other words.")

    def _refused(self, status: int, said: bytes) -> FspoError:
        try:
            body = json.loads(said)
        except ValueError:
            body = said.decode("utf-8", "replace")
        reason = told(body, self._key)
        _LOG.warning("%s answers with status %d.", self._address, status)
        if status in (401, 403):
            variable = self._endpoint.key_variable
            remedy = f"correct the key in {variable}" if variable else "name the variable that holds the key"
            return ModelError(f"{self._address} refuses access ({reason}); {remedy}.")
        if status in (400, 413, 422):
            # Shown to the user, so without the address and the server's words.
            return DataError("The model's server refuses the request; shorten it, or change its settings.")
        return ModelError(f"{self._address} failed on a request ({status}: {reason}); try again later.")

    def _failed(self, said: object) -> ModelError:
        _LOG.warning("%s failed while it answered.", self._address)
        return ModelError(f"{self._address} failed while it answered ({told(said, self._key)}); try again later.")

    def _cut(self, answer: _Answer) -> ModelError:
        _LOG.warning("%s broke an answer off.", self._address)
        written = f"after {answer.chunks} parts of it" if answer.chunks else "before it began"
        return ModelError(f"{self._address} broke an answer off, {written}; try again later.")
