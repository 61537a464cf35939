"""How busy training keeps the processor: what a step spends outside forward, backward and optimiser, and its speed.

    python tests/speed/networks.py                      # on a CPU: the small backbone
    python tests/speed/networks.py --device cuda        # ViralNet-MC on AlexNet, 227 px: throughput, plain code, FLOP/s

On a CPU: the share of a training step that goes into forward, backward and optimiser (goal 90 %), and scoring against a
bare forward pass over the same images (goal: within 10 %); what bfloat16 gains with a larger network.
On a GPU: of training from the store, kept on the device or fetched ahead, the same share by the device's clock
(goal 95 %); against plain code (goal 10 ×: Pillow in a DataLoader with as many workers as cores and pinned memory, both
images of each pair forwarded, TF32 on), and achieved FLOP/s as a share of the device's measured bfloat16 peak.
The share is measured within one and the same run; other ratios between runs in turn, in one process that has a
worker's environment variables.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import rankbench
from rankbench.features import RowStore, decoded
from rankbench.supervisor import environment
from rankbench_rankers import image_supply, training
from rankbench_rankers.image_supply import RowSupply
from rankbench_rankers.siamese import Siamese
from rankbench_rankers.training import Job, Trainer
from rankbench_rankers.training_processes import fabric
from rankbench_rankers.training_tasks import AllPairs, SampledPairs
from rankbench_rankers.viralnet import ViralNet

NOTHING = lambda step, **numbers: None  # noqa: E731


def as_worker(device):
    """Start anew with the environment that cells run in: memory and threads are at its mercy."""
    wanted = environment(os.cpu_count() or 1, "0" if device.type == "cuda" else None)
    if any(os.environ.get(name) != value for name, value in wanted.items() if name != "PYTHONPATH"):
        os.execve(sys.executable, [sys.executable, *sys.argv], wanted)


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def photographs(folder, count):
    """JPEG files of 500 × 375 px."""
    from PIL import Image

    rng, paths = np.random.default_rng(0), []
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        paths.append(folder / f"{number}.jpg")
        small.resize((500, 375), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def stored(paths, folder, size):
    """Rows of the pixel store, as the core makes it."""
    images, store = rankbench.Images(paths), RowStore(folder)
    store.fill(images.digests, decoded(images, size, "stretch", os.cpu_count() or 1))
    return store.rows(images.digests)


def pairs_of(count, number, seed=0):
    rng = np.random.default_rng(seed)
    left = rng.integers(count, size=number)
    right = (left + rng.integers(1, count, number)) % count
    return rankbench.Pairs(left, right, rng.choice([-1, 1], number))


def made(ranker, rows, pairs, steps, extra=None, images=0):
    network = ranker.made(0 if extra is None else extra.shape[1], 0)
    kind = AllPairs(pairs, images, ranker.batch_size, 0) if ranker.pairs == "all" else None
    task = kind or SampledPairs(pairs, ranker.batch_size, 0)
    recipe = training.Recipe(
        ranker.recipe, steps, ranker.learning_rate, ranker.weight_decay, ranker.rates(), ranker.precision
    )
    return Job(network, rows, task, recipe, ranker.framing(), 0, ranker.title, 1, supplement=extra)


def trainer(job, device):
    return Trainer(job, fabric(device, job.recipe), NOTHING)


class Stopwatch:
    """Seconds spent in some functions; on a GPU those of its own clock, so that nothing waits for it."""

    def __init__(self, device):
        self.device, self.marks, self.running = device, [], False

    def around(self, function):
        """The function, timed while the watch runs."""

        def timed(*arguments, **named):
            if not self.running:
                return function(*arguments, **named)
            began = self.now()
            try:
                return function(*arguments, **named)
            finally:
                self.marks.append((began, self.now()))

        return timed

    def now(self):
        """A point in time, for `between`."""
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, began, ended):
        """Seconds between two points that are past."""
        return began.elapsed_time(ended) / 1000 if self.device.type == "cuda" else ended - began

    @property
    def seconds(self):
        """Spent in the functions so far."""
        synchronize(self.device)
        return sum(self.between(*both) for both in self.marks)


def timed_steps(one, device, warm, steps):
    """Seconds a step of the engine's own loop, and of them in forward, loss, backward and optimizer."""
    one._set_up()
    watch = Stopwatch(device)
    one.model, one.task.costs = watch.around(one.model), watch.around(one.task.costs)
    one.fabric.backward, one.optimizer.step = watch.around(one.fabric.backward), watch.around(one.optimizer.step)
    one.optimizer.zero_grad = watch.around(one.optimizer.zero_grad)
    batches, began = one._batches(), watch.now()
    for at in range(warm + steps):
        if at == warm:
            synchronize(device)
            watch.running, began = True, watch.now()
        one._advance(*next(batches))
        one._after()
    ended = watch.now()
    synchronize(device)
    return watch.between(began, ended) / steps, watch.seconds / steps


