"""SIFT features, and matches between two views whose poses are known: only features near each other's epipolar line
are compared, which both removes wrong matches and keeps repeated texture matchable.

Pixel coordinates have pixel centres at +0.5. Needs no torch: the triangulation worker starts without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

MOST_FEATURES = 3000
CONTRAST = 0.02  # half of OpenCV's default: known poses remove the false matches that weak features bring
FROM_LINE = 2.0  # pixels
BEST_TO_SECOND = 0.8  # ratio of descriptor distances
LARGEST_DISTANCE = 0.7  # of unit descriptors
FEWEST_MATCHES = 8  # fewer between two views are likely chance
_ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Features:
    """Keypoints of one view with unit descriptors."""

    xy: NDArray[np.float32]  # [N, 2]
    descriptors: NDArray[np.float32]  # [N, 128]


def features(grey: NDArray[np.uint8], mask: NDArray[np.uint8] | None) -> Features:
    """The strongest SIFT features of an image [H, W], within the non-zero part of `mask`."""
    # Without the precise upscale all positions are off by a quarter of a pixel.
    sift = cv2.SIFT.create(nfeatures=MOST_FEATURES, contrastThreshold=CONTRAST, enable_precise_upscale=True)
    found, raw = sift.detectAndCompute(grey, mask)
    if not found:
        return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
    # The root of L1-normalised histograms compares better than the histograms ("RootSIFT"), and has unit length.
    descriptors = np.sqrt(raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-6), dtype=np.float32)
    return Features(np.array([keypoint.pt for keypoint in found], np.float32) + np.float32(0.5), descriptors)


def fundamental(first_pose: Array, first_k: Array, second_pose: Array, second_k: Array) -> Array:
    """The [3, 3] matrix with x2^T F x1 = 0, from world-to-camera poses [4, 4] and calibrations [3, 3]."""
    second_from_first = second_pose @ np.linalg.inv(first_pose)
    x, y, z = second_from_first[:3, 3]
    across = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    matrix: Array = np.linalg.inv(second_k).T @ across @ second_from_first[:3, :3] @ np.linalg.inv(first_k)
    return matrix


def matches(first: Features, second: Features, epipolar: Array) -> NDArray[np.uint32]:
    """Index pairs [M, 2] of features that are each other's best, clearly better than their second best."""
    if not len(first.xy) or len(second.xy) < 2:
        return np.zeros((0, 2), np.uint32)
    best_of_second = np.full(len(second.xy), -1, np.float32)
    chosen, best, runner_up = [], [], []
    for start in range(0, len(first.xy), _ROWS_AT_ONCE):  # in blocks that fit into the processor's cache
        block = slice(start, start + _ROWS_AT_ONCE)
        likeness = first.descriptors[block] @ second.descriptors.T
        likeness[_far_from_line(first.xy[block], second.xy, epipolar)] = -1
        rows, column = np.arange(len(likeness)), likeness.argmax(axis=1)
        best_of_second = np.maximum(best_of_second, likeness.max(axis=0))
        best.append(likeness[rows, column])
        likeness[rows, column] = -1
        runner_up.append(likeness.max(axis=1))
        chosen.append(column)
    column, near, next_near = np.concatenate(chosen), np.concatenate(best), np.concatenate(runner_up)
    distance, next_distance = np.sqrt(np.maximum(2 - 2 * near, 0)), np.sqrt(np.maximum(2 - 2 * next_near, 0))
    clear = (distance < LARGEST_DISTANCE) & (distance < BEST_TO_SECOND * next_distance)
    mutual = near >= best_of_second[column]
    index = np.flatnonzero(clear & mutual)
    return np.stack([index, column[index]], axis=1).astype(np.uint32)


def _far_from_line(first: NDArray[np.float32], second: NDArray[np.float32], epipolar: Array) -> NDArray[np.bool_]:
    """Whether features of the second view lie off the epipolar lines of the first's, [N1, N2]."""
    lines = _homogeneous(first) @ epipolar.T
    lines /= np.maximum(np.linalg.norm(lines[:, :2], axis=1, keepdims=True), 1e-12)
    offsets: NDArray[Any] = lines.astype(np.float32) @ _homogeneous(second).T
    return np.asarray(np.abs(offsets, out=offsets) > FROM_LINE)


def _homogeneous(xy: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([xy, np.ones((len(xy), 1), np.float32)], axis=1)
