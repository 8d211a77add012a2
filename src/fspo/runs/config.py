"""The configuration of a run: one YAML file that every verb reads, plus `--set` overrides.

Precedence, weakest first: the defaults, the file, `--set` in the order given, options such as `--output`. So
`--set training.all.steps=5` also replaces the steps that the file has for single methods.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from fspo.errors import ConfigError
from fspo.evaluation.benchmarks.benchmark import BENCHMARKS, BenchmarkConfig
from fspo.evaluation.config import EvaluationConfig
from fspo.llm.endpoint_config import EndpointConfig
from fspo.llm.ensemble import MemberConfig
from fspo.methods.adaptation import AdaptationRow
from fspo.methods.reader_table import READERS, ReaderRow
from fspo.methods.round_settings import RoundSettings
from fspo.methods.table import ADAPTATIONS, METHODS, USUAL, Method, training_order
from fspo.modeling.layouts import DEFAULT_LAYOUT, LayoutName
from fspo.paths import LocalPath, PlaceName
from fspo.printing import command, nearest, suggestion
from fspo.pydantic_errors import Key, Section, first_fault
from fspo.runs.yaml_file import Settings, read_settings
from fspo.synthesis.config import RENAMED, ExecutorConfig, SynthesisConfig
from fspo.synthesis.domain_files import open_domain, settings_of
from fspo.training.config import TrainingConfig

__all__ = ["EVERY", "RunConfig", "load_config", "methods_of", "readers_of", "training_endpoints"]

EVERY = "all"
"""The key below `training` and `readers` whose settings every trained method, or every reader, starts from."""


class RunConfig(Section):
    """Everything that a run depends on; `configs/` has complete files."""

    name: str = Field("run", min_length=1, pattern=r"^[\w.-]+$")
    """Name of the run, for the report and by default for the folder below `runs/`."""
    seed: int = Field(0, ge=0, le=2**32 - 1)
    """Seed of all stages that have no seed of their own in the file."""
    output: LocalPath = Path()
    """Folder of the run; by default runs/NAME."""
    model: PlaceName = "smollm2-135m"
    """The built-in model's name, a local folder, or a hub id."""
    data: LocalPath | None = None
    """Folder of your own dataset, which replaces the synthetic one; see `fspo data import`."""
    also_train: tuple[LocalPath, ...] = ()
    """Folders of more datasets that are split. The methods also train on their training parts; they are not
    evaluated."""
    endpoint: EndpointConfig | None = None
    """An OpenAI-compatible endpoint that does all of synthesis in place of `model`."""
    ensemble: tuple[MemberConfig, ...] = ()
    """Models that write the responses of synthesis, chosen at random by weight; by default the model that does
    everything else."""
    methods: tuple[str, ...] = USUAL
    """Methods to train and evaluate; docs/which-method.md lists them."""
    from_base: tuple[str, ...] = ()
    """Methods to train from the base model that would otherwise start from another method's weights."""
    synthesis: SynthesisConfig = Field(default_factory=SynthesisConfig)
    """How the run's synthetic data are made; unused with `data`."""
    layout: LayoutName = DEFAULT_LAYOUT
    """How every method shows shots: `labelled`, in one message, or `conversation`, as turns with the liked answers."""
    threads: int | None = Field(None, ge=1)
    """Processor threads of a model on this machine; by default the number of free cores when a part begins."""
    executor: ExecutorConfig = ExecutorConfig()
    """Where the labelling of synthesis runs: in this process, or on a Ray cluster. The data are the same."""
    given_training: dict[str, dict[str, Any]] = Field(default_factory=dict, alias="training")
    """Settings of training: under `all` for every method, under a method's name for that method alone."""
    given_readers: dict[str, dict[str, Any]] = Field(default_factory=dict, alias="readers")
    """Settings of readers (docs/methods.md): under `all` for those that have them, under a method's name for that one
    alone. A name of your own with `reader`, such as `{reader: np-btl, mirror: true}`, is one more method."""
    given_adaptations: dict[str, dict[str, Any]] = Field(default_factory=dict, alias="adaptations")
    """Settings of policies that adapt to each user by code of their own (docs/methods.md): under `all` for those that
    have them, under a method's name for that one alone."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What `fspo eval` measures."""
    benchmarks: dict[str, BenchmarkConfig] = Field(default_factory=dict)
    """For each benchmark, by its name: where its data are, and changes to its protocol."""

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, values: Any) -> Any:
        """Hand the run's seed to the stages, and derive the output folder from the name."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        seed = values.get("seed", 0)
        for section in ("synthesis", "evaluation"):
            inner = values.get(section)
            if isinstance(seed, int) and (inner is None or isinstance(inner, dict)):  # a wrong seed is told once
                values[section] = {"seed": seed, **(inner or {})}
        if "layout" in values and isinstance(values.get("evaluation"), dict):
            values["evaluation"].setdefault("layout", values["layout"])
        values.setdefault("output", Path("runs") / str(values.get("name", "run")))
        return values

    @cached_property
    def training(self) -> Mapping[str, TrainingConfig]:
        """Method -> the settings of its training, for every method of the run that trains, in that order.

        They are the method's defaults, the run's seed, what the file has for all methods, and what it has for this one.

        Raises:
            ConfigError: settings don't hold together.
        """
        return MappingProxyType({row.name: self.training_of(row) for row in training_order(methods_of(self))})

    @cached_property
    def readers(self) -> Mapping[str, ReaderRow]:
        """Method -> reader with its settings, for every method of the run that is a reader."""
        given = self.given_readers
        shared = {"seed": self.seed, **given.get(EVERY, {})}
        names = [name for name in self.methods if name not in METHODS]
        return MappingProxyType({name: ReaderRow(name, given.get(name, {}), shared) for name in names})

    @cached_property
    def adaptations(self) -> Mapping[str, AdaptationRow]:
        """Method -> its settings, for every method of the run that adapts to each user by code of its own."""
        given = self.given_adaptations
        shared = {"seed": self.seed, **given.get(EVERY, {})}
        kinds = {name: ADAPTATIONS[name] for name in self.methods if name in ADAPTATIONS}
        return MappingProxyType(
            {name: AdaptationRow(name, kind, given.get(name, {}), shared) for name, kind in kinds.items()}
        )

    @cached_property
    def written_in(self) -> Settings:
        """The file and the overrides that the values are from; no file if the configuration was made in Python."""
        return Settings("the defaults")

    def training_of(self, row: Method) -> TrainingConfig:
        """The same for one method, in the run or not."""
        given = self.given_training
        shared = {"seed": self.seed, "layout": self.layout}
        return row.training({**shared, **given.get(EVERY, {}), **given.get(row.name, {})})

    def training_key(self, method: str, setting: str) -> Key:
        """The key of the value that a method's training has for a setting; the method's own where there is none."""
        given = self.given_training
        sections = [section for section in (method, EVERY) if setting in given.get(section, {})]
        return ("training", *(sections[:1] or [method]), setting)

    def resolved(self) -> dict[str, Any]:
        """All values, defaults included, ready for YAML and JSON."""
        return self.model_dump(mode="json", by_alias=True)

    def changed(self) -> dict[str, Any]:
        """The values that differ from the defaults, ready for YAML."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def written(self) -> dict[str, Any]:
        """The values for a file that is read again: a section's seed that is the run's own stays the run's."""
        values = self.resolved()
        for section in ("synthesis", "evaluation"):
            if values[section]["seed"] == self.seed:
                del values[section]["seed"]
        if values["evaluation"]["layout"] == self.layout:
            del values["evaluation"]["layout"]
        return values


