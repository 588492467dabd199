"""The references themselves, against other people's code, known values and hand computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from scipy.special import sph_harm_y
from skimage.metrics import structural_similarity

from reference import made_scenes
from reference.adam import adam_step
from reference.binning import least_exponents, touched_blocks
from reference.compositing import absgrad, blend_weights, composite, contributions, exponents
from reference.langevin import normals, perturb_means, philox
from reference.projection import Projected, project, rotations
from reference.spherical_harmonics import basis, spherical_harmonics
from reference.ssim import ssim, ssim_map

pytestmark = pytest.mark.usefixtures("one_torch_thread")

DOUBLE = torch.float64


def test_rotations_are_those_of_scipy() -> None:
    quats = torch.randn(20, 4, dtype=DOUBLE, generator=made_scenes.generator(1))
    expected = Rotation.from_quat(quats.numpy(), scalar_first=True).as_matrix()
    np.testing.assert_allclose(rotations(quats).numpy(), expected, atol=1e-14)


def test_basis_is_that_of_scipy() -> None:
    directions = torch.randn(50, 3, dtype=DOUBLE, generator=made_scenes.generator(2))
    directions /= directions.norm(dim=1, keepdim=True)
    x, y, z = directions.numpy().T
    theta, phi = np.arccos(z), np.arctan2(y, x)
    columns = []
    for degree in range(4):
        for order in range(-degree, degree + 1):
            value = sph_harm_y(degree, abs(order), theta, phi)
            # the real form, with the sign (-1)^m of Condon and Shortley kept
            part = value.real if order >= 0 else value.imag
            columns.append(part * (math.sqrt(2) if order else 1))
    np.testing.assert_allclose(basis(directions).numpy(), np.stack(columns, 1), atol=1e-14)


def test_colours_are_clamped_below_and_zero_where_not_visible() -> None:
    sh = torch.tensor([[[1.0, -3.0, 0.0]], [[1.0, 1.0, 1.0]]], dtype=DOUBLE)
    means = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 2.0]], dtype=DOUBLE)
    colours = spherical_harmonics(sh, means, torch.zeros(3, dtype=DOUBLE), 0, torch.tensor([True, False]))
    expected = torch.tensor([[0.5 + 0.28209479177387814, 0.0, 0.5], [0.0, 0.0, 0.0]], dtype=DOUBLE)
    torch.testing.assert_close(colours, expected)


def test_ssim_is_that_of_skimage_away_from_the_border() -> None:
    g = made_scenes.generator(3)
    image, target = (made_scenes.uniform(g, 0, 1, 33, 27, 3) for _ in range(2))
    target = 0.7 * image + 0.3 * target
    _, expected = structural_similarity(
        image.numpy(),
        target.numpy(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=2,
        full=True,
    )
    inner = slice(5, -5)
    np.testing.assert_allclose(ssim_map(image, target)[inner, inner].numpy(), expected[inner, inner], atol=1e-12)
    assert float(ssim(image, image)) == pytest.approx(1)


def test_adam_is_that_of_torch() -> None:
    g = made_scenes.generator(4)
    start = torch.randn(7, 3, dtype=DOUBLE, generator=g)
    theirs = start.clone().requires_grad_()
    optimiser = torch.optim.Adam([theirs], lr=0.03, eps=1e-15)
    ours, m1, m2 = start, torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, 6):
        theirs.grad = torch.randn(7, 3, dtype=DOUBLE, generator=g)
        optimiser.step()
        ours, m1, m2 = adam_step(ours, theirs.grad, m1, m2, lr=0.03, step=step)
    torch.testing.assert_close(ours, theirs.detach())


def test_adam_leaves_other_rows_alone_and_takes_a_rate_per_column() -> None:
    ones = torch.ones(2, 2, dtype=DOUBLE)
    rates = torch.tensor([0.1, 0.5], dtype=DOUBLE)
    zero = torch.zeros_like(ones)
    p, m1, _ = adam_step(ones, ones, zero, zero, lr=rates, step=1, rows=torch.tensor([False, True]))
    torch.testing.assert_close(p, torch.tensor([[1.0, 1.0], [0.9, 0.5]], dtype=DOUBLE))
    torch.testing.assert_close(m1, torch.tensor([[0.0, 0.0], [0.1, 0.1]], dtype=DOUBLE))


def test_noise_follows_the_shape_and_spares_the_opaque() -> None:
    means, quats = torch.zeros(2, 3, dtype=DOUBLE), torch.tensor([[1.0, 0, 0, 0]] * 2, dtype=DOUBLE)
    log_scales = torch.tensor([[1.0, 2.0, 3.0]] * 2, dtype=DOUBLE).log()
    logits = torch.logit(torch.tensor([0.005, 0.9], dtype=DOUBLE))
    moved = perturb_means(means, quats, log_scales, logits, 2.0, seed=7)
    noise = normals(2, 7, means)
    torch.testing.assert_close(moved[0], torch.tensor([1.0, 4.0, 9.0], dtype=DOUBLE) * noise[0])  # sigmoid(0) * 2 = 1
    assert float(moved[1].abs().max()) < 1e-30


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(counter: str, key: str, expected: str) -> None:
    """The vectors of philox4x32-10 in Random123's kat_vectors."""
    words = [[int(word, 16) for word in text.split()] for text in (counter, key, expected)]
    assert philox(words[0], words[1]) == words[2]


