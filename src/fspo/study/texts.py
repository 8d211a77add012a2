"""The texts of the study's pages, in the languages that come with fspo; a study may change each of them."""

from __future__ import annotations

import string
from functools import cache
from importlib.resources import files
from typing import Literal

import yaml
from pydantic import model_validator

from fspo.pydantic_errors import Section

__all__ = ["LANGUAGES", "PageTexts", "built_in"]


_GAPS = {
    "contact": {"contact"},
    "progress": {"number", "count"},
    "waiting_progress": {"done", "count"},
}
"""Text -> the names in braces that are filled in; the other texts are shown as they are."""


class PageTexts(Section):
    """Every text that a participant reads, but for the study's own."""

    direction: Literal["ltr", "rtl"] = "ltr"
    language_name: str
    """As its speakers call it."""
    skip_link: str
    contact: str
    continue_button: str
    # Consent
    consent_heading: str
    consent_check: str
    consent_missing: str
    begin_button: str
    # About the participant
    about_heading: str
    about_note: str
    about_skip: str
    about_invalid: str
    # The three stages
    practice_heading: str
    practice_note: str
    label_heading: str
    label_note: str
    compare_heading: str
    compare_note: str
    progress: str
    question: str
    first_answer: str
    second_answer: str
    choose: str
    choose_first: str
    choose_second: str
    choose_tie: str
    choose_missing: str
    keys_note: str
    undo_button: str
    undo_note: str
    # Between the stages
    between_heading: str
    between_note: str
    between_button: str
    waiting_heading: str
    waiting_note: str
    waiting_progress: str
    waiting_button: str
    failed_heading: str
    failed_note: str
    failed_button: str
    last_heading: str
    last_note: str
    last_button: str
    # The end
    thanks_heading: str
    thanks_note: str
    code_note: str
    code_link: str
    # One's own data
    data_link: str
    data_heading: str
    data_note: str
    link_heading: str
    link_note: str
    download_link: str
    withdraw_heading: str
    withdraw_note: str
    withdraw_check: str
    withdraw_button: str
    delete_heading: str
    delete_note: str
    delete_check: str
    delete_button: str
    back_link: str
    withdrawn_heading: str
    withdrawn_note: str
    deleted_heading: str
    deleted_note: str
    not_erased_note: str
    check_missing: str
    # Problems
    problem_heading: str
    to_study_link: str
    full_heading: str
    full_note: str
    lapsed_heading: str
    lapsed_note: str
    site_heading: str
    site_note: str
    taken_heading: str
    taken_note: str
    expired_heading: str
    expired_note: str
    no_link_heading: str
    no_link_note: str
    no_consent_heading: str
    no_consent_note: str
    no_item_heading: str
    no_item_note: str
    voted_heading: str
    voted_note: str
    not_next_heading: str
    not_next_note: str
    no_undo_heading: str
    no_undo_note: str
    invalid_heading: str
    invalid_note: str
    no_page_heading: str
    no_page_note: str
    busy_heading: str
    busy_note: str
    broken_heading: str
    broken_note: str

    @model_validator(mode="after")
    def _fillable(self) -> PageTexts:
        for name, allowed in _GAPS.items():
            try:
                parts = string.Formatter().parse(getattr(self, name))
                gaps = {gap for _, gap, _, _ in parts if gap is not None}
            except ValueError:
                raise ValueError(f"'{name}' has a single brace; write it as {{{{ or }}}}") from None
            if gaps - allowed:
                known = " and ".join(f"{{{gap}}}" for gap in sorted(allowed))
                raise ValueError(f"'{name}' has {{{min(gaps - allowed)}}}, but only {known} can be filled in there")
        return self


@cache
def _texts() -> dict[str, PageTexts]:
    folder = files("fspo.study").joinpath("languages")
    found = sorted((file for file in folder.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    return {
        file.name.removesuffix(".yaml"): PageTexts.model_validate(yaml.safe_load(file.read_text("utf-8")))
        for file in found
    }


LANGUAGES = _texts()
"""Language -> its texts."""


def built_in(language: str) -> dict[str, str]:
    """The texts that come with fspo for a language tag, by name; empty for a language without any."""
    known = LANGUAGES.get(language.partition("-")[0])
    return known.model_dump() if known else {}
