"""Finds plugins through entry points, each on its own, and builds them by name and parameters.

A package that does not load, a misspelt hook or a name claimed twice costs a warning line that names the package; it
is an error only where a benchmark needs it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import re
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module, metadata
from types import ModuleType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import pluggy

from rankbench.errors import BenchmarkError, DataError, PluginError, RankbenchError, did_you_mean, raised_at
from rankbench.source import source_digest, summary

KINDS = ("datasets", "rankers", "metrics", "features")


@dataclass(frozen=True)
class Plugin:
    """One named plugin: which package brings it, and its class, perhaps not imported yet."""

    kind: str
    name: str
    target: type | str
    distribution: str
    distribution_version: str
    packages: frozenset[str]

    @property
    def module(self) -> str:
        """Module of the class."""
        return self.target.partition(":")[0] if isinstance(self.target, str) else self.target.__module__

    @property
    def qualname(self) -> str:
        """Name of the class in its module."""
        return self.target.partition(":")[2] if isinstance(self.target, str) else self.target.__qualname__

    @property
    def summary(self) -> str:
        """First line of the class's docstring."""
        return summary(self.module, self.qualname)

    @property
    def source(self) -> str:
        """Digest of the source it is made of."""
        return source_digest(self.module, self.packages)

    def load(self) -> type:
        """The class, imported. PluginError names the package if it does not import."""
        if not isinstance(self.target, str):
            return self.target
        try:
            found = getattr(import_module(self.module), self.qualname)
        except Exception as error:
            last = traceback.format_exception_only(error)[-1].strip()
            raise PluginError(f"{self}: {self.target} cannot be imported ({last}).") from error
        if not isinstance(found, type):
            raise PluginError(f"{self}: {self.target} is not a class.")
        return found

    def __str__(self) -> str:
        return f"{self.kind[:-1]} {self.name!r} of package {self.distribution}"


@dataclass(frozen=True)
class Broken:
    """What is wrong with a package's plugins, and which names it would have brought where that is known."""

    distribution: str
    entry_point: str
    message: str
    details: str = ""
    names: frozenset[tuple[str, str]] = frozenset()


