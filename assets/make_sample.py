"""Render the sample capture in `assets/sample`: a path-traced still life with exact cameras, depth, masks and a mesh.

How to run (Python 3.11, on any CPU; about twenty minutes on two cores):

    pip install bpy==4.2.0 pillow numpy
    python assets/make_sample.py

Blender's `bpy` is needed by this script alone, not by the product. `--views 0,8 --out try` renders a few views
elsewhere. Lossless renders are kept in `--cache`, so that an interrupted run goes on where it stopped; empty that
folder after a change to the scene.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import bpy
import numpy as np
import sample_scene
from mathutils import Matrix, Vector
from mathutils.bvhtree import BVHTree
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]

SIZE = 400
FOCAL = 480.0
JPEG_QUALITY = 95
DEPTH_UNIT = 0.0001
TEST_EVERY = 8
VIEWS_PER_RING = 16
# Each ring: elevation in degrees, distance to the target and height of the target in metres.
RINGS = ((15.0, 0.78, 0.080), (31.0, 0.80, 0.060), (54.0, 0.80, 0.045), (37.0, 0.57, 0.060))


def look_at(eye: Array, target: Array) -> Array:
    """Camera-to-world matrix with OpenGL axes: x right, y up, z backwards."""
    back = (eye - target) / np.linalg.norm(eye - target)
    right = np.cross([0, 0, 1], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(back, right), back, eye], -1)
    return pose


def camera_poses() -> list[Array]:
    """All poses, ring by ring; slightly shaken like a capture by hand, from a fixed seed.

    Every eighth view is held out, two opposite ones per ring; each ring is turned by 45 degrees and a quarter of a step
    against the one before, so that the held-out views face eight directions.
    """
    rng = np.random.default_rng(64)
    poses = []
    for number, (elevation, distance, height) in enumerate(RINGS):
        for step in range(VIEWS_PER_RING):
            azimuth = np.radians(360 / VIEWS_PER_RING * (step + number / 4 + rng.uniform(-0.15, 0.15)) + 45 * number)
            e = np.radians(elevation + rng.uniform(-2, 2))
            direction = np.array([np.cos(e) * np.cos(azimuth), np.cos(e) * np.sin(azimuth), np.sin(e)])
            target = np.array([0, 0, height]) + rng.uniform(-0.012, 0.012, 3)
            poses.append(look_at(target + distance * rng.uniform(0.97, 1.03) * direction, target))
    return [np.round(pose, 9) for pose in poses]


def set_up_render(samples: int, threads: int) -> bpy.types.Object:
    """Configure Cycles and return the camera."""
    scene = bpy.context.scene
    render, cycles = scene.render, scene.cycles
    render.engine = "CYCLES"
    render.resolution_x = render.resolution_y = SIZE
    render.resolution_percentage = 100
    render.image_settings.file_format = "PNG"
    render.dither_intensity = 0
    render.use_persistent_data = True
    render.threads_mode, render.threads = "FIXED", threads
    cycles.samples, cycles.seed = samples, 1
    cycles.use_adaptive_sampling = False
    cycles.use_light_tree = False  # two lights: choosing between them cleverly costs more than it saves
    cycles.use_denoising, cycles.denoiser = True, "OPENIMAGEDENOISE"
    # The guides are used as they are: smoothing them first blurs fine print, and they hold little noise of their own.
    cycles.denoising_input_passes, cycles.denoising_prefilter = "RGB_ALBEDO_NORMAL", "NONE"
    cycles.filter_width = 1.2  # pixels; Blender's own 1.5 is a little soft at this size
    cycles.max_bounces, cycles.diffuse_bounces, cycles.glossy_bounces = 3, 2, 2
    cycles.sample_clamp_indirect = 4.0  # no fireflies
    cycles.caustics_reflective = cycles.caustics_refractive = False
    # Keeps colours as painted and only rolls off the highlights.
    scene.view_settings.view_transform = "Khronos PBR Neutral"
    scene.view_settings.exposure = 0.0
    data = bpy.data.cameras.new("camera")
    data.sensor_fit, data.sensor_width = "HORIZONTAL", 36.0
    data.lens = FOCAL * data.sensor_width / SIZE
    data.clip_start, data.clip_end = 0.01, 20.0
    camera = bpy.data.objects.new("camera", data)
    scene.collection.objects.link(camera)
    scene.camera = camera
    return camera


def render_view(camera: bpy.types.Object, pose: Array, path: Path) -> None:
    """Path-trace one view into a PNG, unless it is there already."""
    if path.exists():
        return
    camera.matrix_world = Matrix(pose.tolist())
    # Rendered under another name first: an interrupted run must not leave half a picture behind.
    draft = path.with_name("draft.png")
    bpy.context.scene.render.filepath = str(draft)
    bpy.ops.render.render(write_still=True)
    draft.replace(path)


# --- ground truth ----------------------------------------------------------------------------------------------------


def triangles(group: bpy.types.Collection) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Vertices and triangles of all meshes of a group: the very triangles that Cycles renders."""
    vertices, faces, start = [], [], 0
    for item in group.objects:
        mesh = item.data
        mesh.calc_loop_triangles()
        points = np.empty(3 * len(mesh.vertices), np.float32)
        mesh.vertices.foreach_get("co", points)
        corners = np.empty(3 * len(mesh.loop_triangles), np.int32)
        mesh.loop_triangles.foreach_get("vertices", corners)
        vertices.append(points.reshape(-1, 3))
        faces.append(corners.reshape(-1, 3) + start)
        start += len(mesh.vertices)
    return np.concatenate(vertices), np.concatenate(faces)


