"""Published checkpoints of Scaffold-GS, written as their trainer does, against a literal evaluation."""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import plyfile
import pytest
import torch
from test_app_capture import call, make_capture
from torch import Tensor, nn

from anchorfield import methods
from anchorfield.app import Run, load_scene
from anchorfield.methods import HasGaussians
from anchorfield.renderer.cameras import Camera
from anchorfield.renderer.errors import DataError
from anchorfield.renderer.splatting import flattened, splat
from anchorfield.renderer.types import Gaussians
from anchorfield.scenes import scaffold_checkpoint
from anchorfield.scenes.scene import in_frame
from anchorfield.scenes.similarity import transformed
from anchorfield.scenes.splat_ply import read_ply

COUNT, WIDTH = 60, 8  # anchors and features
pytestmark = pytest.mark.skipif("scaffold_gs" not in methods.names(), reason="needs the method scaffold_gs")


class Published:
    """A checkpoint in memory: what the trainer would have saved."""

    def __init__(self, k: int = 4, distance: tuple[bool, bool, bool] = (False, False, False), bank: bool = False):
        g = torch.Generator().manual_seed(5)
        self.k, self.distance = k, distance
        self.anchor = torch.randn(COUNT, 3, generator=g) * 0.5
        self.feature = torch.randn(COUNT, WIDTH, generator=g)
        self.offset = torch.randn(COUNT, k, 3, generator=g)
        self.scaling = torch.randn(COUNT, 6, generator=g) * 0.3 - 2
        torch.manual_seed(6)
        last: list[tuple[int, list[nn.Module]]] = [(k, [nn.Tanh()]), (7 * k, []), (3 * k, [nn.Sigmoid()])]
        self.heads = [
            nn.Sequential(nn.Linear(WIDTH + 3 + d, 32), nn.ReLU(True), nn.Linear(32, outputs), *end).eval()
            for d, (outputs, end) in zip(distance, last, strict=True)
        ]
        self.bank = None
        if bank:
            self.bank = nn.Sequential(nn.Linear(4, 32), nn.ReLU(True), nn.Linear(32, 3), nn.Softmax(dim=1)).eval()

    def save(self, folder: Path, cameras: list[Camera] | None = None) -> Path:
        folder.mkdir(parents=True)
        k = self.k
        names = ["x", "y", "z", "nx", "ny", "nz", *(f"f_offset_{i}" for i in range(3 * k))]
        names += [f"f_anchor_feat_{i}" for i in range(WIDTH)] + ["opacity"]
        names += [f"scale_{i}" for i in range(6)] + [f"rot_{i}" for i in range(4)]
        parts = [self.anchor, torch.zeros(COUNT, 3), self.offset.transpose(1, 2).flatten(1), self.feature]
        values = torch.cat([*parts, torch.zeros(COUNT, 1), self.scaling, torch.zeros(COUNT, 4)], 1).numpy()
        rows = np.zeros(COUNT, [(name, "f4") for name in names])
        for index, name in enumerate(names):
            rows[name] = values[:, index]
        plyfile.PlyData([plyfile.PlyElement.describe(rows, "vertex")]).write(str(folder / "point_cloud.ply"))
        modules = dict(zip(("opacity_mlp.pt", "cov_mlp.pt", "color_mlp.pt"), self.heads, strict=True))
        if self.bank is not None:
            modules["feature_bank_mlp.pt"] = self.bank
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions of torch call TorchScript deprecated
            for name, module in modules.items():
                inputs = torch.rand(1, module[0].in_features)  # type: ignore[arg-type]
                torch.jit.trace(module, inputs).save(str(folder / name))  # type: ignore[no-untyped-call]
        if cameras:
            (folder / "cameras.json").write_text(json.dumps([listed(camera) for camera in cameras]))
        return folder

    @torch.no_grad()
    def decoded(self, centre: Tensor) -> dict[str, list[Tensor]]:
        """The Gaussians as the paper's section 3.2 says, one anchor after the other."""
        found: dict[str, list[Tensor]] = {name: [] for name in ("means", "opacities", "scales", "quats", "colours")}
        for n in range(COUNT):
            view = self.anchor[n] - centre
            length = view.norm()[None]
            direction, feature = view / length, self.feature[n]
            if self.bank is not None:
                w = self.bank(torch.cat([direction, length])[None])[0]
                feature = w[0] * feature[::4].repeat(4) + w[1] * feature[::2].repeat(2) + w[2] * feature
            near = torch.cat([feature, direction])
            inputs = [torch.cat([near, length]) if d else near for d in self.distance]
            alpha, shape, colour = (head(x[None])[0] for head, x in zip(self.heads, inputs, strict=True))
            for j in range(self.k):
                if alpha[j] > 0:
                    found["means"].append(self.anchor[n] + self.offset[n, j] * self.scaling[n, :3].exp())
                    found["opacities"].append(alpha[j])
                    found["scales"].append(self.scaling[n, 3:].exp() * shape[7 * j : 7 * j + 3].sigmoid())
                    found["quats"].append(nn.functional.normalize(shape[7 * j + 3 : 7 * j + 7], dim=0))
                    found["colours"].append(colour[3 * j : 3 * j + 3])
        return found


