"""The web application of a study: forms and pages that work without scripts.

Every form leads back to the one address of the study, which shows where the participant is. So a refresh, the back
button, a second tab or another device never repeats a vote.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import SystemRandom
from typing import Any
from unicodedata import category

from anyio import create_task_group
from anyio.to_thread import run_sync
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fspo.errors import DataError, FspoError, StorageError
from fspo.serving.counters import ObservingMiddleware, ServerCounters
from fspo.serving.engine import Engine
from fspo.serving.forgetting import keep_erasing
from fspo.serving.logged_errors import outlined
from fspo.serving.ownership import Owner, UnknownOwner
from fspo.study.answers import AnswerWriter
from fspo.study.config import StudyConfig
from fspo.study.drawing import draw_items
from fspo.study.flow import Step, Visit, step_of
from fspo.study.material import Material
from fspo.study.pages import LONGEST_ANSWER, Pages, redirect, static_file
from fspo.study.records import Choice
from fspo.study.store import AlreadyTakesPart, NotAParticipant, StudyFull, StudyStore, invitation_of, now, site_digest
from fspo.study.visitors import SITE_FIELDS, cookie_of, language_of, read_form, remember, site_of, ticket_of

__all__ = ["create_study_app"]

_CHOICES: Mapping[str, Choice] = {"1": "first", "2": "second", "0": "tie"}
_LOG = logging.getLogger(__name__)
_STATUS_OF_PROBLEM = {404: "no_page", 405: "no_page"}
Handler = Callable[["_Study", Request], Awaitable[Response]]


@dataclass(frozen=True)
class _Visitor:
    """Who sends a request: a participant, by the key in the cookie."""

    owner: Owner
    key: str
    visit: Visit


class _Study:
    """What the handlers work with."""

    def __init__(self, config: StudyConfig, material: Material, store: StudyStore) -> None:
        self.config, self.material, self.store = config, material, store
        self.writer: AnswerWriter | None = None

    async def visitor(self, request: Request, *, continues: bool = False) -> _Visitor | None:
        """The participant whose key the browser remembers; None if it remembers none that is valid.

        `continues`: the request goes on with the study, so a place that has lapsed is taken again if one is free.
        """
        key = request.cookies.get(cookie_of(self.config.name), "")
        owner = await run_sync(self.store.participant, key) if key else None
        if owner is None:
            return None
        try:
            visit = await run_sync(self.store.visit, owner, self.config.name)
            lapsed = continues and step_of(visit, self.config, now()).kind == "lapsed"
            if lapsed and await run_sync(self.store.take_place_again, owner, self.config):
                visit = await run_sync(self.store.visit, owner, self.config.name)
            return _Visitor(owner, key, visit)
        except NotAParticipant:
            return None

    def pages(self, request: Request, visitor: _Visitor | None = None, language: str = "") -> Pages:
        """The pages in the visitor's language, or else in `language`, or else in that of the request."""
        known = visitor.visit.participant.language if visitor else language  # empty after a withdrawal
        language = known or language_of(self.config, request)
        if language not in self.config.languages:
            language = self.config.language
        return Pages(self.config, language, _root(request), has_data=visitor is not None)

    def step(self, visitor: _Visitor) -> Step:
        """Where the participant is."""
        return step_of(visitor.visit, self.config, now())

    def writing(self) -> AnswerWriter:
        """What writes the answers."""
        assert self.writer is not None
        return self.writer


