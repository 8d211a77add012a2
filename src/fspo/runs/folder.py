"""The folder of a run: what lies where, what an earlier call left in it, and whether that may be continued."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from fspo.errors import ConfigError, StorageError
from fspo.evaluation.benchmarks.benchmark import BenchmarkConfig
from fspo.evaluation.config import EvaluationConfig
from fspo.files import check_no_others, check_writable, content, is_empty, locked, read_json, write_json, write_text
from fspo.identity import same
from fspo.keys import hidden_setting
from fspo.llm.cache import RequestCache
from fspo.llm.cache_shards import absorb_shards
from fspo.methods.method import Method
from fspo.methods.table import METHODS, training_order
from fspo.modeling.model_names import local_identity
from fspo.paths import expanded, in_full
from fspo.printing import option
from fspo.runs import processes
from fspo.runs.config import RunConfig, load_config, methods_of, readers_of
from fspo.runs.descriptions import DESCRIPTIONS_FILE
from fspo.runs.existing import Existing
from fspo.runs.made import RUN
from fspo.runs.versions import versions
from fspo.runs.yaml_file import read_settings
from fspo.synthesis.config import asks_models, usual_settings
from fspo.synthesis.domain_files import domain_names
from fspo.training.config import HARMLESS

__all__ = ["DATA", "EVALUATION", "RunFolder", "benchmark_part", "method_part", "methods_of"]

DATA, EVALUATION = "data", "evaluation"
"""Parts of a run folder; two kinds more are `methods/NAME` and `benchmarks/NAME`. A part depends on those before it."""

_BENCHMARKS = "benchmarks/"
_RESULTS = ("metrics.json", "samples.jsonl", "summary.json", "report.html")
_NOTES = ("settings.json", "command.json", "versions.json", "resolved.yaml", "endpoints.json", "spending.json")
_LOCK = ".lock"
_HEADER = "# Written by fspo, and anew by every verb; without this line the file stays as it is.\n"
"""The first line of a `config.yaml` that is no person's own."""


def method_part(name: str) -> str:
    """The part of a run folder that holds one method."""
    return f"methods/{name}"


def benchmark_part(name: str) -> str:
    """The part of a run folder that holds what was measured on one benchmark."""
    return f"{_BENCHMARKS}{name}"


