"""Losses on the margins of pairs. The only place where labels {+1, 0, -1} become targets {1, 1/2, 0}."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus


def ranknet_costs(margin: Tensor, label: Tensor) -> Tensor:
    """(n,) the terms of `ranknet_loss`, not weighted, summed or checked."""
    target = (1 + label.to(margin.dtype)) / 2
    return softplus(margin) - target * margin  # softplus does not overflow where exp does


def ranknet_loss(margin: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of the predicted order against the labelled one.

    A pair costs log(1 + exp(m)) - t m, where t = (1 + label) / 2: a tie is cheapest at m = 0.
    Source: RankNet, Burges et al., ICML 2005.

    Args: margin, (n,) float, score differences in nats; label, (n,) in {+1, 0, -1}; weight, (n,) float ≥ 0, or None
        for a mean where every pair counts once.
    Returns: () float, nats per pair (per unit of weight).
    Raises: ValueError if the shapes differ, n is 0, or the weights sum to 0.
    """
    if margin.ndim != 1 or margin.shape != label.shape or (weight is not None and weight.shape != margin.shape):
        shapes = [tuple(x.shape) for x in (margin, label, weight) if x is not None]
        raise ValueError(f"ranknet_loss needs margin, label and weight of one shape (n,), not {shapes}.")
    if len(margin) == 0:
        raise ValueError("ranknet_loss needs at least one pair.")
    cost = ranknet_costs(margin, label)
    if weight is None:
        return cost.mean()
    total = weight.sum()
    if not total > 0:
        raise ValueError("ranknet_loss needs a positive weight.")
    return (weight.to(margin.dtype) * cost).sum() / total
