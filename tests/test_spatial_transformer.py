"""The spatial transformer: the identity untrained, gradients by finite differences, the spatial loss of the source."""

import numpy as np
import pytest
import torch
from torch import nn

from rankbench_rankers import spatial_transformer as spatial
from rankbench_rankers import trunks
from rankbench_rankers.networks import PlainNetwork, ViralNetwork


def small_localiser(scale=0.33, multiplier=0.05, seed=0):
    torch.manual_seed(seed)
    return spatial.Localiser(
        trunks.maps(trunks.backbone("small-foveal", "random", None, seed, 4), "small-foveal", 32), scale, multiplier
    )


def images(count=3, size=32, seed=0):
    return 255 * torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_untrained_at_full_scale_it_is_the_identity():
    localiser = small_localiser(scale=1.0)
    with torch.no_grad():
        localiser.last.weight[1:] = 0  # translations start from random weights, around nothing
        where = localiser.eval()(images())
    assert torch.equal(where, torch.tensor([[1.0, 0.0, 0.0]]).expand(3, 3))
    torch.testing.assert_close(spatial.crops(images(), where, 32), images(), atol=1e-3, rtol=0)
    assert spatial.boxes(where).tolist() == [[0, 0, 1, 1]] * 3


def test_scale_starts_alike_for_every_image():
    for scale, multiplier in ((0.33, 0.05), (0.0825, 0.2)):
        where = small_localiser(scale, multiplier)(images(5))
        assert where[:, 0].tolist() == pytest.approx([scale] * 5, rel=1e-6)
        assert where[:, 1:].std() > 0, "places depend on the image from the start"


def test_a_crop_is_where_its_box_says():
    picture = torch.zeros(1, 3, 65, 65)
    picture[:, :, 8:17, 40:57] = 200.0  # rows 8 to 16, columns 40 to 56
    center_x, center_y, half = 48 / 32 - 1, 12 / 32 - 1, 8 / 32
    where = torch.tensor([[half, center_x / half, center_y / half]])
    crop = spatial.crops(picture, where, 17)[0, 0]
    assert (crop[4:13] == 200).all()
    assert (crop[:3] == 0).all()
    left, top, right, bottom = (64 * spatial.boxes(where)[0]).tolist()
    assert (left, top, right, bottom) == pytest.approx((40, 4, 56, 20))


def test_outside_the_image_a_crop_is_black():
    crop = spatial.crops(torch.full((1, 3, 33, 33), 100.0), torch.tensor([[0.5, 2.0, 0.0]]), 33)[0, 0]
    assert (crop[:, 18:] == 0).all()
    assert (crop[:, :16] == 100).all()


def test_negative_scale_turns_upside_down_in_the_same_place():
    picture = images(1, 33)
    turned = spatial.crops(picture, torch.tensor([[-1.0, 0.0, 0.0]]), 33)
    torch.testing.assert_close(turned, picture.flip(2, 3), atol=1e-3, rtol=0)
    assert torch.equal(spatial.boxes(torch.tensor([[-0.5, 0.2, 0.0]])), spatial.boxes(torch.tensor([[0.5, -0.2, 0.0]])))


def smooth(size=33):
    """(1, 3, size, size) with bends that bilinear sampling follows closely."""
    line = torch.linspace(0, 3, size, dtype=torch.float64)
    wave = torch.sin(line)[:, None] * torch.cos(1.3 * line) + 0.3 * line
    return torch.stack([wave, wave.T, wave * wave])[None].float()


def test_gradients_through_the_place_match_finite_differences():
    picture, weights = smooth(), torch.randn(3, 9, 9, generator=torch.Generator().manual_seed(1))

    def total(where):
        return (spatial.crops(picture, where, 9)[0] * weights).sum()

    where = torch.tensor([[0.4, 0.31, -0.22]], requires_grad=True)
    total(where).backward()
    for at in range(3):
        step = torch.zeros(1, 3)
        step[0, at] = 2e-3
        slope = (total(where.detach() + step) - total(where.detach() - step)) / 4e-3
        assert where.grad[0, at].item() == pytest.approx(slope.item(), rel=0.05, abs=0.02)


