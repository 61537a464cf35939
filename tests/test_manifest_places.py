"""manifest: images that are not there, paths that lead out of the folder, and other spellings of the same names."""

import unicodedata

import numpy as np
import pytest
from PIL import Image
from test_manifest import named, only, write

import rankbench
from rankbench_datasets.manifest import Manifest

NFC, NFD = (unicodedata.normalize(form, "Café/Bär.png") for form in ("NFC", "NFD"))


def pictures(folder, names):
    for k, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), (k, 255 - k, 7)).save(path)


def judged(folder, count):
    """A hundred and more numbered images, scored, each in one pair of training or test."""
    write(folder, "images", "path,score", *(f"{k:03}.png,{k}" for k in range(count)))
    lines = (f"{k:03}.png,{k + 1:03}.png,-1,{'test' if k > 80 else 'train'}" for k in range(0, count, 2))
    write(folder, "pairs", "left,right,label,split", *lines)


def test_up_to_five_percent_of_the_images_may_be_absent(tmp_path):
    pictures(tmp_path, [f"{k:03}.png" for k in range(120) if k not in (7, 100)])
    judged(tmp_path, 120)
    problem = only(Manifest(), tmp_path)
    assert problem.notes == ("2 of 120 images are not there and were left out with their pairs",)
    assert (len(problem.images), len(problem.train), len(problem.tests["test"])) == (118, 40, 18)
    assert not {"007.png", "100.png"} & set(problem.images.names)
    assert problem.images[0].shape == (3, 4, 3)
    pairs = named(problem, problem.tests["test"])
    assert all((int(left[:3]) + 1, label) == (int(right[:3]), -1) for left, right, label in pairs)
    assert problem.images.columns["score"].tolist() == [int(name[:3]) for name in problem.images.names]


def test_splits_stay_as_they_are_where_images_are_absent(tmp_path):
    names = [f"{k:03}.png" for k in range(60)]
    pictures(tmp_path, names)
    write(tmp_path, "images", "path,score", *(f"{name},{k}" for k, name in enumerate(names)))
    before = [set(np.array(p.images.names)[p.train_images]) for p in Manifest().problems(tmp_path)]
    (tmp_path / "010.png").unlink()
    for problem, names in zip(Manifest().problems(tmp_path), before, strict=True):
        assert set(np.array(problem.images.names)[problem.train_images]) == names - {"010.png"}


def test_more_absent_images_are_missing_data_and_the_first_are_named(tmp_path):
    pictures(tmp_path, [f"{k:03}.png" for k in range(120) if k % 17])
    judged(tmp_path, 120)
    with pytest.raises(rankbench.MissingData) as raised:
        list(Manifest().problems(tmp_path))
    assert str(raised.value) == (
        f"{tmp_path / 'images.csv'}, line 2: image '000.png' is not in {tmp_path} (8 of 120 listed images not there); "
        "nor '017.png' (line 19), '034.png' (line 36), … and 5 more. Put them there, or correct their paths; up "
        "to 5% may lack."
    )


@pytest.mark.parametrize(
    ("path", "how"),
    [
        ("../x.png", r"goes up by '\.\.'"),
        ("a/../../x.png", r"goes up by '\.\.'"),
        ("..\\x.png", r"goes up by '\.\.'"),
        ("/tmp/x.png", "is absolute"),
        ("C:\\pictures\\x.png", "is absolute"),
        ("\\\\server\\x.png", "is absolute"),
    ],
)
@pytest.mark.parametrize("column", ["path", "left", "right"])
def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path, column, path, how):
    folder = tmp_path / "mine"
    pictures(tmp_path, ["x.png", "mine/a/1.png", "mine/a/2.png"])
    if column == "path":
        write(folder, "images", "path,score", "a/1.png,1", f"{path},2")
    else:
        line = f"{path},a/1.png,1" if column == "left" else f"a/1.png,{path},1"
        write(folder, "pairs", "left,right,label", "a/1.png,a/2.png,1", line)
    with pytest.raises(
        rankbench.DataError, match=rf"csv, line 3: {column} '.*' {how}\. Write paths relative to .*mine"
    ):
        list(Manifest().problems(folder))


def test_a_link_in_the_folder_may_lead_out_of_it(tmp_path):
    pictures(tmp_path, [f"elsewhere/{k}.png" for k in range(4)])
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "img").symlink_to(tmp_path / "elsewhere")
    (folder / "img" / "loop").symlink_to(folder)  # and lead in circles
    rows = ("img/0.PNG,img/1.png,1,train", "img/2.png,img/3.png,1,test")
    write(folder, "pairs", "left,right,label,split", *rows)
    problem = only(Manifest(), folder)
    assert problem.images.names == ("img/0.PNG", "img/1.png", "img/2.png", "img/3.png")
    assert problem.images[0][0, 0].tolist() == [0, 255, 7]


