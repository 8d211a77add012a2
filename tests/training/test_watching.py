"""Trackers, callbacks and one's own metrics: what watches a training, and where its logs are."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, TrainerCallback
from typer.testing import CliRunner

from fspo import FSPOConfig, FSPOTrainer, LoraSettings, Policy
from fspo.cli.main import app
from fspo.errors import ConfigError
from fspo.files import read_json, read_jsonl
from fspo.progress import PlainProgress
from fspo.training import api, losses, resumable_training
from fspo.training.config import TrainingConfig
from fspo.training.resumable_training import Training
from fspo.training.training_folder import TRAINING_FILE
from tests.training.helpers import small_dataset
from tests.training.test_api import others
from tests.training.test_train import figures, interrupted_after, same, weights

DOCUMENT = Path(__file__).parents[2] / "docs" / "training.md"


def watched(model: Path, out: Path, said: io.StringIO | None = None, **more: Any) -> FSPOTrainer:
    own = {name: more.pop(name) for name in ("callbacks", "compute_metrics", "eval_dataset") if name in more}
    settings = {"shots": 2, "queries": 2, "users_per_step": 1, "max_steps": 4, "warmup": 0, "learning_rate": 0.01}
    return FSPOTrainer(
        str(model),
        args=FSPOConfig(output_dir=out, **{**settings, **more}),
        train_dataset=small_dataset(),
        peft_config=LoraSettings(r=4),
        progress=PlainProgress(said or io.StringIO(), every=0),
        **own,
    )


@pytest.fixture(scope="module")
def plain(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "policy"
    watched(tiny_model_path, out).train()
    return out


def test_tensorboard_gets_every_metric_of_every_step(
    tiny_model_path: Path, tmp_path: Path, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    measured: dict[str, Any] = {"evaluate_every": 2, "evaluate_episodes": 2, "eval_dataset": others()}
    made = watched(tiny_model_path, tmp_path / "out", report_to="tensorboard", **measured)
    made.train()
    [events] = (tmp_path / "out" / "logs").iterdir()
    log = EventAccumulator(str(events))  # type: ignore[no-untyped-call]
    log.Reload()  # type: ignore[no-untyped-call]
    records = read_jsonl(tmp_path / "out" / "metrics.jsonl")
    losses = {event.step: event.value for event in log.Scalars("train/loss")}  # type: ignore[no-untyped-call]
    assert losses == pytest.approx({record["step"]: record["loss"] for record in records}, rel=1e-5)
    assert [event.step for event in log.Scalars("eval/margin_accuracy")] == [2, 4]  # type: ignore[no-untyped-call]
    assert not (tmp_path / "out" / "checkpoints").exists()
    assert same(weights(tmp_path / "out"), weights(plain))
    assert capsys.readouterr().out == ""  # progress has one style: the lines of `progress`


@pytest.mark.parametrize("names", ["none", ["none"], []])
def test_no_tracker_is_the_default(names: Any) -> None:
    assert TrainingConfig(report_to=names).trackers == TrainingConfig().trackers == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("tensorbord", "there is no tracker 'tensorbord'; did you mean 'tensorboard'"),
        (["tensorboard", "zebra"], "there is no tracker 'zebra'; the known ones are .*wandb"),
        ("neptune", "neptune is not installed; run `pip install neptune`"),
    ],
)
def test_a_tracker_that_is_not_there_is_missed_before_anything_is_written(
    tiny_model_path: Path, tmp_path: Path, names: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        watched(tiny_model_path, tmp_path / "out", report_to=names)
    assert not (tmp_path / "out").exists()


def test_wandb_keeps_its_files_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_DIR", raising=False)
    seen: list[str | None] = []
    monkeypatch.setattr(resumable_training, "check_trackers", lambda config: None)
    training: Any = Training.__new__(Training)
    object.__setattr__(training, "config", TrainingConfig(report_to=["wandb"]))
    object.__setattr__(training, "out", tmp_path / "out")
    with training._logs():
        seen.append(os.environ.get("WANDB_DIR"))
        assert (tmp_path / "out" / "logs").is_dir()
    assert [*seen, os.environ.get("WANDB_DIR")] == [str(tmp_path / "out" / "logs"), None]
    monkeypatch.setenv("WANDB_DIR", "/mine")
    with training._logs():
        assert os.environ["WANDB_DIR"] == "/mine"


class Watch(TrainerCallback):
    def __init__(self) -> None:
        self.events: list[Any] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.events.append(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.events.append(sorted({"loss", "margin", "tokens"} & logs.keys()))
        if state.global_step == 3:
            control.should_training_stop = True


def test_callbacks_see_every_step_and_can_end_the_training(tiny_model_path: Path, tmp_path: Path) -> None:
    watch = Watch()
    made = watched(tiny_model_path, tmp_path / "out", callbacks=[watch])
    made.train()
    assert watch.events == [event for step in (1, 2, 3) for event in (step, ["loss", "margin", "tokens"])]
    assert [record["step"] for record in figures(tmp_path / "out")] == [1, 2, 3]
    assert read_json(tmp_path / "out" / TRAINING_FILE)["finished"] is True
    assert any(made.reward("u1", "And?", ["Yes!", "No."]))


@pytest.mark.parametrize("callbacks", [Watch(), [print], [str], 3])
def test_what_is_no_callback_is_refused(tiny_model_path: Path, tmp_path: Path, callbacks: Any) -> None:
    with pytest.raises(ConfigError, match="must be a list of transformers' TrainerCallback"):
        watched(tiny_model_path, tmp_path / "out", callbacks=callbacks)


@pytest.mark.parametrize(
    ("settings", "warned"),
    [
        ({"target": 6.0, "bias_weight": 0.3}, True),
        ({"target": 100.0}, False),
        ({"contrast": "logistic"}, False),
    ],
)
def test_a_target_below_the_effect_before_training_is_told_once(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], warned: bool
) -> None:
    of_pass = losses.figures
    monkeypatch.setattr("fspo.training.trainer.figures", lambda *given: {**of_pass(*given), "effect": 70.0})
    said = io.StringIO()
    contrast = {"objective": "mirrored-contrast", "save_every": 2, **settings}
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted_after(patch, 2)
        watched(tiny_model_path, tmp_path / "out", said, **contrast).train()
    watched(tiny_model_path, tmp_path / "out", said, **contrast).train()
    assert [record["step"] for record in figures(tmp_path / "out")] == [1, 2, 3, 4]
    assert said.getvalue().count("The labels' effect is 70 nats in step 1, above the target of 6:") == warned
    assert said.getvalue().count("Set target above") == warned


def test_own_metrics_join_every_evaluation_and_change_nothing(
    tiny_model_path: Path, tmp_path: Path, plain: Path
) -> None:
    rewards: list[list[float]] = []

    def compute(policy: Policy) -> dict[str, float]:
        rewards.append(policy.reward(small_dataset().person("u1"), "And?", ["Yes!", "No."]))
        policy.generate(None, "And?", max_new_tokens=3, temperature=1.0)
        return {"lead": rewards[-1][0] - rewards[-1][1]}

    made = watched(tiny_model_path, tmp_path / "out", evaluate_every=2, compute_metrics=compute)
    made.train()
    own = {record["step"]: record["eval_lead"] for record in figures(tmp_path / "out") if "eval_lead" in record}
    assert own == {2: rewards[0][0] - rewards[0][1], 4: rewards[1][0] - rewards[1][1]}
    assert rewards[0] != rewards[1]
    assert same(weights(tmp_path / "out"), weights(plain))
    assert made.evaluate() == {"eval_lead": pytest.approx(own[4], abs=1e-5)}


def test_own_metrics_leave_a_model_in_memory_with_the_attention_of_training(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_path, attn_implementation="eager")
    seen: list[str] = []

    class Attention(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            seen.append(model.config._attn_implementation)

    made = watched(tiny_model_path, tmp_path / "named")
    held = api.FSPOTrainer(
        model,
        args=made.args.model_copy(update={"output_dir": tmp_path / "memory", "evaluate_every": 1}),
        train_dataset=small_dataset(),
        peft_config=LoraSettings(r=4),
        progress=PlainProgress(io.StringIO()),
        callbacks=[Attention],
        compute_metrics=lambda policy: {"reward": policy.reward(None, "And?", ["Yes!"])[0]},
    )
    held.train()
    assert len(set(seen)) == 1 and seen[0] != "eager"
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (3, "must return names and numbers"),
        ({"words": "many"}, "must return names and numbers"),
        ({"margin_accuracy": 1.0}, "'margin_accuracy', which is a metric of fspo"),
    ],
)
def test_own_metrics_are_new_names_and_numbers(tiny_model_path: Path, tmp_path: Path, found: Any, message: str) -> None:
    settings: dict[str, Any] = {"eval_dataset": others(), "evaluate_episodes": 1}
    made = watched(tiny_model_path, tmp_path / "out", compute_metrics=lambda policy: found, **settings)
    with pytest.raises(ConfigError, match=message):
        made.evaluate()


def test_overwriting_a_run_removes_the_logs_of_trackers(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = small_dataset(users=6, questions=12)
    data.save(tmp_path / "data")
    (tmp_path / "my.yaml").write_text(
        f"name: mine\ndata: {tmp_path / 'data'}\nmodel: {tiny_model_path}\noutput: {tmp_path / 'run'}\nthreads: 1\n"
        "methods: [base, ipo]\nevaluation: {shots: 1, queries: 1}\n"
        "training: {all: {shots: 2, queries: 1, steps: 1, users_per_step: 1, lora: {r: 4}, report_to: tensorboard}}\n"
    )
    for command in (["synth"], ["train"], ["train", "--on-existing", "overwrite"]):
        done = CliRunner().invoke(app, [*command, str(tmp_path / "my.yaml")])
        assert done.exit_code == 0, done.output
        logs = tmp_path / "run" / "methods" / "ipo" / "logs"
        if command == ["train"]:
            [first] = logs.iterdir()
            (logs / "wandb" / "run-1" / "files").mkdir(parents=True)
            (logs / "wandb" / "run-1" / "files" / "output.log").write_text("hello")
            (logs / "wandb" / "latest-run").symlink_to(logs / "wandb" / "run-1")
    assert [path.name for path in logs.iterdir()] != [first.name]
    assert not (logs / "wandb").exists()


def test_the_documented_metric_and_callback_run(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [block] = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    names: dict[str, Any] = {"train": small_dataset(), "held_out": others()}
    exec(block.replace('"smollm2-135m"', repr(str(tiny_model_path))), names)
    [folder] = (tmp_path / "runs").iterdir()
    assert [record["eval_words"] >= 0 for record in read_jsonl(folder / "metrics.jsonl") if "eval_words" in record]
    assert list((folder / "logs").iterdir())


@pytest.fixture(autouse=True)
def no_chatter() -> Iterator[None]:
    """Trackers read these when they begin."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
