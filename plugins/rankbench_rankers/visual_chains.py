"""Visual chains: patches that change smoothly along images sorted by an attribute, and detectors of them.

Source: Xiao & Lee, "Discovering the spatial extent of relative attributes", ICCV 2015, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rankbench_rankers.patch_maps import overlap

DUPLICATE = 0.5  # intersection over union above which two first patches, or the patches of two chains, are one
APART = 0.3  # of a negative patch with the chain's own
NEGATIVE_IMAGES = 100  # images that negative patches are drawn from


@dataclass
class Chain:
    """positions, (images,) the patch of each image it covers; cost; detector, (LENGTH,) weights."""

    positions: np.ndarray
    cost: float
    detector: np.ndarray | None = None


def first_chains(maps, rows, starts, count):
    """The cheapest chains through the first images, each from another start, exactly, by dynamic programming.

    A chain costs Σ |φ(P_i) − φ(P_{i−1})| / m(P_{i−1}). Ours is m, the length that a tenth of all steps from that patch
    to the next image fall short of: without it chains leave what is distinct for empty ground, which is alike
    everywhere. Chains that run alike are dropped.

    Args: rows, the images in order; starts, positions in the first image.
    """
    before = maps.patches(rows[0])
    cost = np.full((len(starts), len(before)), np.inf, np.float32)
    cost[np.arange(len(starts)), starts] = 0
    came = []
    for row in rows[1:]:
        here = maps.patches(row)
        steps = relative(distances(before, here))
        if not came:
            cost, origin = steps[starts], np.repeat(np.array(starts)[:, None], len(here), 1)
        else:
            cost, origin = cheapest(cost, steps)
        came.append(origin)
        before = here
    found = []
    for at, start in enumerate(starts):
        positions = traced(cost[at] if came else None, [origin[at] for origin in came], start)
        found.append(Chain(positions, float(cost[at].min()) if came else 0.0))
    chains = []
    for chain in sorted(found, key=lambda chain: chain.cost):
        if not any(alike(maps.boxes, chain.positions, other.positions) for other in chains):
            chains.append(chain)
        if len(chains) == count:
            break
    return chains


def cheapest(cost, steps):
    """(starts, positions) least cost to reach each position, and from where; one start at a time to bound memory."""
    best, origin = np.empty((len(cost), steps.shape[1]), np.float32), np.empty((len(cost), steps.shape[1]), np.int64)
    for start, own in enumerate(cost):
        whole = own[:, None] + steps
        origin[start] = whole.argmin(axis=0)
        best[start] = whole[origin[start], np.arange(steps.shape[1])]
    return best, origin


def traced(cost, origins, start):
    if cost is None:
        return np.array([start])
    positions = [int(cost.argmin())]
    for origin in reversed(origins):
        positions.append(int(origin[positions[-1]]))
    return np.array(positions[::-1])


def alike(boxes, one, other):
    """Whether two chains lie on the same patches, on average."""
    shared = [overlap(boxes[a][None], boxes[b])[0] for a, b in zip(one, other, strict=False)]
    return float(np.mean(shared)) > DUPLICATE


def relative(steps):
    """Distances over the lowest tenth's limit of their row."""
    at = (steps.shape[1] - 1) // 10
    return steps / np.maximum(np.partition(steps, at, axis=1)[:, at : at + 1], 1e-6)


def distances(one, other):
    """(a, b) Euclidean distances between rows."""
    square = np.einsum("ij,ij->i", one, one)[:, None] + np.einsum("ij,ij->i", other, other) - 2 * one @ other.T
    return np.sqrt(np.maximum(square, 0))


def grown(maps, rows, chains, weight, keep):
    """The chains over these images: exact dynamic programming of Σ |φ_i − φ_{i−1}| / m_{i−1} − weight Σ w·φ_i.

    Args: chains with detectors; keep, how many patches of each image its detector proposes (None: all).
    """
    detectors = np.stack([chain.detector for chain in chains])  # (chains, LENGTH)
    cost, origins, places, before = [], [[] for _ in chains], [[] for _ in chains], None
    for row in rows:
        patches = maps.patches(row)
        liked = detectors @ patches.T  # (chains, positions)
        steps = None if before is None or keep is not None else relative(distances(before, patches))
        for at in range(len(chains)):
            place = (
                np.arange(len(patches))
                if keep is None
                else np.argpartition(-liked[at], min(keep, len(patches)) - 1)[:keep]
            )
            own = -weight * liked[at, place]
            if before is None:
                cost.append(own)
            else:
                last = places[at][-1]
                step = steps if keep is None else relative(distances(before[last], patches[place]))
                whole = cost[at][:, None] + step
                origin = whole.argmin(axis=0)
                cost[at] = whole[origin, np.arange(len(place))] + own
                origins[at].append(origin)
            places[at].append(place)
        before = patches
    return [
        Chain(ends(cost[at], origins[at], places[at]), float(cost[at].min()), chain.detector)
        for at, chain in enumerate(chains)
    ]


def ends(cost, origins, places):
    index = [int(cost.argmin())]
    for origin in reversed(origins):
        index.append(int(origin[index[-1]]))
    return np.array([place[at] for place, at in zip(places, index[::-1], strict=True)])


def trained(maps, rows, chains, C, negatives, rng):
    """The chains with detectors: linear SVMs of each chain's patches against random ones elsewhere."""
    from sklearn.svm import LinearSVC

    every = np.stack([chain.positions for chain in chains], axis=1)  # (images, chains)
    own = np.stack([maps.patches(row)[positions] for row, positions in zip(rows, every, strict=True)])
    chosen = rng.choice(len(rows), size=min(len(rows), NEGATIVE_IMAGES), replace=False)
    each, sampled = max(1, negatives // len(chosen)), []
    for at in chosen:
        patches = maps.patches(rows[at])
        some = rng.choice(len(patches), size=each)
        sampled.append((at, some, patches[some]))
    found = []
    for number, chain in enumerate(chains):
        apart = [overlap(maps.boxes[some], maps.boxes[every[at, number]]) < APART for at, some, _ in sampled]
        if not any(one.any() for one in apart):
            apart = [np.ones(each, bool)] * len(sampled)
        negative = np.concatenate([patches[one] for one, (_, _, patches) in zip(apart, sampled, strict=True)])
        x, y = np.concatenate([own[:, number], negative]), np.repeat([1, -1], [len(own), len(negative)])
        model = LinearSVC(C=C, class_weight="balanced", random_state=0, max_iter=5000).fit(x, y)
        found.append(Chain(chain.positions, chain.cost, model.coef_[0].astype(np.float32)))
    return found


def detected(maps, rows, detectors):
    """(images, detectors) best position of each detector in each image."""
    return np.stack([(maps.patches(row) @ detectors.T).argmax(axis=0) for row in rows])


def moved(boxes, offset):
    """Boxes shifted by (dx, dy) of their size and resized by ds about their center."""
    dx, dy, ds = offset
    size = boxes[:, 2:] - boxes[:, :2]
    center = (boxes[:, :2] + boxes[:, 2:]) / 2 + size * (dx, dy)
    return np.concatenate([center - ds * size / 2, center + ds * size / 2], axis=1)
