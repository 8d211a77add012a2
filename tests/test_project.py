"""The project as a whole: documents say what is so, modules say what they offer, nothing points at one machine."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
MODULES = sorted((ROOT / "src/fspo").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked() -> list[Path]:
    """The files of the repository, whether it is a checkout or an unpacked archive."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        kept = ("src", "tests", "configs", "docs", "benchmarks")
        return [path for name in kept for path in (ROOT / name).rglob("*") if path.is_file()]
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_make_has_what_it_should() -> None:
    assert {"install", "demo", "test", "check", "bench", "docs"} <= targets()


@pytest.mark.parametrize("name", [*PAGES, ".ci/run"])
def test_commands_of_the_documents_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)) <= targets()
    for path in re.findall(r"\b(?:configs|docs|benchmarks|tests|src)/[\w./-]+\w\.(?:yaml|md|py|svg)", text):
        assert (ROOT / path).exists() or "NAME" in path, path
    for module in re.findall(r"python -m (benchmarks\.\w+)", text):
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), module


@pytest.mark.parametrize("name", ["README.md", "docs/README.md"])
def test_verbs_of_the_front_pages_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    shown = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    shown += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    verbs = {found[1] for line in shown if (found := re.match(r"(?:\.venv/bin/)?fspo ((?:data |model )?[a-z]+)", line))}
    assert {"run", "env"} | ({"data import", "data split"} if name == "README.md" else set()) <= verbs
    reference = (ROOT / "docs/cli.md").read_text()  # tests/cli/test_info.py compares it with the commands
    for verb in verbs:
        assert f"# fspo {verb}\n" in reference, verb


def test_the_readme_has_its_parts_in_order() -> None:
    text = (ROOT / "README.md").read_text()
    parts = ["adapt to a person", "docs/loop.svg", "make install", "make demo", "## What comes out", "## Recipes"]
    parts += ["**Your own data.**", "**Your own model.**", "**An endpoint.**", "**From Python.**"]
    parts += ["**The policy without fspo.**", "**Real people.**", "docs/README.md", "make test", "## Licence"]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_the_readme_is_short() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 120
    for paragraph in re.sub(r"```.*?```", "", text, flags=re.DOTALL).split("\n\n"):
        shown = re.sub(r"\]\([^)]*\)|`[^`]*`", "", paragraph)
        assert len(re.findall(r"(?<![\w.-])\d[\d.,]*", shown)) <= 3, paragraph


