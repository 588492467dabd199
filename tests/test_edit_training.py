"""Optimising again after an edit: what is frozen stays bit for bit, what is not gets better."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from test_app_capture import make_capture

from anchorfield.app import Run, train
from anchorfield.app.journal import silent
from anchorfield.methods import CanStart
from anchorfield.methods.gaussian_splatting import GaussianSplatting
from anchorfield.renderer.errors import UsageError
from anchorfield.renderer.types import PARAMETERS, Gaussians
from anchorfield.scenes.load import load_scene

SETTINGS = {"cap": 300, "sh-degree": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("again")
    return train(make_capture(folder / "capture"), settings=SETTINGS, steps=60, out=folder / "run", show=silent)


def halved(gaussians: Gaussians) -> Gaussians:
    """Every second Gaussian, one of them larger than training allows."""
    rows = {name: getattr(gaussians, name)[::2].clone() for name in PARAMETERS}
    rows["log_scales"][0] = 3.0
    return Gaussians(**rows)


@pytest.mark.parametrize("strategy", ["mcmc", "adc"])
def test_frozen_rows_keep_their_bits_and_the_rest_is_optimised(run: Run, strategy: str, tmp_path: Path) -> None:
    start = halved(run.gaussians())
    frozen = torch.arange(len(start)) % 3 == 0
    settings = {**SETTINGS, "strategy": strategy}
    after = train(run.scene, settings=settings, steps=210, out=tmp_path / "a", start=start, frozen=frozen, show=silent)
    result = after.gaussians()
    assert len(result) == len(start)
    for name in PARAMETERS:
        assert torch.equal(getattr(result, name)[frozen], getattr(start, name)[frozen])
        assert not torch.equal(getattr(result, name)[~frozen], getattr(start, name)[~frozen])


def test_a_started_run_repairs_what_an_edit_broke(run: Run) -> None:
    start = halved(run.gaussians())
    start.log_scales[0] = -3
    start.sh[:, 0] += 0.5
    method = GaussianSplatting(cap=300, sh_degree=1)
    losses = []
    for fit in itertools.islice(method.fit_from(load_scene(run.job.source), start), 250):
        fit.progress = fit.step / 250
        losses.append(sum(fit.losses[name] for name in ("l1", "ssim") if name in fit.losses))
    assert len(fit.model.means) > len(start)  # type: ignore[arg-type]
    first, last = sum(losses[:16]), sum(losses[-16:])
    assert last < 0.8 * first, (first, last, fit.losses)


def test_a_started_run_resumes_with_its_frozen_rows(run: Run, tmp_path: Path) -> None:
    start = halved(run.gaussians())
    frozen = torch.arange(len(start)) % 2 == 0
    given = {"settings": SETTINGS, "show": silent}
    train(run.scene, steps=20, out=tmp_path / "a", start=start, frozen=frozen, **given)  # type: ignore[arg-type]
    after = train(run.scene, steps=40, out=tmp_path / "a", resume=True, **given)  # type: ignore[arg-type]
    for name in PARAMETERS:
        assert torch.equal(getattr(after.gaussians(), name)[frozen], getattr(start, name)[frozen])


def test_harmonics_are_filled_up_and_never_cut(run: Run) -> None:
    start = halved(run.gaussians())
    scene = load_scene(run.job.source)
    for degree, expected in ((0, 4), (2, 9)):
        method = GaussianSplatting(cap=300, sh_degree=degree)
        assert isinstance(method, CanStart)
        fit = next(iter(method.fit_from(scene, start)))
        assert fit.model.sh.shape[1] == expected  # type: ignore[union-attr]


def test_what_cannot_start_is_refused_in_words(run: Run, tmp_path: Path) -> None:
    start = halved(run.gaussians())
    every = torch.ones(len(start), dtype=torch.bool)
    number = itertools.count()
    for given, words in [
        ({"start": start, "frozen": every}, "every Gaussian is frozen"),
        ({"start": start, "frozen": every[:3]}, "booleans"),
        ({"start": start, "frozen": every.float()}, "booleans"),
        ({"start": start, "settings": {"antialiased": True}}, "--antialiased"),
        ({"frozen": every}, "needs start"),
        ({"start": start, "method": "scaffold_gs"}, "gaussian_splatting"),
        ({"start": start, "resume": True}, "another -o"),
    ]:
        with pytest.raises(UsageError, match=words):
            train(run.job.source, steps=2, out=tmp_path / str(next(number)), show=silent, **given)  # type: ignore[arg-type]
