"""Training from Python: what goes in, what comes out, and what is refused before any training."""

from __future__ import annotations

import copy
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, DogeConfig, DogeForCausalLM

import fspo
from benchmarks.naive import response_logprobs
from fspo import FSPOConfig, FSPOTrainer, LoraSettings
from fspo.errors import ConfigError, DataError, ModelError, TrainingError
from fspo.files import read_json
from fspo.modeling.loading import load_tokenizer
from fspo.modeling.policies import load_policy, read_card
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.formats import from_table, to_trl_rows
from fspo.progress import PlainProgress, Silent
from fspo.training.config import Objective
from fspo.training.resumable_training import Training
from fspo.training.training_folder import TRAINING_FILE
from tests.training.helpers import small_dataset
from tests.training.test_train import figures, interrupted_after, same, weights
from tests.training.train_tiny import tiny_settings, train_tiny

SETTINGS: dict[str, Any] = {
    "objective": "ipo",
    "beta": 0.1,
    "shots": 2,
    "queries": 2,
    "users_per_step": 2,
    "max_steps": 4,
    "save_every": 2,
    "learning_rate": 0.01,
}
ADAPTERS = LoraSettings(r=4)
WITH_SOURCES = {**os.environ, "PYTHONPATH": str(Path(fspo.__file__).parents[1])}


def frame(dataset: PreferenceDataset | None = None) -> pd.DataFrame:
    rows = to_trl_rows(dataset or small_dataset())
    return pd.DataFrame(rows)[["user", "prompt", "chosen", "rejected", "question"]]


def trainer(model: Any, out: Path, table: Any = None, **changes: Any) -> FSPOTrainer:
    more = {name: changes.pop(name) for name in ("eval_dataset", "processing_class", "peft_config") if name in changes}
    return FSPOTrainer(
        model,
        args=FSPOConfig(output_dir=out, **{**SETTINGS, **changes}),
        train_dataset=frame() if table is None else table,
        progress=Silent(),
        **more,
    )


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def others() -> PreferenceDataset:
    """People and questions that `small_dataset` has not."""
    rows = frame().assign(user=lambda t: "v" + t.user, prompt=lambda t: "Tell: " + t.prompt, question="")
    return from_table(rows, file="others")