def create_study_app(
    config: StudyConfig,
    material: Material,
    store: StudyStore,
    engines: Mapping[str, Engine],
    *,
    look_seconds: float = 1.0,
    erase_seconds: float = 30.0,
) -> Starlette:
    """The application; it closes the engines at its end, and leaves the store open. The study must be registered.

    Every `look_seconds` it looks for what another program has deleted in the store, and every `erase_seconds` it tries
    again to erase what another program was reading.
    """
    study = _Study(config, material, store)

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        study.writer = AnswerWriter(store, config, engines, look_seconds=look_seconds)
        async with create_task_group() as group:
            group.start_soon(study.writer.watch)
            group.start_soon(partial(keep_erasing, store, seconds=erase_seconds))
            yield
            group.cancel_scope.cancel()
        await study.writer.close()

    def route(path: str, handler: Handler, method: str = "GET") -> Route:
        async def handle(request: Request) -> Response:
            request.scope["route"] = found  # for the access log
            return await handler(study, request)

        found = Route(path, handle, methods=[method])
        return found

    async def failed(request: Request, error: Exception) -> Response:
        return _problem(study, request, error)

    return Starlette(
        routes=[
            route("/", show),
            route("/consent", consent, "POST"),
            route("/about", about, "POST"),
            route("/vote", vote, "POST"),
            route("/undo", undo, "POST"),
            route("/begin", begin, "POST"),
            route("/retry", retry, "POST"),
            route("/finish", finish, "POST"),
            route("/state", state),
            route("/resume/{key}", resume),
            route("/data", data),
            route("/download", download),
            route("/withdraw", withdraw, "POST"),
            route("/delete", delete, "POST"),
            route("/files/{name}", show_file),
            route("/health", health),
        ],
        lifespan=life,
        middleware=[Middleware(ObservingMiddleware, counters=ServerCounters())],
        exception_handlers=dict.fromkeys((HTTPException, FspoError, Exception), failed),
    )


def _problem(study: _Study, request: Request, error: Exception) -> Response:
    """A kind page for anything that goes wrong. It quotes nothing."""
    pages = study.pages(request)
    if isinstance(error, HTTPException):
        return pages.problem(_STATUS_OF_PROBLEM.get(error.status_code, "invalid"), error.status_code)
    if isinstance(error, UnknownOwner | NotAParticipant):
        return remember(pages.problem("no_link", 404), request, study.config.name, None)
    if isinstance(error, DataError):  # the database can't hold the text
        return pages.problem("invalid", 400)
    _LOG.error("The page of the request %s could not be shown (%s).", request.state.request_id, outlined(error))
    return pages.problem("busy", 503) if isinstance(error, StorageError) else pages.problem("broken", 500)


# Pages


async def show(study: _Study, request: Request) -> Response:
    """The page on which the participant is; the consent for everybody else."""
    visitor = await study.visitor(request, continues=True)
    site = site_of(study.config, request.query_params)
    if visitor is not None and (not site or visitor.visit.participant.invitation == _invitation(study, site)):
        return redirect(_root(request) + "/") if site else await _current(study, request, visitor)
    return await _welcome(study, request, site)


async def _welcome(study: _Study, request: Request, site: Mapping[str, str]) -> Response:
    pages, recruiting = study.pages(request), study.config.recruiting
    if site:
        known = await _known(study, request, _invitation(study, site), site)
        if known is not None:
            return known
    elif recruiting is not None and recruiting.required:
        return pages.problem("site", 403)
    if await run_sync(study.store.is_full, study.config):
        return pages.full(recruited=bool(site))
    return _consent_page(study, request, language_of(study.config, request), site, ticket_of())


def _invitation(study: _Study, site: Mapping[str, str]) -> str:
    return invitation_of(study.config.name, site["participant"])


def _consent_page(
    study: _Study, request: Request, language: str, site: Mapping[str, str], ticket: str, problem: str = ""
) -> Response:
    hidden = [("ticket", ticket), ("lang", language), *((f"site_{name}", value) for name, value in site.items())]
    others = [
        (other, str(request.url.include_query_params(lang=other)))
        for other in study.config.languages
        if other != language and not problem
    ]
    return study.pages(request, language=language).consent(hidden, others, problem)


