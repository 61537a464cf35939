"""`rankbench data`: list, describe, check and fetch, as a user runs them, and what the check counts."""

import hashlib
import json

import numpy as np
import pytest
from hostile import Site, picture
from PIL import Image
from test_fetch import zipped
from test_lfw10 import write_lfw10
from test_osr import FOLDERS
from test_osr import write as write_osr
from test_ut_zap50k import write_images, write_zappos
from test_virality import write_virality

import rankbench
from rankbench.checking import about_judgements, checked, remarks, table
from rankbench.cli_data import offline, parameter
from rankbench.errors import BenchmarkError
from rankbench.loading import Data, DatasetChoice
from rankbench.registry import Registry
from rankbench_datasets import rankbench_datasets

DOTS = """
title = "T"
dataset = "dots"
metric = "pairwise-accuracy"
[[column]]
label = "A"
[[row]]
label = "R"
ranker = "chance"
"""
LEARNED = DOTS.replace('"dots"', '"osr"').replace(
    'ranker = "chance"',
    'ranker = { name = "ranksvm", features = [{ name = "hog2x2", fit_on = { name = "viral-categories" } }] }',
)


@pytest.fixture
def site():
    site = Site()
    yield site
    site.close()


def command(lab, *arguments, **environment):
    return lab.command("data", *arguments, "--data", lab.data, **environment)


# -------------------------------------------------------------------------------------------------- list and describe


def test_list_says_what_each_dataset_and_benchmark_needs(lab):
    write_virality(lab.data / "virality")
    (lab.root / "benchmarks").mkdir()
    lab.file(LEARNED, "mine").rename(lab.root / "benchmarks" / "mine.toml")
    done = command(lab, "list")
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    status = {words[0]: words[-1] for line in lines if len(words := line.split("  ")) > 1}
    assert status["dots"].strip() == "there"
    assert status["osr"].strip() == "missing"
    assert status["virality"].strip() == "there, without all images"
    assert f"{lab.data}/osr/data.mat" in done.stdout
    assert "relative_attributes_v2.zip" in done.stdout
    assert lines[lines.index("benchmarks/mine.toml") + 1 :][0].startswith("osr")
    assert lines[lines.index("benchmarks/mine.toml") + 2 :][0].startswith("viral-categories"), (
        "what features learn from"
    )
    rows = json.loads(command(lab, "list", "osr", "--json").stdout)
    assert [(row["dataset"], row["status"], len(row["needs"])) for row in rows] == [("osr", "missing", 2)]


def test_a_dataset_that_cannot_look_is_listed_all_the_same(lab, monkeypatch):
    done = command(lab, "list", "nothing")
    assert done.returncode == 2
    assert "no dataset named 'nothing'" in done.stderr


def test_describe_prints_what_a_user_must_know(lab):
    done = command(lab, "describe", "osr")
    assert done.returncode == 0
    for word in (
        "Source:",
        "Licence:",
        "Layout:",
        "Protocol:",
        "Known problems:",
        "MISSING",
        "relative_attributes_v2.zip",
    ):
        assert word in done.stdout
    assert "it reads none" in command(lab, "describe", "shapes").stdout


@pytest.mark.parametrize("name", list(rankbench_datasets()))
def test_every_dataset_says_source_licence_layout_protocol_and_problems(name):
    text = Registry.installed().find("datasets", name).load().__doc__
    for word in ("Source:", "Licence:", "Layout:", "Protocol:", "Known problems:"):
        assert word in text, f"{name}: {word}"


# ------------------------------------------------------------------------------------------------------------ check


def test_check_counts_and_holds_against_what_was_published(lab):
    write_osr(lab.data / "osr")
    done = command(lab, "check", "osr")
    assert done.returncode == 1, "24 images where 2,688 were published"
    lines = {tuple(line.split()[:2]): line.split() for line in done.stdout.splitlines() if line.strip()}
    assert lines["images", "24"] == ["images", "24", "2,688", "DIFFERS", "all", "problems"]
    assert done.stdout.startswith("osr: 6 problems")
    assert done.stdout.endswith("\n\nNot as published: 36 counts differ.\n")
    about = json.loads(command(lab, "check", "osr", "--json").stdout)
    assert (about["good"], about["wrong"], len(about["problems"])) == (False, [], 6)
    assert all(len(problem["fingerprint"]) == 64 for problem in about["problems"])


