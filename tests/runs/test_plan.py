"""Who is asked in a synthesis, before it is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fspo.cli.main import app
from fspo.modeling.size import count_weights
from fspo.runs.config import RunConfig, load_config
from fspo.runs.plan import requests_table
from fspo.runs.writers import writer_lines
from fspo.synthesis.domain import load_domain
from fspo.synthesis.estimate import estimate
from tests.synthesis.helpers import write_domain

ROOT = Path(__file__).parents[2]


def config(*settings: str) -> RunConfig:
    return load_config(None, ["synthesis.domain=elix-easy", *settings])


def test_the_embedded_model_is_named_and_warned_of_as_a_judge() -> None:
    who, warning = writer_lines(config())
    here = "smollm2-135m on this machine"
    assert who == f"Responses by {here}; pairs judged by {here}; any other text by {here}."
    assert warning.startswith("Warning: smollm2-135m has 135 million weights, ")
    assert "synthesis.judge=measured" in warning


def test_nobody_is_warned_of_where_measures_or_an_endpoint_judge() -> None:
    (who,) = writer_lines(config("synthesis.judge=measured"))
    assert "pairs judged by measured attributes, and no language model;" in who
    endpoint = "endpoint={base_url: 'http://127.0.0.1:1/v1', model: m}"
    (who,) = writer_lines(config(endpoint, "ensemble=[{model: smollm2-135m, weight: 2}, {model: a/b}]"))
    assert who == (
        "Responses by 2 x smollm2-135m on this machine + 1 x a/b on this machine; pairs judged by "
        "m at http://127.0.0.1:1/v1; any other text by m at http://127.0.0.1:1/v1."
    )


def test_the_budgets_of_the_project_s_own_configurations_are_enough() -> None:
    limited = 0
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        planned = load_config(path)
        if planned.endpoint is not None and planned.endpoint.budget.tokens is not None:
            limited += 1
            assert "Warning" not in requests_table(planned), path
    assert limited


@pytest.mark.parametrize("member", ["base_url: 'http://a/v1', timeout: 30", "base_url: 'http://a/v1/'"])
def test_a_budget_is_for_all_that_is_asked_of_its_server(member: str) -> None:
    most = estimate(config().synthesis, load_domain("elix-easy")).most
    needed = most.prompt_tokens + most.answer_tokens
    for limit in (needed - 1, needed):
        endpoint = f"endpoint={{base_url: 'http://a/v1', model: m, budget: {{tokens: {limit}}}}}"
        told = requests_table(config(endpoint, f"ensemble=[{{endpoint: {{{member}, model: m}}}}]"))
        assert ("Warning: endpoint.budget.tokens" in told) == (limit < needed)


def test_how_the_demo_gets_its_responses_is_said_and_nothing_of_own_data(tmp_path: Path) -> None:
    (who,) = writer_lines(load_config(None))
    assert who.startswith("Responses by smollm2-135m on this machine, restyled by rule; pairs judged by measured")
    assert writer_lines(config(f"data={tmp_path}")) == []


def test_weights_are_counted_without_loading(tiny_model_path: Path, tmp_path: Path) -> None:
    from fspo.modeling.loading import load_model

    model = load_model(tiny_model_path)
    tensors = {tensor.data_ptr(): tensor.numel() for tensor in model.state_dict().values()}
    assert count_weights(str(tiny_model_path)) == sum(tensors.values())
    for name in ("model-00001-of-00002", "model-00002-of-00002", "consolidated"):  # as Mistral's repositories
        shutil.copy(tiny_model_path / "model.safetensors", tmp_path / f"{name}.safetensors")
    assert count_weights(str(tmp_path)) == 2 * sum(tensors.values())
    for path in tmp_path.iterdir():
        path.rename(path.with_name(path.name.replace("model", "weights")))
    assert count_weights(str(tmp_path)) == 3 * sum(tensors.values()), "names that are not known"
    assert count_weights("nobody/has-this-model") is None
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    assert count_weights(str(tmp_path)) == 0


@pytest.mark.builtin_model
def test_the_builtin_model_is_as_large_as_said(builtin_model_path: Path) -> None:
    assert count_weights(str(builtin_model_path)) == count_weights("smollm2-135m")


def test_dry_run_and_run_say_it(tiny_model_path: Path, tmp_path: Path) -> None:
    line = ["synth", "--domain", str(write_domain(tmp_path / "mine")), "--output", str(tmp_path / "run")]
    line += ["--set", f"model={tiny_model_path}", "--set", "synthesis.questions=4", "--set", "synthesis.max_tokens=8"]
    for more in (["--dry-run"], []):  # the second ends soon, since a random model writes nothing that can be used
        told = CliRunner().invoke(app, [*line, *more]).stdout
        assert f"pairs judged by {tiny_model_path} on this machine" in told
        assert f"Warning: {tiny_model_path} has " in told


def test_the_short_line_of_the_page_on_domains_has_nobody_judge_who_can_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs/domains.md").read_text("utf-8")
    (settings,) = re.findall(r"`fspo synth --domain ./my-domain (.*?)`", page)
    monkeypatch.chdir(tmp_path)
    (paste, *_) = re.findall(r"^```sh\n(mkdir.*?)^```", page, re.DOTALL | re.MULTILINE)
    subprocess.run(["bash", "-eu", "-c", paste], check=True, stdin=subprocess.DEVNULL)
    done = CliRunner().invoke(app, ["synth", "--domain", "./my-domain", *settings.split(), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "pairs judged by measured attributes" in done.stdout
    assert "Warning" not in done.stdout
