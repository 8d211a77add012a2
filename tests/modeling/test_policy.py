"""A policy for people: what it is loaded from, rewards against the formulas, answers one by one and many at once."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.naive import response_logprobs
from fspo.errors import ConfigError, DataError, ModelError
from fspo.modeling.layouts import LAYOUTS, LayoutName
from fspo.modeling.loading import load_model
from fspo.modeling.logprobs import branch_logprobs
from fspo.modeling.policies import load_policy, read_card, save_policy
from fspo.modeling.policy import Policy
from fspo.preferences.dataset import PreferenceDataset
from fspo.preferences.types import Episode, Person, Preference, Turn, User
from tests.modeling.test_policies import adapted
from tests.training.train_tiny import train_tiny

ANN = tuple(Preference("ann", f"Review film {n}.", f"Good {n}!", f"It was bad, number {n}.") for n in range(4))
BEN = tuple(replace(shot, user="ben").swap() for shot in ANN)
QUESTION = ("Review the series.", ["It was good!", "It was bad and slow.", "No."])
TRAINING = {
    "layout": "conversation",
    "objective": "ipo",
    "beta": 0.5,
    "shots": 3,
    "reduction": "sum",
    "reference": "shots",
    "describe": "none",
}


@pytest.fixture(scope="module")
def runs(speaking_model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three policies: two in one run, one in another."""
    folder, base = tmp_path_factory.mktemp("runs"), str(speaking_model_path)
    methods = folder / "several" / "methods"

    def save(model: Any, place: Path, **training: Any) -> None:
        context = "both" if "describe" in training else "shots"
        details = {"context": context, "training": TRAINING | training}
        start = methods / "pref-ft" if place.name == "fspo" else None
        save_policy(model, place, base=base, method=place.name, start=start, details=details)

    save(adapted(load_model(base, device="cpu"), 1), methods / "pref-ft", objective="pref-ft")
    save(adapted(load_policy(methods / "pref-ft"), 2), methods / "fspo")
    save(adapted(load_model(base, device="cpu"), 3), folder / "one" / "methods" / "fspo-rat", describe="own")
    save(adapted(load_model(base, device="cpu"), 4), folder / "cheap", reference="none", reduction="mean")
    return folder


@pytest.fixture(scope="module")
def policy(runs: Path) -> Policy:
    return Policy.load(runs / "several" / "methods" / "fspo", device="cpu")


def logps(model: Any, context: Sequence[int], policy: Policy, *, mean: bool = False) -> torch.Tensor:
    """[3]: of each response as one plain sequence."""
    rows = []
    with torch.no_grad():
        for response in QUESTION[1]:
            tokens = response_logprobs(model, context, policy.renderer.render_response(response))
            rows.append(tokens.mean() if mean else tokens.sum())
    return torch.stack(rows)


def seen(policy: Policy, shots: Sequence[Preference], description: str = "") -> tuple[int, ...]:
    shown = policy.renderer.render_prompt(shots, QUESTION[0], description)
    return (*shown.trunk_ids, *shown.prompt_ids)


def test_a_reward_is_the_papers(policy: Policy, runs: Path) -> None:
    methods = runs / "several" / "methods"
    context = seen(policy, ANN[:3])
    own, start = (logps(load_policy(methods / name), context, policy) for name in ("fspo", "pref-ft"))
    assert policy.reward(ANN, *QUESTION) == pytest.approx((0.5 * (own - start)).tolist(), abs=1e-3)
    swapped = logps(load_policy(methods / "fspo"), seen(policy, [shot.swap() for shot in ANN[:3]]), policy)
    mirror = policy.reward(ANN, *QUESTION, against="mirror")
    assert mirror == pytest.approx((0.25 * (own - swapped)).tolist(), abs=1e-3)
    assert policy.reward(BEN, *QUESTION, against="mirror") == pytest.approx([-value for value in mirror], abs=1e-4)


