"""Points from poses and photographs."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import captures
import numpy as np
import pytest
import torch

from anchorfield.scenes.guided_matching import fundamental
from anchorfield.scenes.load import load_scene
from anchorfield.scenes.scene import Scene
from anchorfield.scenes.triangulate import pairs_to_match, triangulated_points


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Six views of the textured plane z = 0."""
    folder = tmp_path_factory.mktemp("plane")
    captures.textured_plane(folder)
    return load_scene(folder, split="all")


def heights(scene: Scene, xyz: np.ndarray) -> np.ndarray:
    """How far above the plane points of the training frame lie, in the source frame."""
    return np.asarray((xyz @ scene.source_from_world[:3, :3].T + scene.source_from_world[:3, 3])[:, 2])


def test_points_lie_on_the_plane_and_are_kept(plane: Scene, tmp_path: Path) -> None:
    cache, told = tmp_path / "run" / "points.npz", list[str]()
    points = triangulated_points(plane, cache, told.append)
    assert points is not None
    assert len(points.xyz) > 300
    # At a distance of 2.6 with a focal length of 300 pixels, 0.1 pixels over a baseline of 0.6 are 0.004 in height; a
    # bias tells of keypoints or cameras that are off by a part of a pixel.
    assert np.median(np.abs(heights(plane, points.xyz))) < 0.003
    assert abs(np.median(heights(plane, points.xyz))) < 0.0005
    assert points.rgb.std() > 5
    assert "triangulating" in told
    assert [path.name for path in cache.parent.iterdir()] == ["points.npz"]
    again = triangulated_points(plane, cache, told.append)
    assert again is not None
    assert np.array_equal(again.xyz, points.xyz)
    assert told[-1].startswith(f"{len(points.xyz)} points from")


def test_the_same_twice_and_only_from_training_views(plane: Scene, tmp_path: Path) -> None:
    scene, told = replace(plane, train=(0, 1, 2), test=(3, 4, 5)), list[str]()
    first = triangulated_points(scene, tmp_path / "a.npz", told.append)
    second = triangulated_points(scene, tmp_path / "b.npz")
    assert first is not None
    assert second is not None
    assert np.array_equal(first.xyz, second.xyz)
    assert "preparing 3 images" in told


def test_a_stale_or_damaged_cache_is_made_anew(plane: Scene, tmp_path: Path) -> None:
    cache = tmp_path / "points.npz"
    fewer = triangulated_points(replace(plane, train=(0, 1)), cache)
    cache_of_fewer = cache.read_bytes()
    more = triangulated_points(replace(plane, train=(0, 1, 2)), cache)
    assert fewer is not None
    assert more is not None
    assert len(more.xyz) != len(fewer.xyz)
    assert cache.read_bytes() != cache_of_fewer
    cache.write_bytes(cache.read_bytes()[:200])
    again = triangulated_points(replace(plane, train=(0, 1, 2)), cache)
    assert again is not None
    assert np.array_equal(again.xyz, more.xyz)


def test_photos_without_features_give_no_points(tmp_path: Path) -> None:
    captures.transforms(tmp_path, 3)
    points = triangulated_points(load_scene(tmp_path), tmp_path / "points.npz")
    assert points is not None
    assert len(points.xyz) == 0


def test_a_worker_that_fails_costs_only_the_points(
    plane: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"  # stands before OpenCV on the worker's path, and ends it as a crash would
    broken.mkdir()
    (broken / "cv2.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(broken))
    with pytest.warns(UserWarning, match="no points could be triangulated"):
        assert triangulated_points(plane, tmp_path / "points.npz") is None
    assert not (tmp_path / "points.npz").exists()


def test_an_interrupt_ends_the_worker(plane: Scene, tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        if line.startswith("finding features"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        triangulated_points(plane, tmp_path / "points.npz", interrupt)
    children = subprocess.run(["ps", "--ppid", str(os.getpid()), "-o", "args="], capture_output=True, text=True)
    assert "triangulate_worker" not in children.stdout
    assert list(tmp_path.iterdir()) == []


def test_pairs_are_near_and_look_the_same_way() -> None:
    poses = np.stack(captures.ring(60))
    pairs = pairs_to_match(poses)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs) <= 60 * 12
    directions = poses[:, 2, :3]
    assert (np.sum(directions[pairs[:, 0]] * directions[pairs[:, 1]], axis=1) > np.cos(np.radians(75))).all()
    assert pairs_to_match(poses[:2]).tolist() == [[0, 1]]


def test_fundamental_matrix() -> None:
    first, second = captures.ring(5)[:2]
    k = np.array([[50.0, 0, 20], [0, 51, 15], [0, 0, 1]])
    points = np.random.default_rng(0).normal(size=(10, 3)) * 0.3
    seen = [(points @ pose[:3, :3].T + pose[:3, 3]) @ k.T for pose in (first, second)]
    products = np.einsum("ni,ij,nj->n", seen[1], fundamental(first, k, second, k), seen[0])
    np.testing.assert_allclose(products, 0, atol=1e-9)


def test_undistorted_fox_obeys_its_poses(tmp_path: Path) -> None:
    """Features of the undistorted photographs lie on the epipolar lines of the poses, and so give points."""
    scene = load_scene(captures.data("fox"), downscale=4)
    points = triangulated_points(replace(scene, train=scene.train[:4]), tmp_path / "points.npz")
    assert points is not None
    assert len(points.xyz) > 1000
    assert torch.isfinite(torch.from_numpy(points.xyz)).all()
