"""The API: OpenAI's chat completions and responses, personalised by the preferences of the key's owner."""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi import Path as PathParameter
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator, Field
from starlette.responses import JSONResponse, Response

from fspo.errors import DataError, StorageError
from fspo.serving.admission import Admission
from fspo.serving.answer_responses import streamed_response, whole_response
from fspo.serving.answering import Answer, Answerer, Sampling
from fspo.serving.api_errors import ApiError, ErrorView, add_error_handlers, not_found, why
from fspo.serving.bodies import (
    AccountChange,
    ChatBody,
    FeedbackBody,
    PreferenceBody,
    PreferenceChange,
    ResponsesBody,
    prompt_turns,
    request_turns,
)
from fspo.serving.counters import ObservingMiddleware, ServerCounters
from fspo.serving.engine import Engine, Piece
from fspo.serving.forgetting import Forgetter, keep_erasing
from fspo.serving.health import health_of
from fspo.serving.openai_forms import chat_completion, chat_events, response, response_events
from fspo.serving.ownership import Owner
from fspo.serving.page import page_router
from fspo.serving.question_bank import QuestionBank
from fspo.serving.rates import RateLimits
from fspo.serving.request_limits import BodyLimitMiddleware, RequestLimitMiddleware
from fspo.serving.saved_answers import MOST_ANSWERS, Learned, StoredAnswer
from fspo.serving.shot_choice import READ
from fspo.serving.store import Account, Store
from fspo.serving.views import (
    AccountView,
    ChangedAccount,
    ChangedPreference,
    ConversationList,
    ConversationView,
    Deleted,
    FeedbackView,
    HealthView,
    PreferenceList,
    PreferenceView,
    QuestionView,
    WithdrawalView,
    preference_view,
)

__all__ = ["MODELS", "ServerSettings", "create_app"]

MODELS = ("fspo", "base")
_T = TypeVar("_T")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerSettings:
    """Limits of a server."""

    rate: str = "120/minute"
    """Answers of a user, and separately exports, feedback, edits, deletions and questions, which cost as much; see
    `parse_rate`. An administrator may set another limit for a user."""
    request_rate: str = "600/minute"
    """All other requests of a user."""
    max_tokens: int = 512
    """Maximum length of an answer where the request does not say it, in tokens."""
    most_tokens: int = 4096
    """The highest limit that a request may set."""
    most_preferences: int = 10_000
    """How many preferences a user may have."""
    most_answers: int = 8
    """How many answers a user may have under way."""
    most_answers_together: int = 256
    """How many answers all users may have under way; the engine answers some of them at once, the others wait."""
    most_requests: int = 1_000
    """Requests under way, of all users; the server refuses further ones at once."""
    most_bytes: int = 2**21
    """Of a request's body."""
    look_seconds: float = 1.0
    """How soon the engine drops what another program has deleted in the store."""
    erase_seconds: float = 30.0
    """How soon the server tries again to erase what another program was reading."""


@dataclass(frozen=True)
class Caller:
    """Whose key a request has."""

    owner: Owner
    account: Account


@dataclass
class _Parts:
    """What the routes work with."""

    store: Store
    engine: Engine
    admission: Admission
    answerer: Answerer
    forgetter: Forgetter
    questions: QuestionBank | None
    settings: ServerSettings
    answer_rates: RateLimits
    costly_rates: RateLimits
    request_rates: RateLimits
    counters: ServerCounters


_bearer = HTTPBearer(auto_error=False, description="A key of `fspo keys add`.")


def _parts(request: Request) -> _Parts:
    parts: _Parts = request.app.state.parts
    return parts


Parts = Annotated[_Parts, Depends(_parts)]
Sent = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def _asking(parts: Parts, sent: Sent) -> Caller:
    """Who asks for an answer; raises an error if it is one too many."""
    caller = _caller(parts, sent)
    _check_wait(parts.answer_rates.wait(caller.owner, caller.account.rate))
    return caller


def _costly(parts: Parts, sent: Sent) -> Caller:
    """Who wants an export, a question, or something that may erase content from the files of the store.

    They cost about as much as an answer: the same limits apply, counted separately.
    """
    caller = _caller(parts, sent)
    _check_wait(parts.costly_rates.wait(caller.owner, caller.account.rate))
    return caller


def _known(parts: Parts, sent: Sent) -> Caller:
    """Who asks for something cheaper than an answer, with a limit of its own."""
    caller = _caller(parts, sent)
    _check_wait(parts.request_rates.wait(caller.owner))
    return caller