def methods_of(config: RunConfig) -> tuple[Method, ...]:
    """The methods of a run that a language model is, as configured; `readers_of` has the others."""
    rows = [METHODS[name] for name in config.methods if name in METHODS]
    starts = {name: row.settings.start for name, row in config.adaptations.items()}
    rows = [
        replace(row, starts_from=starts[row.name]) if starts.get(row.name) and not row.trains else row for row in rows
    ]
    return tuple(row.from_base() if row.name in config.from_base else row for row in rows)


def readers_of(config: RunConfig) -> tuple[ReaderRow, ...]:
    """The methods of a run that are readers, as configured."""
    return tuple(config.readers.values())


def training_endpoints(config: RunConfig, names: Iterable[str] | None = None) -> list[EndpointConfig]:
    """The endpoints that the trainings of these methods ask, by default those of all."""
    chosen = config.training if names is None else set(names)
    return [
        endpoint
        for name, training in config.training.items()
        if isinstance(training, RoundSettings) and name in chosen
        for endpoint in training.endpoints()
    ]


_STUDY_KEYS = frozenset({"arms", "consent"})
"""Settings that only a study's file has."""


def load_config(path: Path | None, overrides: Iterable[str] = (), output: Path | None = None) -> RunConfig:
    """Read the configuration of a run.

    `overrides` are `key.key=value` assignments, and `output` is the folder of the run, over what the file says. Without
    a file there are the defaults alone.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown (the nearest known one is named), or a value is
            of the wrong type; says in which line or override.
    """
    settings = read_settings(path) if path is not None else Settings("the defaults")
    if settings.values.keys() >= _STUDY_KEYS:
        proposed = command("fspo", "study", "serve", path)
        raise ConfigError(f"{path} describes a study, not a run; use `fspo study`, such as `{proposed}`.")
    settings.override(overrides, every=("training", EVERY))
    if output is not None:
        settings.values["output"] = str(output)
    return _validated(settings)


