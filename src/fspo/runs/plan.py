"""What a verb would do, without doing any of it: `--dry-run`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import yaml

from fspo.llm.budget import Budget
from fspo.modeling.model_names import place_here
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.splits import Splits
from fspo.runs import processes
from fspo.runs.checks import warn_of_keys
from fspo.runs.config import RunConfig
from fspo.runs.data_judges import judge_of_data
from fspo.runs.existing import Existing
from fspo.runs.folder import DATA, EVALUATION, RunFolder, method_part
from fspo.runs.pipeline import has_data
from fspo.runs.preflight import check_inputs, data_at_hand, synthesizes
from fspo.runs.threads import slow_precision, use_free_threads
from fspo.runs.training_data import merged, training_parts
from fspo.runs.training_plan import is_trained, measure, planned_trainings, remaining, table
from fspo.runs.writers import judges_by_language_model, template_lines, writer_lines
from fspo.synthesis.domain import load_domain
from fspo.synthesis.estimate import RequestEstimate, Stage, estimate

__all__ = ["plan", "requests_table"]

_Data = tuple[PreferenceDataset, Splits] | None
"""The data that a verb begins with; None where they are still to be made."""

_OF_DATA = ("name", "seed", "output", "model", "data", "endpoint", "ensemble", "synthesis", "executor")
"""The settings that the run's dataset depends on, and no others."""


def plan(folder: RunFolder, parts: Sequence[str], policy: Existing) -> Iterator[str]:
    """Check the folder and the inputs without a side effect, then yield what would be done, in paragraphs.

    The first one is what would be made; those on time follow measurements of some seconds, which may fail. The last
    one holds the settings that differ from the defaults.

    Raises:
        FspoError: as `RunFolder.check` and `check_inputs`; or the model can't be loaded or trained.
    """
    config = folder.config
    folder.check(parts, policy)
    yield from (_parts(folder, parts, policy), *check_inputs(folder, parts, policy, dry=True))
    if synthesizes(folder, parts, policy):
        yield "\n".join([requests_table(config), *writer_lines(config)])
        yield from (*template_lines(config), *warn_of_keys(config))
    found = data_at_hand(folder, parts, policy)
    yield from _trainings(folder, parts, found, again=policy is Existing.OVERWRITE)
    yield from _evaluation(folder, parts, found, again=policy is Existing.OVERWRITE)
    goes_on = any(part != DATA for part in parts)  # to training or evaluation
    if goes_on and (note := slow_precision(config)):
        yield note
    settings = {name: value for name, value in config.changed().items() if goes_on or name in _OF_DATA}
    shown = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120)
    yield f"Settings that differ from the defaults (`fspo env --config FILE` prints all):\n\n{shown}"


def _parts(folder: RunFolder, parts: Sequence[str], policy: Existing) -> str:
    """What would be made, and what would be removed for that."""
    lines = [f"  {part}: {_state(folder, part, policy)}" for part in parts]
    others = folder.made_from(parts) if policy is Existing.OVERWRITE else []
    lines += [f"  {name}: removed, since it was made from these" for name in others]
    return "\n".join([f"Would make in {folder.path}:", *lines])


def _state(folder: RunFolder, part: str, policy: Existing) -> str:
    if not folder.begun(part):
        return "to do"
    if policy is Existing.OVERWRITE:
        return "regenerated"
    if part == EVALUATION:
        return "continued; what is measured already is kept"
    finished = has_data(folder) if part == DATA else is_trained(folder.path / part)
    return "finished, so it is kept" if finished else "continued"


def _evaluation(folder: RunFolder, parts: Sequence[str], found: _Data, *, again: bool) -> Iterator[str]:
    """What is left of the evaluation, and what that costs, where data and model are there."""
    config = folder.config
    if EVALUATION not in parts or found is None or place_here(config.model) is None:
        return
    from fspo.modeling.quiet import quiet
    from fspo.runs.evaluation_plan import planned_evaluation, sentence

    dataset, splits = found
    test = splits.part(dataset, "test")
    texts = (text for row in dataset for text in (row.chosen, row.rejected))
    judge, _ = judge_of_data((config.data or folder.data) / "judge.json", texts, test.users.values(), None)
    judged = judge is not None or judges_by_language_model(config) or bool(config.evaluation.judges)
    quiet()
    use_free_threads(config)
    planned = planned_evaluation(config, test, judged=judged, out=None if again else folder.evaluation)
    if planned is not None:
        yield sentence(planned)


