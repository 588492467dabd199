"""What must hold of the operations whatever the numbers: lists of tiles, orders, sums, whole pictures."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor

from anchorfield.cuda_ext.adam import adam_step
from anchorfield.cuda_ext.anchors import Decoded, Heads, decode_anchors
from anchorfield.cuda_ext.binning import Bins, bin_tiles
from anchorfield.cuda_ext.compositing import composite, contributions
from anchorfield.cuda_ext.langevin import perturb_means
from anchorfield.cuda_ext.projection import Projected, project
from anchorfield.cuda_ext.spherical_harmonics import spherical_harmonics
from anchorfield.cuda_ext.ssim import ssim
from reference import compositing as plain_compositing
from reference import made_scenes
from reference import projection as plain_projection
from reference import spherical_harmonics as plain_spherical_harmonics
from reference.binning import BLOCK, least_exponents, touched_blocks
from reference.compositing import rounding_of_exponents
from reference.made_scenes import CAMERA, CHARACTERS, ROUNDING, float32_exact

SHAPE = WIDTH, HEIGHT = CAMERA["width"], CAMERA["height"]
TILE = 16
MANY = 5000  # Gaussians, enough for several threads
BLOCKS = TILE // BLOCK
pytestmark = pytest.mark.usefixtures("one_torch_thread")

EACH_DTYPE = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
EACH_CHARACTER = pytest.mark.parametrize("character", CHARACTERS)


def splats(character: str, dtype: torch.dtype = torch.float32, count: int = 60, seed: int = 0) -> Projected:
    """Made 2D Gaussians as the product's `project` gives them."""
    return Projected(*(value.to(dtype) for value in made_scenes.splats(character, count, seed)))


def unsafe_splats(character: str, dtype: torch.dtype, seed: int, count: int = 60) -> Projected:
    """The same without regard to thresholds."""
    flat = plain_projection.project(**made_scenes.gaussians(character, count, seed), **CAMERA)
    return Projected(*(value.to(dtype) for value in flat))


