"""Plugins are found through entry points, each on its own; a broken one costs a line and is an error where needed."""

import dataclasses
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
from dots import install

import rankbench
from rankbench.errors import BenchmarkError, PluginError
from rankbench.plugin import FeatureChoice, Features, File
from rankbench.registry import Broken, Registry, as_toml, build, description, parameters_of, plain, resolved

GOOD = '''
    import rankbench

    class Mean(rankbench.Ranker):
        """Mean brightness.

        And more.
        """

    @rankbench.hookimpl
    def rankbench_rankers():
        return {"mean": Mean, "late": "%s:Mean", "absent": "%s:Nobody", "number": "%s:NUMBER", "gone": "no_such:X"}

    NUMBER = 3
'''


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Installs distributions: name, {module: source}; each module is an entry point."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = []

    def put(name, sources, version="1.0", files=()):
        sources = {module: textwrap.dedent(text) for module, text in sources.items()}
        install(tmp_path, name, version, {module: module for module in sources}, sources)
        modules.extend(sources)
        if files:
            info = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
            (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))

    yield put
    for module in modules:
        sys.modules.pop(module, None)


def broken(registry, distribution):
    found = [one for one in registry.broken if one.distribution == distribution]
    assert len(found) == 1
    return found[0]


# ----------------------------------------------------------------------------------------------------------- finding


def test_installed_plugins_are_found_by_kind_and_name(packages):
    packages("acme", {"acme_good": GOOD.replace("%s", "acme_good")}, "2.1")
    registry = Registry.installed()
    assert {"mean", "late", "ranksvm", "chance"} <= set(registry.names("rankers"))
    assert {"elpv", "manifest"} <= set(registry.names("datasets"))
    mean = registry.find("rankers", "mean")
    assert (mean.distribution, mean.distribution_version, mean.summary) == ("acme", "2.1", "Mean brightness.")
    assert str(mean) == "ranker 'mean' of package acme"
    assert registry.find("rankers", "late").load() is mean.load()
    assert registry.find("rankers", "late").source == mean.source == registry.source("rankers", "mean") != ""
    assert registry.source("rankers", "uninstalled") == ""
    assert not [one for one in registry.broken if one.distribution in ("acme", "rankbench")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "ranker 'absent' of package acme: acme_bad:Nobody cannot be imported (AttributeError: "),
        ("gone", "ranker 'gone' of package acme: no_such:X cannot be imported (ModuleNotFoundError: "),
        ("number", "ranker 'number' of package acme: acme_bad:NUMBER is not a class."),
    ],
)
def test_a_class_that_is_not_there_names_plugin_and_package(packages, name, message):
    packages("acme", {"acme_bad": GOOD.replace("%s", "acme_bad")})
    with pytest.raises(PluginError) as raised:
        Registry.installed().build("rankers", name, {})
    assert str(raised.value).startswith(message)


BROKEN = {
    "import torch_that_is_not_there": "does not import: ModuleNotFoundError: No module named 'torch_that_is_not_there'",
    "raise SystemExit(3)": "does not import: SystemExit: 3",
    "def f(:": "does not import: SyntaxError: ",
    "X = 1": "has no hook; it needs one of: rankbench_datasets, rankbench_rankers, rankbench_metrics, ",
    "import rankbench\n@rankbench.hookimpl\ndef rankbench_ranker():\n    return {}": (
        "unknown hook 'rankbench_ranker'. Did you mean 'rankbench_rankers'? The hooks are: "
    ),
    "import rankbench\n@rankbench.hookimpl\ndef brings():\n    return {}": "unknown hook 'brings'. The hooks are: ",
    "def rankbench_metrics():\n    return {}": (
        "rankbench_metrics is not marked @rankbench.hookimpl, so it would never be called"
    ),
    "import rankbench\n@rankbench.hookimpl\ndef rankbench_rankers():\n    pass": (
        'rankbench_rankers must return {"name": class}, not None'
    ),
    "import rankbench\n@rankbench.hookimpl\ndef rankbench_rankers():\n    return [int]": (
        "rankbench_rankers must return {\"name\": class}, not [<class 'int'>]"
    ),
    "import rankbench\n@rankbench.hookimpl\ndef rankbench_rankers():\n    return {3: int}": (
        "rankbench_rankers must return"
    ),
    "import rankbench\n@rankbench.hookimpl\ndef rankbench_features():\n    return {'x': 'no-colon'}": (
        "rankbench_features: 'x' must be a class or \"package.module:Class\", not 'no-colon'"
    ),
    "import rankbench\n@rankbench.hookimpl\ndef rankbench_features():\n    return {}['x']": (
        "a hook failed: KeyError: 'x'"
    ),
    "import rankbench\n@rankbench.hookimpl\ndef rankbench_features(surprise):\n    return {}": "a hook failed: ",
}


