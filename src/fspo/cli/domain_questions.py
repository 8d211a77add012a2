"""The questions of a domain with written responses, and its users as the plausible ones."""

from __future__ import annotations

import random
from collections import defaultdict
from itertools import combinations
from typing import TYPE_CHECKING

from fspo.errors import ConfigError

if TYPE_CHECKING:
    from fspo.serving.question_bank import QuestionBank

__all__ = ["questions_of_domain"]

_PAIRS = 8
"""Pairs of responses to one prompt, at most."""


def questions_of_domain(name: str) -> QuestionBank:
    """Pairs of the domain's responses to each of its prompts.

    Raises:
        ConfigError: its responses do not declare traits, or it lists its users one by one.
        DataError: there is no such domain.
    """
    from fspo.judging.declared import DeclaredJudge
    from fspo.preferences.response_pair import ResponsePair
    from fspo.serving.question_bank import QuestionBank
    from fspo.serving.questions import declared_chances
    from fspo.synthesis.config import SynthesisConfig
    from fspo.synthesis.domain import load_domain
    from fspo.synthesis.user_slots import make_user, slots_of
    from fspo.synthesis.written import values_of

    domain = load_domain(name)
    if not domain.written:
        raise ConfigError(
            f"The domain '{name}' has no written responses to ask about; name one that has, such as elix-written."
        )
    config = SynthesisConfig(domain=name)
    users = [make_user(config, domain, slot) for slot in slots_of(config, domain)]
    judge = DeclaredJudge(values_of(domain.traits), {row.text: row.traits for row in domain.written})
    texts: dict[str, list[str]] = defaultdict(list)
    for row in domain.written:
        texts[row.question].append(row.text)
    rng = random.Random(f"{name}/questions")
    questions: list[ResponsePair] = []
    for prompt, responses in texts.items():
        pairs = list(combinations(responses, 2))
        for pair in rng.sample(pairs, min(_PAIRS, len(pairs))):
            questions.append(ResponsePair(prompt, *rng.sample(pair, 2)))
    return QuestionBank(questions, declared_chances(users, judge, questions))