def listed(camera: Camera) -> dict[str, Any]:
    """An entry of cameras.json."""
    pose = camera.camera_to_world.numpy()
    return {
        "id": 0,
        "img_name": "a",
        "width": camera.width,
        "height": camera.height,
        "position": pose[:3, 3].tolist(),
        "rotation": pose[:3, :3].tolist(),
        "fy": camera.fy,
        "fx": camera.fx,
    }


@pytest.mark.parametrize("k", [4, 10, 11, 12])  # a first layer has 11 or 12 inputs: as large as the last of opacities
@pytest.mark.parametrize("distance", [(False, False, False), (True, True, True), (False, True, False)])
@pytest.mark.parametrize("bank", [False, True])
def test_gaussians_are_those_of_a_literal_evaluation(
    k: int, distance: tuple[bool, bool, bool], bank: bool, tmp_path: Path
) -> None:
    published = Published(k, distance, bank)
    model = Run.open(published.save(tmp_path / "checkpoint")).model
    assert isinstance(model, HasGaussians)
    pose = torch.eye(4)
    pose[2, 3] = 6
    camera = Camera(pose, 50.0, 50.0, 32, 32, 64, 64)
    gaussians, expected = model.gaussians(camera), published.decoded(camera.centre)
    close = {"rtol": 1e-4, "atol": 2e-5}
    torch.testing.assert_close(gaussians.means, torch.stack(expected["means"]), **close)
    torch.testing.assert_close(gaussians.log_scales.exp(), torch.stack(expected["scales"]), **close)
    torch.testing.assert_close(gaussians.logit_opacities.sigmoid(), torch.stack(expected["opacities"]), **close)
    torch.testing.assert_close(
        gaussians.sh[:, 0] * 0.28209479177387814 + 0.5, torch.stack(expected["colours"]), **close
    )
    ours = nn.functional.normalize(gaussians.quats, dim=1)
    torch.testing.assert_close(ours, torch.stack(expected["quats"]), **close)


