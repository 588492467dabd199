"""Held-out evaluation: PSNR, SSIM and, where the user has weights, LPIPS, by one stated protocol."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from anchorfield.app import files
from anchorfield.methods import HasGaussians, Model
from anchorfield.renderer import backends
from anchorfield.renderer.errors import DataError, MissingBackend
from anchorfield.renderer.metrics import psnr, ssim
from anchorfield.scenes.scene import Scene

if TYPE_CHECKING:
    from anchorfield.app.run import Run

NOT_COMPUTED = "not computed"
PROTOCOL = (
    "Held-out views only. Renders stay in floating point, clamped to [0, 1] and not quantised; photographs are the "
    "8-bit values / 255, undistorted and area-averaged to the stated resolution, over the stated background where they "
    "have alpha. PSNR: -10 log10 of a view's mean squared error over pixels and channels (masked pixels left out), "
    "then the mean over views. SSIM: 11x11 Gaussian window, sigma 1.5, zero padding, mean over pixels and channels, "
    "then over views. Intervals: 95 % bootstrap over views (2000 resamples, seed 0). seconds: training time without "
    "evaluation and saving. bytes: the model's tensors, without the optimiser's."
)


@dataclass(frozen=True)
class ViewScore:
    """How well one photograph is predicted."""

    name: str
    psnr: float  # dB
    ssim: float
    render_ms: float
    lpips: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Scores of all views and their means, with everything they depend on."""

    summary: dict[str, Any]  # what `eval --json` prints, without the views' scores
    scores: tuple[ViewScore, ...]  # worst PSNR first

    def to_json(self) -> dict[str, Any]:
        """One object: the summary and a score for each view."""
        return {**self.summary, "per_view": [asdict(score) for score in self.scores]}


@torch.no_grad()
def rendered(model: Model, scene: Scene, index: int) -> Tensor:
    """The model's prediction of view `index`, [H, W, 3] in [0, 1]."""
    return model.render(scene.views[index].camera).rgb.clamp(0, 1)


def view_psnr(scene: Scene, index: int, image: Tensor) -> float:
    """PSNR of a predicted view in dB; pixels outside the view's mask do not count."""
    load_mask = scene.views[index].load_mask
    return float(psnr(image, scene.photo(index), load_mask() if load_mask else None))


def gaussian_count(model: Model, scene: Scene) -> int | None:
    """How many Gaussians the model shows to a training camera; None where it has none."""
    if not isinstance(model, HasGaussians):
        return None
    return len(model.gaussians(scene.views[scene.train[0]].camera))


def evaluate(run: Run | Path | str, *, lpips_weights: Path | None = None, checkpoint: str = "last") -> Evaluation:
    """Score a run on the held-out views of its capture; a run's folder gets eval/metrics.json."""
    from anchorfield.app.run import Run

    run = run if isinstance(run, Run) else Run.open(run, checkpoint)
    if not run.scene.test:
        raise DataError(f"{run.scene.path} has no held-out views: nothing to evaluate on")
    perceptual = _lpips(lpips_weights) if lpips_weights else None
    rendered(run.model, run.scene, run.scene.test[0])  # the first render also prepares: it would spoil the times
    start = time.perf_counter()
    scores = [_score(run.model, run.scene, index, perceptual) for index in run.scene.test]
    summary = _summary(run, scores, time.perf_counter() - start)
    result = Evaluation(summary, tuple(sorted(scores, key=lambda score: score.psnr)))
    if run.folder:
        files.write_atomically(files.output_folder(run.folder / "eval") / "metrics.json", files.dump(result.to_json()))
    return result


def interval(values: Sequence[float]) -> list[float]:
    """A 95 % bootstrap interval of the mean; where values are infinite, what they allow."""
    draws = np.random.default_rng(0).integers(0, len(values), size=(2000, len(values)))
    low, high = np.percentile(np.asarray(values)[draws].mean(axis=1), [2.5, 97.5])
    return [float(low), float(high)]


def _score(model: Model, scene: Scene, index: int, perceptual: Callable[[Tensor, Tensor], float] | None) -> ViewScore:
    start = time.perf_counter()
    image = rendered(model, scene, index)
    milliseconds = 1000 * (time.perf_counter() - start)
    photo = scene.photo(index)
    return ViewScore(
        name=scene.views[index].name,
        psnr=view_psnr(scene, index, image),
        ssim=float(ssim(image, photo)),
        render_ms=milliseconds,
        lpips=perceptual(image, photo) if perceptual else None,
    )


def _summary(run: Run, scores: list[ViewScore], seconds: float) -> dict[str, Any]:
    psnrs, ssims = [score.psnr for score in scores], [score.ssim for score in scores]
    perceptual = [score.lpips for score in scores if score.lpips is not None]
    camera = run.scene.views[run.scene.test[0]].camera
    count = gaussian_count(run.model, run.scene)
    return {
        "psnr": statistics.fmean(psnrs),
        "psnr_interval": interval(psnrs),
        "ssim": statistics.fmean(ssims),
        "ssim_interval": interval(ssims),
        "lpips": statistics.fmean(perceptual) if perceptual else NOT_COMPUTED,
        "views": len(scores),
        "method": run.job.method,
        "downscale": run.job.downscale,
        "seconds": run.seconds,
        **({} if count is None else {"gaussians": count}),
        "bytes": run.model_bytes,
        "steps": run.step,
        "seed": run.job.seed,
        "scene": run.scene.name,
        "resolution": [camera.width, camera.height],
        "split": {
            "train": [run.scene.views[i].name for i in run.scene.train],
            "test": [run.scene.views[i].name for i in run.scene.test],
        },
        "background": list(run.scene.background),
        "backend": backends.current(),
        "render_ms": statistics.median(score.render_ms for score in scores),
        "eval_seconds": seconds,
        "protocol": PROTOCOL,
    }


def _lpips(weights: Path) -> Callable[[Tensor, Tensor], float]:
    """LPIPS with the user's weights: the `state_dict` of `lpips.LPIPS` as a safetensors file. Nothing is downloaded."""
    try:
        import lpips  # type: ignore[import-not-found, unused-ignore]
    except Exception as problem:  # a torchvision that does not fit torch raises other errors than ImportError
        raise MissingBackend(f"--lpips-weights needs the package lpips ({problem}): pip install lpips") from problem
    state = _weights(weights)
    backbone = "alex" if state["lin1.model.1.weight"].shape[1] == 192 else "vgg"
    network = lpips.LPIPS(net=backbone, pretrained=False, pnet_rand=True, verbose=False).eval()
    try:
        network.load_state_dict(state)
    except RuntimeError as problem:
        raise DataError(f"{weights} does not fit lpips.LPIPS with {backbone}: {problem}") from problem

    @torch.no_grad()
    def distance(image: Tensor, photo: Tensor) -> float:
        first, second = (x.permute(2, 0, 1)[None] * 2 - 1 for x in (image, photo))
        return float(network(first, second))

    return distance


def _weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (OSError, SafetensorError) as problem:
        raise DataError(f"{path} is not a safetensors file of LPIPS weights: {problem}") from problem
    if "lin1.model.1.weight" not in state:
        raise DataError(f"{path} holds no LPIPS weights: expected the state_dict of lpips.LPIPS")
    return state
