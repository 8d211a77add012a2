"""The file that describes a study: arms, items, order, matching, consent, quotas, recruiting, languages.

A text for participants is one text, or a mapping of language -> text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from fspo.errors import ConfigError
from fspo.identity import digest
from fspo.llm.endpoint_config import EndpointConfig
from fspo.paths import LocalPath
from fspo.preferences.wording import is_blank
from fspo.printing import counted
from fspo.pydantic_errors import Section, first_fault
from fspo.runs.yaml_file import read_settings
from fspo.study.texts import LANGUAGES, PageTexts, built_in

__all__ = [
    "AboutQuestion",
    "AnswerSettings",
    "Arm",
    "AttentionItem",
    "Comparisons",
    "Consent",
    "Exclusions",
    "Labels",
    "Localised",
    "Matching",
    "PracticeItem",
    "Recruiting",
    "Source",
    "StudyConfig",
    "load_study",
    "said",
]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,59}")


def _name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("use up to 60 small letters, digits, '-' and '_', such as second-study")
    return text


def _text(text: str) -> str:
    if is_blank(text):
        raise ValueError("it must not be empty")
    return text


Name = Annotated[str, AfterValidator(_name)]
Text = Annotated[str, AfterValidator(_text)]
Localised = Text | dict[str, Text]


def said(text: Localised, language: str) -> str:
    """The text in a language."""
    return text if isinstance(text, str) else text[language]


class Arm(Section):
    """One way to answer: a model, with or without the participant's labels."""

    policy: str | None = Field(
        default=None, description="Folder of a policy or of a run with one policy, or name of an untrained model."
    )
    endpoint: EndpointConfig | None = Field(
        default=None, description="An OpenAI-compatible server, in place of `policy`."
    )
    personalised: bool = Field(
        default=True,
        description="False: the base model of the policy, or the endpoint's model, answers without the labels.",
    )
    layout: Literal["labelled", "conversation"] | None = Field(
        default=None, description="How a policy sees the labels; by default as in its training."
    )
    dtype: str = Field(default="float32", description="Of a policy's weights.")
    cache_salt: bool = Field(
        default=True,
        description="Send an endpoint a salt that keeps participants apart in its cache (vLLM); false for servers that "
        "refuse unknown fields.",
    )

    @model_validator(mode="after")
    def _one_model(self) -> Arm:
        if (self.policy is None) == (self.endpoint is None):
            raise ValueError("give one of policy and endpoint")
        if self.endpoint is not None and self.layout is not None:
            raise ValueError("an endpoint gets the labels as a conversation; leave layout out")
        return self


class Source(Section):
    """Where prompts come from: a domain with written responses, or a JSONL file of the same form."""

    domain: str | None = Field(
        default=None, description="Name of a domain with written responses, such as elix-written."
    )
    file: LocalPath | None = Field(
        default=None, description="JSONL with `question` and, for labels, `text`; optional `topic` and `traits`."
    )
    topics: tuple[str, ...] = Field(default=(), description="Take only prompts of these topics; by default all.")
    differ_in: tuple[str, ...] = Field(
        default=(),
        description="Labels: the two texts of a pair differ in these declared traits, one for each pair in turn.",
    )

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if (self.domain is None) == (self.file is None):
            raise ValueError("give one of domain and file")
        return self


class AttentionItem(Section):
    """An item with a correct choice."""

    prompt: Text = Field(description="The question.")
    right: Text = Field(description="The correct answer.")
    wrong: Text = Field(description="The other one.")


class PracticeItem(Section):
    """An item to try the page on; its vote is never used."""

    prompt: Text = Field(description="The question.")
    first: Text = Field(description="The answer shown first.")
    second: Text = Field(description="The other one.")


class Labels(Section):
    """Stage 1: pairs that the participant labels; they become the shots."""

    source: Source = Field(description="Where the pairs come from.")
    count: int = Field(default=9, ge=0, le=200, description="Pairs for each participant, without attention items.")
    attention: int = Field(default=0, ge=0, description="Attention items among them.")
    ties: bool = Field(default=False, description="Whether a participant may say that neither is better.")


