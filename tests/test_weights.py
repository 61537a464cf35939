"""Files that a row needs beside data: planned without torch, one word for their absence, fetched once for all rows."""

import hashlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from dots import install
from hostile import Site

import rankbench
from rankbench.runner import Options, Runner
from rankbench_features.category_network import CategoryNetwork
from rankbench_features.network import Network
from rankbench_rankers import weight_files
from rankbench_rankers.siamese import Siamese
from rankbench_rankers.xiao_lee import XiaoLee

HEAD = 'title = "T"\ndataset = "dots"\nmetric = "pairwise-accuracy"\n[[column]]\nlabel = "A"\n'
TRUTH = '[[row]]\nlabel = "Truth"\nranker = "brightness"\n'
CONTENT = b"a hundred million numbers"
LEVELS = f"""
import rankbench
from pathlib import Path
from dataclasses import dataclass

@dataclass
class Learned(rankbench.Feature):
    place: str = ""
    url: str = "http://127.0.0.1:9/"
    told: bool = True

    def needs(self):
        path = Path(self.place) / "levels.bin"
        return [rankbench.Need(path, path.exists(), "ask its authors")] if self.told else []

    def downloads(self):
        digest = "{hashlib.sha256(CONTENT).hexdigest()[:12]}"
        return [rankbench.Download((self.url + "levels.bin",), str(Path(self.place) / "levels.bin"), "file", digest)]

    def extract(self, images, run):
        import numpy as np
        if not (Path(self.place) / "levels.bin").exists():
            raise rankbench.MissingData(f"{{self.place}}/levels.bin: not found.")
        return np.array([[image.mean()] for image in images], np.float32)

@rankbench.hookimpl
def rankbench_features():
    return {{"learned": Learned}}
"""


@pytest.fixture
def site():
    site = Site()
    site.files["levels.bin"] = CONTENT
    yield site
    site.close()


@pytest.fixture
def learned(lab):
    """A lab with a feature that needs a file: gives its rows of a benchmark file."""
    install(lab.site, "levels-plugins", "1.0", {"levels": "levels_plugins"}, {"levels_plugins": LEVELS})
    (lab.root / "weights").mkdir()

    def row(label="Learned", place=lab.root / "weights", **parameters):
        given = "".join(f", {name} = {str(value).lower()!s}" for name, value in parameters.items())
        feature = f'{{ name = "learned", place = "{place}"{given} }}'
        return f'[[row]]\nlabel = "{label}"\nranker = {{ name = "ranksvm", features = [{feature}] }}\n'

    yield row
    sys.modules.pop("levels_plugins", None)


def statuses(lab, text, **options):
    return {cell.row: cell.status for cell in lab.run(text, **options).cells}


def test_the_files_are_those_of_torchvision_and_lie_where_torch_looks(monkeypatch, tmp_path):
    import torch
    import torchvision

    known = {}
    for model in torchvision.models.list_models(module=torchvision.models):
        weights = torchvision.models.get_model_weights(model)
        if "IMAGENET1K_V1" in weights.__members__:
            known[model] = weights["IMAGENET1K_V1"].url.rsplit("/", 1)[-1]
    assert known.items() <= weight_files.FILES.items()
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in (("HOME", str(tmp_path)), ("XDG_CACHE_HOME", str(tmp_path / "x")), ("TORCH_HOME", "~/t")):
        monkeypatch.setenv(name, value)
        assert weight_files.folder() == Path(torch.hub.get_dir()) / "checkpoints"
    (download,) = weight_files.downloads("alexnet")
    assert download.urls == (torchvision.models.get_model_weights("alexnet")["IMAGENET1K_V1"].url,)
    assert (download.path, download.sha256) == (str(weight_files.folder() / "alexnet-owt-7be5be79.pth"), "7be5be79")
    assert weight_files.downloads("caffenet") == weight_files.downloads("nothing") == []


