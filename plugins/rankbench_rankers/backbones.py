"""Convolutional networks to build on: torchvision's by name, CaffeNet, their weights, and activations of a named layer.

Layers have the field's names: pool5, fc6 and fc7 (after their ReLU), probabilities (class probabilities); or the dotted
path of any module.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import rankbench
from rankbench_rankers import weight_files

PATHS = {
    "alexnet": {"pool5": "avgpool", "fc6": "classifier.2", "fc7": "classifier.5"},
    "vgg16": {"pool5": "avgpool", "fc6": "classifier.1", "fc7": "classifier.4"},
    "caffenet": {"pool5": "pool5", "fc6": "relu6", "fc7": "relu7"},
}
IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision: RGB in [0, 1]
CAFFE_MEAN = (104.0, 117.0, 123.0)  # BGR in 0 … 255


class CaffeNet(nn.Module):
    """BVLC reference CaffeNet, (n, 3, 227, 227) BGR less the mean to (n, 1000) logits.

    Groups in conv2, conv4 and conv5, local response normalisation after pooling, dropout after fc6 and fc7. Weights:
    a state dict with the keys conv1 … conv5, fc6, fc7, fc8, each `.weight` and `.bias`, shaped as PyTorch has them.
    Source: caffe/models/bvlc_reference_caffenet; Krizhevsky, Sutskever & Hinton, NIPS 2012, with pool and norm swapped.
    """

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.conv1, self.relu1 = nn.Conv2d(3, 96, 11, 4), nn.ReLU()
        self.pool1, self.norm1 = nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)
        self.conv2, self.relu2 = nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU()
        self.pool2, self.norm2 = nn.MaxPool2d(3, 2, ceil_mode=True), nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0)
        self.conv3, self.relu3 = nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()
        self.conv4, self.relu4 = nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU()
        self.conv5, self.relu5 = nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU()
        self.pool5 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.fc6, self.relu6, self.drop6 = nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(0.5)
        self.fc7, self.relu7, self.drop7 = nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(0.5)
        self.fc8 = nn.Linear(4096, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1000) logits."""
        x = self.norm1(self.pool1(self.relu1(self.conv1(x))))
        x = self.norm2(self.pool2(self.relu2(self.conv2(x))))
        x = self.relu4(self.conv4(self.relu3(self.conv3(x))))
        x = self.pool5(self.relu5(self.conv5(x))).flatten(1)
        x = self.drop6(self.relu6(self.fc6(x)))
        return self.fc8(self.drop7(self.relu7(self.fc7(x))))


def known_models() -> list[str]:
    """Names of classification models."""
    import torchvision

    return ["caffenet", *torchvision.models.list_models(module=torchvision.models)]