def _caller(parts: _Parts, sent: HTTPAuthorizationCredentials | None) -> Caller:
    """The owner of the key, and nothing else in the request, says whose data are used."""
    owner = parts.store.authenticate(sent.credentials) if sent is not None else None
    if owner is None:
        code = "invalid_api_key" if sent is not None else "missing_api_key"
        raise ApiError(401, "The key is not valid." if sent else "Send a key: Authorization: Bearer KEY.", code)
    return Caller(owner, parts.store.account(owner))


def _check_wait(wait: float) -> None:
    if wait:
        headers = {"retry-after": str(int(wait + 0.999))}
        raise ApiError(429, f"Too many requests; try again in {wait:.0f} s.", "rate_limit_exceeded", headers=headers)


Asking = Annotated[Caller, Depends(_asking)]
Costly = Annotated[Caller, Depends(_costly)]
Known = Annotated[Caller, Depends(_known)]
_ID = r"^[a-z]+_[0-9a-f]{24}$"


def _possible_id(what: str) -> AfterValidator:
    """A text that is no id of this server names nothing, and a database may refuse to look for it."""

    def check(text: str) -> str:
        if re.fullmatch(_ID, text) is None:
            raise not_found(what)
        return text

    return AfterValidator(check)


PreferenceId = Annotated[str, _possible_id("preference"), Field(json_schema_extra={"pattern": _ID})]
ConversationId = Annotated[str, _possible_id("conversation"), Field(json_schema_extra={"pattern": _ID})]
PreferencePath = Annotated[PreferenceId, PathParameter()]
ConversationPath = Annotated[ConversationId, PathParameter()]
Limit = Annotated[int, Query(ge=1, le=100)]
Order = Literal["asc", "desc"]

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorView, "description": what}
    for status, what in {
        400: "The request is invalid.",
        401: "The key is missing or not valid.",
        404: "It does not exist, or it is not yours.",
        405: "The address does not have this method.",
        413: "The body is too large.",
        429: "Too many requests, or too many answers under way.",
        500: "The server has an internal error.",
        502: "The model does not answer.",
        503: "The store is busy, or the server has too many answers under way.",
        507: "The disk is full.",
    }.items()
}
_router = APIRouter(prefix="/v1", responses=_ERRORS)
_open = APIRouter()


def create_app(
    store: Store, engine: Engine, settings: ServerSettings | None = None, *, questions: QuestionBank | None = None
) -> FastAPI:
    """The application; it closes the engine at its end, and leaves the store open. Without `questions` it asks none.

    Raises:
        ConfigError: a limit of answers or requests is invalid.
    """
    settings, counters = settings or ServerSettings(), ServerCounters()
    forgetter = Forgetter(store, engine.forget, seconds=settings.look_seconds)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        async with anyio.create_task_group() as group:
            group.start_soon(forgetter.run)
            group.start_soon(partial(keep_erasing, store, seconds=settings.erase_seconds))
            yield
            group.cancel_scope.cancel()
        await engine.close()

    app = FastAPI(
        title="fspo",
        version=version("fspo"),
        summary="Answers that follow your preferences, in OpenAI's API.",
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        openapi_url="/v1/openapi.json",
    )
    admission = Admission(settings.most_answers, settings.most_answers_together)
    answerer = Answerer(store, engine, counters, forgetter, admission)
    app.state.parts = _Parts(
        store=store,
        engine=engine,
        admission=admission,
        answerer=answerer,
        forgetter=forgetter,
        questions=questions,
        settings=settings,
        answer_rates=RateLimits(settings.rate),
        costly_rates=RateLimits(settings.rate),
        request_rates=RateLimits(settings.request_rate),
        counters=counters,
    )
    app.include_router(_open)
    app.include_router(_router)
    longest = min(settings.max_tokens, settings.most_tokens)
    app.include_router(page_router(longest, asks=questions is not None, reads_description=engine.reads_description))
    add_error_handlers(app)
    app.add_middleware(BodyLimitMiddleware, most=settings.most_bytes)
    app.add_middleware(RequestLimitMiddleware, most=settings.most_requests)
    app.add_middleware(ObservingMiddleware, counters=counters)
    return app