def three_gaussians() -> tuple[Projected, torch.Tensor]:
    """Round Gaussians whose centres lie on the pixel (1, 1), nearest last; and red, green, blue."""
    count = 3
    flat = Projected(
        means2d=torch.full((count, 2), 1.5, dtype=DOUBLE),
        conics=torch.tensor([[1.0, 0.0, 1.0]] * count, dtype=DOUBLE),
        depths=torch.tensor([3.0, 2.0, 1.0], dtype=DOUBLE),
        opacities=torch.tensor([0.8, 0.6, 0.5], dtype=DOUBLE),
        extents=torch.full((count, 2), 9.0, dtype=DOUBLE),
    )
    return flat, torch.eye(3, dtype=DOUBLE)


def test_three_gaussians_by_hand() -> None:
    flat, colours = three_gaussians()
    order = flat.depths.argsort()
    background = torch.tensor([1.0, 1.0, 1.0], dtype=DOUBLE)
    image, alpha = composite(*flat[:2], flat.opacities, colours, order, 3, 3, background)
    # at the centre: blue 0.5, green 0.5 * 0.6, red 0.5 * 0.4 * 0.8, and 0.04 of the background
    left = 0.5 * 0.4 * 0.2
    centre = torch.tensor([0.5 * 0.4 * 0.8 + left, 0.5 * 0.6 + left, 0.5 + left], dtype=DOUBLE)
    torch.testing.assert_close(image[1, 1], centre)
    assert float(alpha[1, 1]) == pytest.approx(1 - left)
    # one pixel to the side every exponent is 1/2, at the corners 1
    a, b, c = (o * math.exp(-1) for o in (0.5, 0.6, 0.8))
    assert float(alpha[0, 0]) == pytest.approx(1 - (1 - a) * (1 - b) * (1 - c))
    weight_red = (1 - 0.5 * math.exp(-0.5)) * (1 - 0.6 * math.exp(-0.5)) * 0.8 * math.exp(-0.5)
    assert float(image[0, 1, 0] - (1 - alpha[0, 1])) == pytest.approx(weight_red)
    total = contributions(*flat[:2], flat.opacities, order, 3, 3)
    assert float(total.sum()) == pytest.approx(float(alpha.sum()))


def test_the_gaussian_that_stops_a_pixel_is_still_added() -> None:
    means = torch.full((4, 2), 1.5, dtype=DOUBLE)
    conics = torch.tensor([[1.0, 0.0, 1.0]] * 4, dtype=DOUBLE)
    opacities = torch.tensor([0.999, 0.98, 0.9, 0.8], dtype=DOUBLE)  # the first is held at the cap, 0.99
    weights, left = blend_weights(means, conics, opacities, torch.arange(4), 3, 3)
    assert weights[:, 1, 1].tolist() == pytest.approx([0.99, 0.0098, 0.00018, 0])
    assert float(left[1, 1]) == pytest.approx(0.00002)


def test_absgrad_bounds_the_gradient_and_equals_it_for_one_pixel() -> None:
    flat, colours = three_gaussians()
    means = (flat.means2d + torch.tensor([[0.1, 0.2], [0.3, -0.1], [0.2, 0.4]], dtype=DOUBLE)).requires_grad_()
    v_image = torch.randn(3, 3, 3, dtype=DOUBLE, generator=made_scenes.generator(5))
    v_alpha = torch.zeros(3, 3, dtype=DOUBLE)
    one_pixel = torch.zeros(3, 3, 1, dtype=DOUBLE)
    one_pixel[0, 0] = 1
    arguments = (flat.conics, flat.opacities, colours, torch.tensor([2, 1, 0]), 3, 3)
    for mask, equal in ((torch.ones_like(one_pixel), False), (one_pixel, True)):
        image, _ = composite(means, *arguments)
        (v_means,) = torch.autograd.grad(image, means, v_image * mask)
        sums = absgrad(v_image * mask, v_alpha, means, *arguments)
        assert (sums >= v_means.abs() - 1e-15).all()
        assert torch.allclose(sums, v_means.abs(), atol=1e-15) == equal