def test_check_names_images_that_cannot_be_read_and_data_that_is_missing(lab):
    assert command(lab, "check", "osr").returncode == 3
    done = command(lab, "check", "dots")
    assert done.returncode == 0
    assert "Good." in done.stdout
    broken = min((lab.data / "dots").glob("*.pgm"))
    broken.write_bytes(b"no image")
    done = command(lab, "check", "dots")
    assert done.returncode == 1
    assert f"{broken}: cannot be decoded" in done.stdout
    assert done.stdout.endswith(
        "1 image cannot be read. Replace or remove it: a run leaves it out with its pairs, and fails where more than "
        "5% are lost.\n"
    )
    assert "published" not in done.stdout, "nobody has published anything of it"
    assert command(lab, "check", "dots", "--no-decode").returncode == 0


def test_check_takes_parameters_and_benchmark_files(lab):
    write_osr(lab.data / "here")
    about = json.loads(command(lab, "check", "osr", "--folder", "here", "--set", "test_pairs=5", "--json").stdout)
    tests = {count["what"]: count["found"] for count in about["problems"][0]["counts"]}
    assert tests["test pairs"] == 5
    file = lab.file(DOTS)
    assert command(lab, "check", file).returncode == 0
    assert "--folder and --set go with the name of a dataset" in command(lab, "check", file, "--folder", "x").stderr
    assert command(lab, "check", "osr", "--set", "nonsense").returncode == 2
    assert command(lab, "check", "osr", "--set", "test_pears=5").returncode == 2


def test_parameters_are_toml_or_words():
    found = [parameter(text) for text in ("a=1", "b = [1, 2]", 'c="x"', "d=paper", "e=true", "f=")]
    assert found == [("a", 1), ("b", [1, 2]), ("c", "x"), ("d", "paper"), ("e", True), ("f", "")]
    with pytest.raises(BenchmarkError, match="write NAME=VALUE"):
        parameter("a")


def manifest(root, pairs, images=None):
    """A folder with pictures and pairs (left, right, label, split)."""
    root.mkdir(parents=True)
    names = sorted({name for pair in pairs for name in pair[:2]})
    for number, name in enumerate(images or names):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / f"{name}.png")
    lines = [f"{a}.png,{b}.png,{label},{split}" for a, b, label, split in pairs]
    (root / "pairs.csv").write_text("left,right,label,split\n" + "\n".join(lines) + "\n")
    return root


def test_an_image_is_idle_only_where_no_split_pairs_it(tmp_path):
    root = manifest(tmp_path / "mine", [("a", "b", 1, "x")], images="abcdefghijklmnop")
    pairs = [f"{a}.png,{b}.png,{1 if a < b else -1}" for a in "abcdefghijkl" for b in "abcdefghijkl" if a != b]
    (root / "pairs.csv").write_text("left,right,label\n" + "\n".join(pairs) + "\n")
    (root / "images.csv").write_text("path\n" + "\n".join(f"{name}.png" for name in "abcdefghijklmnop") + "\n")
    said = remarks(found_in(root))
    assert [text for text in said if "in no pair" in text] == ["4 images in no pair (first: m.png)"]


def found_in(root, **parameters):
    data = Data(Registry.installed(), root.parent, root.parent / "cache")
    return checked(data, DatasetChoice("manifest", parameters, root.name))