class RunFolder:
    """A run's folder. Its parts remember the settings they were made with, in `settings.json`, and the versions."""

    def __init__(self, config: RunConfig) -> None:
        """The folder named by the configuration; nothing is written yet."""
        self.config = config
        self.path = config.output
        self.data = self.path / DATA
        self.evaluation = self.path / EVALUATION
        self.report = self.path / "report.html"
        self.computes_with = 0
        """How many threads this command was last said to compute with."""

    def method(self, name: str) -> Path:
        """The folder of one trained method."""
        return self.path / method_part(name)

    def measured(self, benchmark: str = "") -> Path:
        """Where the evaluation lies, or what was measured on a benchmark."""
        return self.path / benchmark_part(benchmark) if benchmark else self.evaluation

    @property
    def embeddings(self) -> Path:
        """The folder of the embeddings of responses, which all readers share."""
        return self.path / "embeddings"

    def report_on(self, benchmark: str = "") -> Path:
        """Where the report is, or that on a benchmark."""
        return self.measured(benchmark) / "report.html" if benchmark else self.report

    def parts(self) -> list[str]:
        """All parts of this run in the order they are made."""
        policies = training_order(methods_of(self.config))
        methods = [*(row.name for row in readers_of(self.config)), *(row.name for row in policies)]
        return [DATA, *map(method_part, methods), EVALUATION]

    def begun(self, part: str) -> bool:
        """Whether an earlier call has left something in this part."""
        folder = self.path / part
        return folder.is_dir() and any(folder.iterdir())

    def check(self, parts: Iterable[str], policy: Existing) -> None:
        """Check, without touching anything, that these parts may be made.

        Raises:
            ConfigError: the folder is a file, or holds other things, or results that `policy` does not allow to go on
                from.
            StorageError: it can't be written.
        """
        check_writable(self.path, inside=True)
        chosen = set(parts)
        if policy is Existing.FAIL:
            for part in filter(self.begun, sorted(chosen)):
                raise ConfigError(
                    f"{self.path / part} holds results of an earlier call; {_elsewhere()}, or "
                    f"choose {option('on-existing', 'resume')} or {option('on-existing', 'overwrite')}."
                )
        made = self._made()
        if not made:
            self._check_unclaimed()
        for part in filter(self.begun, self._checked(chosen)):
            if part not in made:
                raise ConfigError(f"{self.path / part} was not made by a run that is known here; {_elsewhere()}.")
            if policy is not Existing.OVERWRITE or part not in self._downstream(chosen):
                self._check_part(part, made[part], chosen)
        if policy is Existing.OVERWRITE:
            overwritten = self._downstream(chosen)
            self._check_same_run(overwritten, made)
            self._check_sources(overwritten)
            for part in overwritten:
                check_no_others(self.path, RUN, below=part)

    @property
    def is_new(self) -> bool:
        """Whether no run has begun in the folder."""
        return not self._made()

    def removed(self, parts: Iterable[str]) -> list[str]:
        """What is there and removed when these parts are made again: they, and all that was made from them."""
        return list(filter(self.begun, self._downstream(set(parts))))

    def made_from(self, parts: Iterable[str]) -> list[str]:
        """What is there besides these parts, and is removed when they are made again: other parts, and files."""
        chosen = set(parts)
        others = [part for part in self.removed(chosen) if part not in chosen]
        results = () if EVALUATION in chosen else _outdated(chosen)
        return [*others, *(name for name in results if (self.path / name).exists())]

    def _check_sources(self, overwritten: Iterable[str]) -> None:
        """Check that no data that the run reads would be removed before they are read."""
        given = [
            self.config.data,
            *self.config.also_train,
            *(benchmark.data for benchmark in self.config.benchmarks.values()),
        ]
        sources = [
            expanded(Path(source)).resolve() for source in given if source and not str(source).startswith("hub:")
        ]
        for part in filter(self.begun, overwritten):
            place = (self.path / part).resolve()
            for source in sources:
                if source.is_relative_to(place):
                    raise ConfigError(
                        f"{source} is to be read, and {place} would be removed before, so nothing is overwritten; copy "
                        "the data to another folder and name that."
                    )

    def _check_same_run(self, overwritten: Iterable[str], made: Mapping[str, Any]) -> None:
        """Check that what is overwritten was made by a run of the same name and, where data are, of the same domain."""
        losing = set(filter(self.begun, overwritten))
        if not losing:
            return
        name = self._noted_name()
        if name not in (None, self.config.name):
            raise ConfigError(
                f"{self.path} holds the run '{name}', and this is the run '{self.config.name}', so nothing is "
                f"overwritten; {_elsewhere()}, or give this run the name {name} if that one shall go."
            )
        then, now = _domain(made.get(DATA)), self.config.synthesis.domain
        if DATA in losing and self.config.data is None and then and _full(then) != _full(now):
            raise ConfigError(
                f"{self.data} was made on the domain {then}, and this run is on the domain {now}, so nothing is "
                f"overwritten; {_elsewhere()}."
            )

    def _noted_name(self) -> str | None:
        """The name of the run that was last at work in the folder; None where none is noted."""
        for path in (self.path / "resolved.yaml", self.path / "config.yaml"):
            if path.is_file():
                with suppress(ConfigError):
                    return str(read_settings(path).values.get("name", self.config.name))
        return None

    def _checked(self, chosen: set[str]) -> list[str]:
        """The parts whose settings must be those of now; a benchmark does without the run's own evaluation."""
        benchmarks = {part for part in chosen if part.startswith(_BENCHMARKS)}
        alone = bool(chosen) and chosen == benchmarks
        return [*(part for part in self.parts() if not (alone and part == EVALUATION)), *sorted(benchmarks)]

    def _check_unclaimed(self) -> None:
        """Check that the folder of a first run is new, is empty, or holds a configuration of a run written by hand.

        Beside that, anything may lie but what a run writes. Empty folders lose nothing.
        """
        if not self.path.exists():
            return
        own = self.path / "config.yaml"
        by_hand = own.is_file()
        if by_hand:
            try:
                load_config(own)
            except ConfigError as error:
                raise ConfigError(f"{error} So {self.path} is no run's folder; {_elsewhere()}.") from error
        try:
            places = [self.path / name for name in (*_NOTES, *_RESULTS)] if by_hand else list(content(self.path))
            strange = [place for place in places if place.exists() and not _is_left(place) and not is_empty(place)]
        except OSError as error:
            reason = error.strerror or error
            raise StorageError(f"{self.path} can't be read ({reason}); {_elsewhere()}.") from error
        if strange:
            raise ConfigError(
                f"{strange[0]} was not made by a run that is known here; {_elsewhere()}, one that is new or empty."
            )

    def _check_part(self, part: str, then: Mapping[str, Any], chosen: set[str]) -> None:
        now = self._settings(part)
        settings = {name: value for name, value in then.items() if name not in _NOTED}
        then, now = (_placed(self._without_idle(each, part)) for each in (_upgraded(settings, now), now))
        then, now = _of_common_adaptations(then, now)
        found = same(then, now, known=["weights"], usual=self._usual(part))
        if not found:
            remedy = (
                f"choose {option('on-existing', 'overwrite')} to regenerate it"
                if part in chosen
                else f"run `fspo {_verb(part)} --on-existing overwrite` first"
            )
            raise ConfigError(
                f"{self.path / part} was made with {found.then}, and now {found.now}; "
                f"{remedy}, {_elsewhere()}, or change the setting back."
            )

    @contextmanager
    def opened(
        self, parts: Iterable[str], policy: Existing, before: Callable[[], object] = lambda: None
    ) -> Iterator[RunFolder]:
        """Hold the folder for making these parts; what `policy` overwrites is removed, the configuration is noted.

        Of several processes the first does so; the others wait for it, and read.

        `before` checks all that making the parts needs; where it raises, nothing is removed or written.

        Raises:
            ConfigError: see `check`.
            StorageError: another process is at work in the folder, or it can't be written.
        """
        if not processes.is_first():
            processes.follow()
            yield self
            return
        with ExitStack() as held:
            with processes.leading():
                held.enter_context(self._held(list(parts), policy, before))
            yield self

    @contextmanager
    def _held(self, parts: Sequence[str], policy: Existing, before: Callable[[], object]) -> Iterator[None]:
        self.check(parts, policy)
        before()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"The folder {self.path} can't be made ({error.strerror or error}).") from error
        busy = f"Another fspo is at work in {self.path}; wait for it, or name another folder."
        with locked(self.path / _LOCK, busy=busy):
            self.check(parts, policy)  # again, since another process may have been at work until now
            made = self._made()
            if policy is Existing.OVERWRITE:
                self._forget_unusable()  # first, since it opens files that may be damaged or of another version
                for part in self._downstream(set(parts)):
                    _remove(self.path / part)
                for name in _outdated(parts):
                    (self.path / name).unlink(missing_ok=True)
            latest = versions()
            noted = {part: self._settings(part) | self._begun_with(part, made, latest) for part in parts}
            write_json(self.path / "settings.json", {**made, **noted})
            self._write_config()
            write_json(self.path / "command.json", {"command": ["fspo", *map(hidden_setting, sys.argv[1:])]})
            write_json(self.path / "versions.json", latest)
            yield

    def _forget_unusable(self) -> None:
        """Of the answers that were paid for, those that nothing could be done with are asked again."""
        for parts in self.path.glob("answers*-parts"):
            absorb_shards(parts.with_name(f"{parts.name.removesuffix('-parts')}.sqlite"))
        for answers in self.path.glob("answers*.sqlite"):
            cache = RequestCache(answers)
            cache.forget_unusable()
            cache.close()

    def _write_config(self) -> None:
        """Write the resolved configuration: as `config.yaml`, or as `resolved.yaml` beside one written by hand."""
        own, beside = self.path / "config.yaml", self.path / "resolved.yaml"
        by_hand = own.exists() and not own.read_bytes().startswith(_HEADER.encode())
        text = yaml.safe_dump(self.config.written(), sort_keys=False, allow_unicode=True, width=120)
        write_text(beside if by_hand else own, _HEADER + text)
        if not by_hand:
            beside.unlink(missing_ok=True)

    def _made(self) -> dict[str, Any]:
        """What settings.json notes of each part; nothing where the file is none of ours."""
        path = self.path / "settings.json"
        made = read_json(path) if path.exists() else {}
        parts = (DATA, EVALUATION, *map(method_part, METHODS))
        known = isinstance(made, dict) and any(part in parts or part.startswith(_BENCHMARKS) for part in made)
        return made if known else {}

    def _downstream(self, chosen: set[str]) -> list[str]:
        """The chosen parts and all that were made from them."""
        methods, benchmarks = self._on_disk("methods"), self._on_disk("benchmarks")
        if DATA in chosen:
            return [DATA, *methods, EVALUATION, *benchmarks]
        measured = {part for part in chosen if part.startswith(_BENCHMARKS)}
        if chosen <= measured | {EVALUATION}:
            return sorted(chosen)
        gone = _with_what_starts_from(chosen) | {EVALUATION, *benchmarks}
        return [part for part in (*methods, EVALUATION, *benchmarks) if part in gone]

    def _on_disk(self, kind: str) -> list[str]:
        made = self._made()
        parts = (f"{kind}/{path.name}" for path in sorted((self.path / kind).glob("*")) if path.is_dir())
        return [part for part in parts if part in made]

    def _begun_with(self, part: str, made: Mapping[str, Any], latest: Mapping[str, str]) -> dict[str, Any]:
        """What a part was begun with; a later call for the same part leaves that on record."""
        if not self.begun(part):
            return {"versions": latest}
        noted = made.get(part, {})
        return {name: noted[name] for name in _NOTED if noted.get(name)}

    def threads(self, part: str) -> int | None:
        """With how many threads a part was begun; None where it was not begun, or nothing is on record."""
        noted = self._made().get(part, {}).get("threads") if self.begun(part) else None
        return noted if isinstance(noted, int) and noted > 0 else None

    def note_threads(self, part: str, threads: int) -> None:
        """Put on record with how many threads a part is made."""
        made = self._made()
        write_json(self.path / "settings.json", {**made, part: {**made.get(part, {}), "threads": threads}})

    def _settings(self, part: str) -> dict[str, Any]:
        """What the contents of a part depend on, besides the parts before it."""
        config = self.config
        resolved = config.resolved()
        if part == DATA:
            if config.data is not None:
                return {"data": resolved["data"], "seed": config.seed}
            if not asks_models(config.synthesis):
                return {"synthesis": resolved["synthesis"]}
            endpoint = config.endpoint
            writer = local_identity(config.model) if endpoint is None else {"endpoint": endpoint.identity()}
            ensemble = [member.identity() for member in config.ensemble]
            synthesis = dict(resolved["synthesis"])
            if config.endpoint is not None and not any(member.model for member in config.ensemble):
                synthesis.pop("batch", None)  # how many are asked ahead; a local model's batches decide its rounding
            return {**writer, "synthesis": synthesis, **({"ensemble": ensemble} if ensemble else {})}
        name = part.rpartition("/")[2]
        if part == EVALUATION or part.startswith(_BENCHMARKS):
            adaptations = {name: row.identity() for name, row in config.adaptations.items()}
            measured = {"evaluation": config.evaluation.identity(), "adaptations": adaptations}
            own = config.benchmarks.get(name, BenchmarkConfig()).model_dump(mode="json")
            benchmarks = {} if part == EVALUATION else {"benchmarks": {name: own}}
            return {**local_identity(config.model), **measured, **benchmarks}
        others = {"also_train": resolved["also_train"]} if config.also_train else {}
        if (reader := config.readers.get(name)) is not None:
            return {**local_identity(config.model), "readers": {name: reader.identity()}, **others}
        row = self._row(name)
        training = config.training_of(row).identity()
        start = {**local_identity(config.model), "from": row.starts_from or "base"}
        return {**start, "training": {name: training}, **others}

    def _row(self, name: str) -> Method:
        """A method that trains, as this run configures it."""
        return next((row for row in training_order(methods_of(self.config)) if row.name == name), METHODS[name])

    def _without_idle(self, settings: dict[str, Any], part: str) -> dict[str, Any]:
        """The settings of a part without those of its training that change nothing."""
        name = part.rpartition("/")[2]
        training = settings.get("training")
        if not isinstance(training, dict) or not isinstance(training.get(name), dict):
            return settings
        idle = self.config.training_of(self._row(name)).idle
        decisive = {setting: value for setting, value in training[name].items() if setting not in idle}
        return {**settings, "training": {name: decisive}}

    def _usual(self, part: str) -> dict[str, Any]:
        """The defaults of the settings that a part depends on."""
        if part == DATA:
            return {"synthesis": usual_settings(self.config.synthesis)}
        adaptations = {
            name: row.kind.Settings().model_dump(mode="json") for name, row in self.config.adaptations.items()
        }
        evaluation = {"evaluation": EvaluationConfig.usual(), "adaptations": adaptations}
        name = part.rpartition("/")[2]
        if part.startswith(_BENCHMARKS):
            return {**evaluation, "benchmarks": {name: BenchmarkConfig().model_dump(mode="json")}}
        if (reader := self.config.readers.get(name)) is not None:
            return {"readers": {name: reader.usual()}}
        return evaluation if part == EVALUATION else {"training": {name: METHODS[name].settings.usual()}}