def test_plugins_need_weights_by_their_parameters(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for plugin in (Network(), CategoryNetwork(), Siamese(), XiaoLee()):
        (need,) = plugin.needs()
        assert (need.path.name, need.found) == ("alexnet-owt-7be5be79.pth", False)
        assert "`rankbench data fetch FILE.toml` downloads them" in need.get
        assert len(plugin.downloads()) == 1
    file = rankbench.File("net.pth")
    others = [Network(weights="random"), Network(weights="file", file=file), XiaoLee(setting="fast")]
    others += [Siamese(backbone="small", weights="random"), CategoryNetwork(weights="file", file=file)]
    assert [plugin.needs() for plugin in others] == [plugin.downloads() for plugin in others] == [[]] * 5
    (caffenet,) = Network(model="caffenet").needs()
    assert "torchvision has no weights of CaffeNet" in caffenet.get
    need = Network(model="vgg16").needs()[0].path
    need.parent.mkdir(parents=True)
    need.touch()
    assert Network(model="vgg16").needs()[0].found


def test_rows_without_weights_are_missing_data_in_plan_progress_summary_and_table(lab):
    """Of the benchmark of classical rankers, and of a ranker that is a network itself."""
    text = (Path(__file__).parents[1] / "benchmarks" / "classical.toml").read_text()
    blocks = [block for block in text.split("[[row]]")[1:] if 'model = "alexnet"' in block and "random" not in block]
    labels = [tomllib.loads(block)["label"] for block in blocks]
    assert len(labels) == 3
    chosen = "".join(f"[[row]]{block}" for block in blocks)
    chosen += '[[row]]\nlabel = "Siamese"\nranker = { name = "siamese" }\n'
    file = lab.file(HEAD + TRUTH + chosen)
    places = [x for name in ("data", "results", "cache") for x in (f"--{name}", lab.places[name])]
    home = {"TORCH_HOME": str(lab.root / "torch")}
    plan = lab.command("run", file, *places, "--dry-run", **home)
    assert "missing data       8\n" in plan.stdout
    assert "to do              2\n" in plan.stdout
    done = lab.command("run", file, *places, **home)
    assert done.returncode == 3
    assert "2 done, 8 missing data; 2 fitted in this run." in done.stderr
    assert "failed" not in (done.stderr + done.stdout).lower()
    weights = f"{lab.root}/torch/hub/checkpoints/alexnet-owt-7be5be79.pth"
    assert f"Missing data: feature network: not found:\n  {weights}\n" in done.stderr
    assert f"Missing data: ranker siamese: not found:\n  {weights}\n" in done.stderr
    for table in (done.stdout, lab.command("table", file, *places[2:], **home).stdout):
        marks = {line.split("  ")[0]: line.split()[-1] for line in table.splitlines() if line.strip()}
        assert {marks[label] for label in (*labels, "Siamese")} == {"?"}
        assert marks["Truth"] == "100.00"
        assert "data is missing" in table
    assert not list(lab.results.glob("failures/*")), "nothing was tried"


def test_planning_and_listing_import_no_torch(lab):
    file = lab.file(HEAD + '[[row]]\nlabel = "S"\nranker = { name = "siamese" }\n')
    code = (
        "import sys; from rankbench.benchmark import Benchmark; from rankbench.runner import Options, Runner\n"
        "from rankbench.own_files import own_files\n"
        f"benchmark = Benchmark.read({str(file)!r})\n"
        f"runner = Runner(Options(data={str(lab.data)!r}, results='r', cache='c'))\n"
        "assert {cell.status for cell in runner.plan(benchmark).cells} == {'missing data'}\n"
        "assert [one.label for one in own_files(runner.registry, benchmark)] == ['ranker siamese']\n"
        "assert not {'torch', 'torchvision', 'sklearn'} & set(sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(lab.site), "TORCH_HOME": str(lab.root / "torch")}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=lab.root, env=environment)


def test_the_key_does_not_tell_whether_the_file_is_there_and_a_stored_result_stays(lab, learned):
    text = HEAD + learned()
    options = Options(**lab.places)
    benchmark = rankbench.benchmark.Benchmark.read(lab.file(text))
    before = Runner(options).plan(benchmark).cells
    assert statuses(lab, text) == {"Learned": "missing data"}
    (lab.root / "weights" / "levels.bin").write_bytes(CONTENT)
    result = lab.run(text)
    assert [(cell.key, cell.status) for cell in result.cells] == [(cell.key, "done") for cell in before]
    (lab.root / "weights" / "levels.bin").unlink()
    again = lab.run(text, rerun="all")
    assert ({cell.status for cell in again.cells}, again.plan.fitted, again.exit_code) == ({"done"}, 0, 0)


def test_what_a_cell_finds_missing_is_called_so_as_well(lab, learned):
    file = lab.file(HEAD + learned(told=False))
    places = [x for name in ("data", "results", "cache") for x in (f"--{name}", lab.places[name])]
    done = lab.command("run", file, *places)
    assert done.returncode == 3
    assert "] missing data Learned · dots attribute=bright: " in done.stderr
    assert "Cells: 2 missing data; 2 fitted in this run." in done.stderr
    assert "failed" not in done.stderr
    assert "Missing data: " in done.stderr
    (lab.root / "weights" / "levels.bin").write_bytes(CONTENT)
    assert statuses(lab, HEAD + learned(told=False)) == {"Learned": "done"}


def test_fetch_gets_the_files_of_all_rows_once(lab, learned, site):
    rows = learned("One") + learned("Two").replace("features", "C = 2.0, features")
    file = lab.file(HEAD + TRUTH + rows.replace('weights"', f'weights", url = "{site.url}"'))
    listed = lab.command("data", "list", file, "--data", lab.data)
    assert "  feature learned  missing\n" in listed.stdout
    assert f"{lab.root}/weights/levels.bin\n" in listed.stdout
    done = lab.command("data", "fetch", file, "--data", lab.data)
    assert done.returncode == 0, done.stderr
    assert "feature learned: 1 fetched" in done.stdout
    assert (lab.root / "weights" / "levels.bin").read_bytes() == CONTENT
    assert site.asked == {"levels.bin": 1}
    again = lab.command("data", "fetch", file, "--data", lab.data)
    assert "feature learned: all of it is there; nothing to fetch" in again.stdout
    assert "  feature learned  there\n" in lab.command("data", "list", file, "--data", lab.data).stdout
    assert set(statuses(lab, file.read_text()).values()) == {"done"}


def test_fetch_takes_no_other_file_and_says_what_is_still_missing(lab, learned, site):
    site.files["levels.bin"] = b"something else"
    file = lab.file(HEAD + learned())
    done = lab.command("data", "fetch", file, "--data", lab.data, "--from", site.url)
    assert done.returncode == 1
    begins = hashlib.sha256(CONTENT).hexdigest()[:12]
    assert f", not {begins}…: it is another file" in done.stderr
    assert f"Still missing: feature learned: not found:\n  {lab.root}/weights/levels.bin\n    ask its" in done.stderr
    offline = lab.command("data", "fetch", file, "--data", lab.data, RANKBENCH_OFFLINE="1")
    assert "Error: feature learned: offline: $RANKBENCH_OFFLINE is set" in offline.stderr
    folder = lab.root / "disk"
    folder.mkdir()
    (folder / "levels.bin").write_bytes(CONTENT)
    done = lab.command("data", "fetch", file, "--data", lab.data, "--from", folder, RANKBENCH_OFFLINE="1")
    assert done.returncode == 0
    assert "dots: all of it is there; nothing to fetch\nfeature learned: 1 fetched\n" in done.stdout
