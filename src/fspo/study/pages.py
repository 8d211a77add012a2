"""The pages of a study as HTML. Nothing in them tells the arms apart: both texts go through the same template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import RedirectResponse, Response

from fspo.serving.page_headers import page_headers
from fspo.serving.schema import StudyItemRow
from fspo.study.config import StudyConfig, said
from fspo.study.flow import Step
from fspo.study.rendering import as_html, as_paragraphs
from fspo.study.texts import PageTexts

__all__ = ["LONGEST_ANSWER", "Pages", "redirect", "static_file"]

LONGEST_ANSWER = 200
"""Characters of an answer about the participant."""
_HEADERS = {**page_headers(forms=True), "cache-control": "no-store"}
_FILES = {
    "page.css": ("fspo.serving", "text/css"),
    "icon.svg": ("fspo.serving", "image/svg+xml"),
    "study.css": ("fspo.study", "text/css"),
    "study.js": ("fspo.study", "text/javascript"),
}


def redirect(address: str) -> Response:
    """Where a form leads: to a page that may be loaded again without sending the form again."""
    return RedirectResponse(address, 303, headers=_HEADERS)


def static_file(name: str) -> Response | None:
    """A file that the pages need; None if they need no such file."""
    if name not in _FILES:
        return None
    package, kind = _FILES[name]
    content = files(package).joinpath("page_files", name).read_bytes()
    return Response(content, media_type=kind, headers={**_HEADERS, "cache-control": "no-cache"})


class Pages:
    """The pages in one language."""

    def __init__(self, config: StudyConfig, language: str, root: str, *, has_data: bool) -> None:
        """All addresses begin with `root`; `has_data`: the visitor is a participant, whose data the server has."""
        self._config, self._language, self._root, self._has_data = config, language, root, has_data

    @property
    def texts(self) -> PageTexts:
        """The texts of the pages."""
        return self._config.languages[self._language]

    def consent(
        self, hidden: Sequence[tuple[str, str]], others: Sequence[tuple[str, str]], problem: str = ""
    ) -> Response:
        """The first page.

        The form sends the hidden names and values along; the others are further languages, with the address of the page
        in each.
        """
        text = as_html(said(self._config.consent.text, self._language), links=True)
        heading, status = self.texts.consent_heading, 400 if problem else 200
        names = {language: texts.language_name for language, texts in self._config.languages.items()}
        return self._page(
            "consent", heading, status, problem=problem, consent=text, hidden=hidden, others=others, names=names
        )

    def about(self, given: Mapping[str, str] | None = None, problem: str = "") -> Response:
        """The questions about the participant, with the answers that were given before by id of the question."""
        questions = [
            {"id": one.id, "text": said(one.text, self._language), "options": one.options} for one in self._config.about
        ]
        values: dict[str, Any] = {"questions": questions, "longest": LONGEST_ANSWER, "given": given or {}}
        return self._page("about", self.texts.about_heading, 400 if problem else 200, problem=problem, **values)

    def item(self, step: Step, problem: str = "") -> Response:
        """An item to vote on."""
        item = step.item
        assert item is not None
        heading, note = {
            "practice": (self.texts.practice_heading, self.texts.practice_note),
            "label": (self.texts.label_heading, self.texts.label_note),
            "compare": (self.texts.compare_heading, self.texts.compare_note),
        }[item.stage]
        return self._page(
            "item",
            heading,
            400 if problem else 200,
            problem=problem,
            note=note,
            number=step.number,
            count=step.count,
            item=item.id,
            prompt=item.prompt,
            first=self._text(item, item.first),
            second=self._text(item, item.second),
            ties=self.ties(item),
            undo=step.undo.id if step.undo else "",
        )

    def ties(self, item: StudyItemRow) -> bool:
        """Whether the participant may say that neither answer is better."""
        return self._config.labels.ties if item.stage == "label" else self._config.comparisons.ties

    def _text(self, item: StudyItemRow, text: str) -> Markup:
        """A text of an item: what `as_shown` has made plain is no Markdown, although it may look like a list."""
        own = item.stage == "practice" or item.correct
        return as_html(text) if own or self._config.matching.format == "markdown" else as_paragraphs(text)

    def waiting(self, done: int, count: int) -> Response:
        """While the answers are being written."""
        return self._page("waiting", self.texts.waiting_heading, done=done, count=count)

    def between(self, step: Step) -> Response:
        """After the labels."""
        t = self.texts
        undo = step.undo.id if step.undo else ""
        return self.message(t.between_heading, [t.between_note], action="begin", button=t.between_button, undo=undo)

    def failed(self) -> Response:
        """The answers could not be written."""
        t = self.texts
        return self.message(t.failed_heading, [t.failed_note], action="retry", button=t.failed_button)

    def last(self, step: Step) -> Response:
        """After the last comparison."""
        t = self.texts
        undo = step.undo.id if step.undo else ""
        return self.message(t.last_heading, [t.last_note], action="finish", button=t.last_button, undo=undo)

    def thanks(self, *, recruited: bool) -> Response:
        """The end of the study."""
        return self._end(self.texts.thanks_heading, [self.texts.thanks_note], "finished", recruited=recruited)

    def withdrawn(self, *, recruited: bool, erased: bool = True) -> Response:
        """After a withdrawal."""
        t = self.texts
        notes = [t.withdrawn_note] + ([] if erased else [t.not_erased_note])
        return self._end(t.withdrawn_heading, notes, "withdrawn", recruited=recruited)

    def full(self, *, recruited: bool) -> Response:
        """A quota is full, or all places are taken."""
        return self._end(self.texts.full_heading, [self.texts.full_note], "full", recruited=recruited, status=403)

    def lapsed(self, *, recruited: bool) -> Response:
        """The participant was away for a long time, and others have taken all places."""
        return self._end(self.texts.lapsed_heading, [self.texts.lapsed_note], "full", recruited=recruited, status=403)

    def expired(self) -> Response:
        """The time to answer is over."""
        return self.message(self.texts.expired_heading, [self.texts.expired_note], status=410)

    def deleted(self, *, erased: bool) -> Response:
        """Everything of the participant is deleted."""
        t = self.texts
        return self.message(t.deleted_heading, [t.deleted_note if erased else t.not_erased_note])

    def data(self, personal_link: str, *, withdrawn: bool, problem: str = "") -> Response:
        """The participant's own data."""
        status = 400 if problem else 200
        values: dict[str, Any] = {"personal_link": personal_link, "withdrawn": withdrawn}
        return self._page("data", self.texts.data_heading, status, problem=problem, **values)

    def problem(self, name: str, status: int) -> Response:
        """One of the problems in the texts, such as `voted`: what happened, and what to do."""
        texts = self.texts.model_dump()
        link = self.texts.to_study_link
        return self.message(texts[f"{name}_heading"], [texts[f"{name}_note"]], status=status, link=link)

    def message(
        self,
        heading: str,
        notes: Sequence[str],
        *,
        status: int = 200,
        action: str = "",
        button: str = "",
        undo: str = "",
        link: str = "",
        code: str = "",
        leave: str = "",
    ) -> Response:
        """A page of a few sentences, with a button or a link at most."""
        values: dict[str, Any] = {"notes": notes, "action": action, "button": button, "undo": undo, "link": link}
        return self._page("message", heading, status, code=code, leave=leave, **values)

    def _end(self, heading: str, notes: Sequence[str], kind: str, *, recruited: bool, status: int = 200) -> Response:
        site = self._config.recruiting
        codes: Mapping[Any, str] = site.codes if site is not None and recruited else {}
        code = codes.get(kind, "")
        address = site.completion_url.replace("{code}", code) if site and site.completion_url and code else ""
        return self.message(heading, notes, status=status, code=code, leave=address)

    def _page(self, name: str, heading: str, status: int = 200, *, problem: str = "", **values: Any) -> Response:
        html = _ENVIRONMENT.get_template(f"{name}.html.j2").render(
            t=self.texts,
            language=self._language,
            root=self._root,
            title=said(self._config.title, self._language),
            contact=self._config.consent.contact,
            has_data=self._has_data,
            heading=heading,
            problem=problem,
            **values,
        )
        return Response(html, status, media_type="text/html", headers=_HEADERS)


_ENVIRONMENT = Environment(
    loader=PackageLoader("fspo.study", "page_files"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)