async def _current(study: _Study, request: Request, visitor: _Visitor, problem: str = "") -> Response:
    pages, step = study.pages(request, visitor), study.step(visitor)
    recruited = bool(visitor.visit.participant.site)
    if step.kind == "waiting":
        return _waiting(study, pages, visitor)
    if step.item is not None:
        await run_sync(study.store.show, visitor.owner, study.config, step.item.id)
        return pages.item(step, problem)
    if step.kind == "about":
        return pages.about()
    if step.kind == "between":
        return pages.between(step)
    if step.kind == "last":
        return pages.last(step)
    if step.kind == "finished":
        return pages.thanks(recruited=recruited)
    if step.kind == "withdrawn":
        return pages.withdrawn(recruited=recruited)
    if step.kind == "lapsed":
        return pages.lapsed(recruited=recruited)
    return pages.full(recruited=recruited) if step.kind == "closed" else pages.expired()


def _waiting(study: _Study, pages: Pages, visitor: _Visitor) -> Response:
    writer = study.writing()
    if writer.state(visitor.owner) == "failed":
        return pages.failed()
    writer.start(visitor.owner)  # also after a restart of the server
    return pages.waiting(*visitor.visit.written())


async def state(study: _Study, request: Request) -> Response:
    """How far the answers are, for the script of the waiting page."""
    visitor = await study.visitor(request)
    if visitor is None or study.step(visitor).kind != "waiting" or study.writing().state(visitor.owner) != "running":
        return JSONResponse({"go": True}, headers={"cache-control": "no-store"})
    done, count = visitor.visit.written()
    text = study.pages(request, visitor).texts.waiting_progress.format(done=done, count=count)
    return JSONResponse({"go": False, "done": done, "text": text}, headers={"cache-control": "no-store"})


async def show_file(study: _Study, request: Request) -> Response:
    """A file of the pages."""
    found = static_file(request.path_params["name"])
    if found is None:
        raise HTTPException(404)
    return found


async def health(study: _Study, request: Request) -> Response:
    """Whether the store and the engines can answer, and how much there is to do; it names no arm and no model."""
    view = await study.writing().health()
    return JSONResponse(view.model_dump(exclude={"model"}), 200 if view.status == "ok" else 503)


# Forms


async def consent(study: _Study, request: Request) -> Response:
    """Begin to take part."""
    form = await read_form(request)
    site = _sent_site(study.config, form)
    ticket = ticket_of(form)
    language = form.get("lang", "")
    language = language if language in study.config.languages else language_of(study.config, request)
    recruiting, pages = study.config.recruiting, study.pages(request, language=language)
    if recruiting is not None and recruiting.required and not site:
        return pages.problem("site", 403)
    if not site and await study.visitor(request) is not None:  # they agreed in another tab
        return redirect(_root(request) + "/")
    if form.get("agree") != "yes":
        return _consent_page(study, request, language, site, ticket, pages.texts.consent_missing)
    invitation = invitation_of(study.config.name, site["participant"] if site else f"ticket {ticket}")

    def draw(participants: Mapping[tuple[str, str], int]) -> Any:
        return draw_items(study.config, study.material, SystemRandom(), participants)

    try:
        key = await run_sync(study.store.enter, study.config, language, site, invitation, draw)
    except StudyFull:
        return pages.full(recruited=bool(site))
    except AlreadyTakesPart:
        return await _known(study, request, invitation, site) or pages.problem("busy", 503)
    return remember(redirect(_root(request) + "/"), request, study.config.name, key)


async def _known(study: _Study, request: Request, invitation: str, site: Mapping[str, str]) -> Response | None:
    """Continue for a participant who has begun; None if nobody has with this invitation.

    A ticket, and the session that a recruiting site has passed, are known to nobody else.
    """
    found = await run_sync(study.store.invited, invitation)
    if found is None:
        return None
    owner, before = found
    if before not in (dict(site), site_digest(site)):
        return study.pages(request).problem("taken", 409)
    key = await run_sync(study.store.add_key, owner)
    await run_sync(study.store.note, owner, "resumed")
    return remember(redirect(_root(request) + "/"), request, study.config.name, key.key)


