"""Reads settings from TOML into frozen dataclasses, and refuses whatever is missing, unknown or out of
bounds.

The static part (`deploy/config/<process>.toml`) lies under the installation's file, key by key. Secrets are
paths to files, never values; this module never reads one.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import stat
import tomllib
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

_DEFAULT_STATIC = Path(__file__).resolve().parents[2] / "deploy" / "config"

T = TypeVar("T")


class ConfigError(Exception):
    """A setting that can't be used: which file, which key, the rule it breaks, and what to do."""

    def __init__(self, file: Path, key: str, rule: str, way_out: str) -> None:
        super().__init__(f"{file}: {key}: {rule}. {way_out}")
        self.file, self.key, self.rule, self.way_out = file, key, rule, way_out


class Missing(Exception):
    """A part of the process needs a setting that isn't there. `run` knows the file, and makes a ConfigError of it."""

    def __init__(self, key: str, way_out: str) -> None:
        super().__init__(f"{key} is missing. {way_out}")
        self.key, self.way_out = key, way_out


@contextmanager
def usable(file: Path, key: str, way_out: str, *invalid: type[Exception]) -> Iterator[None]:
    """Within it a file's content is taken: what it isn't fit for (ValueError, and `invalid`) becomes a ConfigError."""
    try:
        yield
    except OSError as error:
        raise ConfigError(file, key, f"can't be read: {error.strerror}", "Check the path and its mode.") from error
    except Exception as error:
        if not isinstance(error, (ValueError, *invalid)):
            raise
        raise ConfigError(file, key, str(error).rstrip("."), way_out) from error


class _Broken(Exception):
    """A rule broken by a value; the reader adds the file and key."""

    def __init__(self, rule: str, way_out: str) -> None:
        super().__init__(rule)
        self.rule, self.way_out = rule, way_out


@dataclass(frozen=True)
class Between:
    """A number from `low` to `high`, both included."""

    low: float
    high: float

    def check(self, value: Any) -> None:
        if not self.low <= value <= self.high:
            raise _Broken(f"must be from {self.low} to {self.high}, not {value}", "Choose a number in that range.")


@dataclass(frozen=True)
class Matches:
    """A text that `pattern` matches as a whole; `says` describes it to a person."""

    pattern: str
    says: str

    def check(self, value: Any) -> None:
        if not re.fullmatch(self.pattern, value):
            raise _Broken(f"must be {self.says}, not {value!r}", "Write it in that form.")


@dataclass(frozen=True)
class ReadableFile:
    """A path to a file that exists; a `secret` one must be closed to other users of the machine."""

    secret: bool = False

    def check(self, value: Any) -> None:
        if not value.is_file():
            raise _Broken(f"no file at {value}", "Create it, or correct the path; relative paths start at this file.")
        if self.secret and value.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            raise _Broken(f"{value} is open to every user of this machine", f"Run: chmod 600 {value}")
        if self.secret and not value.stat().st_size:
            raise _Broken(f"{value} is empty", "Put the secret there that was made.")


@dataclass(frozen=True)
class Folder:
    """A path to a folder that exists."""

    def check(self, value: Any) -> None:
        if not value.is_dir():
            raise _Broken(f"no folder at {value}", "Create it, or correct the path; relative paths start at this file.")


SecretFile = Annotated[Path, ReadableFile(secret=True)]
PlainFile = Annotated[Path, ReadableFile()]
ExistingFolder = Annotated[Path, Folder()]
Address = Annotated[str, Matches(r"[A-Za-z0-9.\-\[\]:]+:\d{1,5}", 'an address such as "127.0.0.1:7000"')]
Seconds = Annotated[float, Between(0.001, 86_400 * 366)]


def load_settings(cls: type[T], path: Path, static_folder: Path | None = None, *, is_whole: bool = True) -> T:
    """The settings of class `cls` from the file at `path`, laid over the process's static file.

    `[process] name` names the static file; `[process] static_folder` says where it lies if not in this
    repository. Where `cls` isn't the whole of it, sections that it doesn't know are somebody else's. Raises
    ConfigError.
    """
    installation = _parse(path)
    name = installation.get("process", {}).get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z-]{1,40}", name):
        raise ConfigError(path, "process.name", "must name the process", 'Write e.g. [process] name = "gateway".')
    configured = installation.get("process", {}).get("static_folder")
    folder = static_folder or (path.parent / configured if configured else _DEFAULT_STATIC)
    static_path = folder / f"{name}.toml"
    static = _parse(static_path)
    reader = _Reader(((path, installation), (static_path, static)))
    merged = _merge(static, installation)
    if not is_whole:
        merged = {key: merged[key] for key in get_type_hints(cls) if key in merged}
    settings: T = reader.table(cls, merged, ())
    return settings


