"""What is exported lies where the capture's own points lie, through training, checkpoint and file."""

from __future__ import annotations

from pathlib import Path

import captures
import numpy as np
import pycolmap
from plyfile import PlyData
from scipy.spatial import cKDTree

from anchorfield.app import train
from anchorfield.app.export import export


def test_exported_gaussians_coincide_with_the_points_of_colmap(tmp_path: Path) -> None:
    capture = captures.data("fig_bust")
    run = train(capture, steps=1, downscale=4, settings={"cap": 200000}, out=tmp_path / "run")
    export(run, tmp_path / "splat.ply")
    vertex = PlyData.read(str(tmp_path / "splat.ply"))["vertex"]
    exported = np.stack([vertex["x"], vertex["y"], vertex["z"]], 1)
    model = pycolmap.Reconstruction(str(capture / "sparse"))
    points = np.stack([point.xyz for point in model.points3D.values()])
    distance = cKDTree(exported).query(points)[0]
    # One step moves a mean by at most the learning rate, which is a share of 1e-3 of the cameras' extent.
    centres = np.stack([image.projection_center() for image in model.images.values()])
    assert np.median(distance) < 2e-3 * np.ptp(centres, axis=0).max()
    assert np.quantile(distance, 0.99) < 4e-3 * np.ptp(centres, axis=0).max()