@dataclass
class Registry:
    """All plugins of this installation."""

    plugins: dict[tuple[str, str], Plugin] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    owners: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    tried: set[tuple[str, str]] = field(default_factory=set)  # brought by modules that were named for a trial

    @classmethod
    def installed(cls) -> Registry:
        """Every plugin found through the entry-point group `rankbench`."""
        registry = cls()
        for point in sorted(
            metadata.entry_points(group="rankbench"), key=lambda p: ((p.dist.name or "") if p.dist else "", p.name)
        ):
            name = (point.dist.name if point.dist else None) or point.value
            version = point.dist.version if point.dist else ""
            try:
                with contextlib.redirect_stdout(sys.stderr):  # what a plugin prints is no part of our output
                    loaded = point.load()
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                last = traceback.format_exception_only(error)[-1].strip()
                registry.broken.append(Broken(name, point.name, f"does not import: {last}", traceback.format_exc()))
                continue
            registry.add(loaded, name, version, point.name, own_packages(point))
        return registry

    def add(
        self,
        plugin: Any,
        distribution: str,
        version: str = "",
        entry_point: str = "",
        packages: frozenset[str] = frozenset(),
        trial: bool = False,
    ) -> None:
        """Register one module or object that implements hooks.

        Args: trial, what an installed package brings of it already is the same and stays.
        """
        entry_point = entry_point or getattr(plugin, "__name__", type(plugin).__name__)
        try:
            check_hooks(plugin)
            found = call_hooks(plugin)
        except PluginError as error:
            self.broken.append(Broken(distribution, entry_point, str(error)))
            return
        except Exception as error:
            message = f"a hook failed: {type(error).__name__}: {error}"
            self.broken.append(Broken(distribution, entry_point, message, traceback.format_exc()))
            return
        for (kind, name), target in found.items():
            brought = Plugin(kind, name, target, distribution, version, packages | {entry_top(plugin)})
            if trial:
                self.tried.add((kind, name))
                there = self.plugins.get((kind, name))
                if there is not None and (there.module, there.qualname) == (brought.module, brought.qualname):
                    continue
            complaint = unfit(brought)
            if complaint:
                names = frozenset([(kind, name)])
                self.broken.append(Broken(distribution, entry_point, f"{kind[:-1]} {name!r} {complaint}", names=names))
            else:
                self._claim(brought, entry_point)

    def _claim(self, plugin: Plugin, entry_point: str) -> None:
        key = (plugin.kind, plugin.name)
        owners = self.owners.setdefault(key, [])
        owners.append(plugin.distribution)
        if len(owners) == 1:
            self.plugins[key] = plugin
            return
        self.plugins.pop(key, None)
        both = " and ".join(repr(owner) for owner in sorted(set(owners)))
        twice = "" if len(set(owners)) > 1 else " twice"
        message = (
            f"{plugin.kind[:-1]} {plugin.name!r} is brought by {both}{twice}; "
            "uninstall one, or ask its author to rename it"
        )
        self.broken.append(Broken(plugin.distribution, entry_point, message, names=frozenset([key])))

    def names(self, kind: str) -> list[str]:
        """Names of the usable plugins of one kind."""
        return sorted(name for of, name in self.plugins if of == kind)

    def find(self, kind: str, name: str) -> Plugin:
        """The plugin of that kind and name. BenchmarkError with a suggestion, or PluginError if it is a broken one."""
        plugin = self.plugins.get((kind, name))
        if plugin is not None:
            return plugin
        for broken in reversed(self.broken):
            if (kind, name) in broken.names:
                raise PluginError(f"{broken.message}.")
        known = self.names(kind)
        message = f"no {kind[:-1]} named {name!r}.{did_you_mean(name, known)}"
        message += f"\nInstalled {kind}: {', '.join(known) or 'none'}."
        suspects = [broken for broken in self.broken if not broken.names]
        for broken in suspects:
            message += (
                f"\nPackage {broken.distribution} did not load and may have it: {broken.message}.\n{broken.details}"
            )
        raise (PluginError if suspects else BenchmarkError)(message.rstrip())

    def build(self, kind: str, name: str, parameters: Mapping[str, Any]) -> Any:
        """An instance with checked parameters; its resolved parameters are `resolved(instance)`."""
        plugin = self.find(kind, name)
        return build(plugin.load(), parameters, str(plugin))

    def packages(self) -> frozenset[str]:
        """Top-level packages of all plugins."""
        return frozenset().union(*(plugin.packages for plugin in self.plugins.values()))

    def at_hand(self, place: str) -> bool:
        """Whether `kind/name` is somebody's own work: from a module named for a trial, or installed as editable."""
        kind, _, name = place.partition("/")
        plugin = self.plugins.get((kind, name))
        return plugin is not None and ((kind, name) in self.tried or editable(plugin.distribution))

    def source(self, kind: str, name: str) -> str:
        """Digest of a plugin's source; empty if it is not installed."""
        plugin = self.plugins.get((kind, name))
        return plugin.source if plugin else ""


@cache
def editable(distribution: str) -> bool:
    """Whether a distribution was installed from a folder that is still the one it is imported from."""
    try:
        origin = json.loads(metadata.distribution(distribution).read_text("direct_url.json") or "{}")
        return bool(origin.get("dir_info", {}).get("editable"))
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        return False


def entry_top(plugin: Any) -> str:
    name = plugin.__name__ if isinstance(plugin, ModuleType) else type(plugin).__module__
    return str(name).split(".")[0]


def own_packages(point: metadata.EntryPoint) -> frozenset[str]:
    """Top-level packages of a distribution, as far as its entry points and file list tell."""
    if point.dist is None:
        return frozenset()
    tops = {p.value.split(":")[0].split(".")[0] for p in point.dist.entry_points if p.group == "rankbench"}
    listed = point.dist.read_text("top_level.txt")
    files = (path.parts[0] for path in point.dist.files or () if path.suffix == ".py" and path.parts[0] != "..")
    return frozenset(tops | set((listed or "").split()) | {top.removesuffix(".py") for top in files}) - {"rankbench"}


