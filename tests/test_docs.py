"""The pages: what they show runs, and what there is they name.

A fenced block says what to do with it: `file=PATH` and `append=PATH` write it, `run=PATH` writes and runs a script,
`run` runs shell lines. Blocks without one are only read.
"""

import ast
import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from dots import install
from PIL import Image

import rankbench
from rankbench.benchmark import KNOWN
from rankbench.cli import main
from rankbench.hooks import Hooks
from rankbench.plugin import Run

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


class Reader:
    """Somebody who follows a page, in a folder of their own."""

    def __init__(self, folder):
        self.folder, self.installed, self.said = folder, [], ""

    def follow(self, language, order, text):
        verb, _, path = order.strip().partition("=")
        if verb in ("file", "append"):
            self.write(self.folder / path, text, "a" if verb == "append" else "w")
        elif verb == "run" and language == "python":
            self.write(self.folder / path, text, "w")
            self.do([sys.executable, path])
        elif verb == "run":
            for line in text.splitlines():
                self.do(shlex.split(line))

    def write(self, path, text, mode):
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, mode, encoding="utf-8") as file:
            file.write(text)
        if path.name == "pyproject.toml":  # what pip install -e would do, without the network
            project = tomllib.loads(text)["project"]
            install(path.parent, project["name"], project["version"], project["entry-points"]["rankbench"], {})
            self.installed.append(str(path.parent))
        if path.name == "images.csv":  # the reader's own pictures
            rng = np.random.default_rng(0)
            for line in text.splitlines()[1:]:
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(path.parent / line.split(",")[0])

    def do(self, words):
        binaries = Path(sys.executable).parent
        environment = {**os.environ, "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"}
        environment["PYTHONPATH"] = os.pathsep.join(self.installed)
        ran = subprocess.run(
            words, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert ran.returncode == 0, f"{' '.join(words)}\n{ran.stdout}\n{ran.stderr}"
        self.said = ran.stdout + ran.stderr


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_shows_runs(page, tmp_path):
    reader = Reader(tmp_path)
    for block in BLOCK.finditer(read(page)):
        reader.follow(*block.groups())
    if page == "README.md":
        assert "; 1 fitted in this run" in reader.said, "only the new row is fitted"


def test_every_block_that_should_run_is_found():
    orders = [block[2].strip().split("=")[0] for page in PAGES for block in BLOCK.finditer(read(page))]
    assert orders.count("run") >= 9
    assert set(orders) == {"", "file", "append", "run"}


def test_every_public_name_and_hook_has_an_entry():
    page = read("docs/plugins.md")
    entries = re.findall(r"^### `(\w+)`$", page, re.MULTILINE)
    assert sorted(entries) == rankbench.__all__
    for hook in (name for name in vars(Hooks) if name.startswith("rankbench_")):
        assert f"`{hook}`" in page
    for name in (*Run.__annotations__, *(n for n in vars(Run) if not n.startswith("_"))):
        assert re.search(rf"`{name}[`(]", page), f"Run.{name}"


def test_every_command_and_option_is_described():
    page = read("docs/command-line.md")
    commands = {f"data {name}": command for name, command in main.commands["data"].commands.items()}
    for name, command in (main.commands | commands).items():
        assert f"`rankbench {name}" in page
        for parameter in command.params:
            for option in (word for word in parameter.opts if word.startswith("--")):
                assert re.search(rf"`{option}[` ]", page), f"{name} {option}"


def test_every_key_of_a_benchmark_file_is_described():
    parts = re.split(r"^## ", read("docs/benchmark-file.md"), flags=re.MULTILINE)
    for place, keys in KNOWN.items():
        (part,) = [text for text in parts if text.startswith(f"`[[{place}]]`" if place else "The top")]
        for key in keys:
            assert re.search(rf"^\|[^|]*`{key}`", part, re.MULTILINE), f"{place} {key}"


def test_every_field_of_a_record_and_every_place_of_the_store_is_described(lab):
    text = """
title = "Toy"
dataset = "dots"
metric = "pairwise-accuracy"
[[column]]
label = "All"
[[row]]
label = "Truth"
ranker = "brightness"
[[row]]
label = "Boom"
ranker = "boom"
"""
    lab.run(text)
    page = read("docs/results.md")
    records = [json.loads(path.read_text()) for path in lab.results.glob("*/**/record.json")]
    assert {record["status"] for record in records} == {"done", "failed"}
    for record in records:
        for field in record:
            assert re.search(rf"^\| [^|]*`{field}`", page, re.MULTILINE), field
    for folder in lab.results.iterdir():
        assert f"    {folder.name}/" in page


def test_every_first_party_plugin_is_in_the_changelog():
    log = read("CHANGELOG.md")
    assert f"[{importlib.metadata.version('rankbench')}]" in log
    for kind in ("datasets", "rankers", "metrics"):
        module = __import__(f"rankbench_{kind}")
        for name in getattr(module, f"rankbench_{kind}")():
            assert f"`{name}`" in log


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", read(page)):
            if "://" not in target:
                assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_the_readme_has_its_two_commands():
    lines = [block[3].strip() for block in BLOCK.finditer(read("README.md")) if block[1] == "sh"]
    assert lines[0].endswith(".venv/bin/rankbench run")
    assert lines[1].endswith(".venv/bin/python -m pytest")
    assert all("\n" not in line and line.startswith("python3 -m venv .venv && ") for line in lines[:2])


def test_the_quick_start_table_has_its_place():
    assert re.search(r"<!-- quickstart-table -->.*<!-- /quickstart-table -->", read("README.md"), re.DOTALL)


def imported(path):
    """Modules of the core that a module imports when it is imported itself."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module == "rankbench":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rankbench."):
            found.add(node.module.split(".")[1])
    return found


def test_modules_import_those_above_them():
    text = " ".join(read("CONTRIBUTING.md").split())
    listed = text.partition("but for imports within functions: ")[2].partition(". ")[0].split(", ")
    modules = {path.stem: path for path in (ROOT / "rankbench").glob("*.py") if path.stem != "__init__"}
    assert sorted(listed) == sorted(modules)
    for at, name in enumerate(listed):
        assert not (imported(modules[name]) & set(listed[at:])), f"{name} imports what stands below it"