def _sent_site(config: StudyConfig, form: Mapping[str, str]) -> dict[str, str]:
    """What the recruiting site has passed, as the form of the consent page sends it along."""
    if config.recruiting is None:
        return {}
    names = {name: getattr(config.recruiting, name) for name in SITE_FIELDS}
    return site_of(config, {parameter: form.get(f"site_{name}", "") for name, parameter in names.items()})


async def about(study: _Study, request: Request) -> Response:
    """Save what a participant says about themselves."""
    form = await read_form(request)
    visitor = await study.visitor(request, continues=True)
    if visitor is None:
        return study.pages(request).problem("no_consent", 403)
    if study.step(visitor).kind == "about":
        answers = _answers(study.config, form)
        if not all(map(_is_storable, answers.values())):
            pages = study.pages(request, visitor)
            return pages.about(answers, pages.texts.about_invalid)
        await run_sync(study.store.answer_about, visitor.owner, study.config, answers)
    return redirect(_root(request) + "/")


def _answers(config: StudyConfig, form: Mapping[str, str]) -> dict[str, str]:
    """What a participant says about themselves, without the questions they left out.

    Raises:
        HTTPException: a choice is none of the options.
    """
    given = {question.id: form.get(question.id, "") for question in config.about}
    answers = {one.id: given[one.id] if one.options else given[one.id].strip() for one in config.about}
    if any(question.options and answers[question.id] not in ("", *question.options) for question in config.about):
        raise HTTPException(400)
    return {name: answer for name, answer in answers.items() if answer}


def _is_storable(answer: str) -> bool:
    """Whether every database can hold an answer, and it is not too long. All writing systems are welcome."""
    return len(answer) <= LONGEST_ANSWER and not any(category(character) == "Cc" for character in answer)


async def vote(study: _Study, request: Request) -> Response:
    """Save a vote."""
    form = await read_form(request)
    visitor = await study.visitor(request, continues=True)
    if visitor is None:
        return study.pages(request).problem("no_consent", 403)
    pages, step, item = study.pages(request, visitor), study.step(visitor), form.get("item", "")
    choice = _CHOICES.get(form.get("choice", ""))
    named = next((row for row in visitor.visit.items if row.id == item), None)
    if named is None:
        return pages.problem("no_item", 404)
    if step.kind == "lapsed":
        return await _current(study, request, visitor)
    if "choice" not in form and step.item is not None and step.item.id == item:
        return await _current(study, request, visitor, pages.texts.choose_missing)
    if choice is None or (choice == "tie" and not pages.ties(named)):
        raise HTTPException(400)
    outcome = await run_sync(study.store.vote, visitor.owner, study.config, item, choice)
    if outcome in ("saved", "repeated"):
        return redirect(_root(request) + "/")
    name, status = {"unknown": ("no_item", 404), "already": ("voted", 409)}.get(outcome, ("not_next", 409))
    return pages.problem(name, status)


async def undo(study: _Study, request: Request) -> Response:
    """Take the last vote back."""
    form = await read_form(request)
    visitor = await study.visitor(request)
    if visitor is None:
        return study.pages(request).problem("no_consent", 403)
    done = await run_sync(study.store.undo, visitor.owner, study.config, form.get("item", ""))
    return redirect(_root(request) + "/") if done else study.pages(request, visitor).problem("no_undo", 409)


async def begin(study: _Study, request: Request) -> Response:
    """Begin to write the answers of the second stage."""
    return await _next(study, request, study.store.begin_answers)


async def finish(study: _Study, request: Request) -> Response:
    """End the study."""
    return await _next(study, request, study.store.finish)