def test_a_manifest_is_checked_for_what_is_wrong_with_judgements(tmp_path):
    pairs = [
        ("a", "b", 1, "train"), ("b", "a", 1, "train"), ("a", "b", 0, "train"),  # against each other
        ("c", "d", 1, "train"), ("d", "e", 1, "train"), ("e", "c", 1, "train"),  # in a circle
        ("f", "g", 1, "train"), ("x", "y", 1, "test"), ("x", "a", 1, "test"),
    ]  # fmt: skip
    root = manifest(tmp_path / "mine", pairs)
    (root / "h.png").write_bytes((root / "g.png").read_bytes())
    (root / "images.csv").write_text("path\n" + "\n".join(f"{name}.png" for name in "abcdefghxyz") + "\n")
    Image.new("RGB", (4, 4), (99, 0, 0)).save(root / "z.png")
    found = found_in(root, overlap="a is in both on purpose")
    said = "\n".join(remarks(found))
    assert (
        "train: 1 pair judged more than once, 1 of them with opposite labels and 1 once as a tie and once not" in said
    )
    assert "train: 3 connected components (the largest has 3 of 7 images)" in said
    assert "train: 5 ordered pairs in circles (A over B over … over A), among 5 images" in said
    assert "2 images in no pair (first: h.png)" in said.splitlines()
    assert "1 image both in training and in test 'test' (first: a.png); reason given: a is in both on purpose" in said
    assert "2 images whose bytes equal another's (g.png, h.png)" in said
    assert found.good, "remarks are no errors"


def test_what_is_in_order_gets_no_remark(tmp_path):
    root = manifest(tmp_path / "fine", [("a", "b", 1, "train"), ("b", "c", 1, "train"), ("x", "y", 1, "test")])
    found = found_in(root)
    assert remarks(found) == []
    assert [row[:2] for row in table(found)][:4] == [
        ("images", "5"), ("train images", "3"), ("train pairs", "2"), ("train ties", "0"),
    ]  # fmt: skip


def test_copies_across_the_split_are_told(tmp_path):
    root = manifest(tmp_path / "copies", [("a", "b", 1, "train"), ("b", "c", 1, "train"), ("x", "y", 1, "test")])
    (root / "a.png").write_bytes((root / "x.png").read_bytes())
    found = found_in(root)
    assert "1 training image with the bytes of a test image, left out of training" in remarks(found)


@pytest.mark.parametrize("seed", range(5))
def test_circles_and_components_are_those_of_a_plain_search(seed):
    rng = np.random.default_rng(seed)
    count = 12
    ends = np.array([rng.permutation(count)[:2] for _ in range(9)])
    label = rng.choice([-1, 0, 1], 9)
    pairs = rankbench.Pairs(ends[:, 0], ends[:, 1], label)
    over = {k: set() for k in range(count)}
    near = {k: {k} for k in range(count)}
    for (a, b), sign in zip(ends.tolist(), label.tolist(), strict=True):
        near[a].add(b)
        near[b].add(a)
        if sign:
            over[a if sign > 0 else b].add(b if sign > 0 else a)

    def reached(start, steps):
        seen, todo = set(), [start]
        while todo:
            for other in steps[todo.pop()] - seen:
                seen.add(other)
                todo.append(other)
        return seen

    ordered = [
        (a, b) if sign > 0 else (b, a) for (a, b), sign in zip(ends.tolist(), label.tolist(), strict=True) if sign
    ]
    inside = sum(winner in reached(loser, over) for winner, loser in ordered)
    parts = {frozenset(reached(k, near)) for k in np.unique(ends).tolist()}
    said = "\n".join(about_judgements(pairs, count, None))
    assert (f"{inside} ordered pair" in said) == (inside > 0)
    assert (f"{len(parts)} connected components" in said) == (len(parts) > 1)


# ------------------------------------------------------------------------------------------------------------ fetch