def compared(make, device, warm, steps, rounds):
    """Median seconds of the engine's step and of what it computes, both in the same run, and the share of the latter.

    A share above 100 % is no measurement (a clock that jumped, say): it is said, and the run made again.
    """
    found = []
    for _ in range(3 * rounds):
        engine, bare = timed_steps(trainer(make(), device), device, warm, steps)
        if bare <= engine:
            found.append((engine, bare, bare / engine))
        else:
            print(f"no measurement: {bare / engine:.1%} of a step of {1000 * engine:.1f} ms; once more")
        if len(found) == rounds:
            return np.median(found, axis=0)
    raise SystemExit(f"no measurement in {3 * rounds} runs: the machine's clock cannot be trusted")


def on_cpu(folder):
    torch.set_num_threads(os.cpu_count() or 1)
    device, count = torch.device("cpu"), 2000
    paths = photographs(folder, 200)
    small = {"backbone": "small", "weights": "random", "recipe": "modern", "batch_size": 32}
    kinds = {
        "siamese": Siamese(**small),
        "siamese, all pairs": Siamese(**small, pairs="all"),
        "viralnet": ViralNet(**{**small, "backbone": "small-foveal"}, stages=1),
    }
    for name, ranker in kinds.items():
        rows = stored(paths, folder / f"store-{name}", ranker.framing().stored)
        rows = rows[np.arange(count) % len(paths)]
        make = lambda ranker=ranker, rows=rows: made(ranker, rows, pairs_of(count, 20_000), 1000, images=count)  # noqa: E731
        engine, bare, share = compared(make, device, 5, 30, 5)
        print(f"{name}: {1000 * engine:.1f} ms a step, {1000 * bare:.1f} ms of it computing: {share:.1%} (goal 90 %)")
        scoring(name, ranker, rows, device)

    precision(stored(paths, folder / "store-precision", 72), device)


def precision(rows, device):
    """A step in bfloat16 against one in float32."""
    pairs, ratios = pairs_of(len(rows), 2000), []
    kinds = {"backbone": "resnet18", "weights": "random", "recipe": "modern", "pairs": "all", "size": 64}
    for _ in range(3):
        exact, half = (
            timed_steps(
                trainer(made(Siamese(**kinds, batch_size=32, precision=name), rows, pairs, 1000, images=200), device),
                device, 3, 10,
            )[0]
            for name in ("float32", "bfloat16")
        )  # fmt: skip
        ratios.append(exact / half)
    print(f"siamese on ResNet-18, 64 px: bfloat16 is {np.median(ratios):.2f} × as fast as float32")


def scoring(name, ranker, rows, device):
    """Scoring against a bare forward pass."""
    network, framing = ranker.made(0, 0).to(device).eval(), ranker.framing()
    supply, ratios = RowSupply(rows, device), []
    batch = supply.take(np.arange(training.SCORED))
    view = framing.view(batch, *framing.fixed(False)[0]).contiguous(memory_format=torch.channels_last)
    views, places = [view] * framing.crops, len(framing.fixed(True))
    for _ in range(5):
        began = time.perf_counter()
        training.scored(network, framing, supply, None, np.arange(640), many=True)
        middle = time.perf_counter()
        with torch.inference_mode():
            for _ in range(640 // training.SCORED * places):
                network(views)
        ratios.append((middle - began) / (time.perf_counter() - middle))
    print(f"{name}: scoring takes {np.median(ratios):.3f} × a bare forward pass (goal 1.10)")


# ---------------------------------------------------------------------------------------------------------- on a GPU


class Photographs(torch.utils.data.Dataset):
    """What plain code does: each pair decodes, crops and normalises its two images."""

    def __init__(self, paths, pairs, extra):
        from torchvision.transforms import v2

        self.paths, self.pairs, self.extra = paths, pairs, extra
        self.change = v2.Compose(
            [v2.Resize((256, 256)), v2.RandomCrop(226), v2.Resize(227), v2.RandomHorizontalFlip(), v2.PILToTensor()]
        )

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, at):
        from PIL import Image

        rows = [int(self.pairs.left[at]), int(self.pairs.right[at])]
        opened = [Image.open(self.paths[row]).convert("RGB") for row in rows]
        return (
            *(self.change(one).float() for one in opened),
            *(self.extra[row] for row in rows),
            int(self.pairs.label[at]),
        )