def unfit(plugin: Plugin) -> str:
    """What is wrong with a plugin's name or class, as far as it can be told without an import; else empty."""
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", plugin.name):
        words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", plugin.name)
        kebab = "-".join(words).lower()
        return "is not named in kebab case" + (f"; call it {kebab!r}" if kebab else "")
    if isinstance(plugin.target, type) and not issubclass(plugin.target, base_of(plugin.kind)):
        return (
            f"is no {plugin.kind[:-1]}: its class {plugin.qualname} must inherit rankbench.{plugin.kind[:-1].title()}"
        )
    return ""


def base_of(kind: str) -> type:
    """The class that plugins of a kind inherit."""
    from rankbench import plugin

    base: type = getattr(plugin, kind[:-1].title())
    return base


def check_hooks(plugin: Any) -> None:
    """PluginError for a function marked as a hook that no hook is named like."""
    from rankbench.hooks import Hooks

    known = [name for name in vars(Hooks) if name.startswith("rankbench_")]
    for name in dir(plugin):
        marked = hasattr(getattr(plugin, name, None), "rankbench_impl")
        if (marked or name.startswith("rankbench_")) and callable(getattr(plugin, name)) and name not in known:
            raise PluginError(f"unknown hook {name!r}.{did_you_mean(name, known)} The hooks are: {', '.join(known)}")
        if name in known and not marked:
            raise PluginError(f"{name} is not marked @rankbench.hookimpl, so it would never be called")
    if not any(hasattr(plugin, name) for name in known):
        raise PluginError(f"has no hook; it needs one of: {', '.join(known)}")


def call_hooks(plugin: Any) -> dict[tuple[str, str], type | str]:
    """What each hook of one plugin returns, checked."""
    from rankbench.hooks import Hooks

    manager = pluggy.PluginManager("rankbench")
    manager.add_hookspecs(Hooks)
    manager.register(plugin)
    found: dict[tuple[str, str], type | str] = {}
    for kind in KINDS:
        for hook in getattr(manager.hook, f"rankbench_{kind}").get_hookimpls():
            brought = hook.function()  # called by itself: pluggy would pass over a forgotten return
            if not isinstance(brought, Mapping) or not all(isinstance(name, str) and name for name in brought):
                raise PluginError(f'rankbench_{kind} must return {{"name": class}}, not {brought!r}')
            for name, target in brought.items():
                if not (isinstance(target, type) or (isinstance(target, str) and target.count(":") == 1)):
                    raise PluginError(
                        f'rankbench_{kind}: {name!r} must be a class or "package.module:Class", not {target!r}'
                    )
                found[kind, name] = target
    return found


# ------------------------------------------------------------------------------------------------------ parameters


def build(cls: type, parameters: Mapping[str, Any], who: str) -> Any:
    """An instance of a plugin class; every parameter is checked against its annotation."""
    fields = parameter_fields(cls)
    for name in parameters:
        if name not in fields:
            none = "none. Parameters are dataclass fields: is @dataclass missing?"
            known = f"{', '.join(fields)}." if fields else none
            raise BenchmarkError(f"{who} has no parameter {name!r}.{did_you_mean(name, list(fields))} It has: {known}")
    values = {name: convert(value, fields[name], f"{who}, parameter {name!r}") for name, value in parameters.items()}
    try:
        return cls(**values)
    except (RankbenchError, ValueError, TypeError) as error:
        raise BenchmarkError(f"{who} refuses its parameters: {error}") from error
    except Exception as error:  # no refusal but a fault: its own row fails, the others go on
        raise PluginError(f"{who} cannot be made: {type(error).__name__}: {error}{raised_at(error)}") from error


def parameter_fields(cls: type) -> dict[str, Any]:
    """Annotation of each dataclass field that a benchmark may set."""
    return fields_of(cls)


@cache
def fields_of(cls: type) -> dict[str, Any]:
    if not dataclasses.is_dataclass(cls):
        return {}
    try:
        hints = get_type_hints(cls)
    except Exception as error:
        raise PluginError(
            f"{cls.__module__}.{cls.__qualname__}: the type of a parameter cannot be resolved ({error}); "
            "import it at run time, not under TYPE_CHECKING."
        ) from error
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}


