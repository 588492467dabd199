"""Files of trained models on the command line, and what they are said to lose."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import constriction
import numpy as np
import pytest
import safetensors.numpy
import torch
from plyfile import PlyData
from test_app_capture import call, make_capture

from anchorfield import methods
from anchorfield.app import Run, train
from anchorfield.app.distil import Distillation
from anchorfield.app.export import Loss, export, exporting, loss
from anchorfield.app.journal import silent
from anchorfield.methods import HasGaussians, IgnoresPoints
from anchorfield.renderer.errors import DataError
from anchorfield.renderer.metrics import psnr
from anchorfield.renderer.splatting import splat
from anchorfield.renderer.types import Gaussians
from anchorfield.scenes.similarity import transformed

QUICK = Distillation(steps=60, points=500)


@pytest.fixture(scope="module", params=methods.names())
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("files")
    steps = 25 if isinstance(methods.load(request.param)(), IgnoresPoints) else 150  # steps of fields take longer
    return train(make_capture(folder / "made"), request.param, steps=steps, out=folder / "run", show=silent)


@pytest.fixture
def splats(run: Run) -> Run:
    if not isinstance(run.model, HasGaussians):
        pytest.skip("it has no Gaussians; what is distilled from it has its own tests")
    return run


@pytest.fixture
def field(run: Run) -> Run:
    """The first of those without Gaussians: what is distilled is only asked for pictures, the same of all."""
    if run.job.method != next(name for name in methods.names() if isinstance(methods.load(name)(), IgnoresPoints)):
        pytest.skip("it has Gaussians, or another stands for it")
    return run


def test_a_model_without_gaussians_is_distilled_the_same_every_time(
    field: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--steps", str(QUICK.steps), "--points", str(QUICK.points))
    code, out, _ = call(capsys, "export", field.path, "-o", tmp_path / "a.ply", *options, "--json")
    told = json.loads(out)
    assert (code, told["distilled"]) == (0, True)
    assert 0 < told["gaussians"] <= QUICK.points
    assert told["agreement"] > told["psnr"], "it is no nearer to the model than the model to the photographs"
    export(field, tmp_path / "b.ply", distillation=QUICK)
    assert (tmp_path / "a.ply").read_bytes() == (tmp_path / "b.ply").read_bytes()
    export(field, tmp_path / "a.safetensors")
    code, _, said = call(capsys, "export", tmp_path / "a.safetensors", "-o", tmp_path / "d.ply")
    assert (code, "--scene CAPTURE" in said) == (3, True)
    assert not (tmp_path / "d.ply").exists()


def test_distilling_is_cancelled_between_steps_with_nothing_written(field: Run, tmp_path: Path) -> None:
    steps = exporting(field, tmp_path / "a.ply", distillation=QUICK)
    shares = [next(steps)[0] for _ in range(15)]
    steps.close()
    assert shares == sorted(shares)
    assert list(tmp_path.iterdir()) == []


def independent(path: Path) -> Gaussians:
    """The Gaussians of a PLY file by another reader."""
    vertex = PlyData.read(str(path))["vertex"].data
    rest = [name for name in vertex.dtype.names if name.startswith("f_rest_")]
    table = {name: torch.from_numpy(np.array(vertex[name])) for name in vertex.dtype.names}

    def columns(*names: str) -> torch.Tensor:
        return torch.stack([table[name] for name in names], 1)

    constant = columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None]
    others = columns(*(f"f_rest_{i}" for i in range(len(rest)))).reshape(len(vertex), 3, -1).transpose(1, 2)
    return Gaussians(
        columns("x", "y", "z"),
        columns("scale_0", "scale_1", "scale_2"),
        columns("rot_0", "rot_1", "rot_2", "rot_3"),
        table["opacity"],
        torch.cat([constant, others], 1).contiguous(),
    )


def mean_psnr(run: Run, images: list[torch.Tensor]) -> float:
    return float(
        np.mean([float(psnr(x.clamp(0, 1), run.scene.photo(i))) for x, i in zip(images, run.scene.test, strict=True)])
    )


def test_the_loss_of_a_splat_file_is_that_of_an_independent_evaluation(splats: Run, tmp_path: Path) -> None:
    export(splats, tmp_path / "a.ply")
    measured = loss(splats, tmp_path / "a.ply")
    assert isinstance(measured, Loss)
    gaussians = transformed(independent(tmp_path / "a.ply"), np.linalg.inv(splats.source_from_world))
    background, cameras = (
        torch.tensor(splats.scene.background),
        [splats.scene.views[i].camera for i in splats.scene.test],
    )
    file = mean_psnr(splats, [splat(gaussians, camera, background).rgb for camera in cameras])
    model = mean_psnr(splats, [splats.render(camera).rgb for camera in cameras])
    assert measured.loss == pytest.approx(model - file, abs=0.05)
    assert measured.views == len(cameras)
    if splats.job.method == "gaussian_splatting":
        assert abs(measured.loss) < 0.01


def test_the_loss_of_a_compact_file_is_that_of_an_independent_evaluation(run: Run, tmp_path: Path) -> None:
    export(run, tmp_path / "a.safetensors")
    measured = loss(run, tmp_path / "a.safetensors")
    assert isinstance(measured, Loss)
    arrays = safetensors.numpy.load_file(tmp_path / "a.safetensors")
    tensors = {}
    for name, array in arrays.items():
        values = array.astype(np.float64)
        if f"{name}:columns" in arrays:
            centre, spread, low, step = arrays[f"{name}:columns"].astype(np.float64)
            values = (centre + spread * np.sinh(low + step * values.reshape(len(values), -1))).reshape(values.shape)
        if name.endswith(":bytes"):
            tensors[name.removesuffix(":bytes")] = torch.from_numpy(array)
        elif name.endswith(":coded"):
            rows, columns, low, *counts = arrays[name.replace(":coded", ":histogram")].astype(np.float64)
            model = constriction.stream.model.Categorical(np.array(counts) / sum(counts), perfect=False)
            numbers = constriction.stream.queue.RangeDecoder(array.view("<u4")).decode(model, int(rows * columns))
            latents = (numbers + low).reshape(int(columns), int(rows)).T
            tensors[name.removesuffix(":coded")] = torch.from_numpy(latents.astype(np.float32).copy())
        elif ":" not in name:
            tensors[name] = torch.from_numpy(values.astype(np.float32))
    model = run.job.settings.restore({"model": tensors, "step": 0, "progress": 1.0}).eval()
    cameras = [run.scene.views[i].camera for i in run.scene.test]
    assert measured.file == pytest.approx(mean_psnr(run, [model.render(c).rgb for c in cameras]), abs=0.05)
    assert measured.loss < 0.1


def test_commands_take_a_file_for_a_run(splats: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, capture = tmp_path / "a.safetensors", splats.job.source
    code, out, _ = call(capsys, "export", splats.path, "-o", file, "--json")
    exported = json.loads(out)
    assert code == 0
    assert exported["loss"] == pytest.approx(exported["psnr"] - exported["file_psnr"])
    code, out, _ = call(capsys, "eval", file, "--scene", capture, "--json")
    scores = json.loads(out)
    assert scores["psnr"] == pytest.approx(exported["file_psnr"], abs=1e-3)
    assert (scores["bytes"], scores["steps"], scores["method"]) == (file.stat().st_size, splats.step, splats.job.method)
    assert call(capsys, "render", file, "--scene", capture, "--orbit", "2", "-o", tmp_path / "orbit")[0] == 0
    code, out, _ = call(capsys, "export", file, "-o", tmp_path / "b.ply")
    assert code == 0
    assert "loss not measured: " in out
    assert "--scene CAPTURE" in out
    code, _, err = call(capsys, "eval", file)
    assert (code, "--scene CAPTURE" in err) == (3, True)
    assert call(capsys, "eval", file, "--scene", capture, "--report")[0] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.safetensors", "b.ply", "orbit"]


def test_a_compact_file_written_again_is_the_same_model(run: Run, tmp_path: Path) -> None:
    export(run, tmp_path / "a.safetensors")
    first = Run.open(tmp_path / "a.safetensors")
    export(first, tmp_path / "b.safetensors")
    second = Run.open(tmp_path / "b.safetensors")
    assert second.job.settings == run.job.settings
    assert second.step == run.step
    assert np.array_equal(second.source_from_world, run.source_from_world)
    camera = run.scene.views[run.scene.test[0]].camera
    assert psnr(second.render(camera).rgb, first.render(camera).rgb) > 40


def test_a_splat_file_is_a_model_too(splats: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(splats, tmp_path / "a.ply")
    measured = loss(splats, tmp_path / "a.ply")
    assert isinstance(measured, Loss)
    code, out, _ = call(capsys, "eval", tmp_path / "a.ply", "--scene", splats.job.source, "--json")
    assert code == 0
    assert json.loads(out)["psnr"] == pytest.approx(measured.file, abs=0.05)
    assert call(capsys, "export", tmp_path / "a.ply", "-o", tmp_path / "a.safetensors", "--no-check")[0] == 0


def test_a_loss_that_cannot_be_measured_says_why(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "export", run.path, "--scene", tmp_path / "gone", "-o", tmp_path / "a.safetensors")
    assert code == 0
    assert "loss not measured: " in out
    assert "gone" in out
    code, out, _ = call(capsys, "export", run.path, "-o", tmp_path / "a.safetensors", "--no-check", "--json")
    assert json.loads(out)["loss"] == "not measured"


def test_a_file_that_cannot_be_read_back_is_no_export(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"half")
    with pytest.raises(DataError, match=r"a\.safetensors"):
        loss(run, tmp_path / "a.safetensors")


def test_a_damaged_file_ends_in_a_model_or_in_words(run: Run, tmp_path: Path) -> None:
    export(run, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(100):
        bad = bytearray(content)
        bad[random.integers(len(content) if random.random() < 0.3 else 6000)] ^= 1 << int(random.integers(8))
        (tmp_path / "a.safetensors").write_bytes(bad)
        with contextlib.suppress(DataError):
            opened = Run.open(tmp_path / "a.safetensors")
            opened.gaussians("source") if isinstance(opened.model, HasGaussians) else opened.model