def test_a_pooled_reward_is_the_sum_of_those_of_each_shot_in_any_order(policy: Policy) -> None:
    single = [policy.reward(ANN[place : place + 1], *QUESTION, against="mirror") for place in range(3)]
    pooled = policy.reward(ANN, *QUESTION, against="pooled")  # three shots are shown at most
    assert pooled == pytest.approx([sum(values) for values in zip(*single, strict=True)], abs=1e-4)
    assert policy.reward(ANN[2::-1], *QUESTION, against="pooled") == pytest.approx(pooled, abs=1e-4)
    assert policy.reward(ANN, *QUESTION, against="mirror") != pytest.approx(pooled, abs=1e-4)
    with pytest.raises(DataError, match="no labels to swap"):
        policy.reward(None, *QUESTION, against="pooled")


def test_the_reference_may_see_the_bare_prompt(runs: Path, speaking_model_path: Path) -> None:
    """Without shots, as the training says; and of weights without a reference model, these themselves."""
    base = load_model(speaking_model_path, device="cpu")
    cheap = Policy.load(runs / "cheap", device="cpu")
    own = logps(load_policy(runs / "cheap"), seen(cheap, ANN[:3]), cheap, mean=True)
    bare = logps(base, seen(cheap, ()), cheap, mean=True)
    assert cheap.reward(ANN, *QUESTION) == pytest.approx((0.5 * (own - bare)).tolist(), abs=1e-3)

    pref_ft = Policy.load(runs / "several" / "methods" / "pref-ft", device="cpu")
    weights = load_policy(runs / "several" / "methods" / "pref-ft")
    own, bare = (logps(weights, seen(pref_ft, shots), pref_ft) for shots in (ANN[:3], ()))
    assert pref_ft.reward(ANN, *QUESTION) == pytest.approx((0.5 * (own - bare)).tolist(), abs=1e-3)

    few_shot = Policy.load(speaking_model_path, device="cpu")
    own, bare = (logps(base, seen(few_shot, shots), few_shot) for shots in (ANN, ()))
    assert few_shot.reward(ANN, *QUESTION) == pytest.approx((own - bare).tolist(), abs=1e-3)


def test_a_policy_says_what_it_is(policy: Policy, runs: Path, speaking_model_path: Path) -> None:
    folder = runs / "several" / "methods" / "fspo"
    said = repr(policy)
    for part in (f"model='{speaking_model_path}'", f"folder='{folder}'", "method='fspo'", "layout="):
        assert part in said
    assert repr(policy.base) == f"Policy(model='{speaking_model_path}', layout='{policy.base.renderer.layout}')"
    assert " at 0x" not in repr(Policy(policy.weights.policy, policy.renderer) if policy.weights else None)


def test_people_come_in_many_forms(policy: Policy) -> None:
    expected = policy.reward(ANN, *QUESTION)
    rows = [{"prompt": p.prompt, "chosen": p.chosen, "rejected": p.rejected} for p in ANN]
    table = pd.DataFrame(rows)
    data = PreferenceDataset([User("ann", "Likes good films."), User("ben")], ANN + BEN)
    people: list[Any] = [
        list(ANN),
        rows,
        table,
        table.assign(user="someone"),
        datasets.Dataset.from_pandas(table),
        Person(ANN),
        data.person("ann"),
        data.select(users=["ann"]),
    ]
    for person in people:
        assert policy.reward(person, *QUESTION) == pytest.approx(expected, abs=1e-5), type(person)
    for wrong, message in (
        (data, "of one person are needed, and these are of 2 users"),
        ("ann", r"call person\('ann'\) of the dataset"),
        ([{"prompt": "Hi", "chosen": "a"}], "person, row 1, column 'rejected'"),
    ):
        with pytest.raises(DataError, match=message):
            policy.reward(wrong, *QUESTION)  # type: ignore[arg-type]


def test_a_description_is_shown_to_a_model_that_was_not_trained(speaking_model_path: Path) -> None:
    oracle = Policy.load(speaking_model_path, context="description", device="cpu")
    model = load_model(speaking_model_path, device="cpu")
    own = logps(model, seen(oracle, (), "Likes bad films."), oracle) - logps(model, seen(oracle, ()), oracle)
    for person in (User("x", "Likes bad films."), Person(ANN, "Likes bad films.")):
        assert oracle.reward(person, *QUESTION) == pytest.approx(own.tolist(), abs=1e-3)
    with pytest.raises(DataError, match="no labels to swap"):
        oracle.reward(User("x", "Likes bad films."), *QUESTION, against="mirror")


