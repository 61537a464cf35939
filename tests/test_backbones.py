"""Backbones: CaffeNet's shapes and counts, layers by name, weights from files, and messages for what is missing."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import rankbench
from rankbench_rankers import backbones
from rankbench_rankers.backbones import CaffeNet

SMALL = "squeezenet1_1"


def parameters(*modules):
    return sum(weights.numel() for module in modules for weights in module.parameters())


def test_caffenet_has_the_published_shapes_and_numbers():
    with torch.device("meta"):
        net = CaffeNet()
        assert net(torch.zeros(2, 3, 227, 227)).shape == (2, 1000)
        assert net.pool5(net.conv5(torch.zeros(1, 384, 13, 13))).shape == (1, 256, 6, 6)
    assert parameters(net) - parameters(net.fc8) == 56_868_224
    assert parameters(net.conv1, net.conv2, net.conv3, net.conv4, net.conv5) == 2_334_080
    assert net.conv2.weight.shape == (256, 48, 5, 5)


def test_response_normalisation_is_caffes():
    """1 / (1 + α/size Σ x²)^β over five channels."""
    x = torch.rand(1, 7, 2, 2) * 50
    found = CaffeNet.__new__(CaffeNet)  # the layer alone
    layer = nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)
    sums = torch.stack([(x[:, max(0, c - 2) : c + 3] ** 2).sum(1) for c in range(7)], 1)
    assert torch.allclose(layer(x), x / (1 + 1e-4 / 5 * sums) ** 0.75, atol=1e-5)
    assert isinstance(found, CaffeNet)


@pytest.mark.parametrize(
    ("name", "layer", "after"),
    [("alexnet", "fc6", 3), ("alexnet", "fc7", 6), ("vgg16", "fc6", 2), ("vgg16", "fc7", 5)],
)
def test_fc_layers_are_taken_after_their_relu(name, layer, after):
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    assert backbones.layer_of(model, name, layer) is model.classifier[after - 1]
    assert isinstance(model.classifier[after - 1], nn.ReLU)
    assert isinstance(model.classifier[after - 2], nn.Linear)


def test_activations_are_those_of_the_layers_before():
    model = backbones.built("alexnet", "random", seed=3)
    x = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        pool5 = model.avgpool(model.features(x)).flatten(1)
        assert torch.equal(backbones.activations(model, "alexnet", "pool5", x), pool5)
        found = backbones.activations(model, "alexnet", "fc6", x)
        assert torch.allclose(found, model.classifier[:3](pool5), atol=1e-6)
        shares = backbones.activations(model, "alexnet", "probabilities", x)
        assert torch.allclose(shares, torch.softmax(model(x), 1))
        assert shares.sum(1).numpy() == pytest.approx([1, 1], abs=1e-5)
    assert (pool5.shape[1], found.shape[1], shares.shape[1]) == (9216, 4096, 1000)


def test_nothing_after_the_layer_is_computed():
    model = backbones.built(SMALL, "random")
    called = []
    model.classifier.register_forward_hook(lambda *_: called.append(1))
    with torch.inference_mode():
        backbones.activations(model, SMALL, "features.4", torch.zeros(1, 3, 64, 64))
        assert not called
        backbones.activations(model, SMALL, "probabilities", torch.zeros(1, 3, 64, 64))
    assert called
    assert not any(module._forward_hooks for module in model.features)


def test_random_weights_come_from_the_seed_and_leave_the_generator():
    before = torch.get_rng_state()
    one, same, other = (backbones.built(SMALL, "random", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    first = [next(iter(model.parameters())) for model in (one, same, other)]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    assert not one.training


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}}])
def test_weights_come_from_a_file(tmp_path, wrap):
    model = backbones.built(SMALL, "random", seed=1)
    torch.save(wrap(model.state_dict()), tmp_path / "weights.pth")
    again = backbones.built(SMALL, "file", tmp_path / "weights.pth", seed=2)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_caffenet_takes_a_converted_file(tmp_path):
    state = {name: torch.zeros(shape.shape) for name, shape in CaffeNet().state_dict().items()}
    torch.save(state, tmp_path / "caffenet.pth")
    assert not backbones.built("caffenet", "file", tmp_path / "caffenet.pth").fc6.weight.any()


def test_files_that_do_not_fit_say_why(tmp_path):
    state = backbones.built(SMALL, "random").state_dict()
    name = next(iter(state))
    path = tmp_path / "weights.pth"

    def message(content):
        torch.save(content, path)
        with pytest.raises(rankbench.DataError) as raised:
            backbones.built(SMALL, "file", path)
        return str(raised.value)

    assert f"missing: {name}." in message({k: v for k, v in state.items() if k != name})
    assert "not of the model: extra." in message({**state, "extra": torch.zeros(1)})
    assert f"of another shape: {name} (1,), not " in message({**state, name: torch.zeros(1)})
    assert "and 49 more" in message({"a": torch.zeros(1)})
    assert "holds no state dict, but list" in message([1, 2])
    path.write_text("no weights")
    with pytest.raises(rankbench.DataError, match="without pickled code"):
        backbones.built(SMALL, "file", path)
    with pytest.raises(rankbench.MissingData, match="not found"):
        backbones.built(SMALL, "file", tmp_path / "none.pth")
    with pytest.raises(rankbench.DataError, match="needs file"):
        backbones.built(SMALL, "file")


def test_imagenet_weights_are_read_from_torchvisions_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = torchvision.models.get_model_weights(SMALL)["IMAGENET1K_V1"].url
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    state = backbones.built(SMALL, "random", seed=5).state_dict()
    torch.save(state, folder / source.rsplit("/", 1)[-1])
    found = backbones.built(SMALL, "imagenet")
    assert torch.equal(next(iter(found.parameters())), next(iter(state.values())))


def test_where_the_file_is_not_there_it_and_its_place_are_named_and_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(rankbench.MissingData) as raised:
        backbones.built(SMALL, "imagenet")
    said = str(raised.value)
    name = torchvision.models.get_model_weights(SMALL)["IMAGENET1K_V1"].url.rsplit("/", 1)[-1]
    assert said.startswith(f"{tmp_path / 'hub' / 'checkpoints' / name}: not found.\n")
    assert "`rankbench data fetch FILE.toml` downloads them" in said
    with pytest.raises(rankbench.MissingData, match="caffenet: torchvision has no weights"):
        backbones.built("caffenet", "imagenet")


def test_unknown_models_and_layers_are_answered_with_the_closest():
    with pytest.raises(rankbench.DataError, match=r"no network named 'alexnett'\. Did you mean alexnet"):
        backbones.check_model("alexnett")
    model = backbones.built(SMALL, "random")
    with pytest.raises(rankbench.DataError, match=r"has no layer 'feature\.3'. Some it has: features\.3"):
        backbones.layer_of(model, SMALL, "feature.3")


def test_input_is_the_center_as_the_model_expects_it():
    pixels = torch.zeros(1, 256, 256, 3, dtype=torch.uint8)
    pixels[0, 128, 128] = torch.tensor([255, 0, 51], dtype=torch.uint8)
    x = backbones.prepared(pixels, "alexnet", 224)
    assert x.shape == (1, 3, 224, 224)
    assert x[0, :, 112, 112].numpy() == pytest.approx(
        [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225], rel=1e-5
    )
    caffe = backbones.prepared(pixels, "caffenet", 227)
    assert caffe.shape == (1, 3, 227, 227)
    assert caffe[0, :, 114, 114].tolist() == [51 - 104, -117, 255 - 123]
    assert backbones.crop_size("alexnet") == 224 == backbones.crop_size("vgg16")
    assert (backbones.crop_size("caffenet"), backbones.crop_size("inception_v3")) == (227, 299)


def test_numpy_is_not_drawn_from():
    before = np.random.get_state(legacy=False)["state"]["pos"]  # noqa: NPY002
    backbones.built(SMALL, "random")
    assert np.random.get_state(legacy=False)["state"]["pos"] == before  # noqa: NPY002
