"""The training engine on a GPU; skipped where there is none. `python -m pytest -m gpu` runs these alone."""

import numpy as np
import pytest
import torch
from simple_run import SimpleRun
from test_training import FRAMING, all_pairs, curve, job, pictures, steps, tiny_network, weights  # noqa: F401

import rankbench
from rankbench.testing import bright_squares
from rankbench_rankers import image_supply, image_views
from rankbench_rankers.networks import PlainNetwork
from rankbench_rankers.siamese import Siamese
from rankbench_rankers.training_processes import train
from rankbench_rankers.training_tasks import AllPairs, SampledPairs
from rankbench_rankers.trunks import SmallBackbone, Trunk
from rankbench_rankers.viralnet import ViralNet

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]

DEVICE = "cuda"
QUICK = {"epochs": 2.0, "batch_size": 16, "validation_pairs": 0, "weights": "random", "stages": 1}
NETWORKS = {
    "small": {"backbone": "small-foveal", "size": 32, "width": 4, "variant": "M"},
    "alexnet": {"backbone": "alexnet", "maximum_steps": 3},
}


@pytest.fixture(scope="module")
def squares():
    return bright_squares(train=60, test=20, pairs=200)


def trained(one, device=DEVICE, processes=1):
    """Weights after training, losses and remarks."""
    points, log = curve()
    remarks = train(one, device, processes, log)
    return weights(one.network).cpu(), [numbers["loss"] for _, numbers in points if "loss" in numbers], remarks


def small_network():
    torch.manual_seed(0)
    return PlainNetwork(Trunk("small", SmallBackbone(4, False), 16))


def on_gpu(ranker, squares):
    run = SimpleRun()
    run.device = DEVICE
    return ranker.fit(squares.images, squares.train, run), run


@pytest.mark.parametrize("resident", [True, False])
def test_rows_arrive_whole_wherever_they_lie(resident):
    rows = pictures(200)
    supply = image_supply.RowSupply(rows, torch.device(DEVICE), resident)
    wanted = [np.random.default_rng(seed).integers(200, size=16) for seed in range(50)]
    for which, batch in zip(wanted, supply.stream(wanted), strict=True):
        assert batch.device.type == DEVICE
        assert np.array_equal(batch.cpu().numpy(), np.asarray(rows[which]))


def test_crops_are_those_of_the_cpu():
    pixels = torch.from_numpy(np.asarray(pictures(30)[np.arange(30)]))
    offsets, flips = image_views.Framing(16, 20, 16, (0, 1, 2, 3), 2).drawn(30, np.random.default_rng(0))
    here, there = FRAMING.views(pixels, offsets, flips), FRAMING.views(pixels.to(DEVICE), offsets, flips)
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one, other.cpu())


@pytest.mark.parametrize("task", [SampledPairs(all_pairs(), 8, 0), AllPairs(all_pairs(), 24, 8, 0)])
def test_losses_are_those_of_the_cpu(task, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    found = [trained(job(small_network(), 30, task), device) for device in ("cpu", DEVICE)]
    assert found[0][1] == pytest.approx(found[1][1], rel=2e-3)


def test_images_that_do_not_fit_give_the_same_training(monkeypatch):
    resident = trained(job(small_network(), deterministic=True))
    monkeypatch.setattr(image_supply, "GPU_SHARE", 0.0)
    assert torch.equal(trained(job(small_network(), deterministic=True))[0], resident[0])


@pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation")
@pytest.mark.parametrize("kind", NETWORKS)
def test_deterministic_training_repeats_bit_for_bit(squares, kind):
    ranker = ViralNet(**QUICK | NETWORKS[kind], deterministic=True)
    scores = []
    for _ in range(2):
        fitted, run = on_gpu(ranker, squares)
        scores.append(fitted.score(squares.images, run))
    assert np.array_equal(*scores)


def test_training_goes_on_from_a_checkpoint(tmp_path, steps):  # noqa: F811
    whole = trained(job(small_network(), 40, deterministic=True))
    (tmp_path / "run").mkdir()
    stopped = job(small_network(), 40, folder=tmp_path / "run", deterministic=True, checkpoint_seconds=0.0)

    def stop(step, **numbers):
        if step == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(stopped, DEVICE, 1, stop)
    saved = torch.load(tmp_path / "run" / "checkpoint.pt")["step"]
    steps.clear()
    resumed = trained(job(small_network(), 40, folder=tmp_path / "run", deterministic=True))
    assert len(steps) == 40 - saved < 40, "it does not begin anew"
    assert torch.equal(resumed[0], whole[0])


@pytest.mark.parametrize(
    "how", [{"precision": "bfloat16"}, {"compiled": True}, {"precision": "bfloat16", "compiled": True}]
)
def test_faster_ways_learn_as_well(squares, how):
    small = {"backbone": "small", "weights": "random", "width": 8, "size": 32}
    ranker = Siamese(**small, recipe="modern", minimum_steps=200, epochs=2.0, validation_pairs=0, **how)
    fitted, run = on_gpu(ranker, squares)
    scores, pairs = fitted.score(squares.images, run), squares.train
    right = np.sign(scores[pairs.left] - scores[pairs.right]) == pairs.label
    assert right[pairs.ordered].mean() > 0.9


def test_scores_of_a_stored_model_are_those_of_the_cpu(squares):
    fitted, run = on_gpu(ViralNet(**QUICK | NETWORKS["small"]), squares)
    there = fitted.score(squares.images, run)
    loaded = ViralNet(**QUICK | NETWORKS["small"])
    loaded.load(fitted.state())
    assert loaded.score(squares.images, SimpleRun()) == pytest.approx(there, rel=1e-2, abs=1e-3)


def test_where_memory_runs_out_batches_are_computed_in_halves():
    def one(batch):
        big = image_views.Framing(128, 144, 128, (0, 1))
        torch.manual_seed(0)
        network = PlainNetwork(Trunk("small", SmallBackbone(16, False), 128))
        made = job(network, 3, SampledPairs(all_pairs(), batch, 0))
        made.images, made.framing = pictures(side=144), big
        return made

    peaks = []
    for batch in (256, 128):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        assert trained(one(batch))[2] == []
        peaks.append(torch.cuda.max_memory_reserved())
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction((peaks[0] + peaks[1]) / 2 / total)
    try:
        found = trained(one(256))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert found[2] == ["memory ran out: each batch was computed in two halves"]
    assert np.isfinite(found[1]).all()


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one GPU")
def test_two_gpus_give_the_loss_of_one():
    one, two = trained(job(tiny_network(), 40)), trained(job(tiny_network(), 40), processes=2)
    assert two[2] == []
    assert one[1] == pytest.approx(two[1], rel=1e-4)


def test_more_processes_than_gpus_are_fewer_and_the_remarks_say_so():
    count = torch.cuda.device_count()
    remarks = trained(job(tiny_network(), 4), processes=count + 1)[2]
    assert remarks == [f"{count} processes instead of {count + 1}, as there were no more GPUs"]


def test_a_feature_joins_on_the_gpu(squares):
    ranker = ViralNet(**QUICK | NETWORKS["small"] | {"variant": "MC"}, supplement=rankbench.Features("cell-statistics"))
    fitted, run = on_gpu(ranker, squares)
    assert np.isfinite(fitted.score(squares.images, run)).all()