def test_a_description_without_effect_is_said(policy: Policy, speaking_model_path: Path) -> None:
    calls: list[Callable[[Policy, str | None], Any]] = [
        lambda one, text: one.reward(ANN, *QUESTION, description=text),
        lambda one, text: one.generate(ANN, "Hi", max_new_tokens=2, description=text),
        lambda one, text: one.generate_batch([(ANN, "Hi")], max_new_tokens=2, description=text),
        lambda one, text: list(one.stream(ANN, "Hi", max_new_tokens=2, description=text)),
        lambda one, text: one.messages(ANN, "Hi", description=text),
    ]
    both = Policy.load(speaking_model_path, device="cpu")
    for call in calls:
        with pytest.warns(UserWarning, match="no effect: .* context 'shots'") as record:
            call(policy, "Likes bad films.")
        assert [warning.filename for warning in record] == [__file__]
        call(policy, None)
        call(policy, "")
        call(both, "Likes bad films.")


def test_what_is_no_reward_is_refused_before_weights_are_read(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fspo.modeling import sharing

    monkeypatch.setattr(sharing, "load_model", lambda *_, **__: pytest.fail("read"))
    policy = Policy.load(runs / "cheap", device="cpu")
    with pytest.raises(ConfigError, match="'reference', 'mirror' or 'pooled', not 'base'"):
        policy.reward(ANN, *QUESTION, against="base")  # type: ignore[arg-type]
    for responses in ([], ["good", " "], "good"):
        with pytest.raises(DataError, match="at least one, and none that is empty"):
            policy.reward(ANN, "Hi", responses)
    with pytest.raises(ConfigError, match="temperature must be at least 0"):
        policy.generate(ANN, "Hi", temperature=-1.0)
    with pytest.raises(ConfigError, match="no setting 'max_tokens'; did you mean 'max_new_tokens'"):
        policy.generate(ANN, "Hi", max_tokens=3)  # type: ignore[call-overload]


def test_answers_one_by_one_and_many_at_once_are_the_same(policy: Policy) -> None:
    how: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0, "guidance": 0.5}
    prompts = ["Review the series.", "And the book?", "Review the series."]
    texts = policy.generate(ANN, prompts, seed=3, **how)
    assert texts[:2] == [policy.generate(ANN, prompt, seed=3, **how) for prompt in prompts[:2]]
    assert texts[0] != texts[2]
    assert texts != policy.generate(ANN, prompts, seed=4, **how)
    pairs: list[tuple[Any, str]] = [(ANN, prompts[0]), (BEN, prompts[0]), (None, prompts[0])]
    replies = policy.generate_batch(pairs, seed=3, **how)
    assert [reply.text for reply in replies] == [policy.generate(*pair, seed=3, **how) for pair in pairs]
    assert len({reply.text for reply in replies}) == 3


def test_streams_of_policies_over_one_base_run_side_by_side(policy: Policy, runs: Path) -> None:
    other = Policy.load(runs / "several" / "methods" / "pref-ft", device="cpu")
    each = (policy, other, policy.base)
    how: dict[str, Any] = {"max_new_tokens": 10, "temperature": 1.0, "seed": 1}
    expected = [one.generate(ANN, "Review the series.", **how) for one in each]
    streams = [one.stream(ANN, "Review the series.", **how) for one in each]
    found = ["", "", ""]
    while any(parts := [next(stream, "") for stream in streams]):
        found = [text + part for text, part in zip(found, parts, strict=True)]
    assert found == expected
    assert len(set(expected)) == 3


def test_the_base_is_the_model_below_and_knows_nobody_unless_it_is_shown_someone(
    policy: Policy, speaking_model_path: Path
) -> None:
    plain = Policy.load(speaking_model_path, device="cpu")
    how: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0.0}
    for person in (None, ANN[:3]):
        assert policy.base.generate(person, "Hello.", **how) == plain.generate(person, "Hello.", **how)
    assert policy.base.generate(None, "Hello.", **how) != policy.generate(None, "Hello.", **how)