def plain(ranker, paths, pairs, extra, device, steps):
    """Pairs a second of a plain implementation: same networks, same batch."""
    from rankbench_rankers.losses import ranknet_loss

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # here alone
    network = ranker.made(extra.shape[1], 0).to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9, dampening=0.9, weight_decay=5e-4)
    crops = ranker.framing().crops
    loader = torch.utils.data.DataLoader(
        Photographs(paths, pairs, torch.from_numpy(extra)), ranker.batch_size, shuffle=True, pin_memory=True,
        num_workers=os.cpu_count() or 1, persistent_workers=True, drop_last=True,
    )  # fmt: skip
    done, began = 0, 0.0
    while True:
        for left, right, first, second, label in loader:
            if done == 5:
                synchronize(device)
                began = time.perf_counter()
            moved = [one.to(device, non_blocking=True) for one in (left, right, first, second, label)]
            outputs = [network([view] * crops, e) for view, e in zip(moved[:2], moved[2:4], strict=True)]
            (one, first_penalty), (two, second_penalty) = outputs
            loss = ranknet_loss(one - two, moved[4]) + (first_penalty + second_penalty).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
            done += 1
            if done == steps + 5:
                synchronize(device)
                return steps * ranker.batch_size / (time.perf_counter() - began)


def peak(device):
    """FLOP/s of a large bfloat16 product."""
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    synchronize(device)
    began = time.perf_counter()
    for _ in range(30):
        a @ b
    synchronize(device)
    return 30 * 2 * 8192**3 / (time.perf_counter() - began)


def on_gpu(folder, device, batch, count):
    from torch.utils.flop_counter import FlopCounterMode

    print(torch.cuda.get_device_name())
    paths, pairs = photographs(folder, count), pairs_of(count, 200_000)
    extra = np.random.default_rng(0).random((count, 4096), dtype=np.float32)
    options = {"variant": "MC", "weights": "random", "stages": 1, "batch_size": batch}
    ranker = ViralNet(**options, precision="bfloat16")
    rows = stored(paths, folder / "store", ranker.framing().stored)
    make = lambda: made(ranker, rows, pairs, 10_000, extra)  # noqa: E731
    for where, part in (
        ("fetched ahead from the store", 0.0),
        ("from the store on the device", image_supply.GPU_SHARE),
    ):
        image_supply.GPU_SHARE = part
        engine, _, share = compared(make, device, 10, 50, 3)
        print(
            f"ViralNet-MC, {where}: {batch / engine:,.0f} pairs a second, {share:.1%} of the step computing (goal 95 %)"
        )
    one = trainer(make(), device)
    one._set_up()
    step = next(one._batches())
    with FlopCounterMode(display=False) as counter:
        one._advance(*step)
    achieved, most = counter.get_total_flops() / engine, peak(device)
    print(f"{achieved / 1e12:.1f} TFLOP/s, {achieved / most:.1%} of the measured bfloat16 peak ({most / 1e12:.0f})")
    slow = plain(ViralNet(**options), paths, pairs, extra, device, 30)
    print(f"plain code: {slow:,.0f} pairs a second; ratio {batch / engine / slow:.1f} (goal 10)")
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiled:
        for _ in range(5):
            one._advance(*step)
    print(profiled.key_averages().table(sort_by="cuda_time_total", row_limit=15))


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--device", default="cpu")
    words.add_argument("--batch", type=int, default=25)
    words.add_argument("--images", type=int, default=2000)
    given = words.parse_args()
    device = torch.device(given.device)
    as_worker(device)
    with tempfile.TemporaryDirectory() as name:
        if device.type == "cpu":
            on_cpu(Path(name))
        else:
            on_gpu(Path(name), device, given.batch, given.images)


if __name__ == "__main__":
    main()