def configuration(values: Mapping[str, Any], name: str) -> RunConfig:
    """The configuration of a run from the values that a file would hold; `name` is what errors call them.

    Raises:
        ConfigError: a key is unknown (the nearest known one is named), or a value is of the wrong type.
    """
    return _validated(Settings(name, dict(values)))


def _validated(settings: Settings) -> RunConfig:
    _check_sections(settings)
    try:
        config = RunConfig.model_validate(settings.values)
    except ValidationError as error:
        raise _explain(error, settings, RunConfig) from error
    vars(config)["written_in"] = settings  # a cached property, so that configurations with equal values stay equal
    _check_names(config, settings)
    if config.evaluation.layout != config.layout:
        where = settings.where(("evaluation", "layout"))
        raise ConfigError(f"{where}: the layout of the evaluation is that of the run; set layout at the top alone.")
    _check_adaptations(config, settings)
    _check_training(config, settings)
    _check_readers(config, settings)
    return config


def _check_sections(settings: Settings) -> None:
    """Check that what is below `training` are sections, so that a setting beside them is answered with its place."""
    training = settings.values.get("training")
    for name, given in training.items() if isinstance(training, dict) else ():
        where, fields = settings.where(("training", str(name))), TrainingConfig.model_fields
        if name in (EVERY, *METHODS):
            if not isinstance(given, dict):
                raise ConfigError(f"{where}: 'training.{name}' takes settings by name, such as training.{name}.steps.")
            continue
        setting = name if name in fields else nearest(str(name), fields)
        if setting in fields and (name in fields or not isinstance(given, dict)):
            raise ConfigError(
                f"{where}: there is no method '{name}'; write training.{EVERY}.{setting} to set it for all methods, "
                f"or training.METHOD.{setting} for one, such as training.fspo.{setting}."
            )