def test_a_policy_that_describes_reads_its_own_description(runs: Path) -> None:
    policy = Policy.load(runs / "one", device="cpu")
    assert policy.describes
    written = policy.describe(ANN)
    assert written and not policy.describe(None)
    weights = load_policy(runs / "one" / "methods" / "fspo-rat")
    plain = load_model(policy.weights.base_name, device="cpu")  # type: ignore[union-attr]
    for description in (None, "Likes long answers."):
        context = seen(policy, ANN[:3], description or written)
        expected = 0.5 * (logps(weights, context, policy) - logps(plain, context, policy))
        # What is known of the user otherwise is no description of the policy's own.
        rewards = policy.reward(Person(ANN, "The truth."), *QUESTION, description=description)
        assert rewards == pytest.approx(expected.tolist(), abs=1e-3)
    mirror = policy.reward(ANN, *QUESTION, against="mirror")
    assert policy.reward(BEN, *QUESTION, against="mirror") == pytest.approx([-value for value in mirror], abs=1e-4)


def test_a_folder_without_a_policy_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model"):
        Policy.load(tmp_path)
    with pytest.raises(ModelError, match="does not exist"):
        Policy.load(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="max_length is 99999, and the model reads at most 4096"):
        Policy.load(runs / "cheap", max_length=99_999)
    assert Policy.load(runs / "cheap", shots=1).shots == 1


TURNS = (
    Turn("system", "Answer in rhyme."),
    Turn("user", "Review film 1."),
    Turn("assistant", "It was fun."),
    Turn("user", "And film 2?"),
)


def test_queries_with_their_own_system_messages_are_scored_as_whole_sequences(policy: Policy, runs: Path) -> None:
    renderer = replace(policy.renderer, context="shots", layout="conversation")
    queries = (
        ANN[0],
        *(Preference.after("ann", (*head, *TURNS[1:]), "Good!", "Bad!") for head in ((), TURNS[:1])),
        Preference.after("ann", (Turn("system", "Be brief."), TURNS[1]), "Good!", "Bad!"),
    )
    model = load_policy(runs / "several" / "methods" / "fspo")
    for shots, steps in (((), None), (ANN[1:3], (0, 2))):
        shown = renderer.render(Episode("ann", shots, queries), shots=steps)
        with torch.no_grad():
            (found,) = branch_logprobs(model, [shown])
            for branch, sums in zip(shown.branches, found.sums, strict=True):
                context = (*shown.trunk_ids[: branch.boundary], *branch.prompt_ids)
                naive = [response_logprobs(model, context, response).sum() for response in branch.responses]
                assert sums.tolist() == pytest.approx([float(value) for value in naive], abs=1e-3)


MESSAGES = [{"role": turn.role, "content": turn.text} for turn in TURNS]


@pytest.mark.parametrize("layout", ["labelled", "conversation"])
def test_conversations_are_answered_like_prompts(runs: Path, layout: Any) -> None:
    policy = Policy.load(runs / "several" / "methods" / "fspo", layout=layout, device="cpu")
    settings: Any = {"max_new_tokens": 4, "temperature": 0.0}
    for person in (ANN, None):
        alone = policy.generate(person, TURNS, **settings)
        assert isinstance(alone, str)
        assert policy.generate(person, [TURNS, "Review film 1."], **settings)[0] == alone
        assert "".join(policy.stream(person, TURNS, **settings)) == alone
        assert policy.generate(person, [*MESSAGES], **settings) == alone
        assert policy.generate(person, [MESSAGES, "Review film 1."], **settings)[0] == alone
    rewards = policy.reward(ANN, TURNS, ["Good!", "Bad!"], against="mirror")
    assert policy.reward(ANN, MESSAGES, ["Good!", "Bad!"], against="mirror") == rewards
    assert policy.messages(ANN, MESSAGES) == policy.messages(ANN, TURNS)
    with pytest.raises(DataError, match="user's first and last; this one has: user, assistant"):
        policy.generate(ANN, TURNS[1:3])