@dataclass(frozen=True)
class Parameter:
    """A parameter as a benchmark file sets it: its type in words and, unless it is required, its default as JSON."""

    name: str
    type: str
    required: bool
    default: Any

    @property
    def shown(self) -> str:
        """The default as a benchmark file would write it."""
        return "required" if self.required else "not set" if self.default is None else as_toml(self.default)


def parameters_of(cls: type) -> list[Parameter]:
    """Every parameter of a plugin class, in the order of its fields."""
    found = []
    for name, annotation in parameter_fields(cls).items():
        entry = next(f for f in dataclasses.fields(cls) if f.name == name)
        given = entry.default if entry.default_factory is dataclasses.MISSING else entry.default_factory()
        required = given is dataclasses.MISSING
        found.append(Parameter(name, in_words(annotation), required, None if required else plain(given)))
    return found


def description(cls: type) -> str:
    """A plugin class's own docstring; empty where it has none."""
    text = inspect.cleandoc(cls.__doc__ or "")
    return "" if text.startswith(f"{cls.__name__}(") else text  # what @dataclass puts in place of a missing one


def in_words(annotation: Any) -> str:
    """A parameter's type for readers of a benchmark file."""
    from rankbench.plugin import Features, File

    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(map(as_toml, inner))
    if origin in (Union, UnionType):
        return " or ".join(in_words(one) for one in inner if one is not NoneType)
    if (origin or annotation) in (list, tuple):
        kinds = dict.fromkeys(in_words(one) for one in inner if one is not ...)
        return "list" + (f" of {', '.join(kinds)}" if kinds else "")
    names: dict[Any, str] = {Features: "features", File: "file", str: "string", dict: "table"}
    return names.get(origin or annotation) or str(getattr(annotation, "__name__", annotation))


def as_toml(value: Any) -> str:
    """JSON values as a benchmark file writes them on one line."""
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key} = {as_toml(part)}" for key, part in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(as_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def convert(value: Any, annotation: Any, who: str) -> Any:
    import msgspec

    from rankbench.plugin import Features, File

    def custom(kind: type, raw: Any) -> Any:
        if kind is Features:
            return raw if isinstance(raw, Features) else Features(raw)
        if kind is File and isinstance(raw, str):
            return File(raw)
        raise ValueError(f"expected {kind.__name__}")

    try:
        if annotation is Features:  # tuples are msgspec's own business otherwise
            return custom(Features, value)
        return msgspec.convert(value, annotation, strict=True, dec_hook=custom)
    except (msgspec.ValidationError, DataError, TypeError) as error:
        reason = str(error)[:1].lower() + str(error)[1:].rstrip(".")
        if reason.startswith("invalid enum value"):
            reason = f"expected {in_words(annotation)}"
        raise BenchmarkError(f"{who}: {reason}; got {value!r}.") from error


def resolved(instance: Any) -> dict[str, Any]:
    """Every parameter with its value, as JSON values: what the key is made of. Defaults are filled in.

    A parameter declared by `added_later` is left out at the value that means the old behaviour.
    """
    values = {}
    for name, annotation in parameter_fields(type(instance)).items():
        entry = next(f for f in dataclasses.fields(instance) if f.name == name)
        given = getattr(instance, name)
        if annotation is float and type(given) is int:  # a default written as 1 is the 1.0 a file gives
            given = float(given)
        value = plain(given)
        if "rankbench.old" not in entry.metadata or value != plain(entry.metadata["rankbench.old"]):
            values[name] = value
    return values


def plain(value: Any) -> Any:
    """A parameter's value as JSON values. BenchmarkError for anything JSON cannot say exactly."""
    from rankbench.plugin import FeatureChoice

    if isinstance(value, FeatureChoice):
        on = {"fit_on": plain(dict(value.fit_on))} if value.fit_on is not None else {}
        return {**plain(dict(value.parameters)), "name": value.name, "normalize": value.normalize, **on}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BenchmarkError(f"parameter value {value!r} is no JSON value ({error}).") from error
    return str(value) if isinstance(value, str) else value
