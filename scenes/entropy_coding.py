"""Whole numbers in as few bytes as their frequencies allow: range coding by the numbers' own histogram."""

from __future__ import annotations

import constriction
import numpy as np
from numpy.typing import NDArray

MOST_SYMBOLS = 1 << 16  # from the lowest number to the highest

Integers = NDArray[np.integer]


def coded(numbers: Integers) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """A stream of bytes, and the histogram to decode it by: the lowest number, then how often it and each next comes.

    `numbers` is of one axis. Raises ValueError where they spread over more than 65,536, or are more than 2^24.
    """
    low, high = (int(numbers.min()), int(numbers.max())) if len(numbers) else (0, 0)
    if high - low >= MOST_SYMBOLS or len(numbers) > 2**24:
        raise ValueError(f"expected at most 2^24 numbers within {MOST_SYMBOLS} of each other, got {low} to {high}")
    symbols = (numbers - low).astype(np.int32)
    counts = np.bincount(symbols, minlength=1)
    if len(counts) > 1:
        encoder = constriction.stream.queue.RangeEncoder()
        encoder.encode(symbols, _model(counts))
        stream = encoder.get_compressed().astype("<u4").view(np.uint8)
    else:
        stream = np.empty(0, np.uint8)  # one number costs nothing
    return stream, np.concatenate([[low], counts]).astype(np.float32)


def decoded(stream: NDArray[np.uint8], histogram: NDArray[np.float32], count: int) -> NDArray[np.int32]:
    """The numbers, [count]; raises ValueError where stream and histogram do not belong together."""
    low, counts = histogram[0], histogram[1:].astype(np.float64)
    if not (np.isfinite(histogram).all() and 0 < len(counts) <= MOST_SYMBOLS and (counts >= 0).all()):
        raise ValueError("the histogram is damaged")
    if counts.sum() != count or abs(low) > 2**24 or len(stream) % 4:
        raise ValueError(f"expected {count} numbers, the histogram has {counts.sum():.0f}")
    if len(counts) == 1:
        return np.full(count, int(low), np.int32)
    decoder = constriction.stream.queue.RangeDecoder(stream.view("<u4").astype(np.uint32))
    try:
        symbols = decoder.decode(_model(counts), count)
    except AssertionError as error:  # so it reports a stream that the model could not have made
        raise ValueError("the stream is damaged") from error
    return np.asarray(symbols + int(low), np.int32)


def _model(counts: NDArray[np.integer] | NDArray[np.float64]) -> constriction.stream.model.Categorical:
    return constriction.stream.model.Categorical(counts / counts.sum(), perfect=False)