def _check_names(config: RunConfig, settings: Settings) -> None:
    own = [name for name, given in config.given_readers.items() if "reader" in given]
    rows = [*METHODS, *READERS, *own]
    named: list[tuple[Key, str, list[str]]] = [(("methods",), name, rows) for name in config.methods]
    named += [(("readers", name), name, [*READERS, *own, EVERY]) for name in config.given_readers]
    named += [(("adaptations", name), name, [*ADAPTATIONS, EVERY]) for name in config.given_adaptations]
    named += [(("from_base",), name, list(METHODS)) for name in config.from_base]
    named += [(("training", name), name, [*METHODS, EVERY]) for name in config.given_training]
    for key, name, known in named:
        if key[0] == "training" and name in rows and name not in METHODS:
            raise ConfigError(f"{settings.where(key)}: settings of readers, such as '{name}', stand below readers.")
        if name not in known:
            raise ConfigError(f"{settings.where(key)}: there is no method '{name}'{suggestion(name, known)}")
    for name in config.benchmarks:
        if name not in BENCHMARKS:
            where = settings.where(("benchmarks", name))
            raise ConfigError(f"{where}: there is no benchmark '{name}'{suggestion(name, BENCHMARKS)}")
    if len(set(config.methods)) < len(config.methods):
        raise ConfigError(f"{settings.where(('methods',))}: a method is named twice; name each once.")
    if not config.methods:
        raise ConfigError(f"{settings.where(('methods',))}: no method is named; name some of {', '.join(rows)}.")
    for name in own:
        where, place = settings.where(("readers", name)), str(config.given_readers[name]["reader"])
        if name in (*METHODS, EVERY, *(model.name for model in config.evaluation.reward_models)):
            raise ConfigError(f"{where}: '{name}' is taken, so a reader can't be called that; call it otherwise.")
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ConfigError(
                f"{where}: '{name}' can't name a reader, since its folder is called that; use letters, digits, "
                "dots and hyphens, with a letter or digit first."
            )
        if place not in READERS and ":" not in place:
            hint = suggestion(place, READERS)
            raise ConfigError(f"{where}: there is no reader '{place}'{hint} Your own is written as module:Class.")


def _check_training(config: RunConfig, settings: Settings) -> None:
    """Merge the settings of every method that trains, so that what is wrong is named by the line that says it."""
    given = config.given_training
    for name in given:
        if name != EVERY and not METHODS[name].trains:
            where = settings.where(("training", name))
            raise ConfigError(f"{where}: the method '{name}' trains nothing; leave its settings out.")
    rows = {row.name: row for row in training_order(methods_of(config))}
    # Where nothing is trained, any method shows what is wrong with the settings of all.
    others = [METHODS[name] for name in given if name != EVERY] or [METHODS["fspo"]]
    for name, row in {**{row.name: row for row in others}, **rows}.items():
        section = name if name in given else EVERY
        try:
            training = config.training_of(row)
        except ConfigError as error:
            problem = error.__cause__
            if not isinstance(problem, ValidationError):
                raise
            key = first_fault(problem).key[:1]
            if key:
                section = name if key[0] in given.get(name, {}) else EVERY
            if key or name in rows:  # a method that is not in the run needs no settings that hold together
                raise _explain(problem, settings, row.settings, ("training", section)) from error
            continue
        if name in rows and training.layout != config.layout:
            where = settings.where(("training", section))
            raise ConfigError(f"{where}: '{name}' must be trained in the run's layout; set layout at the top alone.")
        if training.mirrors and name in rows and not row.draws_shots:
            raise ConfigError(
                f"{settings.where(('training', section))}: '{name}' shows the model no shots, so there are no labels "
                "to mirror; set mirror, or a mirrored objective, for other methods only."
            )


def _check_readers(config: RunConfig, settings: Settings) -> None:
    """Check the settings of the run's readers, and that each takes as many shots as the evaluation shows.

    Code of one's own is not imported here.
    """
    given = config.given_readers
    rows = [row for row in readers_of(config) if not row.own_code]
    for row in rows:
        try:
            _ = row.settings
        except ConfigError as error:
            raise _of_row(error, settings, row, "readers", given) from error
        try:
            row.check_shots(config.evaluation.shots)
        except ConfigError as error:
            raise ConfigError(f"{settings.where(('evaluation', 'shots'))}: {error}") from error
    if len(rows) == len(config.readers):
        known = sorted({name for row in rows for name in row.kind.Settings.model_fields})
        for name in given.get(EVERY, {}) if rows else ():
            if name not in known:
                where = settings.where(("readers", EVERY, name))
                raise ConfigError(f"{where}: no reader of this run has a setting '{name}'{suggestion(name, known)}")