@pytest.fixture(scope="module")
def trained(tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> FSPOTrainer:
    made = trainer(tiny_model_path, tmp_path_factory.mktemp("api") / "policy", peft_config=ADAPTERS)
    made.train()
    return made


def test_everything_public_is_there() -> None:
    assert {name: getattr(fspo, name).__name__ for name in fspo.__all__ if name != "__version__"} == {
        name: name for name in fspo.__all__ if name != "__version__"
    }
    assert set(fspo.__all__) <= set(dir(fspo))
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        _ = fspo.Trainer  # type: ignore[attr-defined]


def test_the_package_is_light_until_it_is_used() -> None:
    code = "import sys, fspo; dir(fspo); fspo.FSPOConfig(output_dir='x'); print({'torch', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=WITH_SOURCES)
    assert done.stdout == "set()\n"


def test_it_is_the_training_of_the_command_line(trained: FSPOTrainer, tiny_model_path: Path, tmp_path: Path) -> None:
    changes = {"objective": "ipo", "bias_weight": 0.0, "beta": 0.1, "steps": 4, "lora": {"r": 4}, "save_every": 2}
    from fspo.training.train import train_policy

    table = fspo.PreferenceDataset(small_dataset().users, small_dataset().preferences)
    policy = train_policy(tiny_settings(**changes), table, model=tiny_model_path, out=tmp_path / "policy")
    assert same(weights(policy), weights(Path(trained.args.output_dir)))
    assert figures(policy) == figures(Path(trained.args.output_dir))


def test_the_policy_has_a_card_that_names_no_folder(
    trained: FSPOTrainer, tiny_model_path: Path, tmp_path: Path
) -> None:
    trained.save_model(tmp_path / "copy")
    for folder in (Path(trained.args.output_dir), tmp_path / "copy"):
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert f"`{tiny_model_path.name}`" in text and str(tiny_model_path.parent) not in text
        assert "Policy.load" in text and "AutoPeftModelForCausalLM" in text


def answer_as_the_card_says(folder: Path) -> torch.Tensor:
    """Run the code for use without fspo that stands in a policy's card."""
    text = (folder / "README.md").read_text(encoding="utf-8")
    _, alone = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert "fspo" not in alone
    names: dict[str, Any] = {}
    exec(compile(alone.replace("FOLDER", str(folder)), "README.md", "exec"), names)
    answer: torch.Tensor = names["answer"]
    return answer


@pytest.mark.filterwarnings("ignore:::peft", "ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft's own
def test_the_code_of_the_card_answers_without_fspo(trained: FSPOTrainer, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer_as_the_card_says(Path(trained.args.output_dir)).numel() > 0
    assert capsys.readouterr().out


def test_it_says_how_training_went(trained: FSPOTrainer) -> None:
    output = trained.train()
    records = figures(Path(trained.args.output_dir))
    assert output.global_step == len(records) == 4
    assert output.training_loss == pytest.approx(sum(record["loss"] for record in records) / 4)
    assert output.metrics["margin"] == records[-1]["margin"]


@pytest.mark.parametrize("kind", ["rows", "hub", "dataset"])
def test_every_kind_of_table_trains_the_same(
    kind: str, trained: FSPOTrainer, tiny_model_path: Path, tmp_path: Path
) -> None:
    import datasets

    table = {
        "rows": frame().to_dict("records"),
        "hub": datasets.Dataset.from_pandas(frame()),
        "dataset": from_table(frame(), file="rows"),
    }[kind]
    other = trainer(tiny_model_path, tmp_path / kind, table, peft_config=ADAPTERS)
    other.train()
    assert same(weights(tmp_path / kind), weights(Path(trained.args.output_dir)))


def test_a_model_in_memory_trains_like_its_name(trained: FSPOTrainer, tiny_model_path: Path, tmp_path: Path) -> None:
    model, tokenizer = load(tiny_model_path), AutoTokenizer.from_pretrained(tiny_model_path)
    other = trainer(model, tmp_path / "object", peft_config=ADAPTERS, processing_class=tokenizer)
    other.train()
    assert same(weights(tmp_path / "object"), weights(Path(trained.args.output_dir)))
    assert read_card(tmp_path / "object").base == str(tiny_model_path)
    assert not list((tmp_path / "object").glob("base*"))
    assert load_tokenizer(tmp_path / "object").get_vocab() == tokenizer.get_vocab()
    assert 'AutoTokenizer.from_pretrained("FOLDER")' in (tmp_path / "object" / "README.md").read_text()


@pytest.mark.parametrize("adapters", [LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]), None])
def test_a_model_found_nowhere_else_is_kept_with_the_policy(
    tiny_model_path: Path, tmp_path: Path, adapters: LoraConfig | None
) -> None:
    model, other = load(tiny_model_path), load(tiny_model_path)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.mul_(1.5)
        other.model.layers[0].mlp.up_proj.weight.mul_(2.5)
    start = copy.deepcopy(model)
    lora = {} if adapters is not None else {"lora": None}
    assert trainer(other, tmp_path / "policy", peft_config=adapters, **lora).model  # is kept there too, and not trained
    made = trainer(model, tmp_path / "policy", peft_config=adapters, **lora)
    made.train()
    ids = list(range(5, 25))
    policy = load_policy(tmp_path / "policy")
    with torch.no_grad():
        expected = response_logprobs(made.model, ids[:10], ids[10:])
        torch.testing.assert_close(response_logprobs(policy, ids[:10], ids[10:]), expected, rtol=1e-4, atol=1e-4)
        untrained = response_logprobs(start, ids[:10], ids[10:])
    assert not torch.allclose(expected, untrained, atol=1e-3)
    base = load(Path(read_card(tmp_path / "policy").base))
    assert all(torch.equal(weight, base.state_dict()[name]) for name, weight in start.state_dict().items())


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft asks transformers by a name on its way out
def test_the_folder_loads_without_fspo(trained: FSPOTrainer, tiny_model_path: Path, tmp_path: Path) -> None:
    folder = Path(trained.args.output_dir)
    ids = list(range(5, 25))
    plain = PeftModel.from_pretrained(load(tiny_model_path), folder)
    with torch.no_grad():
        expected = response_logprobs(trained.model, ids[:10], ids[10:])
        logits = plain(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    found = logits[9:-1].gather(1, torch.tensor(ids[10:])[:, None])[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

    whole = trainer(tiny_model_path, tmp_path / "whole", lora=None)
    whole.train()
    with torch.no_grad():
        expected = response_logprobs(whole.model, ids[:10], ids[10:])
        logits = load(tmp_path / "whole")(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    found = logits[9:-1].gather(1, torch.tensor(ids[10:])[:, None])[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert answer_as_the_card_says(tmp_path / "whole").numel() > 0


def test_pefts_configuration_is_taken_as_it_is(tiny_model_path: Path, tmp_path: Path) -> None:
    ours = trainer(tiny_model_path, tmp_path / "ours", peft_config=LoraSettings(r=4, target_modules=["q_proj"]))
    theirs = LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj"])
    other = trainer(tiny_model_path, tmp_path / "theirs", peft_config=theirs)
    ours.train()
    other.train()
    assert same(weights(tmp_path / "ours"), weights(tmp_path / "theirs"))
    assert theirs.task_type is None
    card = (tmp_path / "theirs" / "README.md").read_text()
    assert "AutoPeftModelForCausalLM" in card and 'AutoTokenizer.from_pretrained("FOLDER")' not in card
    assert "peft_config:\n  lora_alpha: 32\n  r: 4\n  target_modules:\n  - q_proj\n" in card and "lora:" not in card
    assert read_json(tmp_path / "theirs" / TRAINING_FILE)["identity"]["adapters"]["r"] == 4
    with pytest.raises(ConfigError, match=r"adapters\.lora_alpha = 32, and now"):
        trainer(tiny_model_path, tmp_path / "theirs", peft_config=LoraConfig(r=8, target_modules=["q_proj"]))


@pytest.mark.parametrize("in_memory", [True, False])
def test_interrupted_and_called_again_it_reaches_the_same_weights(
    trained: FSPOTrainer, tiny_model_path: Path, tmp_path: Path, in_memory: bool
) -> None:
    model = load(tiny_model_path) if in_memory else tiny_model_path
    first = trainer(model, tmp_path / "policy", peft_config=ADAPTERS)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        interrupted_after(patch, 3)
        first.train()
    if in_memory:
        with pytest.raises(TrainingError, match="load the model again"):
            first.train()
        first = trainer(load(tiny_model_path), tmp_path / "policy", peft_config=ADAPTERS)
    assert first.train().global_step == 4
    assert same(weights(tmp_path / "policy"), weights(Path(trained.args.output_dir)))
    assert figures(tmp_path / "policy") == figures(Path(trained.args.output_dir))


def test_a_training_that_another_call_finishes_in_the_meantime_is_not_repeated(
    trained: FSPOTrainer, tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Training.loop

    def loop(self: Training, *, finished: bool = False) -> Any:
        made = make(self, finished=finished)
        if not finished:
            shutil.copytree(trained.args.output_dir, self.out, dirs_exist_ok=True)
        return made

    monkeypatch.setattr(Training, "loop", loop)
    interrupted_after(monkeypatch, 0)
    made = trainer(tiny_model_path, tmp_path / "policy", peft_config=ADAPTERS)
    assert made.train().global_step == 4
    assert read_json(tmp_path / "policy" / TRAINING_FILE)["finished"] is True
    question = ("u0", "What about book 99?", ["It was good, 99!", "It was bad and slow, 99."])
    assert made.reward(*question) == pytest.approx(trained.reward(*question), abs=1e-4)


@pytest.mark.parametrize("lora", [ADAPTERS, None])
def test_a_finished_training_is_used_as_if_it_had_just_ended(
    tiny_model_path: Path, tmp_path: Path, lora: LoraSettings | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = ("u0", "What about book 99?", ["It was good, 99!", "It was bad and slow, 99."])
    measured_on: dict[str, Any] = {"eval_dataset": others(), "evaluate_episodes": 4}
    first = trainer(tiny_model_path, tmp_path / "policy", lora=lora, **measured_on)
    before = first.evaluate()
    first.train()
    measured = (first.reward(*question), first.reward(*question, against="mirror"), first.evaluate())
    assert measured[2] != before
    again = trainer(tiny_model_path, tmp_path / "policy", lora=lora, **measured_on)
    interrupted_after(monkeypatch, 0)
    assert again.train().global_step == 4
    repeated = (again.reward(*question), again.reward(*question, against="mirror"), again.evaluate())
    for one, other in zip(measured[:2], repeated[:2], strict=True):
        assert other == pytest.approx(one, abs=1e-4)
    assert repeated[2] == pytest.approx(measured[2], abs=1e-3)
    assert {"eval_margin_accuracy", "eval_direction_accuracy", "eval_nll"} <= measured[2].keys()


@pytest.mark.parametrize("lora", [ADAPTERS, None])
def test_a_reward_is_the_papers(tiny_model_path: Path, tmp_path: Path, lora: LoraSettings | None) -> None:
    """Against plain sequences through the loaded policy and the base model, one response at a time."""
    made = trainer(tiny_model_path, tmp_path / "policy", lora=lora, objective="simpo", beta=0.5)
    made.train()
    responses = ["It was good, 99!", "It was bad and slow, 99.", "No idea."]
    rewards = made.reward("u1", "What about book 99?", responses)
    policy, base = load_policy(tmp_path / "policy"), load(tiny_model_path)
    renderer = made._loop.renderer
    shots = made._training.dataset.of_user("u1")[:2]
    asked = renderer.render_prompt(shots, "What about book 99?")
    context = (*asked.trunk_ids, *asked.prompt_ids)
    with torch.no_grad():
        for reward, response in zip(rewards, responses, strict=True):
            ids = renderer.render_response(response)
            own, reference = (response_logprobs(model, context, ids).mean() for model in (policy, base))
            assert reward == pytest.approx(0.5 * (own - reference).item(), abs=1e-4)


def test_people_are_named_or_bring_their_own_preferences(trained: FSPOTrainer) -> None:
    question = ("What about book 99?", ["It was good, 99!", "It was bad and slow, 99."])
    named = trained.reward("u1", *question)
    own = frame().query("user == 'u1'")
    assert trained.reward(own, *question) == pytest.approx(named)
    assert trained.reward(own.drop(columns="user").to_dict("records"), *question) == pytest.approx(named)
    assert trained.reward("u0", *question) != pytest.approx(named)
    with pytest.raises(DataError, match="no user 'u11'; did you mean 'u1'"):
        trained.reward("u11", *question)
    with pytest.raises(DataError, match="of 4 users"):
        trained.reward(frame(), *question)
    with pytest.raises(DataError, match="at least one, and none that is empty"):
        trained.reward("u1", "What?", [])
    with pytest.raises(DataError, match="no labels to swap"):
        trained.reward([], *question, against="mirror")
    with pytest.raises(ConfigError, match="not 'nothing'"):
        trained.reward("u1", *question, against="nothing")  # type: ignore[arg-type]


@pytest.mark.parametrize("objective", ["ipo", "pref-ft"])
def test_what_was_trained_is_the_same_policy_when_it_is_loaded(
    tiny_model_path: Path, tmp_path: Path, objective: str
) -> None:
    made = trainer(tiny_model_path, tmp_path / "policy", peft_config=ADAPTERS, objective=objective)
    made.train()
    loaded = fspo.Policy.load(tmp_path / "policy")
    question = ("What about book 99?", ["It was good, 99!", "It was bad and slow, 99."])
    person = made._training.dataset.person("u1")
    for against in ("reference", "mirror"):
        rewards = made.reward("u1", *question, against=against)
        assert loaded.reward(person, *question, against=against) == pytest.approx(rewards, abs=1e-4)
        assert any(abs(reward) > 1e-5 for reward in rewards)
    how: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0.0}
    assert loaded.generate(person, "And?", **how) == made.generate("u1", "And?", **how)


def test_a_policy_that_is_not_trained_has_no_reward(
    trained: FSPOTrainer, tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = ("u1", "What about book 99?", ["It was good, 99!", "It was bad and slow, 99."])
    for start in (tiny_model_path, trained.args.output_dir):
        made = trainer(start, tmp_path / "new", peft_config=ADAPTERS)
        with monkeypatch.context() as patch:
            patch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
            with pytest.raises(TrainingError, match=r"not trained yet, .* every reward would be 0; call train\(\)"):
                made.reward(*question)
            with pytest.raises(ConfigError, match="not 'base'"):
                made.reward(*question, against="base")  # type: ignore[arg-type]
        assert any(made.reward(*question, against="mirror"))


@pytest.mark.parametrize("lora", [ADAPTERS, None])
def test_a_model_in_memory_is_changed_by_what_is_said_alone(
    tiny_model_path: Path, tmp_path: Path, lora: LoraSettings | None
) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model_path, dtype=torch.bfloat16, attn_implementation="eager")
    said = io.StringIO()
    made = FSPOTrainer(
        model,
        args=FSPOConfig(output_dir=tmp_path / "policy", **SETTINGS, lora=lora, evaluate_episodes=2),
        train_dataset=frame(),
        eval_dataset=others(),
        progress=PlainProgress(said),
    )
    for use in (
        lambda: made.model,
        made.evaluate,
        made.train,
        lambda: made.reward("u1", "Well?", ["Yes.", "No."]),
        lambda: made.generate("u1", "Well?", max_new_tokens=2),
        lambda: list(made.policy.stream(frame().query("user == 'u1'"), "Well?", max_new_tokens=3)),
    ):
        use()
        assert model.config._attn_implementation == "eager"
    assert ("in float32, which they keep: they are bfloat16 now" in said.getvalue()) == (lora is None)
    assert model.dtype == (torch.float32 if lora is None else torch.bfloat16)


def test_a_reward_against_the_mirror_turns_over_with_the_labels(trained: FSPOTrainer) -> None:
    question = ("What about book 99?", ["It was good, 99!", "It was bad and slow, 99."])
    own = frame().query("user == 'u1'")
    flipped = own.rename(columns={"chosen": "rejected", "rejected": "chosen"})
    one, other = (trained.reward(table, *question, against="mirror") for table in (own, flipped))
    assert one == pytest.approx([-value for value in other], abs=1e-6)
    assert any(abs(value) > 1e-4 for value in one)


def test_an_answer_depends_on_the_seed_and_the_person(trained: FSPOTrainer) -> None:
    def answer(user: str, seed: int) -> str:
        return trained.generate(user, "What about book 99?", max_new_tokens=12, temperature=1.0, seed=seed)

    assert answer("u0", 1) == answer("u0", 1)
    assert answer("u0", 1) != answer("u0", 2)
    assert trained.generate("u0", "And?", max_new_tokens=4, temperature=0, guidance=1.0) is not None


def test_a_policy_is_saved_elsewhere_and_trained_on(
    trained: FSPOTrainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    trained.save_model()
    trained.save_model("~/copy")
    copied, original = weights(tmp_path / "copy"), weights(Path(trained.args.output_dir))
    assert same(copied, original)
    trained.save_model(tmp_path / "copy")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="no policy; name an empty"):
        trained.save_model(tmp_path / "notes")
    second = trainer(tmp_path / "copy", tmp_path / "second", peft_config=ADAPTERS, max_steps=1, warmup=0)
    second.train()
    assert abs(figures(tmp_path / "second")[0]["margin"]) < 1e-2
    assert len(read_card(tmp_path / "second").adapters) == 2


def test_an_unfinished_policy_is_not_passed_off(tiny_model_path: Path, tmp_path: Path) -> None:
    made = trainer(tiny_model_path, tmp_path / "policy")
    for place in (None, tmp_path / "elsewhere"):
        with pytest.raises(TrainingError, match="not trained yet"):
            made.save_model(place)
    assert not (tmp_path / "elsewhere").exists()


def test_trls_names_are_known_or_explained(tmp_path: Path) -> None:
    args = FSPOConfig(output_dir=tmp_path, max_steps=7, loss_type="dpo")
    assert (args.steps, args.max_steps, args.objective, args.loss_type) == (7, 7, "dpo", "dpo")
    assert FSPOConfig(output_dir=tmp_path, steps=9).max_steps == 9
    assert args.training(None).steps == 7
    assert FSPOConfig.model_validate(args.model_dump()) == args


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rat": 1e-3}, "FSPOConfig has no argument 'learning_rat'; did you mean 'learning_rate'"),
        ({"num_train_epochs": 3}, "no argument 'num_train_epochs': set steps or max_steps"),
        ({"per_device_train_batch_size": 3}, "set users_per_step"),
        ({"zebra": 3}, r"no argument 'zebra'; help\(FSPOConfig\)"),
        ({"steps": 3, "max_steps": 4}, "max_steps is another name of steps, and they differ"),
        ({"loss_type": "kto"}, "'objective': input should be 'pref-ft', 'ipo', 'dpo'.*, not 'kto'"),
        ({"beta": -1}, "'beta': input should be greater than 0, not -1[.]$"),
        ({"shots": "many"}, "'shots': must be a whole number, not 'many'[.]$"),
        ({"shots": "many", "queries": "few"}, r"'many' \(1 more after it\)[.]$"),
        ({"lora": {"rank": 4}}, "lora.rank"),
        ({"shots": 0, "mirror": True}, "no labels to swap"),
        ({"target": 6.0, "bias_weight": 0.3}, "bias_weight has no effect .* needs objective mirrored-contrast"),
        ({"rungs_per_query": "one"}, "rungs_per_query has no effect .* needs ladder"),
        ({"objective": "simpo", "episodes": 8, "precompute_reference": True}, "precompute_reference has no effect"),
    ],
)
def test_mistakes_in_the_settings_are_one_sentence(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        FSPOConfig(output_dir=tmp_path, **settings)
    with pytest.raises(ConfigError, match="needs output_dir"):
        FSPOConfig()  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_datset": []}, "FSPOTrainer has no argument 'train_datset'; did you mean 'train_dataset'"),
        ({"arguments": None}, "FSPOTrainer has no argument 'arguments'; did you mean 'args'"),
        ({"ref_model": "base"}, "no argument 'ref_model': leave it out"),
        ({"tokenizer": None}, "no argument 'tokenizer': call it processing_class"),
        ({"peft_config": {"r": 4}}, "peft's LoraConfig or fspo's LoraSettings, not dict"),
        ({"peft_config": ADAPTERS, "args": {"lora": None}}, "described twice"),
        ({"args": {"describe": "own"}}, "describe must be none"),
        ({"args": None}, "args must be an FSPOConfig, not NoneType"),
        ({"model": 3}, "model must be a name, a folder or a transformers model, not int"),
    ],
)
def test_mistakes_in_the_arguments_are_one_sentence(
    arguments: dict[str, Any], message: str, tiny_model_path: Path, tmp_path: Path
) -> None:
    given: dict[str, Any] = {"model": tiny_model_path, "args": {}, "train_dataset": frame(), **arguments}
    args = given.pop("args")
    with pytest.raises(ConfigError, match=message):
        FSPOTrainer(args=None if args is None else FSPOConfig(output_dir=tmp_path, **args), **given)


@pytest.mark.parametrize(
    ("adapters", "message"),
    [({"bias": "all"}, "outside the adapters"), ({"init_lora_weights": "pissa"}, "are the reference")],
)
def test_adapters_that_move_the_reference_are_refused(
    adapters: dict[str, Any], message: str, tiny_model_path: Path, tmp_path: Path
) -> None:
    config = LoraConfig(target_modules=["q_proj"], **adapters)
    with pytest.raises(ConfigError, match=message):
        trainer(tiny_model_path, tmp_path, peft_config=config).train()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_models_that_carry_adapters_are_refused(tiny_model_path: Path, tmp_path: Path) -> None:
    from peft import get_peft_model

    model = get_peft_model(load(tiny_model_path), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ConfigError, match="merge_and_unload"):
        trainer(model, tmp_path)
    with pytest.raises(ConfigError, match="merge_and_unload"):
        trainer(model.get_base_model(), tmp_path)


def test_what_can_not_be_trained_on_is_told_before_the_model_is_loaded(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", lambda *_, **__: pytest.fail("the model was loaded"))
    empty = frame()
    empty.loc[2, "chosen"] = None
    for table, message in (
        (frame().drop(columns="chosen"), "train_dataset, row 1, column 'chosen': missing"),
        (empty, "train_dataset, row 3, column 'chosen': empty"),
        (frame(small_dataset(questions=3)), "User 'u0' has 3 preferences on 3 questions"),
        (frame().iloc[:0], "No user has enough preferences"),
        ("views.csv", "train_dataset must be a pandas DataFrame"),
    ):
        with pytest.raises(DataError, match=message):
            trainer(tiny_model_path, tmp_path / "x", table)
    with pytest.raises(DataError, match="User 'u0' is in training data and evaluation data alike"):
        trainer(tiny_model_path, tmp_path / "x", eval_dataset=frame())
    with pytest.raises(DataError, match="nothing to evaluate on"):
        trainer(tiny_model_path, tmp_path / "x").evaluate()
    assert not (tmp_path / "x").exists()


def test_tokenizers_that_do_not_do_are_refused(tiny_model_path: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        trainer(tiny_model_path, tmp_path, processing_class=tokenizer)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>"]})
    tokenizer.chat_template = tokenizer.chat_template.replace("<|im_start|>' + message['role']", "<|user|>'")
    for start in (tiny_model_path, load(tiny_model_path)):
        with pytest.raises(ModelError, match=r"has 386 tokens, but the model has embeddings for 384: '<\|user\|>'"):
            trainer(start, tmp_path / "x", processing_class=tokenizer)
    assert not (tmp_path / "x").exists()
    model = load(tiny_model_path)
    model.name_or_path = model.config._name_or_path = ""
    with pytest.raises(ModelError, match="give its tokenizer as processing_class"):
        trainer(model, tmp_path)


def test_another_training_in_the_folder_is_told_at_once(
    trained: FSPOTrainer, tiny_model_path: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"with beta = 0\.1, and now beta = 0\.7;"):
        trainer(tiny_model_path, Path(trained.args.output_dir), peft_config=ADAPTERS, beta=0.7)
    other = train_tiny(tiny_model_path, tmp_path / "other", steps=1)
    with pytest.raises(ConfigError, match=r"with objective = "):
        trainer(tiny_model_path, other)


def test_the_page_on_training_from_python_runs(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs/training-api.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    for printed, quick in (("models/my-model", str(tiny_model_path)), ("max_steps=200", "max_steps=1")):
        assert block.count(printed) == 1
        block = block.replace(printed, quick)
    names: dict[str, Any] = {
        "train": frame(small_dataset(questions=16)),
        "held_out": others(),
        "tokenizer": load_tokenizer(tiny_model_path),
    }
    exec(compile(block, "docs/training-api.md", "exec"), names)
    assert read_card(tmp_path / "policy").adapters == ("adapter-0",)


def test_every_setting_of_the_page_exists_and_every_objective_is_on_it() -> None:
    page = (Path(__file__).parents[2] / "docs/training-api.md").read_text(encoding="utf-8")
    table = page[page.index("| `objective`") : page.index("`keep_best` makes")]
    rows = [re.findall(r"`([\w-]+)`", row) for row in table.splitlines()[2:] if row.startswith("|")]
    assert {row[0] for row in rows} == set(get_args(Objective))
    assert {name for row in rows for name in row[1:]} - set(FSPOConfig.model_fields) == set()


def test_adapters_on_one_of_two_tied_layers_are_refused_before_training(tiny_model_path: Path, tmp_path: Path) -> None:
    adapters = LoraConfig(r=2, target_modules=["q_proj", "lm_head"])
    with pytest.raises(ConfigError, match="leave lm_head out of target_modules"):
        trainer(tiny_model_path, tmp_path / "policy", peft_config=adapters).train()
    assert not (tmp_path / "policy" / "metrics.jsonl").exists()


def test_a_model_that_can_not_be_scored_exactly_is_refused_before_training(
    tiny_model_path: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(tiny_model_path)
    sizes: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = DogeForCausalLM(DogeConfig(vocab_size=len(tokenizer), num_key_value_heads=1, **sizes))
    with pytest.raises(ModelError, match="mask of its own"):
        trainer(model, tmp_path / "policy", processing_class=tokenizer).train()
    assert not (tmp_path / "policy" / "metrics.jsonl").exists()