def plain_peft(folder: Path, base: Path) -> tuple[Any, Any]:
    """A policy as peft and transformers read it, and its tokenizer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of peft's own
        model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.eval(), AutoTokenizer.from_pretrained(base)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_policy_is_used_without_fspo(runs: Path, speaking_model_path: Path, layout: LayoutName) -> None:
    folder = runs / "several" / "methods" / "fspo"
    policy = Policy.load(folder, layout=layout, device="cpu")
    model, tokenizer = plain_peft(folder, speaking_model_path)
    messages = policy.messages(ANN, QUESTION[0])
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert ids == list(seen(policy, ANN[:3]))  # three shots, as in training
    for response in QUESTION[1]:
        answer = [*tokenizer.encode(response, add_special_tokens=False), tokenizer.eos_token_id]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids + answer])).logits[0, len(ids) - 1 : -1]
        plain = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum()
        query = Preference("ann", QUESTION[0], response, "Never.")
        assert policy.weights is not None
        with torch.no_grad(), policy.weights.policy() as loaded:
            (found,) = branch_logprobs(loaded, [policy.renderer.render(Episode("ann", ANN[:3], (query,)))])
        torch.testing.assert_close(found.sums[0, 0].float(), plain, rtol=1e-5, atol=1e-3)
    asked = torch.tensor([ids])
    sampled = model.generate(input_ids=asked, attention_mask=torch.ones_like(asked), max_new_tokens=12, do_sample=False)
    text = tokenizer.decode(sampled[0, len(ids) :], skip_special_tokens=True)
    assert policy.generate(ANN, QUESTION[0], max_new_tokens=12, temperature=0) == text.strip()


def test_messages_hold_a_description_that_the_policy_writes(runs: Path) -> None:
    policy = Policy.load(runs / "one", layout="conversation", device="cpu")
    system, *_ = policy.messages(ANN, QUESTION[0])
    assert system == {"role": "system", "content": policy.describe(ANN)}
    labelled = Policy.load(runs / "one", layout="labelled", device="cpu")
    [only] = labelled.messages(None, QUESTION[0], description="I like it short.")
    assert only["content"] == f"About me: I like it short.\n\n{QUESTION[0]}"


def test_a_policy_becomes_a_plain_model(runs: Path, policy: Policy, tmp_path: Path) -> None:
    whole = AutoModelForCausalLM.from_pretrained(policy.save_pretrained(tmp_path / "whole"))
    expected = logps(load_policy(runs / "several" / "methods" / "fspo"), seen(policy, ANN[:3]), policy)
    torch.testing.assert_close(logps(whole, seen(policy, ANN[:3]), policy), expected)
    with pytest.raises(ModelError, match="not trained by fspo"):
        policy.base.save_pretrained(tmp_path / "base")
    with pytest.raises(ModelError, match="not trained by fspo"):
        policy.base.push_to_hub("me/base")


def test_a_policy_finds_its_model_from_another_folder_or_says_what_to_set(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    shutil.copytree(tiny_model_path, project / "models" / "tiny")
    monkeypatch.chdir(project)
    out = train_tiny("models/tiny", project / "runs" / "mine" / "methods" / "ipo", objective="ipo", steps=1)
    assert read_card(out).base == "models/tiny"
    answer = Policy.load(out).generate(ANN, "And?", max_new_tokens=4)
    monkeypatch.chdir(tmp_path)
    assert Policy.load("project/runs/mine").generate(ANN, "And?", max_new_tokens=4) == answer
    project.rename(tmp_path / "moved")
    assert Policy.load("moved/runs/mine").generate(ANN, "And?", max_new_tokens=4) == answer
    (tmp_path / "moved" / "runs" / "mine").rename(tmp_path / "alone")
    with pytest.raises(ModelError, match=r"model in models/tiny, which is not there; set base in .*policy\.json"):
        Policy.load("alone")
    record = tmp_path / "alone" / "methods" / "ipo" / "policy.json"
    record.write_text(record.read_text().replace('"models/tiny"', json.dumps(str(tmp_path / "moved/models/tiny"))))
    assert Policy.load("alone").generate(ANN, "And?", max_new_tokens=4) == answer


def test_margins_of_many_pairs_are_differences_of_rewards(policy: Policy, runs: Path) -> None:
    pairs = [Preference("", f"Review book {n}.", f"It is great, {n}.", f"No, {n} is dull.") for n in range(3)]
    pairs.append(replace(ANN[0], user=""))  # a preference on the same prompt is not shown
    cheap = Policy.load(runs / "cheap", device="cpu")
    for one in (policy, cheap):
        shots = ANN[1:]
        expected = []
        for pair in pairs:
            chosen, rejected = one.reward(shots, pair.prompt, [pair.chosen, pair.rejected], against="mirror")
            expected.append(chosen - rejected)
        assert one.margins(ANN, pairs) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(DataError):
        policy.margins((), pairs)
