"""Settings of training that have no effect on a run's methods, since their objective does not use them."""

from __future__ import annotations

from fspo.errors import ConfigError
from fspo.runs.config import EVERY, RunConfig

__all__ = ["check_unused_settings"]


def check_unused_settings(config: RunConfig, *, begun: bool) -> list[str]:
    """Refuse a setting that has no effect on any method that it is for, and return a line for each that has some.

    Pref-FT compares no pairs, so no line says that it does not use a setting of preference objectives.

    Args:
        config: the settings.
        begun: whether a training has begun with them. It can't continue without a setting, so none is refused. A
            setting of the file that the command line leaves without effect is not refused either.

    Raises:
        ConfigError: naming the first such setting, where it stands, and what it needs.
    """
    lines: list[str] = []
    faults: list[str] = []
    for section, given in config.given_training.items():
        for setting in given:
            meant = _meant(config, section, setting)
            lacking = {name: need for name in meant if (need := _lacks(config, name, setting))}
            if not lacking:
                continue
            where, need = config.written_in.where(("training", section, setting)), next(iter(lacking.values()))
            what = f"{where}: training.{section}.{setting} has no effect on"
            if len(lacking) == len(meant):
                sentence = f"{what} {' and '.join(lacking)}, since it needs {need}; set that too, or leave it out."
                refused = not begun and not _left_by_override(config, section, setting)
                (faults if refused else lines).append(sentence)
            elif compared := [name for name in lacking if config.training[name].objective != "pref-ft"]:
                lines.append(f"{what} {' and '.join(compared)}, since it needs {need}.")
    if faults:
        more = f" {len(faults) - 1} more settings have no effect." if len(faults) > 1 else ""
        raise ConfigError(faults[0] + more)
    return lines


def _meant(config: RunConfig, section: str, setting: str) -> list[str]:
    """The methods that train with what this section says."""
    if section != EVERY:
        return [section] if section in config.training else []
    return [name for name in config.training if setting not in config.given_training.get(name, {})]


def _lacks(config: RunConfig, method: str, setting: str) -> str:
    """What a setting would need to have an effect on a method; empty where it has one."""
    return config.training[method].without_effect([setting]).get(setting, "")


def _left_by_override(config: RunConfig, section: str, setting: str) -> bool:
    """Whether the file has the setting, and the command line changes methods or their training."""
    overridden = config.written_in.overridden
    own = ("training", section, setting)
    if any(key == own[: len(key)] for key in overridden):
        return False
    return any(key[0] in ("training", "methods", "from_base") for key in overridden)