def check_model(name: str) -> None:
    """DataError with the closest names if there is no such model."""
    import difflib

    known = known_models()
    if name not in known:
        near = difflib.get_close_matches(name, known, 3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise rankbench.DataError(f"no network named {name!r}.{hint} There are caffenet and torchvision's models.")


def crop_size(name: str) -> int:
    """Pixels of the square a model sees."""
    if name == "caffenet":
        return 227
    import torchvision

    transforms = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"].transforms()
    return int(transforms.crop_size[0])


def built(name: str, weights: str, file: Path | None = None, seed: int = 0) -> nn.Module:
    """A model in evaluation mode.

    Args: weights, "imagenet" (torchvision's first weights, where they were fetched), "random" (drawn from seed) or
        "file" (a state dict: .pth or .pt, loaded without pickled code).
    Raises: MissingData that says which file to put where; DataError for a file that does not fit.
    """
    check_model(name)
    with torch.random.fork_rng(devices=[]):  # a model draws its first weights from the global generator
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would change a GPU's too
        model = CaffeNet() if name == "caffenet" else blank(name)
    if weights == "imagenet":
        load(model, imagenet(name), f"torchvision's weights of {name}")
        if hasattr(model, "transform_input"):  # googlenet and inception_v3: these weights want other means
            model.transform_input = True
    elif weights == "file":
        load(model, read_state_dict(given(file, name)), str(file))
    return model.eval()


def given(file: Path | None, name: str) -> Path:
    """The file of weights. DataError where none was named."""
    if file is None:
        raise rankbench.DataError(f'{name}: weights = "file" needs file = "…", a state dict.')
    return file


def blank(name: str) -> nn.Module:
    import torchvision

    extra = {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = torchvision.models.get_model(name, weights=None, **extra)
    return model


def imagenet(name: str) -> dict[str, torch.Tensor]:
    """torchvision's state dict. MissingData where its file is not there: it is fetched once, not by every cell."""
    import torchvision

    if name == "caffenet":
        raise rankbench.MissingData(f"caffenet: {weight_files.CAFFENET}")
    source = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
    path = weight_files.folder() / source.url.rsplit("/", 1)[-1]
    if not path.exists():
        raise rankbench.MissingData(f"{path}: not found.\n{weight_files.how_to_get(name)}")
    return read_state_dict(path)


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from a file, of a model or of a checkpoint that holds one under `state_dict` or `model`."""
    if not path.exists():
        raise rankbench.MissingData(f"{path}: not found.")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise rankbench.DataError(
            f"{path}: is no file of weights that can be read without pickled code ({type(error).__name__}). Save a "
            "state dict: torch.save(model.state_dict(), path)."
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in found.items()
    ):
        raise rankbench.DataError(f"{path}: holds no state dict, but {type(found).__name__}.")
    return {name.removeprefix("module."): value for name, value in found.items()}


def load(model: nn.Module, state: dict[str, torch.Tensor], what: str) -> None:
    """Take over a state dict. DataError names what is missing or has another shape; what is beyond is an error too."""
    own = model.state_dict()
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    beyond = [name for name in state if name not in own]
    other = [
        f"{name} {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    wrong = [
        f"{label}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for label, names in (("missing", missing), ("not of the model", beyond), ("of another shape", other))
        if names
    ]
    if wrong:
        raise rankbench.DataError(f"{what}: does not fit {type(model).__name__}. {'; '.join(wrong)}.")
    model.load_state_dict(state, strict=False)


def prepared(pixels: torch.Tensor, name: str, crop: int) -> torch.Tensor:
    """(n, 3, crop, crop) float32 network input from (n, s, s, 3) uint8 RGB: the center, as the model expects."""
    edge = (pixels.shape[1] - crop) // 2
    x = pixels[:, edge : edge + crop, edge : edge + crop].permute(0, 3, 1, 2).float()
    bgr, mean, deviation = normalisation(name)
    x = (x - mean.to(x.device)) / deviation.to(x.device)
    return x.flip(1) if bgr else x


def normalisation(name: str) -> tuple[bool, torch.Tensor, torch.Tensor]:
    """Whether a model wants BGR, and the (3, 1, 1) mean and deviation of RGB in [0, 255] that it expects."""
    if name == "caffenet":
        return True, torch.tensor(CAFFE_MEAN[::-1])[:, None, None], torch.ones(3, 1, 1)
    mean, deviation = (255 * torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_SD))
    return False, mean, deviation


class Reached(Exception):
    """The forward pass came to the layer that was asked for."""

    def __init__(self, output: torch.Tensor) -> None:
        self.output = output


def layer_of(model: nn.Module, name: str, layer: str) -> nn.Module:
    """The module whose output a layer is. DataError with near names if there is none."""
    import difflib

    path = PATHS.get(name, {}).get(layer, layer)
    modules = dict(model.named_modules())
    if path in modules and path:
        return modules[path]
    known = [*PATHS.get(name, {}), "probabilities", *filter(None, modules)]
    near = difflib.get_close_matches(layer, known, 5) or known[-5:]
    raise rankbench.DataError(f"{name} has no layer {layer!r}. Some it has: {', '.join(near)}.")


def activations(model: nn.Module, name: str, layer: str, x: torch.Tensor) -> torch.Tensor:
    """(n, d) float32 output of a layer, flattened per image; later layers are not computed."""
    if layer == "probabilities":
        found = model(x)
        return torch.softmax(getattr(found, "logits", found).float(), dim=1)

    def stop(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        raise Reached(output)

    handle = layer_of(model, name, layer).register_forward_hook(stop)
    try:
        model(x)
    except Reached as reached:
        return reached.output.flatten(1).float()
    finally:
        handle.remove()
    raise rankbench.DataError(f"{name}: layer {layer!r} takes no part in a forward pass.")