def test_fetch_gets_virality_images_by_the_links_in_its_metadata(lab, site):
    truth = write_virality(lab.data / "virality")
    for image in truth["ids"][:-2].tolist():
        site.files[f"mirror/images/{image}.jpg"] = picture(image)
    done = command(lab, "fetch", "virality", "--from", site.url + "mirror")
    assert done.returncode == 1
    assert "78 fetched, 2 failed" in done.stdout
    assert f"images/{truth['ids'][-1]}.jpg: " in done.stderr
    assert "HTTP 404, not found" in done.stderr
    folder = lab.data / "virality"
    assert len(list((folder / "images").iterdir())) == 78
    report = json.loads((folder / ".fetch" / "report.json").read_text())
    assert report["counts"] == {"fetched": 78, "failed": 2}
    again = command(lab, "fetch", "virality", "--from", site.url + "mirror")
    assert "78 there already, 2 failed" in again.stdout
    assert max(site.asked[name] for name in site.files) == 1
    assert "there, without" not in command(lab, "list", "virality").stdout, "2 of 80 may be gone"


def test_fetch_unpacks_an_archive_from_a_folder_without_a_connection(lab):
    write_osr(lab.root / "made")
    inside = {f"spatial_envelope_256x256_static_8outdoorcategories/{path.name}": path.read_bytes()
              for path in (lab.root / "made").rglob("*.jpg")}  # fmt: skip
    disk = lab.root / "disk"
    disk.mkdir()
    (disk / "spatial_envelope_256x256_static_8outdoorcategories.zip").write_bytes(zipped(**inside))
    (disk / "relative_attributes_v2.zip").write_bytes(
        zipped(**{"relative_attributes/osr/data.mat": (lab.root / "made" / "data.mat").read_bytes()})
    )
    done = command(lab, "fetch", "osr", "--from", disk, RANKBENCH_OFFLINE="1")
    assert done.returncode == 0, done.stderr
    assert "osr: 2 fetched" in done.stdout
    assert "sha-256" in done.stdout
    assert command(lab, "list", "osr").stdout.rstrip().endswith("there")
    assert command(lab, "check", "osr").stdout.startswith("osr: 6 problems")


def test_fetch_refuses_politely(lab):
    done = command(lab, "fetch", "osr", RANKBENCH_OFFLINE="1")
    assert done.returncode == 2
    assert "offline: $RANKBENCH_OFFLINE is set" in done.stderr
    assert "relative_attributes_v2.zip" in done.stderr
    done = command(lab, "fetch", "popularity")
    assert done.returncode == 2
    assert "nothing of popularity may be downloaded" in done.stderr
    assert not (lab.data / "popularity").exists()
    done = command(lab, "fetch", "osr", "--from", "nowhere")
    assert "is no folder, and no URL" in done.stderr


def test_fetch_of_what_is_there_is_fine_without_a_connection(lab):
    write_osr(lab.data / "osr")
    truth = write_zappos(lab.data / "ut-zap50k")
    write_images(lab.data / "ut-zap50k", truth["paths"])
    write_lfw10(lab.data / "lfw10", images=True)
    for name in ("osr", "ut-zap50k", "lfw10", "shapes"):
        done = command(lab, "fetch", name, RANKBENCH_OFFLINE="1")
        assert (done.returncode, done.stderr) == (0, ""), name
        assert done.stdout == f"{name}: all of it is there; nothing to fetch\n"
        assert not (lab.data / name / ".fetch").exists()


@pytest.mark.parametrize("word", ["0", "", "false", "no", "No"])
def test_words_that_say_no_do_not_forbid_connections(monkeypatch, word):
    monkeypatch.setenv("RANKBENCH_OFFLINE", word)
    assert not offline()
    monkeypatch.setenv("RANKBENCH_OFFLINE", "1")
    assert offline()


def test_fetch_says_what_is_still_missing(lab):
    write_osr(lab.root / "made")
    disk = lab.root / "disk"
    disk.mkdir()
    (disk / "relative_attributes_v2.zip").write_bytes(zipped(readme="no labels in here"))
    for _ in range(2):
        done = command(lab, "fetch", "osr", "--from", disk)
        assert done.returncode == 1
        assert "osr: 1 fetched, 1 failed" in done.stdout, "tried again while it is missing"
        assert "Still missing: dataset osr: not found" in done.stderr
        assert f"{lab.data}/osr/data.mat" in done.stderr
        assert f"{disk} holds no spatial_envelope" in done.stderr


