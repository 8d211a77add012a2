"""What makes two things the same: weights, endpoints, functions and settings.

Everything that is kept and used again is found by an identity from here. An identity holds neither an address nor a
key: a server may move, and a dataset may be shared. What can't be identified is refused (`Unidentified`), so that
results of one thing are never used for another.
"""

from __future__ import annotations

import builtins
import dis
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
import sysconfig
import time
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from fspo.errors import FspoError, StorageError
from fspo.files import cache_folder, read_json, write_json
from fspo.keys import holds_secret

__all__ = [
    "WORKING",
    "Sameness",
    "Unidentified",
    "callable_identity",
    "digest",
    "draw_by",
    "endpoint_identity",
    "file_digest",
    "same",
    "seed_by",
    "weights_identity",
]


def digest(value: Any, length: int = 16) -> str:
    """The first hexadecimal digits of the SHA-256 of what JSON can hold; 64 are all of them."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]


def draw_by(*parts: object) -> str:
    """A number in hexadecimal, drawn by the parts alone: what else is drawn, before or after, leaves it the same."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()


def seed_by(*parts: object) -> int:
    """A seed, drawn by the parts alone."""
    return int(hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()[:8], 16) % 2**31


# Settings


@dataclass(frozen=True)
class Sameness:
    """What came of a comparison of settings: true where they are the same."""

    key: str = ""
    """The path of the first setting that differs, such as `endpoint.extra_body`."""
    then: str = ""
    """That setting as it was, in words."""
    now: str = ""
    """That setting as it is."""

    def __bool__(self) -> bool:
        """Whether the settings are the same."""
        return not self.then


_LONGEST = 200
"""Characters of a value that are shown."""


def same(then: Any, now: Any, *, known: Iterable[str] = (), usual: Mapping[str, Any] | None = None) -> Sameness:
    """Whether settings are the same as before; if not, the first one that was changed, added or removed.

    A setting that is None counts as not set.

    `known` are keys that are left out of the comparison where only one side has them, since the other may be anything.
    `usual` are the defaults, in the form of the settings: a setting that one side lacks has its default there, since an
    earlier version did not know it. So the default of a new setting must do what was done without it.
    """
    found = _compared(_plain(then), _plain(now), _plain(usual or {}), "", frozenset(known))
    return Sameness() if found is None else found


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _compared(then: Any, now: Any, usual: Any, above: str, known: frozenset[str]) -> Sameness | None:
    if isinstance(then, dict) and isinstance(now, dict):
        defaults = usual if isinstance(usual, dict) else {}
        for key in dict.fromkeys([*then, *now]):
            default = defaults.get(key)
            one, other = (side.get(key, default) for side in (then, now))
            if key in known and (one is None or other is None):
                continue
            found = _compared(one, other, default, f"{above}.{key}" if above else key, known)
            if found is not None:
                return found
        return None
    if isinstance(then, list) and isinstance(now, list) and len(then) == len(now):
        pairs = enumerate(zip(then, now, strict=True))
        found_in = (_compared(one, other, None, f"{above}[{place}]", known) for place, (one, other) in pairs)
        return next((found for found in found_in if found is not None), None)
    if then == now and (type(then) is type(now) or _both_numbers(then, now)):
        return None
    key = above or "the whole"
    return Sameness(key, _said(key, then), _said(key, now))


def _both_numbers(*values: Any) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _said(key: str, value: Any) -> str:
    if value is None:
        return f"{key} not set"
    text = json.dumps(value, ensure_ascii=False)
    return f"{key} = {text if len(text) <= _LONGEST else text[:_LONGEST] + ' ...'}"


# Endpoints

_NOT_DECISIVE = frozenset({"base_url", "key_variable", "requests_in_flight", "timeout", "retries", "budget"})
"""Settings of an endpoint that decide where and how it is asked, and not what it answers."""


def endpoint_identity(settings: Mapping[str, Any]) -> dict[str, Any]:
    """An endpoint by all settings that may change its answers: neither its address nor a key.

    Every setting counts that is not known to change nothing, so that a new one is never forgotten.
    """
    kept = {key: value for key, value in settings.items() if key not in _NOT_DECISIVE}
    return {key: _without_credentials(value) for key, value in kept.items() if value not in (None, {}, [], ())}


def _without_credentials(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_credentials(item) for key, item in value.items() if not holds_secret(str(key), item)}
    return [_without_credentials(item) for item in value] if isinstance(value, list | tuple) else value


# Weights

_READ = (".json", ".safetensors", ".jinja", ".model", ".txt")
"""Ends of the files that bear on what a model says: weights, configurations, chat templates and tokenizers."""
_NOTES = frozenset({"training.json"})
WORKING = frozenset({"checkpoints", "rounds"})
"""Folders of a training inside that of its policy, which are no part of the policy."""
_WORTH = 1 << 20
"""Bytes of a file below which reading it is quicker than looking up its digest."""
_SETTLED = 2_000_000_000
"""Nanoseconds: a file that was changed so recently may be changed again without another time of change."""


