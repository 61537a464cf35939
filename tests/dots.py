"""A plugin package that tests write, install and use: grey squares whose brightness is the attribute."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import rankbench

PACKAGE = Path(__file__).parent / "dots_package" / "dots_plugins.py"


def install(site, name, version, entry_points, modules):
    """Put a distribution into a folder, as pip would."""
    site.mkdir(parents=True, exist_ok=True)
    for module, text in modules.items():
        (site / f"{module}.py").write_text(text)
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{point} = {module}\n" for point, module in entry_points.items()]
    (info / "entry_points.txt").write_text("[rankbench]\n" + "".join(lines))


class Lab:
    """A folder with the plugin package, data and results, and what a user does there."""

    def __init__(self, root):
        self.root, self.site = Path(root), Path(root) / "site"
        install(self.site, "dots-plugins", "1.0", {"dots": "dots_plugins"}, {"dots_plugins": PACKAGE.read_text()})
        (self.site / "dots_broken.py").write_text("import a_package_that_is_not_there\n")
        self.data, self.results, self.cache = (self.root / name for name in ("data", "results", "cache"))
        folder = self.data / "dots"
        folder.mkdir(parents=True)
        for kind, first in (("bright", 100), ("pale", 105)):
            for k in range(12):
                level = first + 10 * k
                (folder / f"{kind}-{level}.pgm").write_bytes(b"P5 8 8 255\n" + bytes([level]) * 64)
        (self.data / "sign.txt").write_text("1")

    def means(self):
        """Mean grey level of the test images of each attribute."""
        return {"bright": np.mean([180, 190, 200, 210]), "pale": np.mean([185, 195, 205, 215])}

    def file(self, text, name="toy"):
        """A benchmark file."""
        path = self.root / f"{name}.toml"
        path.write_text(text)
        return path

    @property
    def places(self):
        return {"data": self.data, "results": self.results, "cache": self.cache}

    def run(self, text, name="toy", **options):
        """Run a benchmark in this process."""
        options = {"in_process": True, "quiet": True, "device": "cpu", **self.places, **options}
        return rankbench.run(self.file(text, name), **options)

    def command(self, *arguments, **environment):
        """The real command, in the lab's folder; plugins are found as installed packages are."""
        paths = os.pathsep.join([str(self.site), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
        return subprocess.run(
            [str(Path(sys.executable).with_name("rankbench")), *map(str, arguments)],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": paths, "COLUMNS": "100", "CUDA_VISIBLE_DEVICES": "", **environment},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def edit(self, old, new):
        """Change the plugin package's source."""
        path = self.site / "dots_plugins.py"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def records(self):
        """Every stored record."""
        return [json.loads(path.read_text()) for path in self.results.glob("cells/*/record.json")]