BOTH = DOTS.replace('dataset = "dots"\n', "").replace(
    '[[column]]\nlabel = "A"\n',
    '[[column]]\nlabel = "A"\ndataset = "osr"\n[[column]]\nlabel = "B"\ndataset = "shapes"\n',
)


def test_one_dataset_that_fails_stops_no_other(lab):
    file = lab.file(BOTH)
    done = command(lab, "fetch", file, "--from", lab.root)
    assert done.returncode == 1
    assert "shapes: all of it is there" in done.stdout
    done = command(lab, "check", file, "--no-decode")
    assert done.returncode == 3
    assert "shapes: 1 problem" in done.stdout
    reports = json.loads(command(lab, "check", file, "--no-decode", "--json").stdout)
    assert [(one["dataset"], one["good"]) for one in reports] == [("osr", False), ("shapes", True)]
    assert reports[0]["missing"][0]["path"] == f"{lab.data}/osr/data.mat"
    write_osr(lab.data / "osr")
    (lab.data / "osr" / "data.mat").write_bytes(b"no MATLAB file")
    done = command(lab, "check", file, "--no-decode")
    assert done.returncode == 2
    assert done.stderr.count("dataset osr") == 1
    assert "data.mat: cannot be read as a MATLAB file" in done.stderr
    assert "shapes: 1 problem" in done.stdout
    reports = json.loads(command(lab, "check", file, "--no-decode", "--json").stdout)
    assert "cannot be read as a MATLAB file" in reports[0]["error"]
    assert reports[1]["good"]


def test_check_of_images_that_lack_is_exact(lab):
    root = write_osr(lab.data / "osr")
    (root / FOLDERS[1] / "forest_a1.jpg").unlink()
    done = command(lab, "check", "osr")
    assert done.returncode == 1, "24 images where 2,688 were published"
    assert "1 of 24 images are not there and were left out with their pairs (all problems)" in done.stdout
    (root / FOLDERS[1] / "street_a0.jpg").unlink()
    done = command(lab, "check", "osr")
    assert done.returncode == 3
    assert "2 of 24 images are not there (first: forest_a1.jpg)" in done.stderr
    assert "Good." not in done.stdout
    ranker = '{ name = "ranksvm", features = ["lbp"] }'
    result = lab.run(DOTS.replace('"dots"', '"osr"').replace('"chance"', ranker))
    assert {cell.status for cell in result.cells} == {"missing data"}


def test_a_wrong_file_is_told_though_images_are_missing(lab):
    (lab.data / "popularity" / "images").mkdir(parents=True)
    table = lab.data / "popularity" / "popularity.csv"
    table.write_text("image,user,score\n" + "".join(f"{k}.jpg,u,{k}\n" for k in range(9)))
    done = command(lab, "check", "popularity")
    assert done.returncode == 3
    assert f"{lab.data}/popularity/images\n" in done.stderr
    assert "popularity.csv" not in done.stderr.replace("that popularity.csv names", "")
    assert "What is there is good, but data is missing." in done.stdout
    table.write_text("image,user,score\na.jpg,u,1\nb.jpg,u,many\n")
    done = command(lab, "check", "popularity")
    assert done.returncode == 2
    assert "line 3: score 'many' is not a number" in done.stderr


def test_what_is_missing_is_told_with_one_remedy(lab):
    done = command(lab, "check", "lfw10")
    assert done.returncode == 3
    assert done.stderr.count("LFW10.zip") == 1, "for 20 files of annotations and the images"
    for verb in ("describe", "list"):
        assert command(lab, verb, "lfw10").stdout.count("LFW10.zip") == 1
    file = lab.file(DOTS.replace('"dots"', '"lfw10"'))
    assert command(lab, "list", file).stdout.count("LFW10.zip") == 1


