"""Whole numbers in few bytes: what comes back, what it costs, what damage leads to."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anchorfield.scenes.entropy_coding import coded, decoded


@given(st.lists(st.integers(-300, 300), max_size=200))
def test_what_comes_back_is_what_went_in(numbers: list[int]) -> None:
    given_numbers = np.array(numbers, np.int64)
    assert np.array_equal(decoded(*coded(given_numbers), len(numbers)), given_numbers)


def test_it_costs_what_the_frequencies_allow() -> None:
    numbers = np.random.default_rng(0).geometric(0.8, 200_000) - 1
    shares = np.bincount(numbers) / len(numbers)
    entropy = -(shares[shares > 0] * np.log2(shares[shares > 0])).sum() * len(numbers) / 8
    stream, _ = coded(numbers)
    assert entropy <= len(stream) < 1.002 * entropy + 8


def test_damage_ends_in_numbers_or_in_words() -> None:
    random = np.random.default_rng(0)
    stream, histogram = coded(random.geometric(0.6, 500))
    for _ in range(200):
        bad, wrong = stream.copy(), histogram.copy()
        if random.random() < 0.5:
            bad[random.integers(len(bad))] ^= 1 << random.integers(8)
        else:
            wrong.view(np.uint8)[random.integers(4 * len(wrong))] ^= 1 << random.integers(8)
        with contextlib.suppress(ValueError):
            assert len(decoded(bad, wrong, 500)) == 500


def test_numbers_that_are_too_far_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="0 to 65536"):
        coded(np.array([0, 65536]))