def drawn(flat: Projected, features: Tensor, background: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Image and alpha by the product."""
    bins = bin_tiles(flat, *SHAPE)
    arguments = flat.means2d, flat.conics, flat.opacities, features, bins, *SHAPE
    return composite(*arguments, background=background)


# ---------------------------------------------------------------------------------------------------------- binning
def listed_blocks(bins: Bins, count: int) -> Tensor:
    """The lists as [N, block rows, block columns] bool, counting the blocks that overhang the image."""
    columns, rows = -(-WIDTH // TILE), -(-HEIGHT // TILE)
    tiles = torch.arange(columns * rows).repeat_interleave(bins.tile_offsets.long().diff())
    bits = (bins.blocks.long()[:, None] >> torch.arange(BLOCKS * BLOCKS)) & 1
    listed = torch.zeros(count, rows, columns, BLOCKS, BLOCKS, dtype=torch.bool)
    listed[bins.gaussians.long(), tiles // columns, tiles % columns] = bits.bool().unflatten(1, (BLOCKS, BLOCKS))
    return listed.transpose(2, 3).reshape(count, rows * BLOCKS, columns * BLOCKS)


@EACH_DTYPE
@given(character=st.sampled_from(list(CHARACTERS)), seed=st.integers(0, 2**31))
def test_lists_hold_every_block_that_is_touched_and_no_other(dtype: torch.dtype, character: str, seed: int) -> None:
    flat = unsafe_splats(character, dtype, seed)
    rounding = ROUNDING * torch.finfo(dtype).eps / torch.finfo(torch.float32).eps
    exact = [value.double() for value in (flat.means2d, flat.conics, flat.opacities)]
    touched = touched_blocks(*exact, *SHAPE, rounding=rounding)
    listed = listed_blocks(bin_tiles(flat, *SHAPE), len(flat.depths))
    listed = listed[:, : touched.shape[1], : touched.shape[2]]
    assert not (touched & ~listed).any(), f"{int((touched & ~listed).sum())} touched blocks are missing"
    # The rectangle of pixel centres may overhang the image. Extra blocks cost time and nothing else: an ellipse that is
    # larger by a thousandth of alpha, for safety, is no waste.
    padded = [math.ceil(size / BLOCK) * BLOCK for size in SHAPE]
    slack = rounding_of_exponents(*exact[:2], *padded, rounding)
    slack = slack.unflatten(1, (-1, BLOCK)).unflatten(3, (-1, BLOCK)).amax((2, 4))
    level = (255 * exact[2]).log()[:, None, None]
    needless = listed & (least_exponents(*exact[:2], *SHAPE) > level + slack + 1e-3)
    assert not needless.any(), f"{int(needless.sum())} of {int(listed.sum())} listed blocks are out of reach"


@EACH_DTYPE
@EACH_CHARACTER
def test_lists_are_ordered_by_depth_then_by_index(character: str, dtype: torch.dtype) -> None:
    flat = unsafe_splats(character, dtype, seed=1, count=MANY)
    flat = flat._replace(depths=(flat.depths * 100).ceil() / 100)  # many equal depths
    bins = bin_tiles(flat, *SHAPE)
    assert int(bins.tile_offsets[-1]) == len(bins.gaussians) == len(bins.blocks) > 0
    for begin, end in zip(bins.tile_offsets[:-1].tolist(), bins.tile_offsets[1:].tolist(), strict=True):
        ids = bins.gaussians[begin:end].tolist()
        keys = [(float(flat.depths[i]), i) for i in ids]
        assert keys == sorted(set(keys))
    assert all(bins.blocks.tolist()), "a pair without blocks is listed"


def test_float64_depths_are_ordered_by_all_their_digits() -> None:
    flat = unsafe_splats("opaque", torch.float64, seed=1)
    steps = torch.arange(len(flat.depths), 0, -1, dtype=torch.float64)  # last is nearest
    flat = flat._replace(depths=torch.where(flat.depths > 0, 1 + 1e-12 * steps, 0))
    assert bin_tiles(flat, *SHAPE).order.tolist() == (flat.depths > 0).nonzero()[:, 0].tolist()[::-1]


@EACH_CHARACTER
def test_lists_of_many_are_the_lists_of_parts(character: str) -> None:
    flat = unsafe_splats(character, torch.float32, seed=3, count=MANY)
    parts = [Projected(*part) for part in zip(*(value.split(500) for value in flat), strict=True)]
    expected = torch.cat([listed_blocks(bin_tiles(part, *SHAPE), len(part.depths)) for part in parts])
    assert torch.equal(listed_blocks(bin_tiles(flat, *SHAPE), MANY), expected)


@EACH_CHARACTER
def test_slots_number_the_pairs_of_each_gaussian(character: str) -> None:
    flat = unsafe_splats(character, torch.float32, seed=2, count=MANY)
    bins = bin_tiles(flat, *SHAPE)
    visible = (flat.opacities > 0).nonzero()[:, 0]
    assert bins.order.tolist() == visible[flat.depths[visible].argsort(stable=True)].tolist()
    counts = torch.bincount(bins.gaussians.long(), minlength=len(flat.depths))
    assert torch.equal(bins.order_offsets.long().diff(), counts[bins.order.long()])
    assert torch.equal(bins.slots.long().sort().values, torch.arange(len(bins.slots)))
    owner = torch.searchsorted(bins.order_offsets.long()[1:], bins.slots.long(), right=True)
    assert torch.equal(bins.order.long()[owner], bins.gaussians.long())


# ------------------------------------------------------------------------------------------------------ compositing
@EACH_CHARACTER
def test_the_order_of_storage_does_not_matter(character: str) -> None:
    flat, features = splats(character), made_scenes.features(60, 3).float()
    shuffled = torch.randperm(60, generator=made_scenes.generator(1))
    image, alpha = drawn(flat, features)
    again, alpha_again = drawn(Projected(*(value[shuffled] for value in flat)), features[shuffled])
    assert torch.equal(image, again)
    assert torch.equal(alpha, alpha_again)


@EACH_CHARACTER
def test_contributions_add_up_to_alpha(character: str) -> None:
    flat = splats(character, torch.float64)
    bins = bin_tiles(flat, *SHAPE)
    total = contributions(flat.means2d, flat.conics, flat.opacities, bins, *SHAPE)
    _, alpha = drawn(flat, torch.zeros(60, 1, dtype=torch.float64))
    # each pixel adds at most 60 terms of at most 1, and so does each Gaussian over the pixels
    assert float((total.sum() - alpha.sum()).abs()) <= 60 * WIDTH * HEIGHT * torch.finfo(torch.float64).eps
    assert (total >= 0).all()


def test_channels_are_independent() -> None:
    flat, features = splats("mixed"), made_scenes.features(60, 7).float()
    background = torch.linspace(0, 1, 7)
    image, alpha = drawn(flat, features, background)
    for part in (slice(0, 1), slice(1, 4), slice(4, 7)):
        of_part, same_alpha = drawn(flat, features[:, part].contiguous(), background[part].contiguous())
        torch.testing.assert_close(of_part, image[..., part])
        assert torch.equal(same_alpha, alpha)


@EACH_DTYPE
def test_the_gaussian_that_stops_a_pixel_is_still_added(dtype: torch.dtype) -> None:
    count = 4
    flat = Projected(
        means2d=torch.full((count, 2), 1.5, dtype=dtype),
        conics=torch.tensor([[1.0, 0.0, 1.0]], dtype=dtype).repeat(count, 1),
        depths=torch.arange(1.0, 1.0 + count, dtype=dtype),
        opacities=torch.tensor([0.999, 0.98, 0.9, 0.8], dtype=dtype),
        extents=torch.full((count, 2), 3.4, dtype=dtype),
    )
    image, alpha = drawn(flat, torch.eye(count, dtype=dtype))
    assert image[1, 1].tolist() == pytest.approx([0.99, 0.0098, 0.00018, 0], rel=1e-4)
    assert float(alpha[1, 1]) == pytest.approx(0.99998)


def test_nothing_gives_the_background() -> None:
    flat = Projected(*(value * 0 for value in splats("mixed")))
    background = torch.tensor([0.25, 0.5, 1.0])
    image, alpha = drawn(flat, made_scenes.features(60, 3).float(), background)
    assert torch.equal(image, background.expand(HEIGHT, WIDTH, 3))
    assert not alpha.any()


@EACH_CHARACTER
def test_absgrad_is_the_sum_over_pixels_of_absolute_gradients(character: str) -> None:
    features, background = made_scenes.features(60, 3), torch.tensor([0.25, 0.5, 1.0], dtype=torch.float64)
    g = made_scenes.generator(4)
    v_image = float32_exact(torch.randn(HEIGHT, WIDTH, 3, generator=g, dtype=torch.float64))
    v_alpha = float32_exact(torch.randn(HEIGHT, WIDTH, generator=g, dtype=torch.float64))

    def plain(dtype: torch.dtype) -> Tensor:
        flat = splats(character, dtype)
        order = flat.depths.argsort(stable=True)
        tensors = (flat.means2d, flat.conics, flat.opacities, features.to(dtype), order, *SHAPE, background.to(dtype))
        return plain_compositing.absgrad(v_image.to(dtype), v_alpha.to(dtype), *tensors)

    flat = splats(character)
    means2d = flat.means2d.clone().requires_grad_()
    probe = torch.zeros_like(means2d, requires_grad=True)
    arguments = means2d, flat.conics, flat.opacities, features.float(), bin_tiles(flat, *SHAPE), *SHAPE
    outputs = composite(*arguments, background=background.float(), absgrad_probe=probe)
    v_means2d, v_probe = torch.autograd.grad(outputs, [means2d, probe], [v_image.float(), v_alpha.float()])
    exact = plain(torch.float64)
    worst = max(2 * float((plain(torch.float32).double() - exact).norm()), 4 * 2.0**-23 * float(exact.norm()))
    assert float((v_probe.double() - exact).norm()) <= worst
    assert (v_probe >= v_means2d.abs() * (1 - 2.0**-20)).all()


# -------------------------------------------------------------------------------------------------------- harmonics
@pytest.mark.parametrize("degree", range(4))
def test_colours_of_more_than_the_caches_hold_are_those_of_parts(degree: int) -> None:
    count, part = 125_017, 1009  # whose gradients go past the caches where they are one list
    g = made_scenes.generator(5)
    sh, means, v_colours = (torch.randn(count, *shape, generator=g) for shape in ((16, 3), (3,), (3,)))
    visible = torch.rand(count, generator=g) < 0.7
    whole, parts = [tuple(tensor.clone().requires_grad_() for tensor in (sh, means)) for _ in range(2)]
    colours = spherical_harmonics(*whole, torch.zeros(3), degree, visible)
    colours.backward(v_colours)
    pieces = [
        spherical_harmonics(*(tensor[begin : begin + part] for tensor in parts), torch.zeros(3), degree, seen)
        for begin, seen in zip(range(0, count, part), visible.split(part), strict=True)
    ]
    torch.cat(pieces).backward(v_colours)
    assert torch.equal(colours, torch.cat(pieces))
    for tensor, same in zip(whole, parts, strict=True):
        assert tensor.grad is not None
        assert same.grad is not None
        assert torch.equal(tensor.grad, same.grad)
    assert not whole[0].grad[~visible].any()  # type: ignore[index]


# ---------------------------------------------------------------------------------------------------------- anchors
def made_anchors(count: int, k: int = 4, h: int = 16, d: int = 7) -> tuple[dict[str, Tensor], Heads]:
    """Anchors and heads, leaves that want gradients."""
    g = made_scenes.generator(1)

    def normal(*shape: int) -> Tensor:
        return (0.5 * torch.randn(*shape, generator=g)).requires_grad_()

    weights = [normal(3 * h, d + 4), normal(3 * h), normal(3, h, h), normal(3, h)]
    for outputs in (k, 7 * k, 3 * k):
        weights += [normal(outputs, h), normal(outputs)]
    inputs = {"anchors": normal(count, 3), "features": normal(count, d), "offsets": normal(count, k, 3)}
    return inputs | {"log_scales": normal(count, 6), "centre": torch.ones(3)}, Heads(*weights)


def every(count: int, step: int = 1) -> Tensor:
    return torch.arange(0, count, step, dtype=torch.int32)


def decoding_gradients(decoded: Decoded, inputs: dict[str, Tensor], heads: Heads) -> list[Tensor]:
    """Of the sum of all squares: to features, offsets, scales, then to the weights."""
    total = sum((value**2).sum() for value in decoded[:5])
    assert isinstance(total, Tensor)
    leaves = [inputs[name] for name in ("features", "offsets", "log_scales")] + [w for w in heads if w is not None]
    return list(torch.autograd.grad(total, leaves))


def test_many_anchors_decode_as_their_parts_do() -> None:
    inputs, heads = made_anchors(MANY)
    rows = every(MANY, 2)
    whole = decode_anchors(**inputs, heads=heads, rows=rows)
    parts = [decode_anchors(**inputs, heads=heads, rows=part) for part in rows.split(301)]
    for name, value in whole._asdict().items():
        assert torch.equal(value, torch.cat([getattr(part, name) for part in parts])), name
    gradients = decoding_gradients(whole, inputs, heads)
    of_parts = [sum(each) for each in zip(*(decoding_gradients(p, inputs, heads) for p in parts), strict=True)]
    for got, expected in zip(gradients[:3], of_parts[:3], strict=True):  # every anchor is in one part
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
        assert not got[1::2].any()
    for got, expected in zip(gradients[3:], of_parts[3:], strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def test_no_rows_decode_to_nothing() -> None:
    inputs, heads = made_anchors(5)
    decoded = decode_anchors(**inputs, heads=heads, rows=every(0))
    assert [len(value) for value in decoded] == [0] * 6
    assert not any(gradient.any() for gradient in decoding_gradients(decoded, inputs, heads))


def test_only_gaussians_above_zero_are_kept() -> None:
    inputs, heads = made_anchors(200)
    decoded = decode_anchors(**inputs, heads=heads, rows=every(200))
    assert 0 < len(decoded.means) < 800
    assert (decoded.opacities > 0).all()
    fade = torch.linspace(-1, 1, 200).clamp(0)
    faded = decode_anchors(**inputs, heads=heads, rows=every(200), fade=fade)
    left = decoded.origin >= 100 * 4  # before, the fade is zero
    assert torch.equal(faded.origin, decoded.origin[left])
    torch.testing.assert_close(faded.opacities, decoded.opacities[left] * fade[faded.origin // 4])


@EACH_DTYPE
@pytest.mark.parametrize("logit", [1e-30, 1e-12, 1e-5, 0.3, 0.6249, 0.6251, 2.0, 100.0])
def test_faint_opacities_keep_their_digits(logit: float, dtype: torch.dtype) -> None:
    inputs, heads = made_anchors(1)
    heads = heads._replace(opacity=torch.zeros_like(heads.opacity), opacity_bias=torch.full((4,), logit))
    heads = Heads(*(w if w is None else w.detach().to(dtype) for w in heads))
    inputs = {name: value.detach().to(dtype) for name, value in inputs.items()}
    got = decode_anchors(**inputs, heads=heads, rows=every(1)).opacities
    expected = heads.opacity_bias.double().tanh()
    assert ((got.double() - expected).abs() <= 2 * torch.finfo(dtype).eps * expected).all()


def test_an_anchor_in_the_camera_has_finite_gaussians() -> None:
    inputs, heads = made_anchors(20)
    inputs["centre"] = inputs["anchors"][3].detach().clone()
    decoded = decode_anchors(**inputs, heads=heads, rows=every(20))
    assert all(torch.isfinite(value).all() for value in decoded)
    assert all(torch.isfinite(gradient).all() for gradient in decoding_gradients(decoded, inputs, heads))


@pytest.mark.parametrize("rows", [[3, 2], [2, 2], [-1, 2], [0, 5]])
def test_rows_must_ascend_and_exist(rows: list[int]) -> None:
    inputs, heads = made_anchors(5)
    with pytest.raises(ValueError, match="rows: expected ascending numbers below 5, got"):
        decode_anchors(**inputs, heads=heads, rows=torch.tensor(rows, dtype=torch.int32))


def test_sizes_beyond_the_limits_are_refused() -> None:
    for sizes in ({"k": 17}, {"h": 24}, {"h": 80}, {"d": 129}):
        inputs, heads = made_anchors(5, **sizes)
        with pytest.raises(ValueError, match=r"(?s)expected D <= 128.*got"):
            decode_anchors(**inputs, heads=heads, rows=every(5))
    inputs, heads = made_anchors(5)
    with pytest.raises(ValueError, match="expected both or neither"):
        decode_anchors(**inputs, heads=heads._replace(middle_bias=None), rows=every(5))


# ------------------------------------------------------------------------------------------------------------ Adam
def test_adam_on_all_rows_is_dense_adam() -> None:
    g = made_scenes.generator(5)
    results = []
    start = [torch.randn(50, 4, generator=g) for _ in range(3)] + [torch.rand(50, 4, generator=g)]
    for rows in (None, torch.ones(50, dtype=torch.bool)):
        parameter, gradient, moment1, moment2 = (value.clone() for value in start)
        adam_step([parameter], [gradient], [moment1], [moment2], lr=[0.01], step=2, rows=rows)
        results.append((parameter, moment1, moment2))
    assert all(torch.equal(dense, sparse) for dense, sparse in zip(*results, strict=True))


def test_adam_does_not_touch_other_rows() -> None:
    g = made_scenes.generator(6)
    before = [torch.randn(50, 4, generator=g) for _ in range(3)] + [torch.rand(50, 4, generator=g)]
    rows = torch.rand(50, generator=g) < 0.5
    after = [value.clone() for value in before]
    adam_step(*[[value] for value in after], lr=[0.01], step=2, rows=rows)
    for old, new in zip(before, after, strict=True):
        assert torch.equal(old[~rows], new[~rows])
    assert (before[0][rows] != after[0][rows]).any(1).all()


# ----------------------------------------------------------------------------------------------------------- noise
def drawn_normals(count: int, seed: int) -> Tensor:
    """What round Gaussians of scale 1 and opacity 0 at the origin are moved by."""
    means, quats = torch.zeros(count, 3), torch.tensor([1.0, 0, 0, 0]).repeat(count, 1)
    perturb_means(means, quats, torch.zeros(count, 3), torch.full((count,), -80.0), 1 + math.exp(-0.5), seed)
    return means


def test_noise_is_standard_normal_and_uncorrelated() -> None:
    count = 40_000
    noise = torch.cat([drawn_normals(count, 1), drawn_normals(count, 2)], 1).double()
    # five standard deviations of each estimate; 1.63 / sqrt(n) is the 1 % point of Kolmogorov and Smirnov
    assert float(noise.mean(0).abs().max()) < 5 / math.sqrt(count)
    assert float((noise.var(0) - 1).abs().max()) < 5 * math.sqrt(2 / count)
    assert float(((noise**4).mean(0) - 3).abs().max()) < 5 * math.sqrt(96 / count)
    assert float((noise.T.corrcoef() - torch.eye(6)).abs().max()) < 5 / math.sqrt(count)
    assert float((noise[1:] * noise[:-1]).mean(0).abs().max()) < 5 / math.sqrt(count)
    for column in noise.T:
        assert kstest(column.numpy(), "norm").statistic < 1.63 / math.sqrt(count)


def test_noise_depends_on_seed_and_index_alone() -> None:
    few, many = drawn_normals(100, 5), drawn_normals(5000, 5)
    assert torch.equal(few, many[:100])
    assert not torch.equal(few, drawn_normals(100, 6))
    assert not torch.equal(few, drawn_normals(100, 5 + 2**40)), "the seed's upper half counts"


# ------------------------------------------------------------------------------------------------------------ SSIM
@EACH_DTYPE
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 40, 3), (11, 2, 4), (50, 17, 2)])
def test_an_image_is_similar_to_itself(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    image = torch.rand(shape, generator=made_scenes.generator(12), dtype=dtype).requires_grad_()
    value = ssim(image, image.detach())
    (gradient,) = torch.autograd.grad(value, image)
    eps = torch.finfo(dtype).eps
    # both factors are quotients of equals, up to rounding of moments of at most 1 over C2 = 9e-4; so is their slope
    assert float(value.detach()) == pytest.approx(1, abs=eps / 9e-4)
    assert float(gradient.abs().sum()) <= 100 * eps / 9e-4


# ---------------------------------------------------------------------------------------------------- whole pictures
def sh_of(count: int) -> Tensor:
    """Coefficients of degree 3 that give colours around 0.5."""
    return float32_exact(made_scenes.uniform(made_scenes.generator(7), -0.3, 0.3, count, 16, 3))


def centre_of(world_to_camera: Tensor) -> Tensor:
    return -world_to_camera[:3, :3].T @ world_to_camera[:3, 3]


def picture(made: dict[str, Tensor], sh: Tensor, antialiased: bool = False) -> Tensor:
    """The product's picture of made Gaussians, on black."""
    flat = project(**made, **CAMERA, antialiased=antialiased)
    colours = spherical_harmonics(sh, made["means"], centre_of(made["world_to_camera"]), 3, flat.opacities > 0)
    bins = bin_tiles(Projected(*(value.detach() for value in flat)), *SHAPE)
    return composite(flat.means2d, flat.conics, flat.opacities, colours, bins, *SHAPE)[0]


def plain_picture(made: dict[str, Tensor], sh: Tensor, antialiased: bool = False) -> Tensor:
    """The reference's picture."""
    flat = plain_projection.project(**made, **CAMERA, antialiased=antialiased)
    centre = centre_of(made["world_to_camera"])
    colours = plain_spherical_harmonics.spherical_harmonics(sh, made["means"], centre, 3, flat.opacities > 0)
    order = flat.depths.argsort(stable=True)
    return plain_compositing.composite(flat.means2d, flat.conics, flat.opacities, colours, order, *SHAPE)[0]


@pytest.mark.parametrize("antialiased", [False, True])
@EACH_CHARACTER
def test_pictures_are_above_90_db(character: str, antialiased: bool) -> None:
    made, sh = made_scenes.gaussians(character, 120, seed=8), sh_of(120)
    expected = plain_picture(made, sh, antialiased)
    assert float(expected.amax()) > 0.02
    image = picture({name: value.float() for name, value in made.items()}, sh.float(), antialiased)
    mse = float((image.double() - expected).square().mean())
    assert -10 * math.log10(mse) > 90  # of a peak of 1


def twisted(world_to_camera: Tensor, twist: Tensor) -> Tensor:
    """The pose after a small motion of the camera, (rotation, translation) [6]."""
    zero = torch.zeros((), dtype=twist.dtype)
    x, y, z, a, b, c = twist.unbind()
    rows = [(zero, -z, y, a), (z, zero, -x, b), (-y, x, zero, c), (zero,) * 4]
    return torch.linalg.matrix_exp(torch.stack([torch.stack(row) for row in rows])) @ world_to_camera


def test_the_pose_gradient_is_that_of_finite_differences() -> None:
    """Through projection, colours and compositing; Gaussians so wide that no pixel crosses a threshold."""
    made = made_scenes.gaussians("mixed", 6, seed=9)
    made["opacities"] = 0.2 + 0.4 * made["opacities"]
    made["scales"] = made["scales"] / made["scales"].amax(1, keepdim=True)
    made["scales"] *= 1.5 * (made["means"] - centre_of(made["world_to_camera"])).norm(dim=1)[:, None]
    sh = sh_of(6) * 0.3
    weights = made_scenes.uniform(made_scenes.generator(10), -1, 1, HEIGHT, WIDTH, 3)

    def loss(twist: Tensor) -> Tensor:
        seen = {**made, "world_to_camera": twisted(made["world_to_camera"], twist)}
        return (picture(seen, sh) * weights).sum()

    at_rest = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(at_rest), at_rest)
    step = 1e-5
    steps = step * torch.eye(6, dtype=torch.float64)
    differences = torch.stack([(loss(s) - loss(-s)) / (2 * step) for s in steps])
    torch.testing.assert_close(gradient, differences, rtol=1e-6, atol=1e-6 * float(gradient.norm()))