@_open.get("/health", responses={503: {"model": HealthView, "description": "Store or engine can't answer."}})
async def health(parts: Parts, response: Response) -> HealthView:
    """Whether the store and the engine can answer, and how much there is to do."""
    view = await health_of(parts.store, [parts.engine], len(parts.admission))
    if view.status != "ok":
        response.status_code = 503
    return view


@_open.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
def metrics(parts: Parts) -> Response:
    """Counters for Prometheus; none names a user."""
    return Response(parts.counters.text(), media_type="text/plain; version=1.0.0; charset=utf-8")


# Models and answers


@_router.get("/models")
def list_models(_: Known) -> dict[str, Any]:
    """The models: `fspo` answers with your preferences, `base` without."""
    return {"object": "list", "data": [_model(name) for name in MODELS]}


@_router.get("/models/{model}")
def show_model(model: str, _: Known) -> dict[str, Any]:
    """One model."""
    if model not in MODELS:
        raise ApiError(404, "There is no such model; use fspo or base.", "model_not_found", param="model")
    return _model(model)


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "fspo"}


_STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {}, "text/event-stream": {}}}}


@_router.post("/chat/completions", response_class=JSONResponse, responses=_STREAM)
async def chat(body: ChatBody, request: Request, parts: Parts, caller: Asking) -> Response:
    """Answer a conversation; with `stream`, as server-sent events."""
    tokens = _tokens(parts, max_completion_tokens=body.max_completion_tokens, max_tokens=body.max_tokens)
    sampling = Sampling(tokens, body.temperature, body.top_p, body.stops, body.seed)
    turns, show = request_turns(body.messages), body.fspo.shots

    def events(answer: Answer, pieces: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
        usage = bool(body.stream_options.include_usage)
        return chat_events(answer, pieces, usage=usage, show_shots=show, fault=partial(_log_fault, request))

    async def begin() -> Answer:
        return await parts.answerer.begin(caller.owner, body.model, turns, sampling)

    if body.stream:
        return await streamed_response(request, begin, events)
    return await whole_response(request, begin, lambda answer, text: chat_completion(answer, text, show_shots=show))


@_router.post("/responses", response_class=JSONResponse, responses=_STREAM)
async def respond(body: ResponsesBody, request: Request, parts: Parts, caller: Asking) -> Response:
    """Answer a text or a conversation; with `stream`, as server-sent events."""
    sampling = Sampling(_tokens(parts, max_output_tokens=body.max_output_tokens), body.temperature, body.top_p)
    turns, show = request_turns(body.messages), body.fspo.shots

    def events(answer: Answer, pieces: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
        return response_events(answer, pieces, show_shots=show, fault=partial(_log_fault, request))

    async def begin() -> Answer:
        return await parts.answerer.begin(caller.owner, body.model, turns, sampling)

    if body.stream:
        return await streamed_response(request, begin, events)
    return await whole_response(request, begin, lambda answer, text: response(answer, text, show_shots=show))


def _tokens(parts: _Parts, **limits: int | None) -> int:
    """The first limit that the request sets, or else the server's."""
    most = parts.settings.most_tokens
    for param, limit in limits.items():
        if limit is not None:
            if limit > most:
                message = f"An answer has at most {most:,} tokens; ask for fewer."
                raise ApiError(400, message, "invalid_value", param=param)
            return limit
    return min(parts.settings.max_tokens, most)


def _log_fault(request: Request, error: BaseException) -> None:
    _LOG.error("The answer to the request %s broke off: %s", request.state.request_id, why(error))


# Preferences


@_router.post("/preferences", status_code=201)
def add_preference(body: PreferenceBody, parts: Parts, caller: Known) -> PreferenceView:
    """Save which of two responses you prefer. It is on disk when this answers."""
    stored = parts.store.add_preference(
        caller.owner,
        prompt_turns(body.prompt),
        body.chosen,
        body.rejected,
        origin=body.origin,
        source=body.source,
        most=parts.settings.most_preferences,
    )
    return preference_view(stored)


@_router.get("/preferences")
def list_preferences(
    parts: Parts,
    caller: Known,
    limit: Limit = 20,
    after: Annotated[PreferenceId | None, Query()] = None,
    order: Order = "desc",
) -> PreferenceList:
    """Your preferences, by default the newest first."""
    page = parts.store.page(caller.owner, limit=limit, after=after, newest_first=order == "desc")
    return PreferenceList.of(_found(page, "preference"), preference_view)


@_router.get("/preferences/{preference}")
def show_preference(preference: PreferencePath, parts: Parts, caller: Known) -> PreferenceView:
    """One of your preferences."""
    return preference_view(_found(parts.store.preference(caller.owner, preference), "preference"))


@_router.patch("/preferences/{preference}")
async def change_preference(
    preference: PreferencePath, body: PreferenceChange, parts: Parts, caller: Costly
) -> ChangedPreference:
    """Edit one of your preferences; what it said before is deleted."""
    turns = None if body.prompt is None else prompt_turns(body.prompt)
    stored = await _changed(
        parts,
        caller,
        lambda: parts.store.change_preference(
            caller.owner, preference, turns=turns, chosen=body.chosen, rejected=body.rejected, source=body.source
        ),
    )
    view = preference_view(_found(stored, "preference"))
    return ChangedPreference(**view.model_dump(), erased=await _erased(parts))


@_router.delete("/preferences/{preference}")
async def delete_preference(preference: PreferencePath, parts: Parts, caller: Costly) -> Deleted:
    """Delete one of your preferences: from the store, its files, and the caches of the model."""
    if not await _changed(parts, caller, lambda: parts.store.remove_preference(caller.owner, preference)):
        raise not_found("preference")
    return await _deleted(parts, "preference.deleted", 1, preference)


@_router.delete("/preferences")
async def delete_preferences(parts: Parts, caller: Costly) -> Deleted:
    """Delete all of your preferences."""
    count = await _changed(parts, caller, lambda: parts.store.remove_preferences(caller.owner))
    return await _deleted(parts, "preferences.deleted", count)


async def _deleted(parts: _Parts, what: str, count: int, one: str | None = None) -> Deleted:
    return Deleted(id=one, object=what, count=count, erased=await _erased(parts))


async def _erased(parts: _Parts) -> bool:
    """Whether deleted content is erased; False if the store can't say.

    The change is saved at this point, so this raises no error of the store.
    """
    try:
        return await run_sync(parts.store.erased)
    except StorageError as error:
        _LOG.warning("It is not known whether deleted content is erased: %s", error)
        return False


async def _changed(
    parts: _Parts, caller: Caller, change: Callable[[], _T], took_back: Callable[[_T], object] = bool
) -> _T:
    """Change the store, and drop what the engine has read before.

    After an error of the store too, since it may come after the change. `took_back` says of the result whether
    something was changed that the engine may have read.
    """
    try:
        result = await run_sync(change)
    except StorageError:
        await _forget(parts, caller)
        raise
    if took_back(result):
        await _forget(parts, caller)
    return result


async def _forget(parts: _Parts, caller: Caller) -> None:
    try:
        await parts.forgetter.forget(caller.owner)
    except Exception as error:  # the store has changed, and the forgetter tries again
        _LOG.error("What the model has read of a user could not be dropped; the server tries again: %s", why(error))


def _found(stored: _T | None, what: str) -> _T:
    if stored is None:
        raise not_found(what)
    return stored


@_router.post("/feedback")
async def give_feedback(body: FeedbackBody, parts: Parts, caller: Costly) -> FeedbackView:
    """Say what you think of a saved answer: a thumb, your own version, or that you used it instead of another one.

    The server saves answers if `keep_conversations` of /v1/me is true.
    """
    owner, most = caller.owner, parts.settings.most_preferences

    def learn() -> Learned:
        answer = _answered(parts, caller, body.answer, "answer")
        if body.thumb is not None:
            learned = parts.store.set_thumb(owner, answer.id, body.thumb, most=most)
            if learned is None:  # deleted just now
                raise _not_saved(caller, "answer")
            return learned
        if body.edit is not None:
            return parts.store.learn(owner, answer.turns, body.edit, answer.text, "edit", [answer.id], most=most)
        other = _answered(parts, caller, str(body.instead_of), "instead_of")
        if other.turns != answer.turns:
            raise DataError("The two answers are to different requests, so they can't be compared.")
        ids = [answer.id, other.id]
        return parts.store.learn(owner, answer.turns, answer.text, other.text, "regeneration", ids, most=most)

    learned = await _changed(parts, caller, learn, lambda found: found.removed)
    return FeedbackView(
        answer=body.answer,
        preferences=[preference_view(stored) for stored in learned.preferences],
        removed=learned.removed,
        erased=await _erased(parts),
    )


def _answered(parts: _Parts, caller: Caller, answer: str, param: str) -> StoredAnswer:
    found = parts.store.answer(caller.owner, answer.removeprefix("chatcmpl-").removeprefix("resp_"))
    if found is None:
        raise _not_saved(caller, param)
    return found


def _not_saved(caller: Caller, param: str) -> ApiError:
    """The error for an answer that the user has not saved; nobody learns whether somebody else has."""
    message = (
        "You have no saved answer with this id; send the id of a completion or response of yours that was saved. "
        f"None is saved while you have {MOST_ANSWERS:,} of them, or as many texts as a user may have: delete some then."
        if caller.account.keep_conversations
        else 'Your answers are not saved; switch that on with PATCH /v1/me {"keep_conversations": true}, and ask again.'
    )
    return ApiError(404, message, "not_found", param=param)


@_router.get("/next-question")
def next_question(
    parts: Parts,
    caller: Costly,
    skip: Annotated[list[Annotated[str, Field(max_length=64)]], Query(max_length=100)] = [],  # noqa: B006
) -> QuestionView:
    """The question whose answer says most about what you like; `skip` lists questions that you don't want to answer."""
    if parts.questions is None:
        raise ApiError(404, "This server asks no questions; start it with --questions DOMAIN.", "no_question")
    newest, _ = parts.store.newest(caller.owner, READ)
    found = parts.questions.next([stored.preference for stored in newest], skip)
    if found is None:
        raise ApiError(404, "There is no question left.", "no_question")
    one = found.question
    return QuestionView(id=found.id, prompt=one.prompt, first=one.first, second=one.second, gain=round(found.gain, 4))


# Conversations


@_router.get("/conversations")
def list_conversations(
    parts: Parts,
    caller: Known,
    limit: Limit = 20,
    after: Annotated[ConversationId | None, Query()] = None,
    order: Order = "desc",
) -> ConversationList:
    """Your saved conversations, by default the newest first."""
    page = parts.store.conversations(caller.owner, limit=limit, after=after, newest_first=order == "desc")
    found = _found(page, "conversation")
    return ConversationList.of(found, lambda answer: ConversationView(**answer.as_conversation()))


@_router.delete("/conversations/{conversation}")
async def delete_conversation(conversation: ConversationPath, parts: Parts, caller: Costly) -> Deleted:
    """Delete one of your saved conversations. Preferences that followed from it stay."""
    if not await run_sync(parts.store.remove_conversation, caller.owner, conversation):
        raise not_found("conversation")
    return await _deleted(parts, "conversation.deleted", 1, conversation)


# The account


@_router.get("/me")
def show_me(parts: Parts, caller: Known) -> AccountView:
    """What the server knows of you beside your preferences."""
    return AccountView(**asdict(caller.account), description_read=parts.engine.reads_description)


@_router.patch("/me")
async def change_me(body: AccountChange, parts: Parts, caller: Costly) -> ChangedAccount:
    """Edit your description, pause personalisation, allow training, or switch saved conversations on or off."""
    account = await _changed(
        parts,
        caller,
        lambda: parts.store.change_account(
            caller.owner,
            description=body.description,
            personalise=body.personalise,
            keep_conversations=body.keep_conversations,
            allow_training=body.allow_training,
        ),
    )
    known = {**asdict(account), "description_read": parts.engine.reads_description}
    return ChangedAccount(**known, erased=await _erased(parts))


@_router.delete("/me/conversations")
async def delete_conversations(parts: Parts, caller: Costly) -> Deleted:
    """Delete all conversations that the server has saved for you."""
    count = await run_sync(parts.store.remove_conversations, caller.owner)
    return await _deleted(parts, "conversations.deleted", count)


@_router.get("/me/export", response_class=Response, responses={200: {"content": {"application/zip": {}}}})
def export_me(parts: Parts, caller: Costly) -> Response:
    """Everything that the server stores about you, as one ZIP archive."""
    headers = {"content-disposition": 'attachment; filename="fspo-export.zip"', "cache-control": "no-store"}
    return Response(parts.store.export(caller.owner), media_type="application/zip", headers=headers)


@_router.delete("/me")
async def delete_me(parts: Parts, caller: Known) -> WithdrawalView:
    """Delete everything of yours, with your keys. Policies that were trained on your preferences are listed."""
    done = await _changed(parts, caller, lambda: parts.store.withdraw(caller.owner))
    return WithdrawalView(
        removed=done.removed, erased=done.erased, policies_to_train_again=[Path(name).name for name in done.policies]
    )
