"""The training engine: optimisers, batches, resuming, several processes, memory, best weights; views and supplies."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from simple_run import SimpleRows
from torch import nn

import rankbench
from rankbench_rankers import image_supply, image_views, training, trunks
from rankbench_rankers.image_views import Framing
from rankbench_rankers.networks import PlainNetwork, ViralNetwork
from rankbench_rankers.spatial_transformer import Localiser
from rankbench_rankers.training import Job, Recipe, Validation
from rankbench_rankers.training_processes import train
from rankbench_rankers.training_tasks import AllPairs, Classification, SampledPairs, ScoreRegression

TESTS = Path(__file__).parent
compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")


class TinyTrunk(nn.Module):
    """Mean color through one layer with dropout: no normalisation over the batch, so that parts of it add up."""

    shape = (8,)

    def __init__(self, dropout=0.0):
        super().__init__()
        self.layer, self.drop = nn.Linear(3, 8), nn.Dropout(dropout)

    def forward(self, x):
        return self.drop(torch.tanh(self.layer(x.mean((2, 3)) / 128 - 1)))


def tiny_network(dropout=0.0, outputs=1, seed=0):
    torch.manual_seed(seed)
    return PlainNetwork(TinyTrunk(dropout), outputs)


def pictures(count=24, side=20, seed=0):
    rng = np.random.default_rng(seed)
    return SimpleRows(
        (rng.integers(0, 200, (count, 1, 1, 3)) + rng.integers(0, 56, (count, side, side, 3))).astype(np.uint8)
    )


def all_pairs(count=24, seed=0):
    score = np.random.default_rng(seed).permutation(count)
    left, right = np.triu_indices(count, 1)
    return rankbench.Pairs(left, right, np.sign(score[left] - score[right]))


FRAMING = Framing(16, 20, 16, (0, 1))


def job(network=None, steps=20, task=None, folder=None, **recipe):
    chosen = {"name": "paper", "steps": steps, "learning_rate": 0.05, "weight_decay": 5e-4, **recipe}
    return Job(
        network=network or tiny_network(0.3),
        images=pictures(),
        task=task or SampledPairs(all_pairs(), 8, 0),
        recipe=Recipe(**chosen),
        framing=FRAMING,
        seed=3,
        who="tiny",
        threads=1,
        folder=folder,
    )


def curve():
    points = []
    return points, lambda step, **numbers: points.append((step, numbers))


def weights(network):
    return torch.cat([value.detach().ravel() for value in network.state_dict().values()])


# ------------------------------------------------------------------------------------------------------ optimisers


def test_the_damped_optimiser_follows_the_written_out_update():
    """v ← 0.9 v + 0.1 g, the first step v = g; g with weight decay on everything. methods.md 3.1."""
    weight = nn.Parameter(torch.tensor([[1.0, -2.0]]))
    bias = nn.Parameter(torch.tensor([0.5]))
    recipe = Recipe("paper", 10, 0.1, 5e-4, {"localiser": 0.1})
    optimizer = recipe.optimizer({"trunk": [weight], "localiser": [bias]})
    w, b, vw, vb = weight.detach().clone(), bias.detach().clone(), None, None
    for step in range(6):
        optimizer.zero_grad()
        ((weight * (step + 1)).sin().sum() + (bias**3).sum()).backward()
        optimizer.step()
        gw, gb = (step + 1) * torch.cos(w * (step + 1)) + 5e-4 * w, 3 * b**2 + 5e-4 * b
        vw, vb = (gw, gb) if vw is None else (0.9 * vw + 0.1 * gw, 0.9 * vb + 0.1 * gb)
        w, b = w - 0.1 * vw, b - 0.01 * vb
        torch.testing.assert_close(weight.detach(), w)
        torch.testing.assert_close(bias.detach(), b)


def test_recipes_differ_in_damping_schedule_and_decay():
    network = trunks.SmallBackbone(4, False)
    groups = {"trunk": list(network.parameters())}
    damped, plain = (Recipe(name, 100, 1e-3, 5e-4).optimizer(groups) for name in ("paper", "sgd"))
    assert [one.param_groups[0]["dampening"] for one in (damped, plain)] == [0.9, 0.0]
    modern = Recipe("modern", 100, 1e-3, 0.05)
    parts = modern.optimizer(groups).param_groups
    assert [(part["weight_decay"], {p.ndim for p in part["params"]}) for part in parts] == [(0.05, {4}), (0.0, {1})]
    factors = np.array([modern.factor(step) for step in range(100)])
    assert factors.argmax() == 20
    assert factors[20] == pytest.approx(1, abs=1e-3)
    assert factors[0] < 0.05
    assert factors[99] < 0.01
    assert {damped.param_groups[0]["peak"] * Recipe("paper", 9, 1, 0).factor(k) for k in range(9)} == {1e-3}


# ----------------------------------------------------------------------------------------------------------- tasks


def test_an_epoch_of_pairs_has_every_pair_once_and_a_new_order():
    pairs = all_pairs(9)
    task = SampledPairs(pairs, 5, 1)
    first, second = (
        np.concatenate([task.batch(task.batches * e + k).items for k in range(task.batches)]) for e in (0, 1)
    )
    assert sorted(first) == sorted(second) == list(range(36))
    assert first.tolist() != second.tolist()
    assert [len(task.batch(k)) for k in range(task.batches)] == [5] * 7 + [1], "the last batch is kept"
    assert np.array_equal(task.batch(3).rows, np.stack([pairs.left, pairs.right], 1)[task.batch(3).items])


@pytest.mark.parametrize(("images", "sizes"), [(9, [9]), (17, [8, 9]), (18, [8, 8, 2]), (2, [2])])
def test_no_batch_of_images_has_one_alone(images, sizes):
    task = AllPairs(all_pairs(images), images, 8, 0)
    assert [len(task.batch(step)) for step in range(task.batches)] == sizes


def test_costs_of_pairs_are_ranknet_weighted_and_add_up_over_parts():
    pairs = rankbench.Pairs([0, 1, 2], [1, 2, 0], [1, -1, 0], [1.0, 2.0, 0.5])
    task = SampledPairs(pairs, 3, 0)
    task.prepare(torch.device("cpu"))
    batch, scores = task.batch(0), torch.tensor([0.3, -1.0, 2.0])
    margin = scores[[0, 1, 2]] - scores[[1, 2, 0]]
    target = torch.tensor([1.0, 0.0, 0.5])
    expected = (torch.nn.functional.softplus(margin) - target * margin) @ torch.tensor([1.0, 2.0, 0.5])
    whole = task.costs(scores[batch.rows], batch)
    parts = sum(task.costs(scores[part.rows], part) for part in batch.parts(2))
    assert whole.item() == pytest.approx(expected.item())
    assert parts.item() == pytest.approx(expected.item())
    assert task.weight(batch) == 3.5
    assert len(batch.parts(9)) == 3


def test_all_pairs_of_all_images_cost_what_the_pairs_cost_twice_and_pull_alike():
    pairs = all_pairs(7)
    task = AllPairs(pairs, 9, 7, 0)
    task.prepare(torch.device("cpu"))
    batch = task.batch(0)
    scores = torch.randn(9, generator=torch.Generator().manual_seed(0), requires_grad=True)
    cost = task.costs(scores[batch.rows], batch)
    margin = scores[np.array(pairs.left)] - scores[np.array(pairs.right)]
    plain = torch.nn.functional.softplus(-margin * torch.from_numpy(np.array(pairs.label))).sum()
    assert cost.item() == pytest.approx(2 * plain.item(), rel=1e-5)
    assert task.weight(batch) == 2 * len(pairs)
    (one,), (two,) = torch.autograd.grad(cost, scores), torch.autograd.grad(plain, scores)
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)  # a constant partner: half of twice


def test_all_pairs_hold_images_outside_the_batch_at_their_latest_score():
    pairs = all_pairs(4)
    task, twin = AllPairs(pairs, 4, 2, 0), AllPairs(pairs, 4, 2, 0)
    for one in (task, twin):
        one.prepare(torch.device("cpu"))
    label = np.zeros((4, 4))
    label[pairs.left, pairs.right], label[pairs.right, pairs.left] = pairs.label, -pairs.label
    latest, rng = np.zeros(4), np.random.default_rng(0)
    for step in range(2):
        batch = task.batch(step)
        scores = rng.normal(size=2)
        latest[batch.rows[:, 0]] = scores
        expected = sum(
            np.log1p(np.exp(-label[row, other] * (latest[row] - latest[other])))
            for row in batch.rows[:, 0]
            for other in range(4)
            if other != row
        )
        values = torch.from_numpy(scores)[:, None].float()
        assert task.costs(values, batch).item() == pytest.approx(expected, rel=1e-5)
    twin.load(task.state())
    assert twin.state()["latest"].tolist() == pytest.approx(latest.tolist())


def test_regression_and_classification_costs():
    task = ScoreRegression(np.array([4, 7]), np.array([1.0, -1.0]), 2, 0)
    batch = task.batch(0)
    assert sorted(batch.rows.ravel()) == [4, 7]
    assert task.costs(torch.zeros(2, 1), batch).item() == pytest.approx(2.0)
    kinds = Classification(np.arange(4), np.array([0, 0, 0, 1]), 4, 0)
    batch = kinds.batch(0)
    assert kinds.weight(batch) == pytest.approx(4.0)
    logits = torch.zeros(4, 1, 2)
    assert kinds.costs(logits, batch).item() / kinds.weight(batch) == pytest.approx(np.log(2))
    sure = logits.clone()
    sure[:, 0, 0] = 50  # always the common category: half of the weight is wrong
    assert kinds.costs(sure, batch).item() / kinds.weight(batch) == pytest.approx(25)


# ------------------------------------------------------------------------------------------------------ the engine


def test_the_same_seed_trains_bit_for_bit_and_another_does_not():
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(os.getpid() + len(found))  # nothing hangs on the global generator
        one = job(tiny_network(0.3, seed=0))
        one.seed = seed
        train(one, "cpu", 1, lambda step, **numbers: None)
        found.append(weights(one.network))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    one = job(tiny_network(0.3))
    torch.manual_seed(5)
    train(one, "cpu", 1, lambda step, **numbers: None)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("kind", ["sampled", "all"])
def test_the_loss_falls_and_the_curve_counts_steps(kind):
    task = SampledPairs(all_pairs(), 8, 0) if kind == "sampled" else AllPairs(all_pairs(), 24, 8, 0)
    points, log = curve()
    train(job(tiny_network(), 60, task, name="modern"), "cpu", 1, log)
    losses = [numbers["loss"] for _, numbers in points]
    assert [step for step, _ in points] == list(range(1, 61))
    assert losses[-1] < losses[0]


class Killed(Exception):
    """Stands in for a kill."""


@pytest.fixture
def steps(monkeypatch):
    """Counts the steps whose gradients are computed."""
    done = []
    gradients = training.Trainer._gradients
    monkeypatch.setattr(training.Trainer, "_gradients", lambda self, *args: done.append(1) or gradients(self, *args))
    return done


def normalised_network(dropout=0.3):
    """With batch normalisation, whose running means a checkpoint has to keep."""
    torch.manual_seed(0)
    network = PlainNetwork(trunks.Trunk("small", trunks.SmallBackbone(4, False), 16))
    network.trunk.body.dropout.p = dropout
    return network


@pytest.mark.parametrize("build", [normalised_network, tiny_network])
@pytest.mark.parametrize(("at", "name"), [(1, "paper"), (7, "modern"), (19, "paper")])
def test_interrupted_training_ends_with_the_weights_of_an_undisturbed_one(tmp_path, steps, build, at, name):
    make = lambda folder: job(  # noqa: E731
        build(0.3), 20, AllPairs(all_pairs(), 24, 5, 0), folder, name=name, checkpoint_seconds=0.0
    )
    held = Validation(np.arange(6), lambda scores: float(-abs(scores).sum()))
    straight, points = make(None), curve()
    straight.validation = held
    straight.recipe = replace(straight.recipe, validate_every=4)
    train(straight, "cpu", 1, points[1])

    def dying(step, **numbers):
        if step > at:
            raise Killed

    points_again, whole = curve()
    for log in (dying, whole):
        one = make(tmp_path)
        one.validation, one.recipe = held, replace(straight.recipe, checkpoint_seconds=0.0)
        if log is whole:
            saved = torch.load(tmp_path / "checkpoint.pt")["step"]
            assert saved >= at
            steps.clear()
            train(one, "cpu", 1, log)
            assert len(steps) == 20 - saved, "it does not begin anew"
        else:
            with pytest.raises(Killed):
                train(one, "cpu", 1, log)
    assert torch.equal(weights(one.network), weights(straight.network))
    assert points_again == points[0]


def torn(path):
    path.write_bytes(b"torn")


def incomplete(path):
    torch.save({"step": 3}, path)


def a_list(path):
    torch.save([1, 2], path)


@pytest.mark.parametrize("damage", [torn, incomplete, a_list])
def test_a_damaged_checkpoint_costs_the_work_and_nothing_else(tmp_path, damage):
    damage(tmp_path / "checkpoint.pt")
    one, two = job(tiny_network(), folder=tmp_path), job(tiny_network())
    remarks = [train(each, "cpu", 1, lambda step, **numbers: None) for each in (one, two)]
    assert torch.equal(weights(one.network), weights(two.network))
    assert remarks[0][0].startswith("trained anew, as the checkpoint could not be read (")
    assert remarks[1] == []


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path):
    def dying(step, **numbers):
        if step > 3:
            raise Killed

    with pytest.raises(Killed):
        train(job(tiny_network(), folder=tmp_path, checkpoint_seconds=0.0), "cpu", 1, dying)
    with pytest.raises(
        rankbench.DataError,
        match=r"checkpoint .*checkpoint.pt \(delete it to train anew\): does not fit PlainNetwork. .*last.weight",
    ):
        train(job(tiny_network(outputs=3), folder=tmp_path), "cpu", 1, lambda step, **numbers: None)


KILLED = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_training import SampledPairs, all_pairs, job, tiny_network, weights
from rankbench_rankers.training_processes import train
torch.set_num_threads(1)
one = job(tiny_network(0.3), 3000, SampledPairs(all_pairs(), 8, 0), Path(sys.argv[1]), checkpoint_seconds=0.05)
train(one, "cpu", 1, lambda step, **numbers: print(step, flush=True))
torch.save(weights(one.network), Path(sys.argv[1]) / "end.pt")
"""