def test_gradients_reach_every_weight_of_the_localiser():
    localiser = small_localiser()
    spatial.crops(images(), localiser(images()), 32).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in localiser.parameters())


def test_the_spatial_loss_is_that_of_the_released_code():
    where = torch.tensor([[0.5, 1.0, 1.0], [0.5, 3.0, 0.5], [0.8, -0.2, -2.0], [-0.5, 3.0, 0.0]], requires_grad=True)
    loss = spatial.spatial_loss(where)
    assert loss.tolist() == pytest.approx([0, 0.5 * (1.5**2 + 0.25**2), 0.5 * (0.16**2 + 1.6**2), 0.5 * 1.5**2])
    loss.sum().backward()
    scale, x, y = where.detach().unbind(1)
    expected = torch.stack([scale * (x**2 + y**2), x * scale**2, y * scale**2], 1)
    expected[0] = 0
    torch.testing.assert_close(where.grad, expected)


def test_replace_takes_the_ranking_gradient_from_crops_that_are_outside_and_add_leaves_it():
    for mode, count in (("replace", 1), ("add", 2)):
        where = torch.tensor([[0.5, 0.2, 0.2], [0.5, 3.0, 0.2]], requires_grad=True)
        spatial.steering(where, mode).sum().backward()
        assert (where.grad.abs().sum(1) > 0).sum() == count


def test_a_crop_is_what_grid_sample_gives_and_so_is_its_gradient():
    found = []
    for sample in (spatial.crops, by_grid_sample):
        where = torch.tensor([[0.4, 0.3, -1.9], [1.2, 0.1, 0.0]], requires_grad=True)
        crop = sample(images(2), where, 17)
        (crop * torch.arange(crop.numel()).view_as(crop) / 1000).sum().backward()
        found.append((crop.detach(), where.grad))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def by_grid_sample(pictures, where, size):
    scale, x, y = where.unbind(1)
    nothing = torch.zeros_like(scale)
    theta = torch.stack([scale, nothing, scale * x, nothing, scale, scale * y], 1).view(-1, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, [len(pictures), 3, size, size], align_corners=True)
    options = {"mode": "bilinear", "padding_mode": "zeros", "align_corners": True}
    return torch.nn.functional.grid_sample(pictures, grid, **options)


# ------------------------------------------------------------------------------------------------------- networks


def viral(scales=1, combined=True, supplement=0, size=32, **options):
    torch.manual_seed(0)
    trunk = trunks.vector(trunks.backbone("small-foveal", "random", None, 0, 4), "small-foveal", size)
    localisers = [small_localiser(0.33 / 2**at, seed=at) for at in range(scales)]
    return ViralNetwork(trunk, localisers, (1, 2, 4)[:scales], combined, supplement, **options)


@pytest.mark.parametrize(
    ("scales", "combined", "supplement", "parts", "crops"),
    [(1, True, 0, 2, 1), (1, False, 0, 1, 1), (3, True, 0, 4, 4), (3, False, 5, 3, 3), (3, True, 7, 4, 4)],
)
def test_what_the_last_layer_reads(scales, combined, supplement, parts, crops):
    network = viral(scales, combined, supplement)
    extra = torch.ones(2, supplement) if supplement else None
    views = [images(2)] * crops
    assert network.embed(views, extra).shape == (2, parts * 32 + supplement)
    values, penalty = network(views, extra)
    assert (values.shape, penalty.shape) == ((2,), (2,))
    assert {name for name, some in network.groups().items() if some} == {"trunk", "last", "localiser"}
    count = sum(parameter.numel() for some in network.groups().values() for parameter in some)
    assert count == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("full", [False, True])
