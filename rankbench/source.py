"""A digest of a plugin's source, found without importing anything.

It covers the class's module and the modules of its own distribution which that one imports, directly or not. Comments,
docstrings and layout do not count, so that a digest changes only when a result might.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.machinery
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path


def source_digest(module: str, packages: frozenset[str]) -> str:
    """Hex digest of `module` and all it imports from the top-level `packages` of its distribution."""
    seen: dict[str, str] = {}
    folders: dict[str, list[str]] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = module_path(name, folders)
        if name in seen or path is None or not path.is_file():
            continue
        digest, imported = read_module(path, path.stat().st_mtime_ns, name, path.name == "__init__.py")
        seen[name] = digest
        waiting += [other for other in imported if other.split(".")[0] in packages]
    return hashlib.sha256("\n".join(f"{name} {seen[name]}" for name in sorted(seen)).encode()).hexdigest()


def module_path(name: str, folders: dict[str, list[str]] | None = None) -> Path | None:
    """Where a module's source lies, or None (not Python, or not there).

    Args: folders, where the packages lie that were met so far, by full name; added to.
    """
    known = {} if folders is None else folders
    parent, _, last = name.rpartition(".")
    if parent in known:
        spec = importlib.machinery.PathFinder.find_spec(last, known[parent])
        return None if spec is None else source_of(spec.origin)
    top = sys.modules.get(name.split(".")[0])  # an import hook may have found what the path does not show
    loaded = getattr(top, "__path__", None)
    search: list[str] | None = None
    for depth, part in enumerate(name.split(".")):
        spec = importlib.machinery.PathFinder.find_spec(part, search)
        if spec is None and depth == 0 and top is not None:
            origin, search = getattr(top, "__file__", None), list(loaded or [])
            continue
        if spec is None:
            return None
        origin, search = spec.origin, list(spec.submodule_search_locations or [])
        if search:
            known[".".join(name.split(".")[: depth + 1])] = search
    return source_of(origin)


def source_of(origin: str | None) -> Path | None:
    return Path(origin) if origin and origin.endswith(".py") else None


@lru_cache(maxsize=4096)
def read_module(path: Path, mtime: int, name: str, package: bool) -> tuple[str, tuple[str, ...]]:
    """Digest of one module's meaning, and the full names of what it imports."""
    content = path.read_bytes()
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):  # importing it will say so; here it only has to count as changed
        return hashlib.sha256(content).hexdigest(), ()
    imported = tuple(sorted(set(imports(tree, name, package))))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
    return hashlib.sha256(meaning(tree).encode()).hexdigest(), imported


def meaning(node: object) -> str:
    """A syntax tree as text that is the same for every Python version (`ast.dump` is not)."""
    if isinstance(node, list):
        return f"[{','.join(map(meaning, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [f"{name}={meaning(value)}" for name, value in ast.iter_fields(node) if value is not None and value != []]
    return f"{type(node).__name__}({','.join(fields)})"


def imports(tree: ast.AST, name: str, package: bool) -> Iterator[str]:
    """Full names of modules (and of names that may be modules) imported anywhere in the tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = name.split(".")[: None if package and node.level == 1 else (1 if package else 0) - node.level]
                base = ".".join([*parents, base]) if base else ".".join(parents)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def summary(module: str, qualname: str) -> str:
    """First line of a class's docstring, read without importing it; empty if there is none."""
    path = module_path(module)
    try:
        tree = ast.parse(path.read_bytes()) if path is not None else ast.Module([], [])
    except (OSError, SyntaxError, ValueError):
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.name == qualname:
            return (ast.get_docstring(node) or "").split("\n")[0]
    return ""