def test_a_killed_process_goes_on_from_its_checkpoint(tmp_path):
    ends = []
    for kill in (True, False):
        folder = tmp_path / str(kill)
        folder.mkdir()
        command = [sys.executable, "-c", KILLED, str(folder), str(TESTS)]
        if kill:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            deadline = time.time() + 60
            while not (folder / "checkpoint.pt").exists():
                assert time.time() < deadline
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert not (folder / "end.pt").exists()
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        ends.append(torch.load(folder / "end.pt"))
        assert done.stdout.split()[-1] == "3000"
    assert torch.equal(*ends)


class Heavy(TinyTrunk):
    """As many weights as a real network: more than fit into a pipe."""

    def __init__(self):
        super().__init__()
        self.ballast = nn.Parameter(torch.linspace(0, 1, 200_000))

    def forward(self, x):
        return super().forward(x) + self.ballast.mean()


def heavy_network():
    torch.manual_seed(0)
    return PlainNetwork(Heavy())


def test_two_processes_give_the_loss_and_the_weights_of_one():
    found = []
    for processes in (1, 2):
        points, log = curve()
        one = job(heavy_network(), 12, SampledPairs(all_pairs(), 7, 0))  # 7 pairs: shares of 4 and 3
        train(one, "cpu", processes, log)
        found.append((weights(one.network), [numbers["loss"] for _, numbers in points]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)
    assert len(found[0][1]) == 12


def falling(scores):
    """A validation that likes low scores."""
    return -float(np.abs(scores).sum())


def test_two_processes_agree_on_all_pairs_validation_and_errors():
    found = []
    for processes in (1, 2):
        points, log = curve()
        one = job(tiny_network(), 12, AllPairs(all_pairs(), 24, 7, 0), validate_every=4)
        one.validation = Validation(np.arange(5), falling)
        train(one, "cpu", processes, log)
        found.append((weights(one.network), [next(iter(numbers.values())) for _, numbers in points]))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-5, atol=1e-6)
    assert found[0][1] == pytest.approx(found[1][1], rel=1e-5)
    with pytest.raises(rankbench.RankbenchError, match=r"^tiny: the loss is nan at step 32"):
        train(job(PlainNetwork(Broken()), 40), "cpu", 2, lambda step, **numbers: None)


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_cluster_s_variables_and_those_of_a_training_before_change_nothing(monkeypatch, processes):
    one, two = job(tiny_network(), 3), job(tiny_network(), 3)
    train(two, "cpu", processes, lambda step, **numbers: None)
    assert "MASTER_PORT" not in os.environ
    slurm = {"SLURM_JOB_ID": "1", "SLURM_JOB_NAME": "mine", "SLURM_NTASKS": "4", "SLURM_PROCID": "2"}
    for name, value in {**slurm, "LOCAL_RANK": "3", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    train(one, "cpu", processes, lambda step, **numbers: None)
    assert dict(os.environ) == before
    torch.testing.assert_close(weights(one.network), weights(two.network), rtol=1e-5, atol=1e-6)


class Hungry(TinyTrunk):
    """Memory for so many images at once."""

    def __init__(self, most):
        super().__init__()
        self.most = most

    def forward(self, x):
        if self.training and len(x) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


def test_where_memory_runs_out_batches_are_computed_in_halves_once_and_the_remarks_say_so():
    plain = job(tiny_network(), 10)
    train(plain, "cpu", 1, lambda step, **numbers: None)
    torch.manual_seed(0)
    hungry = job(PlainNetwork(Hungry(8)), 10)
    points = []
    remarks = train(hungry, "cpu", 1, lambda step, **numbers: points.append((step, numbers)))
    assert points[0] == (0, {"parts_of_a_batch": 2})
    assert remarks == ["memory ran out: each batch was computed in two halves"]
    torch.testing.assert_close(weights(hungry.network), weights(plain.network), rtol=1e-5, atol=1e-6)
    with pytest.raises(rankbench.RankbenchError, match="memory does not suffice for half a batch of 8"):
        train(job(PlainNetwork(Hungry(4)), 10), "cpu", 1, lambda step, **numbers: None)


@pytest.mark.slow
def test_where_memory_runs_out_in_one_of_several_processes_all_begin_anew_in_halves():
    plain, task = job(tiny_network(), 10), SampledPairs(all_pairs(), 8, 0)
    train(plain, "cpu", 1, lambda step, **numbers: None)
    torch.manual_seed(0)
    hungry = job(PlainNetwork(Hungry(4)), 10, task)  # a share of 8 pairs has 8 images, one of half of them 4
    assert train(hungry, "cpu", 2, lambda step, **numbers: None) == [training.HALVES]
    torch.testing.assert_close(weights(hungry.network), weights(plain.network), rtol=1e-5, atol=1e-6)
    with pytest.raises(rankbench.RankbenchError, match=r"^tiny: .* does not suffice for half a batch of"):
        train(job(PlainNetwork(Hungry(2)), 10, task), "cpu", 2, lambda step, **numbers: None)


@pytest.mark.slow
def test_an_error_of_no_rankbench_s_in_one_of_several_processes_is_raised_too():
    message = r"^tiny: one of 2 processes failed: ValueError: a kangaroo$"
    with pytest.raises(rankbench.RankbenchError, match=message):
        train(job(PlainNetwork(Jumping()), 10), "cpu", 2, lambda step, **numbers: None)
    with pytest.raises(
        rankbench.RankbenchError, match=r"^tiny: one of 2 processes ended \(.*SIGKILL.*run out of memory"
    ):
        train(job(PlainNetwork(Dying()), 10), "cpu", 2, lambda step, **numbers: None)


class Dying(TinyTrunk):
    """Killed, as by the system."""

    def forward(self, x):
        os.kill(os.getpid(), signal.SIGKILL)


class Jumping(TinyTrunk):
    """A fault of the network's own, in one process of several: the others wait for it."""

    def forward(self, x):
        if torch.distributed.get_rank() == 1:
            raise ValueError("a kangaroo")
        return super().forward(x)


class Broken(TinyTrunk):
    """No number in its 33rd forward pass of training."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += self.training
        return super().forward(x) * (float("nan") if self.training and self.calls == 33 else 1)


def test_a_loss_that_is_no_number_names_step_and_rate():

    with pytest.raises(
        rankbench.RankbenchError, match=r"tiny: the loss is nan at step 32, at learning rate 0.05. Lower"
    ):
        train(job(PlainNetwork(Broken()), 2000), "cpu", 1, lambda step, **numbers: None)


def test_no_checkpoint_holds_what_a_loss_that_is_no_number_left(tmp_path):
    recipe = {"checkpoint_seconds": 0.0, "validate_every": 35, "patience": 1}
    for task in (SampledPairs(all_pairs(), 8, 0), AllPairs(all_pairs(), 24, 8, 0)):
        broken = job(PlainNetwork(Broken()), 2000, task, tmp_path, **recipe)  # a point of the curve every tenth step
        broken.validation = Validation(np.arange(5), lambda scores: float(np.isfinite(scores).all()))
        with pytest.raises(rankbench.RankbenchError, match=r"the loss is nan at step 32"):
            train(broken, "cpu", 1, lambda step, **numbers: None)
        saved = torch.load(tmp_path / "checkpoint.pt")
        assert saved["step"] == 32
        assert all(torch.isfinite(value).all() for value in saved["network"].values())
        (tmp_path / "checkpoint.pt").unlink()


def test_patience_does_not_end_training_on_a_loss_that_is_no_number():
    broken = job(PlainNetwork(Broken()), 20_000, validate_every=5, patience=2)  # a point every hundredth step
    rising = iter(range(100))
    broken.validation = Validation(
        np.arange(5), lambda scores: float(next(rising)) if np.isfinite(scores).all() else float("nan")
    )
    with pytest.raises(rankbench.RankbenchError, match=r"the loss is nan at step 32"):
        train(broken, "cpu", 1, lambda step, **numbers: None)


def test_the_best_weights_on_held_out_images_are_kept_and_patience_ends_training():
    values = iter([0.2, 0.9, 0.5, 0.4, 0.3, 0.2])
    kept = []
    one = job(tiny_network(), 60, validate_every=10, patience=3)

    def judge(scores):
        kept.append(weights(one.network).clone())
        return next(values)

    one.validation = Validation(np.arange(5), judge)
    points, log = curve()
    train(one, "cpu", 1, log)
    assert torch.equal(weights(one.network), kept[1])
    found = [(step, numbers["validation"]) for step, numbers in points if "validation" in numbers]
    assert found == [(10, 0.2), (20, 0.9), (30, 0.5), (40, 0.4), (50, 0.3)]


def test_a_kill_after_patience_ran_out_does_not_prolong_training(tmp_path):
    ends = []
    for killed in (False, True):
        one = job(
            tiny_network(), 60, folder=tmp_path / str(killed), validate_every=5, patience=2, checkpoint_seconds=0.0
        )
        one.folder.mkdir()
        for _ in range(1 + killed):  # once more from the last checkpoint, as after a kill before the cell was stored
            one.network = tiny_network()
            points, log = curve()
            one.validation = Validation(np.arange(5), falling)
            train(one, "cpu", 1, log)
        ends.append((weights(one.network), points[-1]))
    assert torch.equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]
    assert ends[0][1][0] < 60


def test_one_image_is_too_few_for_batch_normalisation_of_one_cell():
    small = PlainNetwork(trunks.Trunk("small", trunks.SmallBackbone(4, False), 16))
    with pytest.raises(rankbench.RankbenchError, match="tiny: batch normalisation cannot do with one image whose maps"):
        train(
            job(small, 5, ScoreRegression(np.arange(6), np.arange(6.0), 1, 0)), "cpu", 1, lambda step, **numbers: None
        )


@pytest.mark.slow
@compiler
def test_a_compiled_viralnet_trains_on_batches_of_several_lengths():
    ends = []
    for compiled in (False, True):
        torch.manual_seed(0)
        make = lambda: trunks.backbone("small-foveal", "random", None, 0, 4)  # noqa: E731
        looks = Localiser(trunks.maps(make(), "small-foveal", 16), 0.5, 0.05)
        network = ViralNetwork(trunks.vector(make(), "small-foveal", 16), [looks], [1], True)
        one = job(network, 12, SampledPairs(all_pairs(), 80, 0), compiled=compiled)  # 276 pairs: 80, 80, 80, 36
        train(one, "cpu", 1, lambda step, **numbers: None)
        ends.append(weights(one.network))
    torch.testing.assert_close(*ends, rtol=1e-2, atol=1e-3)


@pytest.mark.slow
@compiler
def test_a_compiled_network_trains_like_the_plain_one():
    ends = []
    for compiled in (False, True):
        one = job(tiny_network(), 10, compiled=compiled)
        train(one, "cpu", 1, lambda step, **numbers: None)
        ends.append(weights(one.network))
    torch.testing.assert_close(*ends, rtol=1e-4, atol=1e-5)


def test_bfloat16_trains_and_keeps_weights_in_float32():
    one = job(tiny_network(), 30, precision="bfloat16")
    points, log = curve()
    train(one, "cpu", 1, log)
    assert weights(one.network).dtype == torch.float32
    assert points[-1][1]["loss"] < points[0][1]["loss"]
    exact, log = curve()
    train(job(tiny_network(), 30), "cpu", 1, log)
    assert exact[0][1]["loss"] == pytest.approx(points[0][1]["loss"], rel=2e-2)
    assert exact[0][1]["loss"] != pytest.approx(points[0][1]["loss"], rel=1e-6), "it computes with fewer bits"


# -------------------------------------------------------------------------------------------------- views, supplies


@pytest.mark.parametrize(
    ("size", "crops", "expected"), [(227, 1, (256, 226)), (227, 4, (256, 243)), (64, 1, (72, 64)), (224, 1, (253, 224))]
)
def test_framing_is_that_of_the_source(size, crops, expected):
    framing = Framing.of(size, "horizontal", crops, True)
    assert (framing.stored, framing.side) == expected
    scored = framing.alone()
    assert (scored.stored, scored.side) == (framing.stored, 226 if size == 227 else size), "one crop for all views"
    whole = Framing.of(size, "none", crops, False)
    assert (whole.stored, whole.side, whole.room) == (size, size, 0)


def test_ten_crops_are_corners_and_center_plain_and_mirrored():
    framing = Framing.of(227, "horizontal", 1, True)
    places = framing.fixed(True)
    assert len(places) == 10
    assert {place for place, _ in places} == {(0, 0), (0, 30), (30, 0), (30, 30), (15, 15)}
    assert len(Framing.of(227, "dihedral", 1, True).fixed(True)) == 20
    assert framing.fixed(False) == [((15, 15), 0), ((15, 15), 1)]
    assert Framing.of(64, "none", 1, False).fixed(True) == [((0, 0), 0)]


def test_views_are_the_drawn_crops_turned_over():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 20, 20, 3), dtype=np.uint8)
    framing = Framing(16, 20, 16, (0, 1, 2, 3), 2)
    offsets, flips = framing.drawn(40, np.random.default_rng(1))
    assert offsets.shape == (40, 2, 2)
    assert {*np.unique(offsets)} == set(range(5))
    assert {*np.unique(flips)} == {0, 1, 2, 3}
    views = framing.views(torch.from_numpy(pixels), offsets, flips)
    for crop, view in enumerate(views):  # what a GPU would do
        other = image_views.gathered(torch.from_numpy(pixels), offsets[:, crop], flips, 16)
        assert torch.equal(other.permute(0, 3, 1, 2).float(), view)
    for crop, view in enumerate(views):
        for row in range(40):
            top, left = offsets[row, crop]
            expected = pixels[row, top : top + 16, left : left + 16]
            expected = expected[::-1] if flips[row] & 2 else expected
            expected = expected[:, ::-1] if flips[row] & 1 else expected
            assert np.array_equal(view[row].permute(1, 2, 0).numpy(), expected)
    same = framing.view(torch.from_numpy(pixels), (1, 2), 3)
    assert np.array_equal(same[4].permute(1, 2, 0).numpy(), pixels[4, 1:17, 2:18][::-1, ::-1])


def test_crops_of_another_size_are_resized():
    framing = Framing.of(227, "none", 1, True)
    flat = torch.full((1, 256, 256, 3), 7, dtype=torch.uint8)
    (view,) = framing.views(flat, np.array([[[3, 30]]]), np.array([0]))
    assert view.shape == (1, 3, 227, 227)
    torch.testing.assert_close(view, torch.full_like(view, 7.0))


def test_items_are_made_ahead_and_leaving_early_ends_that():
    made = []

    def counting(count):
        for at in range(count):
            made.append(at)
            yield at

    assert list(image_supply.ahead(counting(20), 3)) == list(range(20))
    made.clear()
    for item in image_supply.ahead(counting(10_000), 3):
        if item == 2:
            break
    time.sleep(0.05)
    assert 3 <= len(made) <= 8, "those that were asked for, those ahead, and one in hand"

    def failing():
        yield 1
        raise OSError("disk")

    supply = image_supply.ahead(failing(), 2)
    assert next(supply) == 1
    with pytest.raises(OSError, match="disk"):
        next(supply)


def test_a_supply_gives_the_rows_asked_for():
    rows = pictures(50)
    wanted = [np.array([3, 3, 49]), np.arange(20)]
    supply = image_supply.RowSupply(rows, torch.device("cpu"))
    for one, found in zip(wanted, supply.stream(iter(wanted)), strict=True):
        assert np.array_equal(found.numpy(), rows[one])
    vectors = image_supply.RowSupply(SimpleRows(np.ones((4, 3), np.float32)), torch.device("cpu"))
    assert vectors.take(np.array([1])).dtype == torch.float32


def test_scores_do_not_depend_on_how_many_are_scored():
    network, supply = tiny_network(), image_supply.RowSupply(pictures(150), torch.device("cpu"))
    score = lambda rows: training.scored(network, FRAMING, supply, None, rows, many=True)  # noqa: E731
    whole, some = score(np.arange(150)), score(np.array([140, 2]))
    np.testing.assert_allclose(some, whole[[140, 2]], rtol=1e-6)
    assert whole.dtype == np.float64
    assert score(np.arange(0)).shape == (0,)