def write_mesh(path: Path, vertices: NDArray[np.float32], faces: NDArray[np.int32]) -> None:
    """Write a binary little-endian PLY."""
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(vertices)}\n"
        "property float x\nproperty float y\nproperty float z\n"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    rows = np.empty(len(faces), np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
    rows["count"], rows["corners"] = 3, faces
    path.write_bytes(header.encode() + vertices.astype("<f4").tobytes() + rows.tobytes())


def bvh(group: bpy.types.Collection) -> BVHTree:
    """A ray-casting structure over a group's triangles."""
    vertices, faces = triangles(group)
    return BVHTree.FromPolygons(vertices.tolist(), faces.tolist(), all_triangles=True)


def cast_view(pose: Array, still_life: BVHTree, backdrop: BVHTree) -> tuple[Array, NDArray[np.bool_]]:
    """Depth along the optical axis at every pixel's centre, and which pixels show the still life."""
    column, row = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    local = np.stack([(column - SIZE / 2) / FOCAL, (SIZE / 2 - row) / FOCAL, -np.ones_like(row)], -1)
    # Ray lengths scale with the local direction's z of -1: dividing a hit's distance by the norm gives its depth.
    norms = np.linalg.norm(local, axis=-1).ravel()
    directions = (local.reshape(-1, 3) @ pose[:3, :3].T).tolist()
    eye = Vector(pose[:3, 3])
    depth, mask = np.zeros(SIZE * SIZE), np.zeros(SIZE * SIZE, bool)
    for pixel, direction in enumerate(directions):
        near, far = still_life.ray_cast(eye, direction)[3], backdrop.ray_cast(eye, direction)[3]
        mask[pixel] = near is not None and (far is None or near < far)
        depth[pixel] = (near if mask[pixel] else far or 0.0) / norms[pixel]
    return depth.reshape(SIZE, SIZE), mask.reshape(SIZE, SIZE)


def write_ground_truth(
    out: Path, poses: list[Array], still_life: bpy.types.Collection, backdrop: bpy.types.Collection
) -> None:
    """Write the mesh, and depth and mask of the held-out views."""
    write_mesh(out / "mesh.ply", *triangles(still_life))
    objects, background = bvh(still_life), bvh(backdrop)
    for index in range(0, len(poses), TEST_EVERY):
        depth, mask = cast_view(poses[index], objects, background)
        steps = np.round(depth / DEPTH_UNIT)
        if steps.max() > 65535:
            raise ValueError(f"view {index}: depth {depth.max():.2f} m does not fit 16 bits")
        Image.fromarray(steps.astype(np.uint16)).save(out / "depth" / f"{index:03}.png", optimize=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(out / "masks" / f"{index:03}.png", optimize=True)


def transforms(poses: list[Array]) -> dict[str, object]:
    """The cameras in the dialect of instant-ngp and nerfstudio."""
    frames: list[dict[str, object]] = []
    for index, pose in enumerate(poses):
        frame: dict[str, object] = {"file_path": f"images/{index:03}.jpg"}
        if index % TEST_EVERY == 0:
            frame["depth_file_path"] = f"depth/{index:03}.png"
            frame["object_mask_path"] = f"masks/{index:03}.png"
        frames.append(frame | {"transform_matrix": pose.tolist()})
    names = [f"images/{index:03}.jpg" for index in range(len(poses))]
    return {
        "camera_model": "PINHOLE",
        "fl_x": FOCAL,
        "fl_y": FOCAL,
        "cx": SIZE / 2,
        "cy": SIZE / 2,
        "w": SIZE,
        "h": SIZE,
        "depth_unit_scale_factor": DEPTH_UNIT,
        "train_filenames": [name for index, name in enumerate(names) if index % TEST_EVERY],
        "test_filenames": names[::TEST_EVERY],
        "frames": frames,
    }


def write_transforms(path: Path, poses: list[Array]) -> None:
    """Write the cameras with one line per matrix row, so that the file stays readable."""
    text = json.dumps(transforms(poses), indent=1)
    path.write_text(text + "\n")


def write_contact_sheet(out: Path, path: Path, views: tuple[int, ...] = (2, 21, 38, 57, 60, 29, 10, 45)) -> None:
    """A few views side by side, for the project's front page."""
    tile = 300
    sheet = Image.new("RGB", (tile * 4, tile * 2))
    for place, index in enumerate(views):
        picture = Image.open(out / "images" / f"{index:03}.jpg").resize((tile, tile), Image.Resampling.LANCZOS)
        sheet.paste(picture, (place % 4 * tile, place // 4 * tile))
    sheet.save(path, quality=70, optimize=True)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Render the sample capture.")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "sample")
    parser.add_argument("--samples", type=int, default=20, help="paths per pixel")
    parser.add_argument("--threads", type=int, default=0, help="0 uses every core")
    parser.add_argument("--views", type=str, default="", help="comma-separated numbers; all views without it")
    parser.add_argument(
        "--cache",
        type=Path,
        default=Path(tempfile.gettempdir()) / "anchorfield-sample",
        help="folder of the lossless renders",
    )
    return parser.parse_args()


def main() -> None:
    """Build the scene, render the views and write the ground truth."""
    arguments = parse_arguments()
    out: Path = arguments.out
    for folder in ("images", "depth", "masks"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    still_life, backdrop = sample_scene.build()
    camera = set_up_render(arguments.samples, arguments.threads)
    poses = camera_poses()
    views = [int(view) for view in arguments.views.split(",")] if arguments.views else range(len(poses))
    for index in views:
        lossless = arguments.cache / f"{index:03}.png"
        render_view(camera, poses[index], lossless)
        picture = Image.open(lossless).convert("RGB")
        picture.save(out / "images" / f"{index:03}.jpg", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    write_transforms(out / "transforms.json", poses)
    if not arguments.views:
        write_ground_truth(out, poses, still_life, backdrop)
        write_contact_sheet(out, out.with_suffix(".jpg"))


if __name__ == "__main__":
    main()