def weights_identity(folder: Path) -> str:
    """The model in a folder, by the SHA-256 of every file that bears on what it says, and by the files' names.

    The digests of large files are kept in the cache folder, for files that have the same inode, size and times.

    Raises:
        StorageError: a file can't be read.
    """
    return f"files sha256:{digest(_listed(folder, _READ), 64)}"


def _listed(folder: Path, ends: Sequence[str]) -> list[list[str]]:
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        passed = inside.name in _NOTES or any(part in WORKING or part.startswith(".") for part in inside.parts)
        if path.suffix in ends and not passed and path.is_file():
            found.append([inside.as_posix(), file_digest(path)])
    return found


def file_digest(path: Path) -> str:
    """The SHA-256 of a file.

    Raises:
        StorageError: it can't be read.
    """
    try:
        before = path.stat()
        if before.st_size < _WORTH:
            return _read_digest(path)
        place, state = os.path.realpath(path), _state(before)
        with suppress(FspoError, AttributeError):
            known = read_json(_memo(place))
            if known.get("state") == state and re.fullmatch(r"[0-9a-f]{64}", str(known.get("sha256"))):
                return str(known["sha256"])
        began, found = time.time_ns(), _read_digest(path)
        if _state(path.stat()) == state and began - max(before.st_mtime_ns, before.st_ctime_ns) > _SETTLED:
            with suppress(FspoError):
                write_json(_memo(place), {"state": state, "sha256": found})
        return found
    except OSError as error:
        raise StorageError(f"{path} can't be read ({error.strerror or error}); check its permissions.") from error


def _read_digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _state(stat: os.stat_result) -> str:
    # The time of the last change of the inode can't be set back, as that of the contents can.
    return f"{stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


def _memo(place: str) -> Path:
    """Where the digest of a file is kept; where that can't be, the file is read each time."""
    return cache_folder() / "digests" / f"{digest(place, 32)}.json"


# Functions


class Unidentified(FspoError):
    """Something that can't be told from others: what it is, in a few words."""


def callable_identity(function: object) -> str:
    """A function by all that it computes with: its code, defaults, closure, globals and fixed arguments.

    Functions that it uses are identified likewise, objects by their class, methods and attributes, and packages that
    are installed by their version. An `identity` that an object states for itself is believed. What a function reads
    from files or the network is not known here.

    Raises:
        Unidentified: it uses something that can't be identified, such as a model in memory.
    """
    title = str(getattr(function, "__qualname__", type(function).__qualname__))
    return f"code sha256:{digest(_Walk().of(function, title), 64)}"


_ATOMS = (type(None), bool, int, float, complex, str, bytes, types.EllipsisType, types.NotImplementedType)
_MEMBERS_OF_CLASSES = (types.MemberDescriptorType, types.GetSetDescriptorType)
_BUILT_IN = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
)
_SLOTS_OF_CLASSES = frozenset(
    {"__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__match_args__", "__slots__"}
    | {"__dataclass_fields__", "__dataclass_params__", "__abstractmethods__", "_abc_impl", "__parameters__"}
    | {"__orig_bases__", "__protocol_attrs__", "__non_callable_proto_members__", "__qualname__"}
)


