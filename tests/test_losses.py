"""Losses on margins: golden values, limits, gradients."""

import math

import pytest
import torch

from rankbench_rankers.losses import ranknet_loss


def loss_of(margin, label, weight=None):
    tensors = [torch.tensor(values, dtype=torch.float64) for values in (margin, label)]
    return ranknet_loss(*tensors, None if weight is None else torch.tensor(weight, dtype=torch.float64)).item()


@pytest.mark.parametrize("label", [1, 0, -1])
def test_margin_zero_costs_log_two(label):
    assert loss_of([0.0], [label]) == pytest.approx(math.log(2), abs=1e-15)


def test_golden_values():
    assert loss_of([1.0], [1]) == pytest.approx(math.log(1 + math.exp(-1)))
    assert loss_of([1.0], [-1]) == pytest.approx(math.log(1 + math.exp(1)))
    assert loss_of([1.0], [0]) == pytest.approx((math.log(1 + math.exp(1)) + math.log(1 + math.exp(-1))) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_finite_with_gradient_at_margins_of_a_thousand(dtype):
    margin = torch.tensor([1000.0, -1000.0, 1000.0, -1000.0], dtype=dtype, requires_grad=True)
    loss = ranknet_loss(margin, torch.tensor([1, 1, -1, -1]))
    loss.backward()
    assert loss.item() == pytest.approx((0 + 1000 + 1000 + 0) / 4)
    torch.testing.assert_close(margin.grad, torch.tensor([0.0, -0.25, 0.25, 0.0], dtype=dtype))


def test_gradient_is_the_probability_less_the_target_and_agrees_with_finite_differences():
    margin = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    label = torch.tensor([1, 0, -1, 1, 0, -1, 1])
    ranknet_loss(margin, label).backward()
    torch.testing.assert_close(margin.grad, (torch.sigmoid(margin.detach()) - (1 + label) / 2) / 7)
    assert torch.autograd.gradcheck(lambda m: ranknet_loss(m, label), margin)


@pytest.mark.parametrize("margin", [-2.0, 2.0])
def test_a_tie_pulls_its_margin_to_zero(margin):
    free = torch.tensor([margin], requires_grad=True)
    ranknet_loss(free, torch.tensor([0])).backward()
    assert math.copysign(1, free.grad.item()) == math.copysign(1, margin)
    assert loss_of([0.0], [0]) < loss_of([margin], [0])


def test_flipped_pairs_cost_the_same():
    assert loss_of([0.3, -2.0, 0.5], [1, -1, 0]) == pytest.approx(loss_of([-0.3, 2.0, -0.5], [-1, 1, 0]))


def test_weights_average_and_equal_weights_do_nothing():
    margin, label = [0.3, -2.0, 0.5], [1, 1, 0]
    assert loss_of(margin, label, [2.0, 2.0, 2.0]) == pytest.approx(loss_of(margin, label))
    assert loss_of(margin, label, [0.0, 3.0, 0.0]) == pytest.approx(loss_of(margin[1:2], label[1:2]))


@pytest.mark.parametrize(
    ("margin", "label", "weight"),
    [
        (torch.zeros(3), torch.zeros(2), None),
        (torch.zeros(3, 1), torch.zeros(3), None),  # would broadcast to (3, 3)
        (torch.zeros(3), torch.zeros(3), torch.ones(2)),
        (torch.zeros(3), torch.zeros(3), torch.zeros(3)),
        (torch.zeros(0), torch.zeros(0), None),
    ],
)
def test_shapes_that_differ_and_nothing_to_average_are_errors(margin, label, weight):
    with pytest.raises(ValueError, match="ranknet_loss needs"):
        ranknet_loss(margin, label, weight)
