"""Writes the files that the datasets of tests/thirdparty read."""

import csv

import numpy as np
from PIL import Image

ATTRIBUTES = {"busy": np.array([0.2, 0.9, 0.1]), "bright": np.array([0.4, 0.3, 0.3])}
COUNTS = {"train": 24, "near": 10, "far": 10, "spare": 4}


def write_market(folder, images=True, seed=0):
    """Colored noise; an attribute is a weighting of the colors, votes are cast with some error."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    listed, split = [], [name for name, count in COUNTS.items() for _ in range(count)]
    for at, part in enumerate(split):
        color = rng.integers(20, 236, 3)
        pixels = np.clip(color + rng.integers(-20, 21, (12, 16, 3)), 0, 255).astype(np.uint8)
        name = f"stall-{rng.integers(10**6):06d}-{at}.png"
        if images:
            (folder / "images").mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / "images" / name)
        mean = pixels.mean(axis=(0, 1)) / 255
        scores = {attribute: float(mean @ weights) for attribute, weights in ATTRIBUTES.items()}
        category = ("fruit", "cloth", "fish")[int(mean.argmax())]
        colors = dict(zip(("red", "green", "blue"), np.round(mean, 3), strict=True))
        listed.append({"name": name, "split": part, "category": category, **scores, **colors})
    write(folder / "images.csv", listed)
    pairs = []
    for attribute in ATTRIBUTES:
        for part in ("train", "near", "far"):
            members = [row for row in listed if row["split"] == part]
            for a, b in zip(*np.triu_indices(len(members), 1), strict=True):
                left, right = (members[a], members[b]) if rng.random() < 0.5 else (members[b], members[a])
                gap = left[attribute] - right[attribute]
                votes = int(rng.binomial(5, 1 / (1 + np.exp(-40 * gap))))
                label = 0 if abs(gap) < 0.01 else int(np.sign(gap))
                judged = {"label": label, "agreement": max(votes, 5 - votes) / 5}
                judged |= {"votes_left": votes, "votes_right": 5 - votes}
                pairs.append(
                    {"attribute": attribute, "split": part, "left": left["name"], "right": right["name"], **judged}
                )
    write(folder / "pairs.csv", pairs)
    vectors = "".join(f"{row['name']},{row['red']},{row['green']},{row['blue']}\n" for row in listed)
    (folder.parent / "vectors.csv").write_text(vectors)
    (folder.parent / "weights.txt").write_text("0.2\n0.9\n0.1\n")


def write_sizes(folder):
    """Squares of different sides."""
    folder.mkdir(parents=True)
    write(folder / "sizes.csv", [{"split": "train" if at % 3 else "test", "side": 3 + at} for at in range(20)])


def write(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
