"""Mean colors, and a line through them."""

import numpy as np


def mean_colors(images):
    """(n, 3) float64 in [0, 1]."""
    return np.array([image.mean(axis=(0, 1)) / 255 for image in images]).reshape(-1, 3)


def slope(gaps, labels, shrink):
    """(d,) ridge regression of labels on differences, without an intercept, so that margins flip with their pairs."""
    return np.linalg.solve(gaps.T @ gaps + shrink * len(gaps) * np.eye(gaps.shape[1]), gaps.T @ labels)