class _Walk:
    """Describes objects as what JSON can hold, so that equal descriptions compute the same."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}
        self._held: list[object] = []  # an id is an object's own only while that lives
        self._attributes: list[frozenset[str]] = []
        """Names that the functions under way look up in modules and objects, the innermost last."""
        self._modules: set[tuple[str, frozenset[str]]] = set()

    def of(self, value: Any, where: str) -> Any:
        """The description of `value`, which is found at `where`."""
        if type(value) in _ATOMS:
            return [type(value).__name__, repr(value)]
        if isinstance(value, types.ModuleType):
            return self._module(value, where)
        if type(value) in (tuple, frozenset):  # whether equal ones are one object is up to the compiler
            return self._content(value, where)
        if id(value) in self._begun:
            return ["again", self._begun[id(value)]]
        self._begun[id(value)] = len(self._begun)
        self._held.append(value)
        return self._described(value, where)

    def _content(self, value: Any, where: str) -> Any:
        """What is in a collection; sets have no order."""
        if isinstance(value, dict):
            return ["dict", [[self.of(key, where), self.of(item, f"{where}[{key!r}]")] for key, item in value.items()]]
        if isinstance(value, set | frozenset):
            return ["set", sorted(digest(self.of(item, where)) for item in value)]
        return [type(value).__name__, [self.of(item, where) for item in value]]

    def _described(self, value: Any, where: str) -> Any:
        kind = type(value)
        stated = None if isinstance(value, type) else getattr(value, "identity", None)
        if isinstance(stated, str) and stated:
            return ["stated", kind.__qualname__, stated]
        if kind in (list, dict, set):
            return self._content(value, where)
        if isinstance(value, types.FunctionType):
            return self._function(value, where)
        if isinstance(value, types.MethodType):
            return ["method", self.of(value.__func__, where), self.of(value.__self__, where)]
        if isinstance(value, _BUILT_IN):
            return self._built_in(value, where)
        if isinstance(value, functools.partial):
            return ["partial", *(self.of(part, where) for part in (value.func, value.args, value.keywords))]
        if isinstance(value, staticmethod | classmethod):
            return [kind.__name__, self.of(value.__func__, where)]
        if isinstance(value, property):
            return ["property", *(self.of(part, where) for part in (value.fget, value.fset, value.fdel))]
        if isinstance(value, functools.cached_property):
            return ["property", self.of(value.func, where)]
        if isinstance(value, type):
            return self._class(value, where)
        return self._instance(value, where)

    def _function(self, function: types.FunctionType, where: str) -> Any:
        home = _package_of(str(function.__globals__.get("__name__")))
        cells = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
        reads = _Reads.of(function.__code__)
        self._attributes.append(reads.attributes)
        try:
            held = {name: self._cell(cell, f"{where}, '{name}'") for name, cell in cells.items()}
            own = {key: self.of(item, f"{where}.{key}") for key, item in sorted(vars(function).items())}
            given = [
                self.of(part, f"the defaults of {where}") for part in (function.__defaults__, function.__kwdefaults__)
            ]
            if home is not None:
                return ["installed", home, function.__module__, function.__qualname__, given, held, own]
            found = {name: self._global(function, name, where) for name in sorted(reads.names)}
            imported = {name: self._import(function, name, where) for name in sorted(reads.imports)}
        finally:
            self._attributes.pop()
        return ["function", _code(function.__code__), given, held, own, found, imported]

    def _cell(self, cell: Any, where: str) -> Any:
        try:
            contents = cell.cell_contents
        except ValueError:
            return "empty"
        return self.of(contents, where)

    def _global(self, function: types.FunctionType, name: str, where: str) -> Any:
        if name in function.__globals__:
            return self.of(function.__globals__[name], f"{where}, '{name}'")
        return ["built in", name] if hasattr(builtins, name) else ["missing", name]

    def _import(self, function: types.FunctionType, name: str, where: str) -> Any:
        if (home := _package_of(name)) is not None:
            return ["installed", home, name]
        try:
            found = importlib.import_module(name)
        except Exception as error:  # whatever somebody else's module does when it is read
            raise Unidentified(f"{where} imports '{name}', which can't be imported here") from error
        return self.of(found, f"{where}, '{name}'")

    def _module(self, module: types.ModuleType, where: str) -> Any:
        """An installed module by its version, any other by what the function at hand looks up in it."""
        if (home := _package_of(module.__name__)) is not None:
            return ["module", home, module.__name__]
        names: frozenset[str] = self._attributes[-1] if self._attributes else frozenset()
        if (module.__name__, names) in self._modules:
            return ["again", module.__name__]
        self._modules.add((module.__name__, names))
        used = {name: vars(module)[name] for name in sorted(names) if name in vars(module)}
        if not used:
            raise Unidentified(f"{where} is the module '{module.__name__}', and nothing says what is used of it")
        return ["module", module.__name__, {name: self.of(item, f"{where}.{name}") for name, item in used.items()}]

    def _built_in(self, value: Any, where: str) -> Any:
        owner = getattr(value, "__self__", None)
        module = getattr(value, "__module__", None) or getattr(getattr(value, "__objclass__", None), "__module__", None)
        module = str(module or "builtins")
        place = [module, value.__qualname__, _package_of(module)]
        if owner is None or isinstance(owner, types.ModuleType):
            return ["built in", *place]
        return ["built in", *place, self.of(owner, where)]

    def _class(self, kind: type, where: str) -> Any:
        if (home := _package_of(kind.__module__)) is not None:
            return ["installed", home, kind.__module__, kind.__qualname__]
        members = {
            name: self.of(member, f"{where}.{name}")
            for name, member in sorted(vars(kind).items())
            if name not in _SLOTS_OF_CLASSES and not isinstance(member, _MEMBERS_OF_CLASSES)
        }
        return ["class", kind.__qualname__, [self.of(base, where) for base in kind.__bases__], members]

    def _instance(self, value: Any, where: str) -> Any:
        kind = type(value)
        home = _package_of(kind.__module__)
        if isinstance(value, Enum):
            return ["member", self._class(kind, where), value.name]
        if isinstance(value, re.Pattern):
            return ["pattern", repr(value.pattern), value.flags]
        if isinstance(getattr(value, "__wrapped__", None), types.FunctionType):  # such as functools.cache
            return ["wrapper", kind.__qualname__, self.of(value.__wrapped__, where)]
        if (array := _array(value)) is not None:
            return array
        if home is None:
            content = self._content(value, where) if isinstance(value, list | tuple | dict | set | frozenset) else None
            held = {name: self.of(item, f"{where}.{name}") for name, item in sorted(_state_of(value).items())}
            return ["instance", self.of(kind, where), content, held]
        if home == _STANDARD:
            return self._standard(value, where)
        raise Unidentified(f"{where} is a {kind.__module__}.{kind.__qualname__}, which can't be told from others")

    def _standard(self, value: Any, where: str) -> Any:
        """An object of Python's own library, such as a date or a path, by how it can be made again."""
        kind = type(value)
        try:
            reduced = value.__reduce_ex__(4)
        except Exception as error:  # an open file, a lock
            raise Unidentified(f"{where} is a {kind.__qualname__}, which can't be told from others") from error
        if isinstance(reduced, str):
            return ["standard", kind.__module__, kind.__qualname__, reduced]
        parts = [list(part) if isinstance(part, Iterator) else part for part in reduced]
        return ["standard", kind.__module__, kind.__qualname__, [self.of(part, where) for part in parts]]


