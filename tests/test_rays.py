"""What must hold of compositing along rays whatever the numbers."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from operations.fields import draw_composite_rays, with_starts
from torch import Tensor

from anchorfield.cuda_ext.rays import TRANSMITTANCE_MIN, composite_rays, distortion
from reference.made_scenes import generator, uniform

pytestmark = pytest.mark.usefixtures("one_torch_thread")
EACH_DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def ray(optical: list[float], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """One ray with a channel of ones."""
    x = torch.tensor(optical, dtype=dtype)
    return composite_rays(x, torch.ones(len(x), 1, dtype=dtype), torch.tensor([0, len(x)], dtype=torch.int32))


@EACH_DTYPE
@given(seed=st.integers(0, 2**31), kind=st.sampled_from(["mixed", "thick", "faint"]))
def test_weights_and_what_passes_add_up_to_one(dtype: torch.dtype, seed: int, kind: str) -> None:
    inputs = with_starts(**draw_composite_rays(f"{kind} 2", seed % 97, 40))
    values = torch.ones_like(inputs["values"]).to(dtype)
    sums, transmittance, weights = composite_rays(inputs["optical"].to(dtype), values, inputs["starts"])
    rounding = 200 * torch.finfo(dtype).eps  # the most samples of a ray, and what the exponentials lose
    assert float((sums[:, 0] + transmittance - 1).abs().max()) < rounding
    assert float(weights.min()) >= 0


@EACH_DTYPE
def test_little_absorption_is_not_lost(dtype: torch.dtype) -> None:
    weights = ray([1e-9, 3e-12], dtype)[2]
    torch.testing.assert_close(weights, torch.tensor([1e-9, 3e-12], dtype=dtype), rtol=1e-6, atol=0)


@EACH_DTYPE
def test_an_opaque_ray_hides_what_is_behind(dtype: torch.dtype) -> None:
    """The sample that makes it opaque still counts; nothing behind it has a weight or a gradient."""
    limit = -math.log(TRANSMITTANCE_MIN)
    x = torch.tensor([0.999 * limit, 0.5, 1.0, 1e30], dtype=dtype, requires_grad=True)
    values = torch.ones(4, 1, dtype=dtype, requires_grad=True)
    sums, transmittance, weights = composite_rays(x, values, torch.tensor([0, 4], dtype=torch.int32))
    assert (weights > 0).tolist() == [True, True, False, False]
    assert transmittance.item() == pytest.approx(math.exp(-0.999 * limit - 0.5), rel=1e-5)
    assert (ray([1.001 * limit, 0.5], dtype)[2] > 0).tolist() == [True, False]
    (2 * sums.sum() + transmittance.sum() + (weights * torch.arange(4)).sum()).backward()
    assert x.grad is not None
    assert values.grad is not None
    assert (x.grad != 0).tolist() == [True, True, False, False]
    assert torch.equal(values.grad[:, 0], 2 * weights)


def test_infinite_density_is_a_wall() -> None:
    sums, transmittance, weights = ray([0.5, math.inf, 1.0])
    assert weights.tolist() == pytest.approx([1 - math.exp(-0.5), math.exp(-0.5), 0])
    assert float(sums) == pytest.approx(1)
    assert float(transmittance) == 0


def test_a_sample_without_density_has_a_gradient() -> None:
    """Else a field that is empty somewhere would stay so."""
    x = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    sums, _, _ = composite_rays(x, torch.ones(3, 1, dtype=torch.float64), torch.tensor([0, 3], dtype=torch.int32))
    sums.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("starts", "expected"),
    [
        ([0, 2, 1, 3], "ascending numbers up to 3, got 1 for ray 2"),
        ([0, 4], "ascending numbers up to 3, got 4"),
        ([1, 3], "0 to 3, the number of samples, got 1 to 3"),
        ([0, 2], "0 to 3, the number of samples, got 0 to 2"),
        ([-1, 3], "ascending numbers up to 3, got -1"),
        ([], "one number more than there are rays, got none"),
    ],
)
def test_starts_that_make_no_sense_are_refused(starts: list[int], expected: str) -> None:
    given_starts = torch.tensor(starts, dtype=torch.int32)
    x = torch.ones(3)
    with pytest.raises(ValueError, match=f"starts: expected {expected}"):
        composite_rays(x, torch.ones(3, 1), given_starts)
    with pytest.raises(ValueError, match=f"starts: expected {expected}"):
        distortion(x, x, x, given_starts)


@pytest.mark.parametrize("channels", [0, 33])
def test_too_many_channels_are_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=f"values: expected 1 to 32 channels, got {channels}"):
        composite_rays(torch.ones(3), torch.ones(3, channels), torch.tensor([0, 3], dtype=torch.int32))


@given(shift=st.floats(-1e3, 1e3), scale=st.floats(0.1, 10))
def test_distortion_moves_along_and_scales(shift: float, scale: float) -> None:
    g = generator(1)
    weights, t0 = uniform(g, 0, 0.1, 30), uniform(g, 0.01, 0.1, 30).cumsum(0)
    t1, starts = t0 + 0.01, torch.tensor([0, 10, 10, 30], dtype=torch.int32)
    expected = scale * distortion(weights, t0, t1, starts)
    got = distortion(weights, t0 * scale + shift, t1 * scale + shift, starts)
    torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-12)
    assert float(got[1]) == 0


def test_distortion_of_one_sample_is_a_third_of_its_length() -> None:
    starts = torch.tensor([0, 1], dtype=torch.int32)
    got = distortion(torch.tensor([0.5]), torch.tensor([2.0]), torch.tensor([2.6]), starts)
    assert float(got) == pytest.approx(0.25 * 0.6 / 3)


def test_second_derivatives_are_refused() -> None:
    x = torch.full((2,), 0.3, requires_grad=True)
    starts = torch.tensor([0, 2], dtype=torch.int32)
    for result in (composite_rays(x, torch.ones(2, 1), starts)[0], distortion(x, x.detach(), x.detach() + 1, starts)):
        (slope,) = torch.autograd.grad(result.sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="no autograd formula"):
            slope.sum().backward()