def anchors(page: Path) -> set[str]:
    """The places of a page that a link can name, as GitHub makes them of its headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", [*PAGES, "docs/results/README.md"])
def test_links_of_the_documents_lead_somewhere(name: str) -> None:
    page = ROOT / name
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if not link.startswith(("http://", "https://", "mailto:")):
            path, _, place = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not place or place in anchors(target), link


def test_every_page_says_what_its_reader_can_do_afterwards_and_is_listed() -> None:
    index = (ROOT / "docs/README.md").read_text()
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name == "README.md" or f"({path.name})" in index, path.name
        if path.name not in ("cli.md", "log.md"):
            assert path.read_text().split("\n\n")[1].startswith("After reading this page you"), path.name


def test_yaml_of_the_readme_and_the_page_on_endpoints_loads(tmp_path: Path) -> None:
    from fspo.runs.config import load_config

    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 2
    blocks += re.findall(r"```yaml\n(# in the run's.*?)```", (ROOT / "docs/endpoints.md").read_text(), re.DOTALL)
    assert len(blocks) >= 3
    for block in blocks:
        (tmp_path / "run.yaml").write_text(block)
        load_config(tmp_path / "run.yaml")


@functools.cache
def parsed() -> dict[Path, ast.Module]:
    """Each module of the package."""
    return {path: ast.parse(path.read_text()) for path in MODULES}


def test_every_module_names_what_it_offers() -> None:
    for path, tree in parsed().items():
        assert ast.get_docstring(tree), f"{path} says what it is about"
        names = {name for node in tree.body for name in _bound(node)}
        if path.name == "__init__.py" and not names:
            continue
        assert "__all__" in names, path
        offered = next(ast.literal_eval(node.value) for node in tree.body if "__all__" in _bound(node))  # type: ignore[attr-defined]
        assert len(offered) == len(set(offered)), path
        missing = set(offered) - names
        assert not missing, f"offered but not in {path}: {missing}"


def _bound(node: ast.stmt) -> set[str]:
    """The names that a statement at the top of a module binds."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return {node.name}
    if isinstance(node, ast.Assign):
        return {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return {node.target.id}
    if isinstance(node, ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
        # What is offered lazily; that it is there when asked for is a test of its own (tests/training/test_api.py).
        return {name for inner in node.body for name in _bound(inner)}
    return set()


def test_import_directions_are_a_contract_for_every_room() -> None:
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {part.strip().removeprefix("fspo.") for layer in layers for part in layer.split("|")}
    rooms = {path.stem for path in (ROOT / "src/fspo").glob("[a-z]*") if path.suffix == ".py" or path.is_dir()}
    assert rooms - named == set()


def test_everything_imported_is_declared() -> None:
    """Third parties imported at the top or inside functions, against the dependencies in pyproject.toml."""
    declared = {re.split(r"[<>=\[]", line)[0].lower() for line in PROJECT["project"]["dependencies"]}
    # Extras, asked for by name where they are missing; and tables that whoever hands one over has installed.
    optional = {"aiohttp", "certifi", "datasets", "pandas", "ray"}
    extras = PROJECT["project"]["optional-dependencies"]
    serve, study = ({re.split(r"[<>=\[]", line)[0] for line in extras[name]} for name in ("serve", "study"))
    modules = {"yaml": "pyyaml", "markupsafe": "jinja2", "sklearn": "scikit-learn", "markdown_it": "markdown-it-py"}
    for path, tree in parsed().items():
        here = declared | (serve if {"serving", "serve.py", "study", "study.py"} & set(path.parts) else set())
        here |= study if {"study", "study.py"} & set(path.parts) else set()
        for node in ast.walk(tree):
            found = [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            found += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in {(module or "").split(".")[0] for module in found}:
                if name != "fspo" and name not in sys.stdlib_module_names and name not in optional:
                    assert modules.get(name, name).lower().replace("_", "-") in here, f"{path.name} imports {name}"


def test_the_clients_of_the_servers_tests_are_declared() -> None:
    """Other packages bring them, and may stop doing so."""
    declared = {re.split(r"[<>=\[]", line)[0] for line in PROJECT["project"]["optional-dependencies"]["dev"]}
    imported = set[str]()
    for path in (ROOT / "tests/serving").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            imported |= {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
    known = {re.split(r"[<>=\[]", line)[0] for line in PROJECT["project"]["dependencies"]} | declared
    known |= {re.split(r"[<>=\[]", line)[0] for line in PROJECT["project"]["optional-dependencies"]["serve"]}
    tops = {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names) - {"fspo", "tests"}
    assert tops <= known, tops - known


def test_constraints_pin_every_dependency_exactly() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines), (
        "no local versions, no addresses"
    )
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    extras = [line for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra]
    for line in PROJECT["project"]["dependencies"] + extras:
        name = re.split(r"[<>=\[]", line)[0].lower()
        assert name == "fspo" or name in pinned, name


def test_nothing_points_at_one_machine_or_registry() -> None:
    registries = [".".join(("pypi", "org")), ".".join(("pythonhosted", "org")), "index" + "-url", "find" + "-links"]
    machines = ["/" + "root/", "/" + "home/", "/" + "Users/", "/" + "tmp/dev", "/" + "work/"]
    for path in tracked():
        if path.suffix in (".png", ".parquet", ".safetensors", ".gguf"):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        for word in registries + machines:
            assert word not in text, f"{path.relative_to(ROOT)} names {word}"


def test_the_source_archive_holds_what_the_tests_read() -> None:
    included = {name.removeprefix("/") for name in PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]}
    added_by_hatchling = {"pyproject.toml", ".gitignore"}
    assert {path.relative_to(ROOT).parts[0] for path in tracked()} <= included | added_by_hatchling
    assert all((ROOT / name).exists() for name in included)


def test_the_licence_and_citation_agree() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()[:200]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["license"] == "Apache-2.0"
    assert "2502.19312" in citation["preferred-citation"]["url"]


def test_hooks_need_no_network() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repo["repo"] for repo in hooks["repos"]] == ["local"]
    assert all(hook["language"] == "system" for hook in hooks["repos"][0]["hooks"])


def test_the_page_on_methods_has_every_method_in_both_tables() -> None:
    from fspo.methods.table import METHODS, USUAL

    page = (ROOT / "docs/which-method.md").read_text()
    for name in METHODS:
        assert len(re.findall(rf"^\| `{name}` \|", page, re.MULTILINE)) == 2, name
    assert f"methods: [{', '.join(USUAL)}]" in page
