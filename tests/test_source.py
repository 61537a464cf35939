"""The digest of a plugin's source: what counts, what does not, and that nothing is imported for it."""

import os
import subprocess
import sys
import textwrap
import zipfile

import pytest

from rankbench.source import module_path, source_digest, summary

FILES = {
    "acme_plugins/__init__.py": "",
    "acme_plugins/ranker.py": '''
        """A ranker."""
        import json
        import acme_core.numbers
        from acme_plugins import settings
        from . import near
        from .deep import inside

        class Ranker:
            """Ranks.

            More.
            """

            def fit(self):
                """Fits."""
                from .late import loss  # only when used
                return loss(1)
    ''',
    "acme_plugins/settings.py": "WIDTH = 3",
    "acme_plugins/near.py": "import other_package",
    "acme_plugins/late.py": "from .far import scale\n\ndef loss(x):\n    return scale(x)",
    "acme_plugins/far.py": "def scale(x):\n    return 2 * x",
    "acme_plugins/unused.py": "X = 1",
    "acme_plugins/deep/__init__.py": "from .inside import value",
    "acme_plugins/deep/inside.py": "from ..above import top\nvalue = top",
    "acme_plugins/above.py": "top = 1",
    "acme_core/__init__.py": "",
    "acme_core/numbers.py": "PI = 3",
    "other_package/__init__.py": "raise SystemExit('imported')",
}
PACKAGES = frozenset({"acme_plugins", "acme_core"})


@pytest.fixture
def site(tmp_path, monkeypatch):
    """The files above, importable; every one of them raises if it is imported."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def digest(module="acme_plugins.ranker"):
    return source_digest(module, PACKAGES)


def edit(site, name, text):
    path = site / name
    stamp = path.stat().st_mtime_ns + 1_000_000
    path.write_text(textwrap.dedent(text))
    os.utime(path, ns=(stamp, stamp))


def test_comments_docstrings_and_layout_do_not_count(site):
    before = digest()
    edit(
        site,
        "acme_plugins/ranker.py",
        """
        # a comment
        import json
        import acme_core.numbers
        from acme_plugins import (
            settings,
        )
        from . import near
        from .deep import inside
        class Ranker:
            'Other words.'
            def fit(self):

                from .late import loss
                return (loss(
                    1))
        """,
    )
    assert digest() == before


@pytest.mark.parametrize("name", [n for n in FILES if n.endswith(".py")])
def test_what_the_plugin_imports_from_its_own_distribution_counts(site, name):
    before = digest()
    changed = FILES[name].replace("loss(1)", "loss(2)") if "loss(1)" in FILES[name] else FILES[name] + "\nCHANGED = 1\n"
    edit(site, name, changed)
    apart = name in ("acme_plugins/unused.py", "other_package/__init__.py", "acme_core/__init__.py")
    assert (digest() == before) == apart


def test_a_module_that_moves_or_appears_counts(site):
    before = digest()
    edit(site, "acme_plugins/far.py", "from .new import scale")
    (site / "acme_plugins" / "new.py").write_text("def scale(x):\n    return 2 * x\n")
    moved = digest()
    (site / "acme_plugins" / "new.py").write_text("def scale(x):\n    return 3 * x + 0\n")
    assert len({before, moved, digest()}) == 3


def test_a_module_that_does_not_parse_counts_as_changed(site):
    before = digest()
    edit(site, "acme_plugins/far.py", "def scale(x:\n")
    broken = digest()
    edit(site, "acme_plugins/far.py", "def scale(x::\n")
    assert len({before, broken, digest()}) == 3


def test_nothing_is_imported(site):
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from rankbench.source import source_digest, summary
        source_digest("acme_plugins.ranker", frozenset({"acme_plugins", "acme_core", "other_package"}))
        summary("acme_plugins.ranker", "Ranker")
        print([name for name in sys.modules if name.startswith(("acme", "other", "numpy", "torch", "sklearn"))])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), site], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_the_digest_never_changes_with_the_release_of_python(site):
    edit(
        site,
        "acme_plugins/unused.py",
        """
        from dataclasses import dataclass

        @dataclass(frozen=True)
        class A:
            x: int = 1

            def f(self, *, y=None) -> str:
                return f"{self.x!r:>{3}}" if y else ""
        """,
    )
    assert digest("acme_plugins.unused") == "4947db18fa3e8f087386a2c9c84a5a093add65286b1bdf081316dd6e127e8f2d"


def test_where_a_module_lies(site, monkeypatch):
    assert module_path("acme_plugins") == site / "acme_plugins" / "__init__.py"
    assert module_path("acme_plugins.deep.inside") == site / "acme_plugins" / "deep" / "inside.py"
    for absent in ("acme_plugins.absent", "no_such_package.x", "math", "acme_plugins.ranker.Ranker"):
        assert module_path(absent) is None
    assert source_digest("math", PACKAGES) == source_digest("no_such_package", PACKAGES)


def test_modules_that_an_import_hook_found(site, monkeypatch):
    """As an editable installation has them: loaded, and on no path."""
    import acme_core

    try:
        monkeypatch.setattr(sys, "path", [place for place in sys.path if place != str(site)])
        sys.path_importer_cache.clear()
        assert module_path("acme_core") == site / "acme_core" / "__init__.py"
        assert module_path("acme_core.numbers") == site / "acme_core" / "numbers.py"
        assert module_path("acme_plugins.ranker") is None
    finally:
        del sys.modules[acme_core.__name__]


def test_a_module_in_an_archive_has_no_digest_but_does_no_harm(site, tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.writestr("packed_plugin.py", "X = 1")
    monkeypatch.syspath_prepend(str(tmp_path / "packed.zip"))
    assert source_digest("packed_plugin", frozenset({"packed_plugin"})) == source_digest("absent", PACKAGES)
    assert summary("packed_plugin", "X") == ""


def test_the_summary_is_the_first_line_of_the_docstring(site):
    assert summary("acme_plugins.ranker", "Ranker") == "Ranks."
    assert summary("acme_plugins.ranker", "Absent") == ""
    assert summary("absent", "Ranker") == ""
    edit(site, "acme_plugins/far.py", "class Bare:\n    pass\n")
    assert summary("acme_plugins.far", "Bare") == ""
    edit(site, "acme_plugins/far.py", "class Bare(:\n")
    assert summary("acme_plugins.far", "Bare") == ""
