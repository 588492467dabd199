"""What travels to browsers that draw for themselves, and when."""

from __future__ import annotations

import threading
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from anchorfield.app.view.in_browser import NODE, InBrowser, Sent, as_sent
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.types import Gaussians
from reference.spherical_harmonics import spherical_harmonics

SCALE = 10.0


def gaussians(count: int = 50) -> Gaussians:
    g = torch.Generator().manual_seed(0)
    shapes = ((3,), (3,), (4,), (), (9, 3))
    means, log_scales, quats, logits, sh = (torch.randn(count, *shape, generator=g) for shape in shapes)
    return Gaussians(means, log_scales - 2, quats, logits, 0.3 * sh)


def camera(x: float = 0.0) -> Camera:
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([-x, 0.0, 5.0])  # its centre is at (x, 0, -5)
    return Camera(pose, 100.0, 100.0, 50.0, 40.0, 100, 80)


def test_what_is_sent_are_the_gaussians_in_the_browsers_units() -> None:
    made = gaussians()
    sent = as_sent(made, camera(1.0), SCALE)
    turned = Rotation.from_quat(made.quats.double().numpy(), scalar_first=True).as_matrix()
    spread = np.exp(2 * made.log_scales.double().numpy())
    expected = SCALE**2 * np.einsum("nij,nj,nkj->nik", turned, spread, turned)
    np.testing.assert_allclose(sent.centers, SCALE * made.means.numpy(), rtol=1e-6)
    np.testing.assert_allclose(sent.covariances, expected, rtol=1e-4, atol=1e-5 * expected.max())
    np.testing.assert_allclose(
        sent.opacities[:, 0], 1 / (1 + np.exp(-made.logit_opacities.double().numpy())), rtol=1e-5
    )
    centre = torch.tensor([1.0, 0.0, -5.0], dtype=torch.float64)
    colours = spherical_harmonics(made.sh.double(), made.means.double(), centre, 2, torch.ones(50, dtype=torch.bool))
    np.testing.assert_allclose(sent.rgbs, colours.clamp(0, 1).numpy(), atol=1e-5)


class Browser:
    """A client as `InBrowser` uses it: what was added to its scene."""

    def __init__(self, client_id: int) -> None:
        self.client_id, self.scene = client_id, self
        self.added: list[dict[str, Any]] = []
        self.removed = 0

    def add_gaussian_splats(self, name: str, **arrays: Any) -> Browser:
        assert name == NODE
        self.added.append(arrays)
        return self

    def remove(self) -> None:
        self.removed += 1


class Hears:
    """Collects what is done, and waits for it."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int | None]] = []
        self.changed = threading.Condition()

    def __call__(self, client: int, sent: Sent | None, seconds: float) -> None:
        with self.changed:
            self.heard.append((client, None if sent is None else len(sent.centers)))
            self.changed.notify()

    def wait(self, count: int) -> list[tuple[int, int | None]]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.heard) >= count, 30)
            return list(self.heard)


def test_they_travel_once_until_they_change() -> None:
    shown, hears, browser = [gaussians(50)], Hears(), Browser(7)
    sender = InBrowser(lambda seen: as_sent(shown[0], seen, SCALE), hears, lambda: False)
    handle = cast(Any, browser)
    assert sender.camera(handle, camera())
    assert hears.wait(1) == [(7, 50)]
    assert not sender.camera(handle, camera(2.0))  # moving sends nothing
    shown[0] = gaussians(20)
    sender.refresh()
    assert hears.wait(2) == [(7, 50), (7, 20)]
    sender.forget(7)
    sender.refresh()
    sender.close()
    assert [len(arrays["centers"]) for arrays in browser.added] == [50, 20]
    assert browser.removed == 1


def test_what_is_not_made_of_gaussians_is_left_to_pictures() -> None:
    hears, browser = Hears(), Browser(1)
    sender = InBrowser(lambda seen: None, hears, lambda: False)
    sender.camera(cast(Any, browser), camera())
    assert hears.wait(1) == [(1, None)]
    assert sender.camera(cast(Any, browser), camera()), "it is still thought to draw for itself"
    sender.close()
    assert not browser.added


def test_trouble_with_one_browser_does_not_keep_the_others_waiting(capsys: pytest.CaptureFixture[str]) -> None:
    class Gone(Browser):
        def add_gaussian_splats(self, name: str, **arrays: Any) -> Browser:
            raise RuntimeError("gone")

    hears, browser = Hears(), Browser(2)
    sender = InBrowser(lambda seen: as_sent(gaussians(), seen, SCALE), hears, lambda: False)
    sender.camera(cast(Any, Gone(1)), camera())
    sender.camera(cast(Any, browser), camera())
    assert hears.wait(1) == [(2, 50)]
    sender.close()
    assert "gone" in capsys.readouterr().err