async def _next(study: _Study, request: Request, change: Callable[[Owner, StudyConfig], bool]) -> Response:
    await read_form(request)
    visitor = await study.visitor(request, continues=True)
    if visitor is None:
        return study.pages(request).problem("no_consent", 403)
    await run_sync(change, visitor.owner, study.config)
    visitor = await study.visitor(request)
    if visitor is not None:
        kind = study.step(visitor).kind
        if kind == "waiting":
            study.writing().start(visitor.owner)
        elif kind == "finished":
            await study.writing().forget(visitor.owner)
    return redirect(_root(request) + "/")


async def retry(study: _Study, request: Request) -> Response:
    """Try again to write the answers."""
    await read_form(request)
    visitor = await study.visitor(request, continues=True)
    if visitor is None:
        return study.pages(request).problem("no_consent", 403)
    if study.step(visitor).kind == "waiting":
        study.writing().start(visitor.owner)
    return redirect(_root(request) + "/")


# One's own data


async def resume(study: _Study, request: Request) -> Response:
    """Open the study by a personal link."""
    key = request.path_params["key"]
    owner = await run_sync(study.store.participant, key)
    if owner is None:
        return study.pages(request).problem("no_link", 404)
    try:
        await run_sync(study.store.visit, owner, study.config.name)
    except NotAParticipant:
        return study.pages(request).problem("no_link", 404)
    await run_sync(study.store.note, owner, "resumed")
    return remember(redirect(_root(request) + "/"), request, study.config.name, key)


async def data(study: _Study, request: Request) -> Response:
    """What a participant can do with their data."""
    visitor = await study.visitor(request)
    if visitor is None:
        return study.pages(request).problem("no_consent", 403)
    return _data_page(study, request, visitor)


def _data_page(study: _Study, request: Request, visitor: _Visitor, problem: str = "") -> Response:
    link = f"{request.base_url}resume/{visitor.key}"
    withdrawn = bool(visitor.visit.participant.withdrawn)
    return study.pages(request, visitor).data(link, withdrawn=withdrawn, problem=problem)


async def download(study: _Study, request: Request) -> Response:
    """Everything that is stored of the participant."""
    visitor = await study.visitor(request)
    if visitor is None:
        return study.pages(request).problem("no_consent", 403)
    own = await run_sync(study.store.own_data, visitor.owner, study.config.name)
    headers = {"cache-control": "no-store", "content-disposition": 'attachment; filename="my-data.json"'}
    return JSONResponse(own, headers={**headers, "x-content-type-options": "nosniff"})


async def withdraw(study: _Study, request: Request) -> Response:
    """Delete the votes, and note that the participant has withdrawn."""
    visitor = await _sure(study, request)
    if isinstance(visitor, Response):
        return visitor
    try:
        erased = await run_sync(study.store.withdraw_votes, visitor.owner, study.config.name)
    finally:  # after the deletion: until then another tab may start the answers again
        await study.writing().forget(visitor.owner)
    recruited = bool(visitor.visit.participant.site)
    return study.pages(request, visitor).withdrawn(recruited=recruited, erased=erased)


async def delete(study: _Study, request: Request) -> Response:
    """Delete everything of the participant."""
    visitor = await _sure(study, request)
    if isinstance(visitor, Response):
        return visitor
    try:
        done = await run_sync(study.store.withdraw, visitor.owner)
    finally:
        await study.writing().forget(visitor.owner)
    return remember(study.pages(request).deleted(erased=done.erased), request, study.config.name, None)


async def _sure(study: _Study, request: Request) -> _Visitor | Response:
    """The participant, if the form says that they are sure."""
    form = await read_form(request)
    visitor = await study.visitor(request)
    if visitor is None:
        return study.pages(request).problem("no_consent", 403)
    if form.get("sure") != "yes":
        return _data_page(study, request, visitor, study.pages(request, visitor).texts.check_missing)
    return visitor


def _root(request: Request) -> str:
    """What the study's addresses begin with, behind a server that puts it below a path."""
    root: str = request.scope.get("root_path", "")
    return root.rstrip("/")
