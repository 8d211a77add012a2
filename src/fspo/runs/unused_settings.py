"""Settings that have no effect in a run: its objectives don't use them, or its data are written already."""

from __future__ import annotations

from collections.abc import Collection

from fspo.errors import ConfigError
from fspo.runs.config import EVERY, RunConfig

__all__ = ["check_unused_settings", "unused_writers"]


def check_unused_settings(config: RunConfig, trained: Collection[str], *, begun: bool) -> list[str]:
    """Refuse settings without effect on every method they are for, and return lines on those that some methods use.

    A setting that is only for methods that are not trained now is not looked at.

    Pref-FT compares no pairs, so no line says that it does not use a setting of preference objectives.

    Args:
        config: the settings.
        trained: the methods that are trained now.
        begun: whether a training has begun with them; then none is refused. Neither is a setting of the file that the
            command line leaves without effect.

    Raises:
        ConfigError: naming the settings, where the first one stands, and what it needs.
    """
    lines: list[str] = []
    faults: dict[str, str] = {}
    for section, given in config.given_training.items():
        for setting in given:
            meant = _meant(config, section, setting)
            lacking = {name: need for name in meant if (need := _lacks(config, name, setting))}
            used = len(lacking) < len(meant)
            named = [
                name
                for name in lacking
                if name in trained and (not used or config.training[name].objective != "pref-ft")
            ]
            if not named:
                continue
            key, need = ("training", section, setting), lacking[named[0]]
            where, name = config.written_in.where(key), ".".join(key)
            what = f"{where}: {name} has no effect on {', '.join(named)}, since it needs {need}"
            if used:
                lines.append(f"{what}.")
            elif begun or _left_by_override(config, section, setting):
                lines.append(f"{what}; set that too, or leave {setting} out.")
            else:
                faults[name] = f"{what}; set that too, or leave {setting} out."
    if faults:
        first, *others = faults
        more = f" {' and '.join(others)} {'has' if len(others) == 1 else 'have'} none either." if others else ""
        raise ConfigError(faults[first] + more)
    return lines


def unused_writers(config: RunConfig) -> list[str]:
    """A line if the run names endpoints that write data, though its data are written already."""
    given = [name for name in ("endpoint", "ensemble") if getattr(config, name)]
    if config.data is None or not given:
        return []
    where, has = config.written_in.where((given[0],)), "has" if len(given) == 1 else "have"
    return [
        f"{where}: {' and '.join(given)} {has} no effect, since data names a dataset that exists. To write data, leave "
        "data out; to judge answers, name the endpoint in evaluation.judges."
    ]


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