class Comparisons(Section):
    """Stage 2: blind comparisons of two arms."""

    source: Source | None = Field(
        default=None, description="By default that of the labels; a prompt is never in both stages."
    )
    count: int = Field(
        default=11, ge=1, le=200, description="Comparisons for each participant, without attention items."
    )
    attention: int = Field(default=0, ge=0, description="Attention items among them.")
    ties: bool = Field(default=True, description="Whether a participant may say that neither is better.")
    shots: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(),
        description="Numbers of labels to answer with, spread evenly over the comparisons; by default all labels.",
    )


class Matching(Section):
    """What the two texts of an item have in common, so that it does not decide."""

    format: Literal["markdown", "paragraphs"] = Field(
        default="paragraphs", description="`paragraphs`: markup is removed from answers, and each is plain paragraphs."
    )
    length: float | None = Field(
        default=1.5,
        ge=1,
        description="The longer text has at most so many times the words of the shorter; null: no limit.",
    )
    viewpoints: bool = Field(
        default=False, description="Both texts make the same number of points (list items or paragraphs)."
    )
    candidates: int = Field(
        default=1, ge=1, le=16, description="Answers that each arm may write; the pair that is most alike is shown."
    )


class AnswerSettings(Section):
    """How both arms sample."""

    max_tokens: int = Field(default=200, ge=1, description="Longest answer.")
    temperature: float = Field(default=0.7, ge=0, description="0 takes the most probable token each time.")
    top_p: float = Field(default=0.95, gt=0, le=1, description="Share of the probability that is sampled from.")
    together: int = Field(default=4, ge=1, description="Answers that are written at once, over all participants.")
    timeout: float = Field(default=300.0, gt=0, description="Seconds until an answer counts as failed.")


class AboutQuestion(Section):
    """An optional question about the participant."""

    id: Name = Field(description="Name of the answer in the records.")
    text: Localised = Field(description="The question.")
    options: tuple[Text, ...] = Field(default=(), description="Choices; without any the answer is a line of text.")
    quotas: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict, description="Option -> most participants with this answer."
    )

    @model_validator(mode="after")
    def _known(self) -> AboutQuestion:
        unknown = [option for option in self.quotas if option not in self.options]
        if unknown:
            raise ValueError(f"there is a quota for '{unknown[0]}', which is none of the options")
        if len(set(self.options)) < len(self.options):
            raise ValueError("two options are the same")
        return self


class Consent(Section):
    """What a participant agrees to. Change the version when you change the text."""

    version: Text = Field(description="Stored with every participant.")
    text: Localised = Field(description="Markdown: who asks, what happens, what is stored, how to withdraw.")
    contact: Text = Field(description="Whom to write to, such as an e-mail address; shown on every page.")


class Recruiting(Section):
    """How a recruiting site such as Prolific passes its participants in and gets them back."""

    participant: str = Field(default="PROLIFIC_PID", description="Name of the URL parameter with the participant's id.")
    study: str = Field(default="STUDY_ID", description="Name of the URL parameter with the study's id.")
    session: str = Field(default="SESSION_ID", description="Name of the URL parameter with the session's id.")
    required: bool = Field(default=True, description="Whether people without the parameters are refused.")
    completion_url: str | None = Field(
        default=None,
        description="Where a finished participant goes; {code} stands for the code. By default only the code is shown.",
    )
    codes: dict[Literal["finished", "full", "withdrawn"], Text] = Field(
        default_factory=dict,
        description="Completion codes: `finished`; `full` where a quota or all places are taken; `withdrawn`.",
    )

    @field_validator("completion_url")
    @classmethod
    def _web(cls, address: str | None) -> str | None:
        if address is not None and (urlsplit(address).scheme != "https" or "{code}" not in address):
            raise ValueError("write an address that begins with https:// and holds {code}")
        return address

    @model_validator(mode="after")
    def _complete(self) -> Recruiting:
        if len({self.participant, self.study, self.session}) < 3:
            raise ValueError("the three URL parameters must have different names")
        if self.completion_url is not None and "finished" not in self.codes:
            raise ValueError("completion_url needs the code 'finished'")
        return self


