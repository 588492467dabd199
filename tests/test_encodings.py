"""What sets the kin of hash grids apart: choices, masks, whole numbers, beams."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from anchorfield.cuda_ext.hash_grid import HashGrid, hash_grid
from anchorfield.renderer.encodings import EntropyModel, HashEncoding, HollowEncoding, LatentEncoding, ProbedEncoding
from anchorfield.renderer.fields import PyramidField, RadianceField

pytestmark = pytest.mark.usefixtures("one_torch_thread")
LAYOUT = HashGrid(levels=4, log2_table_size=8, per_level_scale=1.6)


def random() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def places(count: int = 200) -> Tensor:
    return torch.rand(count, 3, generator=random())


# --------------------------------------------------------------------------------------------------- learned probing
def test_rows_are_chosen_by_the_largest_confidence_and_a_trained_grid_needs_no_confidences() -> None:
    layout = HashGrid(levels=4, log2_table_size=8, per_level_scale=1.6, probes=4, log2_index_size=6)
    encoding = ProbedEncoding(layout, random())
    with torch.no_grad():
        encoding.table.uniform_(-1, 1, generator=random())
        encoding.confidences.zero_()[:, 3] = 1
    before = encoding(places()).detach()
    encoding.end_step()
    assert bool((encoding.choice == 3).all())
    assert not torch.equal(encoding(places()).detach(), before)
    with torch.no_grad():
        expected = encoding(places())
        encoding.confidences.fill_(torch.nan)
        assert torch.equal(encoding(places()), expected)
    assert encoding.size_bytes() == 2 * layout.rows * layout.features + layout.index_rows * 2 // 8


def test_confidences_learn_which_row_is_right() -> None:
    """The table is fixed and only one row of each bucket holds the answer."""
    layout = HashGrid(levels=1, features=1, log2_table_size=6, base_resolution=8, probes=4, log2_index_size=8)
    encoding = ProbedEncoding(layout, random())
    with torch.no_grad():
        encoding.table.copy_((torch.arange(64) % 4 == 2).float()[:, None])
    optimiser = torch.optim.Adam([encoding.confidences], 0.05)
    for _ in range(60):
        optimiser.zero_grad()
        (encoding(places()) - 1).square().mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        encoding.end_step()
    assert float((encoding(places()) - 1).detach().abs().max()) < 1e-6


# ----------------------------------------------------------------------------------------------------- hollow fields
def test_what_is_hidden_has_no_density_and_writes_nothing() -> None:
    encoding = HollowEncoding(LAYOUT, 8, 0.1, random())
    field = RadianceField(encoding, 16, False, random())
    assert float(field.density(places()).detach().min()) > 0.01
    with torch.no_grad():
        encoding.saliency.fill_(-40)
    density = field.density(places())
    assert float(density.detach().max()) < 1e-5
    density.sum().backward()  # type: ignore[no-untyped-call]
    assert encoding.inner.table.grad is not None
    assert float(encoding.inner.table.grad.abs().max()) < 1e-4


def test_the_multiplier_finds_the_water_level() -> None:
    """Shares s of the mean 1/5 at most, nearest to a: s = max(0, a - mu / 2), where mu is the multiplier at the end."""
    encoding = HollowEncoding(LAYOUT, 5, 0.2)
    rows = len(encoding.saliency)
    wanted = torch.rand(rows, 1, generator=random()) * 0.98 + 0.01
    optimiser = torch.optim.Adam([encoding.saliency], 1e-2, betas=(0.9, 0.99))
    for step in range(3000):
        optimiser.param_groups[0]["lr"] = 1e-2 if step < 2000 else 1e-3
        optimiser.zero_grad()
        # The loss is a thousand times that of the equation, as the step up is for losses of a thousandth.
        loss = 1e-3 * (torch.sigmoid(encoding.saliency) - wanted).square().mean() + encoding.penalty()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        encoding.end_step()
    shares, mu = torch.sigmoid(encoding.saliency.detach()), float(encoding.multiplier) * 1e3
    assert float(shares.mean()) == pytest.approx(0.2, abs=0.01)
    torch.testing.assert_close(shares, (wanted - mu / 2).clamp_min(0), atol=0.03, rtol=0)


# ------------------------------------------------------------------------------------------------------ whole numbers
def latent_encoding() -> LatentEncoding:
    layout = HashGrid(levels=4, features=2, log2_table_size=8, per_level_scale=1.6)
    encoding = LatentEncoding(layout, 4, 1e-3, random())
    with torch.no_grad():
        encoding.latents.normal_(0, 3, generator=random())
        encoding.shift.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    return encoding


def test_decoding_after_interpolation_is_interpolation_of_what_is_decoded() -> None:
    encoding = latent_encoding()
    decoded = encoding.latents.detach().round() @ encoding.decoder.detach() + encoding.shift.detach()
    layout = HashGrid(levels=4, features=4, log2_table_size=8, per_level_scale=1.6)
    with torch.no_grad():
        torch.testing.assert_close(encoding(places()), hash_grid(places(), decoded, layout), atol=1e-5, rtol=1e-5)


def test_latents_are_drawn_to_their_neighbours_and_rounded_in_the_end() -> None:
    encoding = latent_encoding()
    rounded = encoding.latents.detach().round()
    means = []
    for progress in (0.0, 0.5, 0.89):
        encoding.begin_step(progress, random())
        chosen = encoding._chosen().detach()
        assert bool(((chosen - encoding.latents.detach()).abs() < 1).all())
        means.append(float((chosen - chosen.round()).abs().mean()))
    assert means[0] > means[1] > means[2]
    assert means[2] < 0.03, "they should hardly be anything but whole numbers"
    encoding.begin_step(0.95, random())
    assert torch.equal(encoding._chosen().detach(), rounded)
    (gradient,) = torch.autograd.grad(encoding._chosen().sum(), encoding.latents)
    assert bool((gradient == 1).all())


def test_the_price_of_bits_makes_numbers_cheap() -> None:
    encoding = latent_encoding()
    parameters = [encoding.latents, *encoding.entropy.parameters()]
    optimiser = torch.optim.Adam(parameters, 0.05)
    generator = random()
    assert encoding.penalty() is None, "before a step nothing is priced"
    for _ in range(200):
        encoding.begin_step(0.5, generator)
        penalty = encoding.penalty()
        assert penalty is not None
        optimiser.zero_grad()
        penalty.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    bits = encoding.entropy(encoding.latents.detach().round()).mean()
    assert float(encoding.latents.detach().round().abs().mean()) < 1, "it was 2.4"
    assert float(bits.detach()) < 1.5, "a normal distribution of that width needs 3.6"


def test_an_entropy_model_is_a_distribution() -> None:
    model = EntropyModel(2, random())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(generator=random())
        x = torch.arange(-400.0, 401.0)[:, None].expand(-1, 2)
        share = model.cumulative(x)
        assert bool((share.diff(dim=0) >= 0).all())
        torch.testing.assert_close((2 ** -model(x)).sum(0), torch.ones(2), atol=1e-3, rtol=0)


# ----------------------------------------------------------------------------------------------------- beams of pixels
def pyramid() -> PyramidField:
    field = PyramidField(HashEncoding(LAYOUT, random()), 16, False, 4, 64.0, random())
    nn.init.normal_(field.encoding.table, generator=random())  # type: ignore[arg-type]
    return field


def test_heads_are_for_beams_each_half_as_wide() -> None:
    widths = torch.tensor([1, 2, 4, 8, 2**0.5]) / 64
    torch.testing.assert_close(pyramid().level(widths), torch.tensor([3, 2, 1, 0, 2.5]))


def test_what_two_heads_say_is_blended() -> None:
    field, at = pyramid(), places(50)
    ends = [field.latent(at, torch.full((50,), width / 64)) for width in (1, 2, 100)]
    middle = field.latent(at, torch.full((50,), 2**0.5 / 64))
    torch.testing.assert_close(middle, (ends[0] + ends[1]) / 2, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(field.latent(at), ends[0])
    torch.testing.assert_close(ends[2], field.latent(at, torch.full((50,), 8 / 64)))
    assert not torch.allclose(ends[0], ends[1])


def test_a_camera_that_comes_closer_than_any_gets_the_finest_that_was_trained() -> None:
    field, at = pyramid(), places(50)
    seen = field.latent(at, torch.full((50,), 4 / 64))  # in training
    with torch.no_grad():
        for width in (1e-3, 4 / 64, 1.0):
            torch.testing.assert_close(field.latent(at, torch.full((50,), width)), seen)
        torch.testing.assert_close(field.latent(at), seen)