@pytest.mark.parametrize("source", BROKEN)
def test_a_broken_package_costs_a_line_and_takes_nothing_down(packages, source):
    packages("acme-broken", {"acme_broken": source})
    packages("acme", {"acme_good": GOOD.replace("%s", "acme_good")})
    registry = Registry.installed()
    one = broken(registry, "acme-broken")
    assert one.message.startswith(BROKEN[source])
    assert one.entry_point == "acme_broken"
    assert registry.build("rankers", "mean", {}) is not None
    with pytest.raises(PluginError, match=r"no ranker named 'meen'\. Did you mean 'mean'") as raised:
        registry.find("rankers", "meen")
    assert f"Package acme-broken did not load and may have it: {one.message}." in str(raised.value)
    assert one.details.rstrip() in str(raised.value)
    assert ("Traceback" in one.details) == ("does not import" in one.message or "a hook failed" in one.message)


def test_a_keyboard_interrupt_is_no_broken_plugin(packages):
    packages("acme-broken", {"acme_interrupts": "raise KeyboardInterrupt"})
    with pytest.raises(KeyboardInterrupt):
        Registry.installed()


def test_an_unknown_name_is_answered_with_the_installed_ones():
    registry = Registry()
    registry.add(hooks(rankers={"mean-color": rankbench.Ranker, "ranksvm": rankbench.Ranker}), "acme")
    with pytest.raises(BenchmarkError) as raised:
        registry.find("rankers", "mean-colour")
    assert str(raised.value) == (
        "no ranker named 'mean-colour'. Did you mean 'mean-color'?\nInstalled rankers: mean-color, ranksvm."
    )
    with pytest.raises(BenchmarkError, match=r"no metric named 'x'\.\nInstalled metrics: none\."):
        registry.find("metrics", "x")


def hooks(**kinds):
    """An object that implements hooks."""

    class Package:
        pass

    for kind, brought in kinds.items():

        def hook(self, brought=brought):
            return brought

        hook.__name__ = f"rankbench_{kind}"
        setattr(Package, hook.__name__, rankbench.hookimpl(hook))
    return Package()


def test_a_name_brought_twice_is_refused_naming_both_packages():
    registry = Registry()
    registry.add(hooks(rankers={"mean": rankbench.Ranker, "one": rankbench.Ranker}), "zeta")
    registry.add(hooks(rankers={"mean": rankbench.Ranker}, metrics={"mean": rankbench.Metric}), "acme")
    assert registry.names("rankers") == ["one"]
    assert registry.names("metrics") == ["mean"]
    message = "ranker 'mean' is brought by 'acme' and 'zeta'; uninstall one, or ask its author to rename it"
    assert registry.broken == [Broken("acme", "Package", message, names=frozenset({("rankers", "mean")}))]
    with pytest.raises(PluginError, match="is brought by 'acme' and 'zeta'"):
        registry.build("rankers", "mean", {})
    registry.add(hooks(rankers={"mean": rankbench.Ranker}), "beta")
    with pytest.raises(PluginError, match="is brought by 'acme' and 'beta' and 'zeta'"):
        registry.find("rankers", "mean")
    with pytest.raises(BenchmarkError):  # others are not blamed for it
        registry.find("rankers", "nobody")
    registry.add(hooks(features={"x": rankbench.Feature}), "acme")
    registry.add(hooks(features={"x": rankbench.Feature}), "acme")
    with pytest.raises(PluginError, match="is brought by 'acme' twice"):
        registry.find("features", "x")


class Unrelated:
    pass


@pytest.mark.parametrize(
    ("name", "cls", "message"),
    [
        ("MeanColor", rankbench.Ranker, "ranker 'MeanColor' is not named in kebab case; call it 'mean-color'"),
        ("mean_color", rankbench.Ranker, "ranker 'mean_color' is not named in kebab case; call it 'mean-color'"),
        ("RankSVM2", rankbench.Ranker, "ranker 'RankSVM2' is not named in kebab case; call it '"),
        ("-", rankbench.Ranker, "ranker '-' is not named in kebab case"),
        ("mean", rankbench.Metric, "ranker 'mean' is no ranker: its class Metric must inherit rankbench.Ranker"),
        ("mean", Unrelated, "ranker 'mean' is no ranker: its class Unrelated must inherit rankbench.Ranker"),
    ],
)
def test_a_wrong_name_or_class_costs_that_plugin_alone(name, cls, message):
    registry = Registry()
    registry.add(hooks(rankers={name: cls, "good-2": rankbench.Ranker}), "acme")
    assert registry.names("rankers") == ["good-2"]
    (one,) = registry.broken
    assert one.message.startswith(message)
    with pytest.raises(PluginError) as raised:
        registry.build("rankers", name, {})
    assert str(raised.value) == f"{one.message}."
    with pytest.raises(BenchmarkError):  # others are not blamed for it
        registry.find("rankers", "nobody")


