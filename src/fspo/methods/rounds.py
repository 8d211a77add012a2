"""Rounds: a policy writes answers, a method makes preferences of them, and training on these gives the next policy.

Round r starts from the policy of round r - 1, which is its reference too; round 1 starts from the start of the whole
training. Everything is on disk: `rounds/R/` holds the answers that round R was trained on and its policy, and
`rounds.jsonl` what was measured after each round. The same call again continues in the middle of any of them, to the
same result. The policy of the last round goes to the folder itself, as one training from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fspo.errors import TrainingError
from fspo.files import read_json, read_jsonl, to_json, write_text
from fspo.methods.method import Job
from fspo.methods.one_round import Pairs, Round
from fspo.methods.round_figures import FIGURES_FILE, Measurement, RoundFigures
from fspo.methods.round_setup import ROUNDS_FOLDER, RoundSetup
from fspo.modeling.policies import is_policy, join_policies
from fspo.paths import expanded
from fspo.records import KeyedLog
from fspo.training.processes import joined
from fspo.training.train import train_policy
from fspo.training.trainer import METRICS_FILE
from fspo.training.training_folder import TRAINING_FILE, check_record, move_policy, save_record

__all__ = ["play"]


def play(job: Job, make: Callable[[Round], Pairs]) -> Path:
    """Train in rounds; `make` gives the pairs that a round is trained on, and none if there is nothing to learn.

    Returns `job.out`, with the policy of the last round.

    Raises:
        ConfigError: `job.out` holds another training.
        DataError: a user has too few preferences.
        TrainingError: the first round has nothing to learn.
    """
    job = replace(job, out=expanded(job.out), model=expanded(job.model))
    setup = RoundSetup(job)
    done = (job.out / TRAINING_FILE).exists() and check_record(job.out, setup.identity, job.config)
    if done and is_policy(job.out):
        return job.out
    if joined().is_main_process:
        save_record(job.out, setup.identity, finished=False)
    for line in setup.read.said("the training part"):
        job.progress.say(line)
    measurement = Measurement(setup, KeyedLog(job.out / FIGURES_FILE, RoundFigures))
    policies: list[Path] = []
    for number in range(1, setup.config.rounds + 1):
        one = Round(number, (job.model, *policies), job.out / ROUNDS_FOLDER / str(number), job, setup)
        pairs = make(one)
        if not pairs.count:
            _nothing_left(one, pairs)
            break
        if number == 1:  # after the data have turned out to be enough
            measurement.measure(0, job.model, Pairs(()))
        policies.append(_train(one, pairs))
        measurement.measure(number, policies[-1], pairs)
    _publish(setup, policies, measurement.log)
    return job.out


def _nothing_left(one: Round, pairs: Pairs) -> None:
    """Say that a round has nothing to learn.

    Raises:
        TrainingError: it is the first one.
    """
    name = one.job.method.name
    why = f"{pairs.same} pairs have two equal responses and {pairs.empty} an empty one"
    if one.number == 1:
        raise TrainingError(
            f"'{name}' has nothing to learn from the answers of {one.policy}: {why}; leave the method out, or raise "
            f"training.{name}.temperature or episodes."
        )
    one.job.progress.say(f"{name} ends after round {one.number - 1}, since nothing is left to learn: {why}.")


def _train(one: Round, pairs: Pairs) -> Path:
    """The policy of a round."""
    job = one.job
    return train_policy(
        one.config.of_round(len(pairs.episodes), seed=one.seed("training")),
        one.dataset,
        model=one.policy,
        out=one.folder,
        context=job.method.context,
        progress=job.progress,
        validation=job.validation,
        method=job.method.name,
        callbacks=job.callbacks,
        episodes=pairs.episodes,
    )


def _publish(setup: RoundSetup, policies: Sequence[Path], log: KeyedLog[RoundFigures]) -> None:
    """Write the last policy and the metrics of all rounds beside `training.json`, which comes last."""
    job = setup.job
    if joined().is_main_process:
        staged = join_policies(policies, job.out / ".policy", start=setup.start.policy, home=job.out)
        move_policy(staged, job.out)
        rows = _metrics(policies, log)
        write_text(job.out / METRICS_FILE, "".join(f"{to_json(row)}\n" for row in rows))
        left_out = {"left_out": len(setup.read.left_out)} if setup.read.left_out else {}
        save_record(job.out, setup.identity, finished=True, **left_out)
    joined().wait_for_everyone()


def _metrics(policies: Sequence[Path], log: KeyedLog[RoundFigures]) -> Iterator[dict[str, Any]]:
    """The metrics of all rounds as of one training, and the figures of each round at its last step."""
    done = 0
    for number, folder in enumerate([None, *policies]):
        for row in [] if folder is None else read_jsonl(folder / METRICS_FILE):
            yield {**row, "step": done + row["step"], "round": number}
        done += 0 if folder is None else int(read_json(folder / TRAINING_FILE)["identity"]["config"]["steps"])
        found = {name: value for name, value in vars(log[str(number)]).items() if value is not None}
        yield {"step": done, **found}
