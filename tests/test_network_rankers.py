"""siamese, regression-cnn, viralnet and category-network: the contract, what they give, and what they refuse."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from simple_run import SimpleRun

import rankbench
from rankbench.registry import Registry, resolved
from rankbench.testing import Bench, accuracy, bright_squares, check_feature, check_ranker
from rankbench_features.category_network import CategoryNetwork
from rankbench_rankers.image_views import Framing
from rankbench_rankers.network_ranker import ordered_right
from rankbench_rankers.regression_cnn import RegressionCNN
from rankbench_rankers.siamese import Siamese
from rankbench_rankers.viralnet import ViralNet

SMALL = {
    "backbone": "small", "weights": "random", "size": 32, "width": 4, "recipe": "modern", "learning_rate": 5e-3,
    "batch_size": 16, "epochs": 3.0, "validate_every": 30,
}  # fmt: skip
FOVEAL = {**SMALL, "backbone": "small-foveal", "stages": 1}
CATEGORIES = {"name": "category-network", "backbone": "small", "weights": "random", "size": 32, "width": 4,
              "recipe": "modern", "learning_rate": 5e-3, "epochs": 5.0}  # fmt: skip
QUICK = {"epochs": 0.3}
ALL = {"pairs": "all", "epochs": 20.0}
KINDS = {
    "siamese": Siamese(**SMALL),
    "siamese-all": Siamese(**SMALL | ALL),
    "regression": RegressionCNN(**SMALL | {"epochs": 30.0, "trunk_rate": 1.0}),
    "viralnet": ViralNet(**FOVEAL | {"scale": 0.7}),
    "viralnet-crop-two-scoring": ViralNet(**FOVEAL | {"scale": 1.0, "sees": "crop", "scoring": "center"}),
    "viralnet-M": ViralNet(**FOVEAL | ALL | {"variant": "M", "scale": 0.9, "pyramid": (1.0, 1.0, 1.0)}),
    "viralnet-C": ViralNet(**FOVEAL | ALL | {"variant": "C"}, supplement=rankbench.Features(CATEGORIES)),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_conforms(kind):
    check_ranker(KINDS[kind])


@pytest.mark.parametrize("kind", [Siamese, RegressionCNN, ViralNet])
def test_a_page_describes_every_parameter(kind):
    described = kind.__doc__.partition("Args:")[2]
    assert kind.__doc__.count("Args:") == 1
    for name in kind.__dataclass_fields__:
        assert re.search(rf"(^|[ ,.]){name}[:,]", described, re.MULTILINE), name


def test_category_network_conforms():
    check_feature(CategoryNetwork(**{k: v for k, v in CATEGORIES.items() if k != "name"}))


def test_the_modules_of_the_classes_import_no_torch():
    code = (
        "import sys, rankbench_rankers.viralnet, rankbench_rankers.siamese, rankbench_rankers.regression_cnn, "
        "rankbench_features.category_network as c; c.CategoryNetwork(); rankbench_rankers.viralnet.ViralNet(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.fixture(scope="module")
def squares():
    return bright_squares(train=30, test=10, pairs=100)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def fitted(ranker, squares, seed=0, folder=None):
    return ranker.fit(squares.images, squares.train, SimpleRun(seed, folder=folder))


@pytest.mark.parametrize(("variant", "boxes"), [("single", 1), ("M", 3)])
def test_viralnet_tells_where_it_looks_and_embeds(squares, variant, boxes):
    ranker = fitted(ViralNet(**FOVEAL | QUICK | {"variant": variant, "scale": 0.4}), squares)
    located = ranker.locate(squares.images, SimpleRun())
    assert len(located) == len(squares.images)
    assert [label for label, _ in located[0]] == ["crop", "crop at 1/2", "crop at 1/4"][:boxes]
    framing = ranker.framing()
    for factor, (_, (left, top, right, bottom)) in zip(ranker.pyramid, located[3], strict=False):
        assert right - left == pytest.approx(bottom - top)
        assert (right - left) * framing.stored == pytest.approx(0.4 * factor * framing.side, rel=0.3)
    embedded = ranker.embed(squares.images, SimpleRun())
    assert embedded.shape == (len(squares.images), (boxes + 1) * 8 * 4)
    assert embedded.dtype == np.float32
    last = ranker.network_.last
    scores = embedded.astype(np.float64) @ last.weight.detach().numpy()[0] + last.bias.item()
    assert ranker.score(squares.images, SimpleRun()) == pytest.approx(scores, abs=1e-4)


def test_a_box_lies_in_the_whole_image_though_the_network_sees_its_middle(squares):
    ranker = fitted(ViralNet(**FOVEAL | QUICK | {"scale": 1.0, "multiplier": 1e-6}), squares)
    with torch.no_grad():
        for localiser in ranker.network_.localisers:
            localiser.last.weight.zero_()
            localiser.last.bias.copy_(torch.tensor([1e6, 0.0, 0.0]))
    (((_, box),), *_) = ranker.locate(squares.images, SimpleRun())
    framing = ranker.framing()
    edge = framing.room // 2 / framing.stored
    assert box == pytest.approx(
        (edge, edge, edge + framing.side / framing.stored, edge + framing.side / framing.stored)
    )


@pytest.mark.parametrize(
    ("variant", "sees", "crops"), [("single", "combined", 1), ("C", "crop", 1), ("M", "combined", 4), ("MC", "crop", 3)]
)
def test_each_scale_and_the_whole_image_are_cropped_apart(variant, sees, crops):
    framing = ViralNet(**FOVEAL | QUICK | {"variant": variant, "sees": sees}).framing()
    assert framing.crops == crops
    assert (framing.side == framing.size) == (crops == 1), "one crop alone is as large as what is seen"


def test_two_stages_start_from_the_localiser_of_one_crop_network_that_rows_share(bench):
    from rankbench.files import read_state

    problem = bright_squares(train=60, test=10, pairs=1200).canonical()
    first = ViralNet(**FOVEAL | QUICK | {"stages": 2, "localiser_rate": 0.0})
    ranker, _ = bench.fit(first, problem)
    curves = bench.curves
    folder = bench.services.cache / "shared"
    shared = {path for path in folder.iterdir() if (path / "state.json").exists()}
    supplement = rankbench.Features(CATEGORIES)
    with_categories, _ = bench.fit(replace(first, variant="C", supplement=supplement, scoring="center"), problem)
    named = {name for _, numbers in bench.curves for name in numbers}
    parts = ("", "crop-only stage: ", "category-network: ")
    assert named == {part + kind for part in parts for kind in ("loss", "validation")}
    both = [[point for point in points if "crop-only stage: loss" in point[1]] for points in (curves, bench.curves)]
    assert both[0] == both[1] != [], "every cell has the curves of the stage it rests on"
    assert {path for path in folder.iterdir() if (path / "state.json").exists()} == shared, "built once for both rows"
    fresh, _ = bench.fit(replace(first, stages=1), problem)
    weights = [one.network_.localisers.state_dict()["0.last.weight"] for one in (ranker, with_categories, fresh)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert torch.equal(weights[0], torch.from_numpy(read_state(shared.pop())["0.last.weight"]))


def test_no_stage_is_trained_on_images_that_the_last_one_is_chosen_by(monkeypatch):
    problem = bright_squares(train=60, test=10, pairs=1200)
    seen = []

    class Watching(SimpleRun):
        def holdout(self, images, pairs, share):
            fitted, held = super().holdout(images, pairs, share)
            seen.append((pairs, held))
            return fitted, held

        def shared(self, name, parameters, build, features=None):
            return build(Watching(self.seed + 1))

    ViralNet(**FOVEAL | QUICK | {"stages": 2}).fit(problem.images, problem.train, Watching())
    (_, held), (second_given, _) = seen
    rows = {int(row) for side in (held.left, held.right) for row in side}
    assert len(rows) > 5
    assert not rows & {int(row) for side in (second_given.left, second_given.right) for row in side}


def test_variant_c_uses_a_category_network_unless_another_feature_is_named():
    registry = Registry.installed()
    built = registry.build("rankers", "viralnet", {"variant": "C"})
    assert [choice.name for choice in built.supplement] == ["category-network"]
    named = ViralNet(variant="C", supplement=rankbench.Features("category-network"))
    assert resolved(built)["supplement"] == resolved(named)["supplement"]
    other = registry.build("rankers", "viralnet", {"variant": "MC", "supplement": ["cell-statistics"]})
    assert [choice.name for choice in other.supplement] == ["cell-statistics"]
    with pytest.raises(rankbench.DataError, match='variant "single" has no supplement'):
        ViralNet(supplement=rankbench.Features("hog"))


def test_variant_c_without_categories_is_not_applicable_and_says_why(bench):
    squares = bright_squares(train=20, test=8, pairs=40)
    images = rankbench.Images.from_arrays(list(squares.images))
    bare = rankbench.Problem(images, squares.train, dict(squares.tests)).canonical()
    with pytest.raises(
        rankbench.NotApplicable, match="learns from the column 'category', which the training images lack"
    ):
        bench.fit(KINDS["viralnet-C"], bare)
    alike = rankbench.Images.from_arrays(list(squares.images), columns={"category": ["a"] * len(squares.images)})
    same = rankbench.Problem(alike, squares.train, dict(squares.tests)).canonical()
    with pytest.raises(
        rankbench.NotApplicable, match=r"needs two categories or more; the 20 training images have 1 \(a\)"
    ):
        bench.fit(KINDS["viralnet-C"], same)


def test_the_category_network_learns_the_category(bench):
    problem = bright_squares().canonical()
    choice = {k: v for k, v in CATEGORIES.items() if k != "name"}
    rows = bench.run(problem, Siamese(**SMALL, supplement=rankbench.Features(CATEGORIES)))
    vectors = np.asarray(rows.features(problem.images, rankbench.Features(CATEGORIES))[:])
    assert vectors.shape == (100, 16 * 4)
    feature = CategoryNetwork(**choice, minimum_steps=60)
    feature.fit(problem.images, SimpleRun())
    logits = feature._fitted._applied(problem.images, SimpleRun(), False, "score")
    found = np.unique(problem.images.columns["category"], return_inverse=True)[1]
    assert (logits.argmax(1) == found).mean() > 0.9


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 90, 3), (90, 90, 1)])
def test_grey_tiny_and_oblong_images(shape):
    values = [np.full(shape, level, np.uint8) for level in (0, 90, 200, 255)]
    images = rankbench.Images.from_arrays([np.repeat(v, 3, axis=2) if shape[2] == 1 else v for v in values])
    pairs = rankbench.Pairs([0, 1, 2], [1, 2, 3], [-1, -1, -1])
    for kind in ("siamese-all", "viralnet"):
        ranker = replace(KINDS[kind], minimum_steps=3, **QUICK).fit(images, pairs, run := SimpleRun())
        assert run.expected == max(step for step, _ in run.curves), "what a run is told to wait for"
        assert np.isfinite(ranker.score(images, SimpleRun())).all()


def test_every_network_trains_and_scores_in_bfloat16(bench):
    problem = bright_squares(train=20, test=8, pairs=60).canonical()
    for kind in ("siamese-all", "regression", "viralnet", "viralnet-M", "viralnet-C"):
        exact, half = (replace(KINDS[kind], precision=name, **QUICK) for name in ("float32", "bfloat16"))
        one, run = bench.fit(half, problem)
        scores = bench.margins(one, problem, run)
        assert np.isfinite(scores).all(), kind
        twin = replace(exact)
        twin.load(one.state())
        other = bench.margins(twin, problem, bench.run(problem, twin))
        assert 0 < np.abs(other - scores).max() < 0.1 * max(1.0, np.abs(other).max()), kind


def test_the_defaults_are_the_published_settings():
    """methods.md 3.1 and 3.2: rates, decay, damping, 25 pairs, localisers at a tenth of the rate, s = 0.33 by 0.05."""
    for ranker in (ViralNet(), ViralNet(variant="MC"), Siamese()):
        assert (ranker.backbone, ranker.weights) == ("alexnet", "imagenet")
        assert (ranker.batch_size, ranker.pairs) == (25, "sampled")
        recipe = ranker.training_recipe(batches=100)
        assert (recipe.name, recipe.steps, recipe.learning_rate, recipe.weight_decay) == ("paper", 40_000, 1e-3, 5e-4)
        assert ranker.framing() == Framing(227, 256, 226 if ranker.framing().crops == 1 else 243, (0, 1), ranker.crops)
        assert len(ranker.framing().alone().fixed(ranker.scoring == "ten-crop")) == 10
    small = ViralNet(backbone="small-foveal", weights="random", size=32, width=4)
    network = small.made(0, 0)
    optimizer = small.training_recipe(1).optimizer(network.groups())
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert all(rates[id(p)] == pytest.approx(1e-4) for p in network.localisers.parameters())
    assert {rates[id(p)] for p in [*network.trunk.parameters(), *network.last.parameters()]} == {1e-3}
    assert all(group["momentum"] == group["dampening"] == 0.9 for group in optimizer.param_groups)
    localiser = network.localisers[0]
    assert (localiser.multiplier[0].item(), localiser.last.bias[0].item() * 0.05) == pytest.approx((0.05, 0.33))
    assert (ViralNet().stages, ViralNet().spatial_loss, ViralNet().pyramid) == (2, "replace", (1.0, 0.5, 0.25))


@pytest.mark.parametrize(("name", "size"), [("alexnet", 32), ("caffenet", 128), ("vit_b_16", 96), ("inception_v3", 64)])
def test_a_size_that_a_backbone_cannot_see_is_refused(name, size):
    with pytest.raises(
        rankbench.DataError, match=rf"backbone '{name}' cannot see {size} × {size} pixels \(.*its own is \d{{3}}\."
    ):
        Siamese(backbone=name, weights="random", size=size).made(0, 0)


def test_where_it_looks_is_told_without_what_the_last_layer_reads_beside_it(bench):
    problem = bright_squares(train=20, test=8, pairs=60).canonical()
    ranker, _ = bench.fit(replace(KINDS["viralnet-C"], **QUICK), problem)
    assert len(ranker.locate(problem.images, SimpleRun())) == len(problem.images)  # this run has no features


def test_a_batch_of_one_image_is_refused():
    with pytest.raises(rankbench.DataError, match='pairs = "all" needs a batch_size of 2 images or more'):
        Siamese(pairs="all", batch_size=1)


def test_nothing_is_held_out_where_no_images_can_be_spared():
    chain = rankbench.Pairs(np.zeros(30, int), np.arange(1, 31), np.ones(30, int))  # one image is in every pair
    images = bright_squares(train=31, test=2, pairs=4).images.take(np.arange(31))
    fitted, validation = Siamese(**SMALL).divide(images, chain, SimpleRun())
    assert (len(fitted), validation) == (30, None)


def test_one_image_is_scored_as_among_others(squares):
    ranker = fitted(replace(KINDS["viralnet"], **QUICK), squares)
    whole = ranker.score(squares.images, SimpleRun())
    alone = ranker.score(squares.images.take(np.array([7])), SimpleRun())
    assert alone == pytest.approx(whole[[7]], rel=1e-5)


def test_ten_crops_are_the_mean_of_the_ten_views(squares):
    ranker = fitted(replace(KINDS["siamese"], **QUICK), squares)
    framing, network = ranker.framing(), ranker.network_.eval()
    pixels = torch.from_numpy(SimpleRun().pixels(squares.images, framing.stored)[:])
    with torch.no_grad():
        each = [network([framing.view(pixels, *one)])[0].numpy() for one in framing.fixed(True)]
    assert len(each) == 10
    assert ranker.score(squares.images, SimpleRun()) == pytest.approx(np.mean(each, axis=0), abs=1e-5)


# ---------------------------------------------------------------------------------------------------------- refusals


def test_nothing_to_learn_from(squares):
    images = squares.images
    for ranker in (KINDS["siamese"], KINDS["viralnet"]):
        with pytest.raises(rankbench.NotApplicable, match="needs training pairs"):
            ranker.fit(images, rankbench.Pairs([], [], []), SimpleRun())
        ties = rankbench.Pairs([0, 1], [1, 2], [0, 0])
        with pytest.raises(rankbench.DataError, match="no ordered pairs to learn from, only ties"):
            ranker.fit(images, ties, SimpleRun())
        weightless = rankbench.Pairs([0, 1], [1, 2], [1, 1], [0.0, 0.0])
        with pytest.raises(rankbench.NotApplicable, match="positive weight"):
            ranker.fit(images, weightless, SimpleRun())
    bare = rankbench.Images.from_arrays(list(images))
    with pytest.raises(rankbench.NotApplicable, match="regression-cnn needs a score of each image"):
        KINDS["regression"].fit(bare, squares.train, SimpleRun())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it is above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0; it is not negative"),
        ({"dropout": 1.0}, r"dropout is 1.0; it is in \[0, 1\)"),
        ({"size": 8}, "at least 16 pixels"),
        ({"weights": "file"}, "go together"),
        ({"minimum_steps": 9, "maximum_steps": 8}, "minimum_steps is 9, above maximum_steps, 8"),
        ({"scale": 1.5}, "scale is in"),
        ({"pyramid": (1.0, 0.5)}, "three factors"),
        ({"localiser_rate": -0.1}, "localiser_rate is -0.1"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    with pytest.raises(rankbench.DataError, match=message):
        ViralNet(**parameters)


def test_small_has_no_imagenet_weights_and_unknown_backbones_have_near_names(squares):
    with pytest.raises(rankbench.DataError, match='"small" has no ImageNet weights'):
        fitted(Siamese(backbone="small"), squares)
    with pytest.raises(rankbench.DataError, match=r"no network named 'alexnett'\. Did you mean alexnet"):
        fitted(Siamese(backbone="alexnett", weights="random", size=64), squares)
    with pytest.raises(rankbench.DataError, match="'vit_b_16' has no convolutional maps"):
        fitted(ViralNet(backbone="vit_b_16", weights="random"), squares)


def test_a_stored_model_of_another_architecture_is_refused(squares):
    state = fitted(replace(KINDS["siamese"], **QUICK), squares).state()
    for other, what in (
        (replace(KINDS["siamese"], width=8), "of another shape"),
        (KINDS["viralnet"], "missing: trunk"),
        (replace(KINDS["siamese"], backbone="small-foveal"), "of another shape"),
    ):
        with pytest.raises(rankbench.DataError, match=f"the stored model: does not fit .*{what}"):
            other.load(state)


def test_weights_from_a_file_start_the_network_and_a_file_with_missing_keys_is_refused(squares, tmp_path):
    from rankbench_rankers import trunks

    model = trunks.backbone("small", "random", None, 11, 4)
    torch.save(model.state_dict(), tmp_path / "good.pth")
    broken = {name: value for name, value in model.state_dict().items() if not name.startswith("features.4")}
    torch.save(broken, tmp_path / "broken.pth")
    built = {}
    for name in ("good", "broken"):
        ranker = Registry.installed().build("rankers", "siamese", {**SMALL, "weights": "file", "file": f"{name}.pth"})
        ranker.file.path = tmp_path / ranker.file
        built[name] = ranker
    started = built["good"].made(0, 0).trunk.body.state_dict()
    assert all(torch.equal(value, started[name]) for name, value in model.state_dict().items())
    with pytest.raises(rankbench.DataError, match=r"broken.pth: does not fit SmallBackbone. missing: features.4"):
        built["broken"].made(0, 0)


def test_imagenet_weights_that_are_nowhere_are_missing_data(squares, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", lambda *a, **k: (_ for _ in ()).throw(OSError("offline")))
    with pytest.raises(rankbench.MissingData, match="alexnet"):
        fitted(Siamese(), squares)


def test_validation_counts_ordered_pairs_and_halves_ties():
    held = rankbench.Pairs([4, 9, 4, 7], [9, 7, 7, 9], [1, -1, 1, 0])
    validation = ordered_right(held, np.random.default_rng(0))
    assert validation.rows.tolist() == [4, 7, 9]
    assert validation.judge(np.array([3.0, 2.0, 1.0])) == 1.0
    assert validation.judge(np.array([1.0, 1.0, 2.0])) == pytest.approx((0 + 0 + 0.5) / 3)


def test_held_out_pairs_share_no_image_with_fitted_ones_where_that_can_be(bench):
    problem = bright_squares(train=60, test=10, pairs=1200).canonical()
    run = bench.run(problem, KINDS["siamese"])
    images, pairs = problem.training()
    fitted_pairs, validation = KINDS["siamese"].divide(images, pairs, run.door)
    fitted_rows = {int(row) for side in (fitted_pairs.left, fitted_pairs.right) for row in side}
    assert not fitted_rows & set(validation.rows.tolist())
    assert run.holdouts[0]["by"] == "images"
    whole, validation = replace(KINDS["siamese"], validation_pairs=0).divide(images, pairs, run.door)
    assert (len(whole), validation) == (1200, None)


@pytest.mark.parametrize(("pairs", "batch"), [("sampled", 8), ("all", 16)])
def test_both_kinds_of_batches_learn_from_sixteen_images_a_step(bench, pairs, batch):
    problem = bright_squares(train=60, test=40, pairs=1500).canonical()
    ranker = Siamese(**SMALL | {"pairs": pairs, "batch_size": batch, "validation_pairs": 0, "maximum_steps": 40})
    one, run = bench.fit(ranker, problem)
    assert accuracy(bench.margins(one, problem, run), problem.tests["test"]) > 0.8


STORED = """
title = "T"
dataset = { name = "shapes", images = 40, train_pairs = 80, test_pairs = 20 }
metric = "pairwise-accuracy"
keep = "models"
[[column]]
label = "A"
[[row]]
label = "ViralNet"
[row.ranker]
name = "viralnet"
backbone = "small-foveal"
weights = "random"
size = 32
width = 4
stages = 1
epochs = 2
"""


def test_a_stored_model_tells_where_it_looks_and_embeds(lab):
    from rankbench.store import ResultStore

    result = lab.run(STORED)
    (cell,) = result.cells
    assert cell.status == "done"
    store = ResultStore(lab.results)
    ranker = Registry.installed().build("rankers", "viralnet", cell.ranker["parameters"])
    ranker.load(store.state(cell.key))
    problem = Registry.installed().build("datasets", "shapes", dict(cell.dataset.parameters)).problem(lab.data, {})
    rows = np.unique(np.concatenate([problem.tests["test"].left, problem.tests["test"].right]))
    images = problem.images.take(rows)
    located = ranker.locate(images, SimpleRun())
    assert all(0.1 < box[2] - box[0] < 0.9 for ((_, box),) in located)
    assert ranker.embed(images, SimpleRun()).shape == (len(rows), 2 * 8 * 4)
    stored = store.outcome(cell.key, "test").scores
    assert sorted(ranker.score(images, SimpleRun())) == pytest.approx(sorted(stored), rel=1e-4, abs=1e-5)
    record = store.record(cell.key)
    assert record["inputs"] == [], "its parameters are no evidence"