def _parse(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(path, "(file)", f"can't be read: {error.strerror}", "Check the path and its mode.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(path, "(file)", f"isn't TOML: {error}", "Correct that line.") from error


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


class _Reader:
    """Turns tables into dataclasses, and remembers which file a key came from."""

    def __init__(self, files: tuple[tuple[Path, dict[str, Any]], ...]) -> None:
        self._files = files

    def table(self, cls: Any, data: Any, keys: tuple[str, ...]) -> Any:
        if not isinstance(data, dict):
            raise self._error(keys, "must be a table", f"Write [{'.'.join(keys)}] and its keys.")
        hints = get_type_hints(cls, include_extras=True)
        fields = {field.name: field for field in dataclasses.fields(cls)}
        for key in data:
            if key not in fields:
                raise self._unknown((*keys, key), list(fields))
        values: dict[str, Any] = {}
        for name, field in fields.items():
            if name in data:
                values[name] = self.value(hints[name], data[name], (*keys, name))
            elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                raise self._error((*keys, name), "is missing", "Add it; it has no default.")
        try:
            return cls(**values)
        except ValueError as error:  # A rule across keys, from __post_init__.
            raise self._error(keys, str(error), "Make the keys of this table agree.") from error

    def value(self, hint: Any, data: Any, keys: tuple[str, ...]) -> Any:
        if get_origin(hint) is Annotated:
            base, *rules = get_args(hint)
            value = self.value(base, data, keys)
            for rule in rules:
                self._check(rule, value, keys)
            return value
        if get_origin(hint) in (Union, types.UnionType):
            (inner,) = (arg for arg in get_args(hint) if arg is not type(None))
            return self.value(inner, data, keys)
        if dataclasses.is_dataclass(hint):
            return self.table(hint, data, keys)
        return self._plain(hint, data, keys)

    def _plain(self, hint: Any, data: Any, keys: tuple[str, ...]) -> Any:
        origin, args = get_origin(hint), get_args(hint)
        if origin is tuple and isinstance(data, list):
            return tuple(self.value(args[0], item, (*keys, str(n))) for n, item in enumerate(data))
        if origin is Mapping and isinstance(data, dict):
            return {key: self.value(args[1], item, (*keys, key)) for key, item in data.items()}
        if origin is Literal:
            if data in args:
                return data
            raise self._error(keys, f"must be one of {', '.join(map(repr, args))}, not {data!r}", "Choose one of them.")
        if hint is Path and isinstance(data, str) and data:
            return self._origin(keys).parent / Path(data).expanduser()
        if hint is float and isinstance(data, int) and not isinstance(data, bool):
            return float(data)
        if isinstance(hint, type) and isinstance(data, hint) and (hint is bool or not isinstance(data, bool)):
            return data
        wanted = (
            "a list" if origin is tuple else "a table" if origin is Mapping else getattr(hint, "__name__", str(hint))
        )
        raise self._error(keys, f"must be {wanted}, not {data!r}", "Correct the value.")

    def _check(self, rule: Any, value: Any, keys: tuple[str, ...]) -> None:
        try:
            rule.check(value)
        except _Broken as broken:
            raise self._error(keys, broken.rule, broken.way_out) from None

    def _unknown(self, keys: tuple[str, ...], known: list[str]) -> ConfigError:
        near = difflib.get_close_matches(keys[-1], known, 1)
        way_out = f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(sorted(known))}."
        return self._error(keys, "is unknown", way_out)

    def _error(self, keys: tuple[str, ...], rule: str, way_out: str) -> ConfigError:
        return ConfigError(self._origin(keys), ".".join(keys) or "(top)", rule, way_out)

    def _origin(self, keys: tuple[str, ...]) -> Path:
        """The file that says this key: the upper one first; for a missing key, the upper one."""
        for path, data in self._files:
            found: Any = data
            for key in keys:
                found = found.get(key) if isinstance(found, dict) else found[int(key)] if _index(found, key) else None
            if found is not None:
                return path
        return self._files[0][0]


def _index(found: Any, key: str) -> bool:
    return isinstance(found, list) and key.isdigit() and int(key) < len(found)