@pytest.mark.parametrize(
    ("listed", "there", "told"),
    [
        (NFC, NFD, f"first: {NFC!a} is {NFD!a}"),
        (NFD, NFC, f"first: {NFD!a} is {NFC!a}"),
        ("img\\1.png", "img/1.png", r"first: 'img\\1.png' is 'img/1.png'"),
        ("IMG/1.png", "img/1.PNG", "first: 'IMG/1.png' is 'img/1.PNG'"),
        ("caf\u00e9.png", "CAFE\u0301.png", "first: 'caf\u00e9.png' is 'CAFE\u0301.png'"),
    ],
)
@pytest.mark.parametrize("kind", ["images", "pairs"])
def test_other_spellings_of_a_name_are_found_where_one_file_is_meant(tmp_path, kind, listed, there, told):
    pictures(tmp_path, [there, "2.png", "3.png", "4.png"])
    pairs = (f"2.png,{listed},-1,train", "3.png,4.png,1,test")
    if kind == "images":
        write(tmp_path, "images", "path,score", f"{listed},1", "2.png,2", "3.png,3", "4.png,4")
        pairs = (f"2.png,{there},-1,train", "3.png,./4.png,1,test")  # pairs.csv spells it in a third way
    write(tmp_path, "pairs", "left,right,label,split", *pairs)
    problem = only(Manifest(), tmp_path)
    assert (len(problem.images), problem.notes) == (4, ())
    row = problem.images.names.index(listed)
    assert problem.images[row][0, 0].tolist() == [0, 255, 7]
    assert named(problem, problem.train) == [("2.png", listed, -1)]
    (count,) = Manifest().counts(tmp_path)
    assert (count.found, count.note) == (1, told)


def test_an_image_that_pairs_spell_in_two_ways_is_one(tmp_path):
    pictures(tmp_path, [NFD, "2.png", "3.png"])
    lines = (f"{NFC},2.png,1,train", f"3.png,{NFD},1,train", "Caf\u00e9\\B\u00e4r.png,3.png,-1,test")
    write(tmp_path, "pairs", "left,right,label,split", *lines)
    problem = only(Manifest(overlap="one of three images"), tmp_path)
    assert problem.images.names == ("2.png", "3.png", NFC)
    assert named(problem, problem.train) == [("3.png", NFC, 1), (NFC, "2.png", 1)]
    assert named(problem, problem.tests["test"]) == [(NFC, "3.png", -1)]


def test_exact_names_come_first_and_may_differ_in_case_alone(tmp_path):
    pictures(tmp_path, ["a.png", "A.png", "b.png", "c.png"])
    write(tmp_path, "pairs", "left,right,label,split", "a.png,A.png,1,train", "b.png,c.png,1,test")
    assert only(Manifest(), tmp_path).images.names == ("A.png", "a.png", "b.png", "c.png")
    assert not Manifest().counts(tmp_path)


def test_a_name_that_may_mean_two_files_names_both(tmp_path):
    pictures(tmp_path, ["a.png", "A.png", "b.png"])
    write(tmp_path, "images", "path,score", "b.png,1", "a.PNG,2")
    with pytest.raises(rankbench.DataError) as raised:
        list(Manifest().problems(tmp_path))
    assert str(raised.value) == (
        f"{tmp_path / 'images.csv'}, line 3: image 'a.PNG' may be 'A.png' or 'a.png'. Write one of them just as it is "
        "there."
    )
    write(tmp_path, "images", "path,score", "b.png,1", "a.png,2", "A.png,3")
    write(tmp_path, "pairs", "left,right,label", "b.png,A.PNG,1")
    with pytest.raises(
        rankbench.DataError, match=r"pairs.csv, line 2: right image 'A.PNG' may be '.\.png' or '.\.png'"
    ):
        list(Manifest().problems(tmp_path))


def test_two_lines_that_mean_one_file_are_told(tmp_path):
    pictures(tmp_path, ["a.png", "b.png"])
    write(tmp_path, "images", "path,score", "a.png,1", "b.png,2", "A.png,3")
    with pytest.raises(rankbench.DataError) as raised:
        list(Manifest().problems(tmp_path))
    said = "line 4: image 'A.png' is the file 'a.png', as is 'a.png' in line 2. Write one name."
    assert str(raised.value) == f"{tmp_path / 'images.csv'}, {said}"


def test_a_path_that_may_be_meant_otherwise_is_proposed_unless_another_line_names_it(tmp_path):
    pictures(tmp_path, ["shoe-1.png", "shoe-2.png", "shoe_3.png"])
    write(tmp_path, "images", "path,score", "shoe-1.png,1", "shoe-2.png,2", "shoe-3.png,3")
    with pytest.raises(rankbench.MissingData, match=r"correct their paths \(did you mean 'shoe_3\.png'\?\); up to 5%"):
        list(Manifest().problems(tmp_path))


MINE = """
title = "T"
dataset = { name = "manifest", folder = "mine" }
metric = "pairwise-accuracy"
[[column]]
label = "A"
[[row]]
label = "R"
ranker = "chance"
"""


def test_too_many_absent_images_are_missing_data_to_run_as_well(lab):
    folder = lab.data / "mine"
    pictures(folder, [f"{k:03}.png" for k in range(120) if k % 17])
    judged(folder, 120)
    result = lab.run(MINE)
    assert {cell.status for cell in result.cells} == {"missing data"}
    assert "line 2: image '000.png' is not in" in result.cells[0].missing
    check = lab.command("data", "check", "manifest", "--folder", "mine", "--data", lab.data)
    assert check.returncode == 3
    assert "nor '017.png' (line 19)" in check.stderr
    pictures(folder, [f"{k:03}.png" for k in range(0, 120, 17) if k not in (17, 85)])
    result = lab.run(MINE)
    assert {cell.status for cell in result.cells} == {"done"}
    assert "2 of 120 images are not there and were left out" in "".join(result.drawn().entries[0][0].notes)