def test_least_exponents_are_those_of_a_fine_grid() -> None:
    flat = made_scenes.splats("mixed", 20, seed=6)
    least = least_exponents(flat.means2d, flat.conics, 16, 12)
    steps = torch.linspace(0, 3, 61, dtype=DOUBLE)
    for row in range(3):
        for column in range(4):
            y, x = torch.meshgrid(row * 4 + 0.5 + steps, column * 4 + 0.5 + steps, indexing="ij")
            grid = exponents(flat.means2d[:, None, None], flat.conics[:, None, None], torch.stack([x, y], -1))
            lowest = grid.amin((1, 2))
            assert (least[:, row, column] <= lowest + 1e-12).all()
            # a parabola sampled at distance h from its minimum is at most (a + |b| + c) h^2 too high
            slack = (flat.conics[:, 0] + 2 * flat.conics[:, 1].abs() + flat.conics[:, 2]) * 0.05**2
            assert (lowest - least[:, row, column] <= slack).all()


def test_a_touched_block_has_a_small_least_exponent() -> None:
    flat = made_scenes.splats("needles", seed=7)
    shape = made_scenes.CAMERA["width"], made_scenes.CAMERA["height"]
    touched = touched_blocks(flat.means2d, flat.conics, flat.opacities, *shape)
    assert touched.any()
    level = (255 * flat.opacities).log()[:, None, None]
    assert (least_exponents(flat.means2d, flat.conics, *shape) <= level + 1e-9)[touched].all()


@pytest.mark.parametrize("antialiased", [False, True])
def test_projection_of_a_small_gaussian_is_its_linear_image(antialiased: bool) -> None:
    """The covariance on the image equals that of projected samples, as the Gaussian shrinks."""
    made = made_scenes.gaussians("mixed", 5, seed=8)
    made["scales"] = made["scales"] / made["scales"].amax(1, keepdim=True) * 1e-5
    settings = {**made_scenes.CAMERA, "dilation": 1e-13, "antialiased": antialiased}
    flat = project(**made, **settings)
    samples = torch.randn(20000, 3, dtype=DOUBLE, generator=made_scenes.generator(9))
    for n in range(5):
        world = made["means"][n] + (samples * made["scales"][n]) @ rotations(made["quats"][n : n + 1])[0].T
        seen = world @ made["world_to_camera"][:3, :3].T + made["world_to_camera"][:3, 3]
        pixels = seen[:, :2] / seen[:, 2:] * torch.tensor([61.5, 58.25]) + torch.tensor([30.25, 25.75])
        a, b, c = flat.conics[n]
        precision = torch.stack([torch.stack([a, b]), torch.stack([b, c])])
        whitened = torch.cov(pixels.T.contiguous()) @ precision
        torch.testing.assert_close(whitened, torch.eye(2, dtype=DOUBLE), atol=0.05, rtol=0)


def test_extents_are_the_box_of_the_visible_ellipse() -> None:
    flat = project(**made_scenes.gaussians("mixed", 30, seed=10), **made_scenes.CAMERA)
    angles = torch.linspace(0, 2 * math.pi, 2001, dtype=DOUBLE)
    for mean, conic, opacity, extent in zip(flat.means2d, flat.conics, flat.opacities, flat.extents, strict=True):
        if opacity == 0:
            continue
        a, b, c = conic
        unit = torch.stack([angles.cos(), angles.sin()], -1)
        form = a * unit[:, 0] ** 2 + 2 * b * unit[:, 0] * unit[:, 1] + c * unit[:, 1] ** 2
        rim = unit * (2 * (255 * opacity).log() / form).sqrt()[:, None]
        torch.testing.assert_close(rim.amax(0), extent, rtol=1e-3, atol=0)
        assert (mean + extent > 0).all()


def test_culled_gaussians_are_zero_and_pass_no_gradient() -> None:
    made = made_scenes.gaussians("outside", seed=11)
    for value in made.values():
        value.requires_grad_()
    flat = project(**made, **made_scenes.CAMERA)
    culled = flat.opacities == 0
    assert culled[:2].all()  # a quaternion of zeros, a mean in the camera
    assert 10 < int(culled.sum()) < 110
    assert all((value[culled] == 0).all() for value in flat)
    torch.autograd.backward([v.sum() for v in flat[:4]])
    for name in ("means", "quats", "scales", "opacities"):
        gradient = made[name].grad
        assert gradient is not None
        assert (gradient[culled] == 0).all()
        assert torch.isfinite(gradient).all()
    pose_gradient = made["world_to_camera"].grad
    assert pose_gradient is not None
    assert (pose_gradient[3] == 0).all()