def test_helper_packages_of_the_distribution_count_to_its_source(packages, tmp_path):
    (tmp_path / "acme_helpers").mkdir()
    (tmp_path / "acme_helpers" / "__init__.py").write_text("WIDTH = 3\n")
    source = "import acme_helpers\n" + textwrap.dedent(GOOD.replace("%s", "acme_good"))
    packages("acme", {"acme_good": source}, files=["acme_good.py", "acme_helpers/__init__.py", "../bin/acme.py"])
    plugin = Registry.installed().find("rankers", "mean")
    assert plugin.packages == {"acme_good", "acme_helpers"}
    before = plugin.source
    (tmp_path / "acme_helpers" / "__init__.py").write_text("WIDTH = 30\n")
    assert plugin.source != before


def test_listing_imports_neither_torch_nor_scikit_learn_nor_numpy():
    code = """
        import sys
        from rankbench.registry import Registry
        registry = Registry.installed()
        assert not registry.broken, registry.broken
        for kind in ("datasets", "rankers", "metrics", "features"):
            for name in registry.names(kind):
                assert registry.find(kind, name).summary, name
                registry.find(kind, name).source
        print([name for name in ("torch", "sklearn", "numpy", "pandas", "scipy") if name in sys.modules])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


# -------------------------------------------------------------------------------------------------------- parameters


@dataclass(frozen=True)
class Tuned:
    c: float = 1
    width: int = 3
    kind: Literal["hinge", "log"] = "hinge"
    sizes: tuple[int, ...] = (1, 2)
    features: Features = Features("hog")  # noqa: RUF009
    weights: File | None = None
    options: dict[str, Any] = field(default_factory=dict)
    later: float = rankbench.added_later(0.5, old=0.5)
    tags: list = rankbench.added_later(["new"], old=[])  # noqa: RUF009
    computed: int = field(default=0, init=False)


def test_parameters_are_told_in_the_words_of_a_benchmark_file():
    told = {one.name: (one.type, one.shown) for one in parameters_of(Tuned)}
    assert told == {
        "c": ("float", "1"),
        "width": ("int", "3"),
        "kind": ('"hinge" or "log"', '"hinge"'),
        "sizes": ("list of int", "[1, 2]"),
        "features": ("features", '[{ name = "hog", normalize = "l2" }]'),
        "weights": ("file", "not set"),
        "options": ("table", "{}"),
        "later": ("float", "0.5"),
        "tags": ("list", '["new"]'),
    }

    @dataclass
    class Needy:
        """What it is.

        More.
        """

        name: str | int

    assert [(one.type, one.required, one.shown) for one in parameters_of(Needy)] == [
        ("string or int", True, "required")
    ]
    assert description(Needy) == "What it is.\n\nMore."
    assert description(Tuned) == "", "what @dataclass writes is no docstring"
    assert parameters_of(Unrelated) == []


@pytest.mark.parametrize("value", [True, 0.5, 'a "quoted" é', [1, [2]], {"a": {"b": [False, "x"]}, "c": 3}, {}])
def test_values_are_written_as_toml_reads_them(value):
    assert tomllib.loads(f"x = {as_toml(value)}")["x"] == value


def test_parameters_are_checked_and_converted():
    made = build(Tuned, {"c": 2, "sizes": [3], "features": ["hog", {"name": "gist", "cells": [2, 4]}]}, "ranker 'x'")
    assert (made.c, type(made.c), made.sizes) == (2.0, float, (3,))
    assert made.features == Features("hog", {"name": "gist", "cells": [2, 4]})
    given = build(Tuned, {"weights": "net/w.npz", "features": Features("lbp")}, "ranker 'x'")
    assert (given.weights, type(given.weights)) == ("net/w.npz", File)
    assert build(Tuned, {"weights": File("w")}, "x").weights == "w"


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"widht": 3}, "ranker 'x' has no parameter 'widht'. Did you mean 'width'? It has: c, width, kind, "),
        ({"computed": 3}, "ranker 'x' has no parameter 'computed'."),
        ({"width": 3.5}, "ranker 'x', parameter 'width': expected `int`, got `float`; got 3.5."),
        ({"width": True}, "ranker 'x', parameter 'width': expected `int`, got `bool`; got True."),
        ({"width": "3"}, "ranker 'x', parameter 'width': expected `int`, got `str`; got '3'."),
        ({"c": "high"}, "ranker 'x', parameter 'c': expected `float`, got `str`; got 'high'."),
        ({"kind": "square"}, "ranker 'x', parameter 'kind': expected \"hinge\" or \"log\"; got 'square'."),
        ({"sizes": [1, "2"]}, "ranker 'x', parameter 'sizes': expected `int`, got `str` - at `$[1]`; got [1, '2']."),
        ({"weights": 3}, "ranker 'x', parameter 'weights': expected File"),
        (
            {"features": 3},
            "ranker 'x', parameter 'features': a feature is a name or a table {name = \"…\"}, not 3; got 3.",
        ),
        ({"features": [{"cell": 3}]}, "ranker 'x', parameter 'features': a feature is a name or a table"),
        (
            {"features": [{"name": "a", "normalize": "l1"}]},
            "ranker 'x', parameter 'features': feature 'a': normalize is",
        ),
        (
            {"features": [{"name": "a", "fit_on": "b"}]},
            "ranker 'x', parameter 'features': feature 'a': fit_on is a dataset",
        ),
    ],
)
def test_wrong_parameters_say_which_and_what_is_right(parameters, message):
    with pytest.raises(BenchmarkError) as raised:
        build(Tuned, parameters, "ranker 'x'")
    assert str(raised.value).startswith(message)


def test_a_class_may_refuse_what_its_types_allow():
    @dataclass
    class Strict:
        needed: int

        def __post_init__(self):
            if self.needed < 0:
                raise ValueError("needed must not be negative")

    with pytest.raises(BenchmarkError, match="x refuses its parameters: needed must not be negative"):
        build(Strict, {"needed": -1}, "x")
    with pytest.raises(
        BenchmarkError, match=r"x refuses its parameters: .*missing 1 required positional argument: 'needed'"
    ):
        build(Strict, {}, "x")

    class Plain:
        pass

    assert isinstance(build(Plain, {}, "x"), Plain)
    with pytest.raises(BenchmarkError, match=r"x has no parameter 'c'\. It has: none\. .*is @dataclass missing\?$"):
        build(Plain, {"c": 1}, "x")


def test_a_type_that_cannot_be_resolved_or_checked_is_named():
    lost = dataclasses.make_dataclass("Lost", [("a", "NoSuchType", 1)])
    with pytest.raises(
        PluginError, match=r"Lost: the type of a parameter cannot be resolved .*not under TYPE_CHECKING"
    ):
        build(lost, {}, "x")
    array = dataclasses.make_dataclass("Array", [("a", np.ndarray, None)])
    with pytest.raises(BenchmarkError, match="x, parameter 'a': expected ndarray; got 3"):
        build(array, {"a": 3}, "x")


def test_resolved_parameters_have_defaults_filled_in_and_one_spelling():
    hog = {"name": "hog", "normalize": "l2"}
    default = resolved(Tuned())
    assert default == {
        "c": 1.0,
        "width": 3,
        "kind": "hinge",
        "sizes": [1, 2],
        "features": [hog],
        "weights": None,
        "options": {},
        "tags": ["new"],
    }
    assert type(default["c"]) is float  # written as 1 in the class, and as 1 or 1.0 in a file
    assert resolved(build(Tuned, {"c": 1, "sizes": [1, 2], "features": ["hog"]}, "x")) == default
    assert resolved(build(Tuned, {"features": "hog", "later": 0.5}, "x")) == default
    later = resolved(build(Tuned, {"later": 0.6, "tags": []}, "x"))
    assert (later["later"], "tags" in later) == (0.6, False)
    assert Tuned().tags is not Tuned().tags
    chosen = Features({"name": "bow", "words": 9, "normalize": "none", "fit_on": {"name": "osr", "split": 1}})
    assert plain(chosen) == [{"name": "bow", "words": 9, "normalize": "none", "fit_on": {"name": "osr", "split": 1}}]
    assert type(plain(File("a"))) is str


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), np.int64(3), {"a": b"bytes"}])
def test_values_that_json_cannot_say_are_refused(value):
    with pytest.raises(BenchmarkError, match="is no JSON value"):
        plain(value)


def test_a_list_of_features_takes_every_form():
    assert Features() == ()
    assert Features("hog") == Features(["hog"]) == Features(("hog",)) == Features({"name": "hog"})
    assert Features(Features("hog", "gist")) == Features(FeatureChoice("hog"), "gist")
    assert Features({"name": "x", "b": 1, "a": [2]})[0].parameters == (("a", [2]), ("b", 1))
    assert len({Features({"name": "x", "a": [2]})[0], Features({"name": "x", "a": [2]})[0]}) == 1