class Exclusions(Section):
    """Whose votes the main analysis leaves out; the report shows the results of everybody beside it."""

    unfinished: bool = Field(default=True, description="People who did not vote on everything.")
    failed_attention: int | None = Field(
        default=1, ge=1, description="People who fail at least so many attention items; null: nobody."
    )
    one_side: float | None = Field(
        default=0.001,
        gt=0,
        lt=1,
        description="People who choose one side so often that a fair coin does so with this probability or less: with "
        "0.001, 11 of 11 or 19 of 22 votes; null: nobody. Sides are random, so taste has no side.",
    )
    words_per_minute: float | None = Field(
        default=1000.0,
        gt=0,
        description="People whose median vote comes sooner than both texts can be read at this speed; null: nobody. "
        "Adults read about 240 words a minute, and skim at most 700. Texts without spaces count as few words.",
    )


_PRACTICE = (
    PracticeItem(
        prompt="How do I boil an egg?",
        first="Put it into boiling water for eight minutes, then into cold water.",
        second="Boil water, lower the egg in with a spoon, wait eight minutes, and cool it, so that it peels well.",
    ),
)


class StudyConfig(Section):
    """A whole study."""

    name: Name = Field(description="Small letters, digits, `-` and `_`; a store holds one study of each name.")
    title: Localised = Field(default="Which answer do you prefer?", description="Shown on every page.")
    output: LocalPath = Field(
        default=Path(), description="Folder of the study's store and registration; by default studies/NAME."
    )
    arms: dict[Name, Arm] = Field(description="Name of an arm -> how it answers.")
    pairs: tuple[tuple[str, str], ...] = Field(
        default=(), description="Arms that are compared; by default the first arm with each other one."
    )
    assignment: Literal["within", "between"] = Field(
        default="within", description="`within`: a participant compares all pairs in turn; `between`: one pair each."
    )
    order: Literal["balanced", "random"] = Field(
        default="balanced",
        description="Which answer comes first: each arm in half of the comparisons, or a coin for each.",
    )
    participants: int = Field(default=25, ge=1, description="People who may take part.")
    labels: Labels = Field(description="The first stage.")
    comparisons: Comparisons = Field(default_factory=Comparisons, description="The second stage.")
    matching: Matching = Field(default_factory=Matching, description="What the two texts of an item have in common.")
    answers: AnswerSettings = Field(default_factory=AnswerSettings, description="How the arms sample their answers.")
    attention: tuple[AttentionItem, ...] = Field(default=(), description="Items with a correct choice, to draw from.")
    practice: tuple[PracticeItem, ...] = Field(default=_PRACTICE, description="Items before the first stage.")
    exclusions: Exclusions = Field(
        default_factory=Exclusions, description="Whose votes the main analysis of the report leaves out."
    )
    about: tuple[AboutQuestion, ...] = Field(default=(), description="Optional questions about the participant.")
    consent: Consent = Field(description="What a participant agrees to.")
    recruiting: Recruiting | None = Field(default=None, description="The site that sends participants, if any.")
    languages: dict[str, PageTexts] = Field(
        default_factory=lambda: {"en": LANGUAGES["en"]},
        description="Language -> the texts of the pages that differ from the built-in ones. The first is the default.",
    )
    expires_days: float = Field(
        default=30.0, gt=0, description="How long after consent a personal link continues the study."
    )
    place_hours: float = Field(
        default=24.0,
        gt=0,
        description="An unfinished participant keeps one of the places for so long after the last click, and later "
        "continues only if one is free.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = dict(values)
        values.setdefault("output", Path("studies") / str(values.get("name", "study")))
        arms = values.get("arms")
        if not values.get("pairs") and isinstance(arms, dict) and len(arms) > 1:
            first, *others = arms
            values["pairs"] = [[first, other] for other in others]
        return values

    @field_validator("arms")
    @classmethod
    def _several(cls, arms: dict[str, Arm]) -> dict[str, Arm]:
        if len(arms) < 2:
            raise ValueError("name at least two arms, since a study compares the answers of two")
        return arms

    @field_validator("languages", mode="before")
    @classmethod
    def _complete_texts(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not given:
            return given
        return {language: _page_texts(str(language), texts) for language, texts in given.items()}

    @field_validator("languages")
    @classmethod
    def _language_tags(cls, languages: dict[str, PageTexts]) -> dict[str, PageTexts]:
        if not languages:
            raise ValueError("name at least one language, such as {en: {}}")
        for language in languages:
            if not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*", language):
                raise ValueError(f"'{language}' is no language; write a tag such as en or pt-BR")
        return languages

    @model_validator(mode="after")
    def _hold_together(self) -> StudyConfig:
        for pair in self.pairs:
            unknown = [arm for arm in pair if arm not in self.arms]
            if unknown:
                raise ValueError(f"pairs: there is no arm '{unknown[0]}'; there are {', '.join(self.arms)}")
            if pair[0] == pair[1]:
                raise ValueError(f"pairs: the arm '{pair[0]}' is compared with itself")
        twice = [pair for pair in self.pairs if self.pairs.count(pair) > 1 or pair[::-1] in self.pairs]
        if twice:
            raise ValueError(f"pairs: the arms '{twice[0][0]}' and '{twice[0][1]}' are compared twice")
        if self.labels.attention + self.comparisons.attention > len(self.attention):
            raise ValueError(
                f"labels and comparisons ask for {self.labels.attention + self.comparisons.attention} attention items, "
                f"but 'attention' lists {len(self.attention)}; add some or ask for fewer"
            )
        if any(shots > self.labels.count for shots in self.comparisons.shots):
            raise ValueError(f"comparisons.shots: a participant labels only {self.labels.count} pairs")
        ids = [question.id for question in self.about]
        if len(set(ids)) < len(ids):
            raise ValueError("about: two questions have the same id")
        self._check_languages()
        return self

    def _check_languages(self) -> None:
        texts = {"title": self.title, "consent.text": self.consent.text}
        texts |= {f"about.{question.id}.text": question.text for question in self.about}
        for place, text in texts.items():
            missing = [] if isinstance(text, str) else [one for one in self.languages if one not in text]
            if missing:
                raise ValueError(f"{place} lacks the language '{missing[0]}'; add it, or leave the language out")

    @property
    def language(self) -> str:
        """The language of people whose own is not there."""
        return next(iter(self.languages))

    def resolved(self) -> dict[str, Any]:
        """All values, defaults included, ready for JSON."""
        return self.model_dump(mode="json")

    def design(self) -> dict[str, Any]:
        """The values that must stay as they are once the study has begun.

        The folder, addresses of servers, and limits that no participant sees may change. So may the texts that come
        with fspo, which a later version may improve: of the pages only the study's own texts are in the design.
        """
        values = self.resolved()
        values["language"] = self.language
        for language, texts in values["languages"].items():
            others = built_in(language)
            values["languages"][language] = {name: one for name, one in texts.items() if one != others.get(name)}
        del values["output"]
        for setting in ("together", "timeout"):
            del values["answers"][setting]
        for arm in values["arms"].values():
            del arm["cache_salt"]
            if arm["endpoint"] is not None:
                arm["endpoint"] = {"model": arm["endpoint"]["model"], "extra_body": arm["endpoint"]["extra_body"]}
        return values

    def fingerprint(self) -> str:
        """SHA-256 of the design."""
        return digest(self.design(), 64)


def _page_texts(language: str, given: Any) -> Any:
    if isinstance(given, PageTexts):
        return given
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"'{language}' must be a mapping of texts, such as {{}}")
    known = built_in(language)
    missing = [
        name for name, info in PageTexts.model_fields.items() if info.is_required() and name not in (given or {})
    ]
    if not known and missing:
        example = files("fspo.study").joinpath("languages", "en.yaml")
        raise ValueError(
            f"'{language}' lacks {counted(len(missing), 'texts')}, such as '{missing[0]}'; the built-in languages are "
            f"{', '.join(LANGUAGES)}, and {example} has all texts to translate"
        )
    return {**known, **(given or {})}


def load_study(path: Path, overrides: Iterable[str] = ()) -> StudyConfig:
    """Read a study's file; `key.key=value` overrides hold over it.

    Raises:
        ConfigError: one sentence says what is wrong, and in which line.
    """
    settings = read_settings(path)
    settings.override(overrides)
    try:
        return StudyConfig.model_validate(settings.values)
    except ValidationError as error:
        fault = first_fault(error, StudyConfig)
        raise ConfigError(f"{settings.where(fault.key)}: {fault.sentence}") from None