@dataclass(frozen=True)
class _Reads:
    """What a function looks up by name."""

    names: frozenset[str]
    """Globals."""
    attributes: frozenset[str]
    imports: frozenset[str]

    @classmethod
    def of(cls, code: types.CodeType) -> _Reads:
        """All of the code's, with the functions in it."""
        names, attributes, imports = set(), set(), set()
        for step in _steps(code):
            if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
                names.add(str(step.argval))
            elif step.opname in ("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM", "LOAD_SUPER_ATTR"):
                attributes.add(str(step.argval))
            elif step.opname == "IMPORT_NAME":
                imports.add(str(step.argval))
        return cls(frozenset(names), frozenset(attributes), frozenset(imports))


def _steps(code: types.CodeType) -> Iterator[dis.Instruction]:
    yield from dis.get_instructions(code)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _steps(const)


def _code(code: types.CodeType) -> Any:
    """What is computed: not the names of files and the numbers of lines, by which equal functions differ."""
    counts = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags]
    names = [list(code.co_names), list(code.co_varnames), list(code.co_freevars), list(code.co_cellvars)]
    return [
        code.co_code.hex(),
        code.co_exceptiontable.hex(),
        counts,
        names,
        [_const(const) for const in code.co_consts],
    ]


def _const(const: Any) -> Any:
    if isinstance(const, types.CodeType):
        return _code(const)
    if isinstance(const, tuple):
        return ["tuple", [_const(item) for item in const]]
    if isinstance(const, frozenset):
        return ["set", sorted(digest(_const(item)) for item in const)]
    return [type(const).__name__, repr(const)]


def _state_of(value: object) -> dict[str, Any]:
    """The attributes of an object, in its dictionary and in its slots."""
    state = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        for name, member in vars(kind).items():
            if isinstance(member, types.MemberDescriptorType) and hasattr(value, name):
                state[f"{kind.__qualname__}.{name}"] = getattr(value, name)
    return state


def _array(value: Any) -> Any:
    """An array of NumPy or a tensor of torch by its numbers; neither package is imported for it."""
    module = type(value).__module__.partition(".")[0]
    if module == "torch" and type(value).__qualname__ in ("Tensor", "Parameter"):
        torch: Any = sys.modules["torch"]
        data = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        return ["tensor", str(value.dtype), list(value.shape), hashlib.sha256(data).hexdigest()]
    if module == "numpy" and hasattr(value, "dtype") and not value.dtype.hasobject:
        return ["array", str(value.dtype), list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    return None


_STANDARD = f"python {sys.version_info.major}.{sys.version_info.minor}"


@functools.cache
def _package_of(module: str) -> str | None:
    """The installed package that a module belongs to, with its version; None for the code of those who use it."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return _STANDARD
    if top == "fspo":
        return f"fspo {importlib.metadata.version('fspo')}"
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # such as __main__, or a module that was put together by hand
        return None
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec is not None else []
    installed = [Path(sysconfig.get_paths()[name]).resolve() for name in ("purelib", "platlib")]
    if not any(Path(place).resolve().is_relative_to(root) for place in places if place for root in installed):
        return None
    names = importlib.metadata.packages_distributions().get(top) or []
    return " ".join([top, *(importlib.metadata.version(name) for name in names)]) if names else None