def test_check_names_the_files_it_read_and_says_what_it_leaves_out(lab):
    truth = write_zappos(lab.data / "ut-zap50k")
    write_images(lab.data / "ut-zap50k", truth["paths"])
    labels = lab.data / "ut-zap50k" / "zappos-labels.mat"
    digest = hashlib.sha256(labels.read_bytes()).hexdigest()
    done = command(lab, "check", "ut-zap50k", "--no-decode")
    assert f"  {digest[:16]}  {labels.stat().st_size:>13,}  zappos-labels.mat\n" in done.stdout
    assert "… and 20 more (--json lists all)" in done.stdout, "40 problems"
    assert done.stdout.count("the published splits are by pairs") == 1
    about = json.loads(command(lab, "check", "ut-zap50k", "--no-decode", "--json").stdout)
    assert {"path": str(labels), "bytes": labels.stat().st_size, "sha256": digest} in about["files"]
    assert len(about["problems"]) == 40


def test_published_tests_of_single_pairs_get_no_remark(lab):
    write_virality(lab.data / "virality")
    done = command(lab, "check", "virality", "--set", "protocol=released")
    assert "viral-random-pairs: " not in done.stdout
    assert "train: 30 connected components" in done.stdout
    assert "What is there" not in done.stdout


def own(lab, *rows, folder="mine"):
    """Ten images of one's own, judged."""
    place = lab.data / folder
    place.mkdir(exist_ok=True)
    for k in range(10):
        Image.new("RGB", (4, 4), (20 * k, 0, 0)).save(place / f"{k}.png")
    (place / "pairs.csv").write_text("left,right,label,split\n" + "\n".join(rows) + "\n")
    return place


def test_check_of_ones_own_folder_speaks_of_nothing_published_and_says_what_each_number_is(lab):
    place = own(lab, "0.png,1.png,-1,train", "2.png,1.png,1,train", "5.png,6.png,-1,test")
    done = command(lab, "check", "manifest", "--folder", "mine")
    mark = json.loads(command(lab, "check", "manifest", "--folder", "mine", "--json").stdout)["problems"][0][
        "fingerprint"
    ]
    digest = hashlib.sha256((place / "pairs.csv").read_bytes()).hexdigest()
    assert done.returncode == 0
    assert done.stdout == (
        "manifest (folder=mine): 1 problem\n"
        "                found  of\n"
        "------------  -------  ----\n"
        "images              5\n"
        "train images        3\n"
        "train pairs         2\n"
        "train ties          0\n"
        "test images         2\n"
        "test pairs          1\n"
        "test ties           0\n"
        f"\nFiles below {place} (start of the SHA-256, bytes):\n"
        f"  {digest[:16]}  {(place / 'pairs.csv').stat().st_size:>13}  pairs.csv\n"
        "\nFingerprints of the problems (equal where images, pairs and splits are):\n"
        f"  {mark[:16]}  manifest\n"
        "\nGood. Every image can be read.\n"
    )


def test_check_tells_remarks_that_differ_in_numbers_alone_once(lab):
    rows = ["0.png,1.png,-1,train", "1.png,2.png,-1,train", "2.png,3.png,-1,train", "5.png,6.png,-1,test"]
    place = own(lab, *rows)
    rows = [f"{row},open" for row in (*rows, rows[0])] + [f"{row},wide" for row in (*rows, *rows[:2])]
    (place / "pairs.csv").write_text("\n".join(["left,right,label,split,attribute", *rows]) + "\n")
    done = command(lab, "check", "manifest", "--folder", "mine", "--no-decode")
    assert "  train: 1 to 2 pairs judged more than once, each time alike (all problems)\n" in done.stdout
    said = json.loads(command(lab, "check", "manifest", "--folder", "mine", "--no-decode", "--json").stdout)["remarks"]
    assert "train: 2 pairs judged more than once, each time alike (attribute=wide)" in said


def test_lists_are_short_and_descriptions_are_for_users(lab):
    listed = command(lab, "list", "lfw10").stdout
    assert listed.count(".mat\n") == 5
    assert "      … and 16 more\n" in listed
    assert "Raises:" not in command(lab, "describe", "manifest").stdout