def _outdated(parts: Iterable[str]) -> tuple[str, ...]:
    """The files beside the parts that no longer apply when these parts are made again."""
    parts = list(parts)
    results = _RESULTS if any(not part.startswith(_BENCHMARKS) for part in parts) else ()
    return (*results, *([DESCRIPTIONS_FILE] if DATA in parts else []))  # descriptions of the people in the data


def _is_left(place: Path) -> bool:
    """Whether a file is a lock, or what a program that was killed while it wrote leaves."""
    return place.name.startswith(".") and (place.name == _LOCK or place.suffix in (".lock", ".tmp"))


def _domain(noted: Mapping[str, Any] | None) -> str:
    """The domain in what is noted of data; empty where they are not synthetic, or nothing is noted."""
    synthesis = (noted or {}).get("synthesis")
    return str(synthesis.get("domain", "")) if isinstance(synthesis, dict) else ""


def _with_what_starts_from(parts: set[str]) -> set[str]:
    """The parts, and the methods whose training starts from one of them, be it by way of others."""
    found = set(parts)
    starts = [(row.name, row.starts_from) for row in METHODS.values() if row.starts_from]
    while more := {method_part(name) for name, start in starts if method_part(start) in found} - found:
        found |= more
    return found


_NOTED = ("versions", "threads")
"""What is put on record of a part and decides nothing."""