def test_scales_see_smaller_images_and_crops_come_from_them(full):
    network = viral(3, full=full).eval()
    seen = []
    for localiser in network.localisers:
        localiser.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    checkers = torch.zeros(1, 3, 32, 32)
    checkers[:, :, ::2, ::2] = checkers[:, :, 1::2, 1::2] = 200.0
    with torch.no_grad():
        sources = [source for _, source in network._looked([checkers] * 4)]
    assert [tuple(x.shape[2:]) for x in seen] == [(32, 32)] * 3
    assert [float(x.std()) > 50 for x in seen] == [True, False, False], "the finest pattern is gone at half the size"
    assert [tuple(source.shape[2:]) for source in sources] == ([(32, 32)] * 3 if full else [(32, 32), (16, 16), (8, 8)])


def test_the_networks_have_the_published_numbers_of_parameters():
    """methods.md 3.1 and 3.2: the localiser 2,957,315, ranker 56,868,224, ViralNet 59,833,732, -M 65,756,554."""
    make = lambda: trunks.backbone("caffenet", "random", None, 0, 16)  # noqa: E731
    trunk = trunks.vector(make(), "caffenet", 227)
    localisers = [spatial.Localiser(trunks.maps(make(), "caffenet", 227), 0.33, 0.05) for _ in range(3)]
    count = lambda module: sum(parameter.numel() for parameter in module.parameters())  # noqa: E731
    assert (count(localisers[0]), count(trunk)) == (2_957_315, 56_868_224)
    assert count(ViralNetwork(trunk, localisers[:1], (1,), True)) == 59_833_732
    assert count(ViralNetwork(trunk, localisers, (1, 2, 4), True)) == 65_756_554
    assert ViralNetwork(trunk, localisers[:1], (1,), True, 4096).last.in_features == 12_288
    assert ViralNetwork(trunk, localisers, (1, 2, 4), True, 4096).last.in_features == 20_480


@pytest.mark.parametrize(
    ("name", "vector", "maps"),
    [
        ("alexnet", (4096,), (256, 6, 6)), ("resnet18", (512,), (512, 2, 2)), ("squeezenet1_1", (512,), (512, 3, 3)),
        ("mobilenet_v3_small", (1024,), (576, 2, 2)), ("small", (256,), (128, 4, 4)),
        ("small-foveal", (128,), (64, 8, 8)),
    ],
)  # fmt: skip
def test_any_backbone_gives_a_vector_and_maps(name, vector, maps):
    make = lambda: trunks.backbone(name, "random", None, 0, 16)  # noqa: E731
    assert trunks.vector(make(), name, 64).shape == vector
    assert trunks.maps(make(), name, 64).shape == maps
    network = PlainNetwork(trunks.vector(make(), name, 64)).eval()
    assert network([images(2, 64)])[0].shape == (2,)


def test_the_dropout_of_alexnet_lies_where_caffe_has_it():
    for name in ("alexnet", "caffenet", "vgg16"):
        trunk = trunks.vector(trunks.backbone(name, "random", None, 0, 16), name, 64 if name != "caffenet" else 227)
        kinds = [module for module in trunk.modules() if isinstance(module, nn.Dropout | nn.Linear)]
        assert isinstance(kinds[-1], nn.Dropout), f"{name}: dropout after fc7, before the score"


def test_pixels_are_normalised_as_the_backbone_expects():
    trunk = trunks.vector(trunks.backbone("caffenet", "random", None, 0, 16), "caffenet", 227)
    seen = []
    trunk.body.conv1.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    trunk(torch.full((1, 3, 227, 227), 130.0) + torch.tensor([0.0, 1.0, 2.0])[:, None, None])
    assert seen[0][0, :, 0, 0].tolist() == [132 - 104, 131 - 117, 130 - 123]


def test_the_fovea_weighs_the_center_and_sums_to_one():
    weights = trunks.fovea(torch.zeros(1, 1, 8, 12))
    assert weights.shape == (8, 12)
    assert weights.sum().item() == pytest.approx(1)
    assert np.unravel_index(int(weights.argmax()), weights.shape) in {(3, 5), (3, 6), (4, 5), (4, 6)}
    torch.testing.assert_close(weights, weights.flip(0, 1))