def _check_adaptations(config: RunConfig, settings: Settings) -> None:
    """Check the settings of the run's adaptations, and that the evaluation shows as many shots as each needs."""
    given = config.given_adaptations
    for row in config.adaptations.values():
        try:
            start = row.settings.start
        except ConfigError as error:
            raise _of_row(error, settings, row, "adaptations", given) from error
        section = row.name if "start" in given.get(row.name, {}) else EVERY
        where = settings.where(("adaptations", section, "start"))
        if start is not None and (start not in METHODS or start in ADAPTATIONS or not METHODS[start].trains):
            able = [name for name in METHODS if name not in ADAPTATIONS and METHODS[name].trains]
            raise ConfigError(
                f"{where}: '{row.name}' can't start from '{start}', which is no method with a policy of its own; "
                f"choose {', '.join(able)}, or null for the base model."
            )
        try:
            row.check_shots(config.evaluation.shots)
        except ConfigError as error:
            raise ConfigError(f"{settings.where(('evaluation', 'shots'))}: {error}") from error
    known = sorted({name for row in config.adaptations.values() for name in row.kind.Settings.model_fields})
    for name in given.get(EVERY, {}) if config.adaptations else ():
        if name not in known:
            where = settings.where(("adaptations", EVERY, name))
            raise ConfigError(f"{where}: no method of this run has a setting '{name}'{suggestion(name, known)}")


def _of_row(
    error: ConfigError, settings: Settings, row: ReaderRow | AdaptationRow, part: str, given: Mapping[str, Any]
) -> ConfigError:
    """The sentence on a row's first invalid setting, with the section where it was written."""
    problem = error.__cause__
    if not isinstance(problem, ValidationError):
        return error
    key = first_fault(problem).key[:1]
    section = row.name if key and key[0] in given.get(row.name, {}) else EVERY
    return _explain(problem, settings, row.kind.Settings, (part, section))


def _explain(error: ValidationError, settings: Settings, model: type[BaseModel], above: Key = ()) -> ConfigError:
    """One sentence on the first thing wrong, with where it was written."""
    fault = first_fault(error, model, above)
    file = _domain_file(fault.key, settings)
    where = f"{file}, settings" if file else settings.where(fault.key)
    new = RENAMED.get(fault.key[-1]) if fault.key[:-1] == ("synthesis",) else None
    if new is not None and fault.kind == "extra_forbidden":
        return ConfigError(f"{where}: '{'.'.join(fault.key)}' is gone; write {new}.")
    places = _other_places(fault.key) if fault.kind == "extra_forbidden" else []
    if places:
        unknown = (
            f"there is no setting '{'.'.join(fault.key)}'"
            if fault.key[1:]
            else f"'{fault.key[0]}' belongs in a section"
        )
        return ConfigError(f"{where}: {unknown}; write {' or '.join(places)}.")
    return ConfigError(f"{where}: {fault.sentence}")


def _domain_file(key: Key, settings: Settings) -> str:
    """The file of the domain that gives this setting of synthesis; empty if the run itself does, or none."""
    given = settings.values.get("synthesis")
    if key[:1] != ("synthesis",) or not key[1:] or not isinstance(given, dict) or key[1] in given:
        return ""
    domain = given.get("domain")
    if not isinstance(domain, str) or key[1] not in settings_of(domain):
        return ""
    return f"{open_domain(domain).file('domain.yaml')}"


def _other_places(key: Key) -> list[str]:
    """Where there is a setting of the name that an unknown key ends with: in other sections, and at the top."""
    above, name = key[:-1], key[-1]
    sections: dict[Key, type[BaseModel]] = {
        ("training", EVERY): TrainingConfig,
        ("evaluation",): EvaluationConfig,
        ("synthesis",): SynthesisConfig,
    }
    if above and len(above) != next((len(section) for section in sections if section[0] == above[0]), 0):
        return []  # inside a list or a mapping of a section, where names mean other things
    found = [(*section, name) for section, model in sections.items() if name in model.model_fields]
    top = {field.alias or field_name for field_name, field in RunConfig.model_fields.items()}
    return [".".join(place) for place in found if place[:1] != above[:1]] + (
        [f"{name} at the top"] if above and name in top else []
    )