_DECIDE_NOTHING = HARMLESS | {"base_url"}
"""What earlier versions noted too."""


def _elsewhere() -> str:
    """What else can be done about a folder that is in use."""
    return f"name another folder with {option('output')}"


def _upgraded(then: Any, now: Any) -> Any:
    """What was noted of a part, without what decides nothing and is not noted now."""
    if isinstance(then, dict):
        kept = now if isinstance(now, dict) else {}
        found = {key: value for key, value in then.items() if key in kept or key not in _DECIDE_NOTHING}
        return {key: _upgraded(value, kept.get(key)) for key, value in found.items()}
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        return [_upgraded(one, other) for one, other in zip(then, now, strict=True)]
    return then


_PLACES = ("model", "data", "domain", "also_train")
"""Settings that may name a folder."""


def _placed(settings: Any, key: str = "") -> Any:
    """The settings of a part with the folders of models, data and domains in full, however they were written."""
    if isinstance(settings, dict):
        return {name: _placed(value, name) for name, value in settings.items()}
    if isinstance(settings, list):
        return [_placed(value, key) for value in settings]
    return _full(settings) if key in _PLACES and isinstance(settings, str) else settings


def _full(name: str) -> str:
    """The full path of a folder; any other name, such as that of a domain of the package, is itself."""
    return name if name in domain_names() else in_full(name)


def _of_common_adaptations(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The settings of a part, without adaptations that only one side has: methods may join and leave an evaluation.

    Earlier versions noted none.
    """
    common = then.get("adaptations", {}).keys() & now.get("adaptations", {}).keys()
    for side in (then, now):
        yield {**side, "adaptations": {name: side["adaptations"][name] for name in sorted(common)}}


def _verb(part: str) -> str:
    if part.startswith(_BENCHMARKS):
        return f"eval --benchmark {part.removeprefix(_BENCHMARKS)}"
    return {DATA: "synth", EVALUATION: "eval"}.get(part, "train")


def _remove(path: Path) -> None:
    """Remove a part, whole: what is left of it would pass for one that was made with the new settings.

    Of a symbolic link, what is in the folder that it points at.
    """
    try:
        for inside in path.iterdir() if path.is_symlink() and path.is_dir() else (path,):
            if inside.is_dir() and not inside.is_symlink():
                shutil.rmtree(inside)
            else:
                inside.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{path} could not be removed ({error.strerror or error}); check its permissions and run the command again."
        ) from error