@pytest.mark.parametrize("width", [8, 29, 32])  # with 29, the vectors are of equal size, too
def test_layers_of_equal_size_are_told_apart_by_their_numbers(width: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(width + 3, 32), nn.ReLU(), nn.Linear(32, width + 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(module, torch.rand(1, width + 3)).save(str(tmp_path / "a.pt"))  # type: ignore[no-untyped-call]
    read = scaffold_checkpoint._perceptron(tmp_path / "a.pt", (width + 3, width + 4), width + 3)
    for array, parameter in zip(read, module.parameters(), strict=True):
        assert np.array_equal(array, parameter.detach().numpy())


def test_a_capture_is_seen_from_the_frame_of_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capture = make_capture(tmp_path / "made")
    scene = load_scene(capture)
    cameras = [view.camera for view in in_frame(scene, np.eye(4)).views]
    folder = Published().save(tmp_path / "point_cloud" / "iteration_7", cameras)
    assert call(capsys, "render", folder, "--scene", capture, "--view", "3", "-o", tmp_path / "v.png")[0] == 0
    code, out, _ = call(capsys, "eval", folder, "--scene", capture, "--json")
    assert (code, json.loads(out)["method"]) == (0, "scaffold_gs")
    assert not (folder / "eval").exists()
    for name in ("a.ply", "a.safetensors"):
        code, out, _ = call(capsys, "export", folder, "--scene", capture, "-o", tmp_path / name, "--json")
        assert code == 0
        assert json.loads(out)["views"] == 2
    positions = torch.stack([view.camera.centre for view in scene.views]).double().numpy()
    source = positions @ scene.source_from_world[:3, :3].T + scene.source_from_world[:3, 3]
    np.testing.assert_allclose(torch.stack([c.centre for c in cameras]).numpy(), source, atol=1e-5)
    # what is written lies in the coordinates of the checkpoint: its own cameras see it as the model does, baked
    run = Run.open(folder)
    baked = splat(run.gaussians(), cameras[3], torch.zeros(3)).rgb
    assert torch.equal(splat(read_ply(tmp_path / "a.ply"), cameras[3], torch.zeros(3)).rgb, baked)


def test_a_camera_sees_the_same_in_any_frame(tmp_path: Path) -> None:
    scene = load_scene(make_capture(tmp_path / "made"))
    assert in_frame(scene, scene.source_from_world) is scene
    moved = in_frame(scene, np.eye(4))
    point = torch.tensor([0.1, -0.2, 0.05, 1])
    source = torch.from_numpy(scene.source_from_world).float() @ point
    for here, there in zip(scene.views, moved.views, strict=True):
        ours, theirs = here.camera.world_to_camera @ point, there.camera.world_to_camera @ source
        torch.testing.assert_close(ours[:2] / ours[2], theirs[:2] / theirs[2], rtol=1e-4, atol=1e-5)


def test_what_is_too_near_to_be_shown_is_so_in_any_frame(tmp_path: Path) -> None:
    scene = load_scene(make_capture(tmp_path / "made"))
    moved = in_frame(scene, np.eye(4))
    scale = float(np.cbrt(np.linalg.det(scene.source_from_world[:3, :3])))
    assert not 0.8 < scale < 1.25, "the capture's unit says nothing"
    here, there = scene.views[0].camera, moved.views[0].camera
    depths = here.near * torch.tensor([0.9, 0.99, 1.01, 1.1, scale, 1 / scale])
    means = here.centre + depths[:, None] * here.world_to_camera[2, :3]
    count = len(means)
    gaussians = Gaussians(
        means,
        torch.full((count, 3), -7.0),
        torch.eye(4)[:1].repeat(count, 1),
        torch.zeros(count),
        torch.zeros(count, 1, 3),
    )
    shown = flattened(gaussians, here).visible
    assert shown.tolist() == [depth > here.near for depth in depths.tolist()]
    assert torch.equal(flattened(transformed(gaussians, scene.source_from_world), there).visible, shown)


def test_cameras_are_found_where_the_trainer_leaves_them(tmp_path: Path) -> None:
    camera = Camera(torch.eye(4), 50, 51, 32, 24, 64, 48)
    folder = Published().save(tmp_path / "point_cloud" / "iteration_7", [camera] * 130)
    shutil.move(folder / "cameras.json", tmp_path / "cameras.json")
    views = scaffold_checkpoint.read(folder).tensors["views"]
    assert views.shape == (44, 22)
    assert views[0, 16:].tolist() == [50, 51, 32, 24, 64, 48]


def test_without_cameras_there_is_a_model_but_nothing_to_bake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Published().save(tmp_path / "a")
    code, _, err = call(capsys, "export", folder, "-o", tmp_path / "a.ply")
    assert (code, "cameras.json" in err) == (3, True)
    assert call(capsys, "export", folder, "-o", tmp_path / "a.safetensors", "--no-check")[0] == 0
    assert torch.equal(Run.open(tmp_path / "a.safetensors").model.views, torch.zeros(0, 22))  # type: ignore[arg-type]


def test_anchors_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    published = Published()
    published.feature[3, 1] = float("nan")
    with pytest.warns(UserWarning, match="1 anchors"):
        assert len(scaffold_checkpoint.read(published.save(tmp_path / "a")).tensors["anchors"]) == COUNT - 1


def altered(folder: Path, name: str, content: bytes | str) -> None:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def with_member(folder: Path, compression: int, content: bytes) -> None:
    with zipfile.ZipFile(folder / "color_mlp.pt", "w", compression) as archive:
        archive.writestr("a/data/0", content)


DAMAGE = {
    "no head": (lambda f: (f / "cov_mlp.pt").unlink(), "missing"),
    "no archive": (lambda f: altered(f, "cov_mlp.pt", b"PK\3\4 nothing"), "TorchScript"),
    "another head": (lambda f: shutil.copy(f / "cov_mlp.pt", f / "color_mlp.pt"), "12 outputs"),
    "compressed": (lambda f: with_member(f, zipfile.ZIP_DEFLATED, bytes(1 << 20)), "compressed"),
    "empty archive": (lambda f: with_member(f, zipfile.ZIP_STORED, b""), "expected layers"),
    "no anchors": (lambda f: altered(f, "point_cloud.ply", b"ply\n"), "PLY"),
    "splats": (
        lambda f: altered(
            f,
            "point_cloud.ply",
            "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nend_header\n0 0\n",
        ),
        "expected the anchors",
    ),
    "appearance": (lambda f: altered(f, "embedding_appearance.pt", b""), "appearance"),
    "cameras": (lambda f: altered(f, "cameras.json", "[{}]"), "cameras"),
    "no list": (lambda f: altered(f, "cameras.json", "{}"), "cameras"),
    "deep": (lambda f: altered(f, "cameras.json", "[" * 100000), "cameras"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_told_in_words(name: str, tmp_path: Path) -> None:
    folder = Published().save(tmp_path / "a")
    change, words = DAMAGE[name]
    change(folder)  # type: ignore[no-untyped-call]
    with pytest.raises(DataError, match=words):
        _ = Run.open(folder).model


def test_flipped_bits_and_cuts_end_in_a_model_or_in_words(tmp_path: Path) -> None:
    camera = Camera(torch.eye(4), 50, 50, 32, 32, 64, 64)
    folder = Published().save(tmp_path / "a", [camera] * 3)
    random = np.random.default_rng(1)
    for name in ("point_cloud.ply", "color_mlp.pt", "cameras.json"):
        content = (folder / name).read_bytes()
        for _ in range(60):
            bad = bytearray(content)
            bad[random.integers(len(bad))] ^= 1 << int(random.integers(8))
            cut = random.random() < 0.3
            altered(folder, name, bytes(bad[: random.integers(len(bad))] if cut else bad))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with contextlib.suppress(DataError):
                    Run.open(folder).gaussians("source")
        altered(folder, name, content)