def _trainings(folder: RunFolder, parts: Sequence[str], found: _Data, *, again: bool) -> Iterator[str]:
    """The table of the trainings, with their tokens and time where data and model are there."""
    trained = [name for name in folder.config.training if method_part(name) in parts]
    if not trained:
        return
    model = place_here(folder.config.model)
    train = None if found is None else merged(training_parts(folder, *found))
    trainings = planned_trainings(folder, trained, train, model, again=again)
    seconds, why = measure(folder, trainings) if processes.count() == 1 else (None, "")
    lines = table(trainings, seconds)
    if seconds is not None:
        lines.append(remaining(trainings, seconds))
    elif why:
        lines.append(why)
    elif train is None or model is None:
        missing = "data" if train is None else "model"
        lines.append(f"The {missing} will tell the tokens; the first steps of the training tell the time.")
    yield "\n".join(lines)


def requests_table(config: RunConfig) -> str:
    """Requests and tokens of each stage, dollars where prices are known, and budgets that aren't enough for that.

    Raises:
        ConfigError: more users are asked for than the domain has.
        DataError: the domain is wrong.
    """
    found = estimate(config.synthesis, load_domain(config.synthesis.domain))
    rows = [("stage", "requests", "tokens of prompts", "of answers")]
    rows += [
        (row.name, f"{row.requests:,}", f"{row.prompt_tokens:,}", f"{row.answer_tokens:,}")
        for row in (*found.stages, found.total, *([*found.again, found.most] if found.again else []))
    ]
    first, *others = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [
        f"  {name:<{first}}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, others, strict=True))
        for name, *cells in rows
    ]
    head = f"Would make up to {found.preferences:,} preferences of {found.users:,} users"
    if not found.stages:
        return f"{head}, and ask no language model."
    head += "; asks, roughly:"
    return "\n".join([head, *lines, *_costs(config, found)])


def _costs(config: RunConfig, found: RequestEstimate) -> Iterator[str]:
    """What each endpoint comes to by its prices, and whether its budget is enough."""
    for budget, where, total, most in _accounts(config, found):
        least, highest = budget.cost(*total), budget.cost(*most)
        if least:
            more = f", at most {highest:,.2f}" if found.again else ""
            yield f"  At the prices of {where} that is {least:,.2f} dollars{more}."
        for name, limit, needed, bound in (
            ("tokens", budget.tokens, sum(total), sum(most)),
            ("dollars", budget.dollars, least, highest),
        ):
            if limit is not None and bound > limit:
                enough = "may not be enough" if needed <= limit else "is not enough"
                yield (
                    f"  Warning: {where}.{name} is {limit:,}, which {enough} for that: the run stops before it is "
                    "passed, and goes on when you raise it."
                )


_Tokens = tuple[float, float]
"""Of prompts, and of answers."""


def _accounts(config: RunConfig, found: RequestEstimate) -> Iterator[tuple[Budget, str, _Tokens, _Tokens]]:
    """Each budget, where it is set, and the tokens asked of its server, without and with what may come again."""
    weights = sum(member.weight for member in config.ensemble)
    shares: dict[tuple[str, str], float] = defaultdict(float)
    budgets: dict[tuple[str, str], dict[str, tuple[Budget, str]]] = defaultdict(dict)
    members = [
        (member.endpoint, f"ensemble[{place}].endpoint.budget", member.weight / weights)
        for place, member in enumerate(config.ensemble)
    ]
    asked = (config.endpoint, "endpoint.budget", 0.0 if config.ensemble else 1.0)
    for endpoint, where, share in (asked, *members):
        if endpoint is not None:  # all endpoints of a server have one account
            shares[endpoint.server] += share
            budgets[endpoint.server].setdefault(endpoint.budget.model_dump_json(), (endpoint.budget, where))
    for server, share in shares.items():
        all_else = config.endpoint is not None and config.endpoint.server == server
        total, most = (_tokens(row, found.responses, share, all_else) for row in (found.total, found.most))
        for budget, where in budgets[server].values():
            yield budget, where, total, most


def _tokens(row: Stage, responses: Stage, share: float, asked: bool) -> _Tokens:
    """Of an endpoint that writes a share of the responses and, where it is the one that is asked, gives all else."""
    others = (row.prompt_tokens - responses.prompt_tokens, row.answer_tokens - responses.answer_tokens)
    prompts, answers = others if asked else (0, 0)
    return prompts + share * responses.prompt_tokens, answers + share * responses.answer_tokens
