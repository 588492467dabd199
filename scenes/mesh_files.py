"""Meshes in files: PLY, glTF binary (.glb) and OBJ, written whole or not at all.

Positions are in the capture's own frame in every format. glTF says that +y points up and that colours of vertices are
linear: a .glb therefore carries a node whose rotation stands the capture's up on +y (viewers apply it, the stored
positions stay those of the capture), and colours are converted from sRGB into 16 bits. PLY and OBJ have no such
rules; their colours are sRGB as in a photograph.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anchorfield.renderer.errors import DataError, UsageError
from anchorfield.renderer.meshing import Mesh
from anchorfield.scenes.atomic import replacing
from anchorfield.scenes.similarity import decomposed

Array = NDArray[np.float64]

_FLOAT, _UINT, _USHORT = 5126, 5125, 5123  # glTF's numbers for types of components
_VERTICES, _INDICES = 34962, 34963  # and for what a buffer is for
_ROWS_AT_ONCE = 1 << 16
_AXIS_CONE = 0.85  # cosine within which the capture's up is taken to be an axis of its frame


def write_mesh(
    path: Path | str, mesh: Mesh, source_from_world: ArrayLike | None = None, up: ArrayLike = (0.0, 0.0, 1.0)
) -> None:
    """Write a mesh by the file's ending, moved by `source_from_world` [4, 4]; `up` [3] is upwards in the file's frame.

    `up` only matters to .glb; within 30 degrees of an axis it means that axis, so that nothing is tilted by an
    estimate. Raises UsageError for an unknown ending and DataError where nothing can be written.
    """
    path = Path(path)
    check_mesh_ending(path)
    moved = in_source_frame(mesh, np.eye(4) if source_from_world is None else np.asarray(source_from_world))
    if not len(moved):
        raise DataError(f"{path}: the mesh has no faces")
    if not path.parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist")
    with replacing(path) as file:
        WRITERS[path.suffix.lower()](file, moved, np.asarray(up, np.float64))


def check_mesh_ending(path: Path) -> None:
    """Raise UsageError where no writer knows the file's ending."""
    if path.suffix.lower() not in WRITERS:
        raise UsageError(f"{path}: unknown ending '{path.suffix}' for a mesh. Known: {', '.join(WRITERS)}")


def read_mesh(path: Path | str) -> tuple[Array, NDArray[np.int64]]:
    """Vertices [V, 3] and triangles [F, 3] of any file that trimesh knows, in one piece; equal vertices are one.

    Raises DataError for what is no mesh, has no triangle with an area, or holds numbers that are not finite.
    """
    import trimesh

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} {'is a folder, expected a mesh' if path.is_dir() else 'does not exist'}")
    known = sorted(trimesh.available_formats())
    if path.suffix.lower()[1:] not in known:
        raise DataError(f"{path}: '{path.suffix}' is no ending of a mesh. Known: {', '.join(known)}")
    try:
        loaded = trimesh.load_mesh(path, process=False)
        vertices, faces = np.asarray(loaded.vertices, np.float64), np.asarray(loaded.faces, np.int64)
    except MemoryError:
        raise
    except Exception as problem:  # the readers raise whatever they stumble over
        raise DataError(f"{path} cannot be read as a mesh: {type(problem).__name__}: {problem}") from problem
    if not len(faces):
        raise DataError(f"{path} has no triangles: expected a mesh, not points or lines")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise DataError(f"{path}: a triangle names a vertex that is not there; export the mesh again")
    if not np.isfinite(vertices).all():
        raise DataError(f"{path}: {int((~np.isfinite(vertices)).any(1).sum())} vertices are not finite")
    vertices, same = np.unique(vertices, axis=0, return_inverse=True)
    faces = same.reshape(-1)[faces]
    corners = vertices[faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    if not areas.max() > 0:
        raise DataError(f"{path}: no triangle has an area")
    return vertices, faces


def in_source_frame(mesh: Mesh, source_from_world: Array) -> Mesh:
    """The mesh under a similarity, computed in double precision."""
    try:
        scale, rotation, translation = decomposed(source_from_world)
    except ValueError as problem:
        raise DataError(f"the mesh cannot be moved into the capture's frame: {problem}") from problem
    vertices = mesh.vertices.astype(np.float64) @ (scale * rotation).T + translation
    normals = None if mesh.normals is None else (mesh.normals @ rotation.T).astype(np.float32)
    with np.errstate(over="ignore"):
        moved = vertices.astype(np.float32)
    if not np.isfinite(moved).all():
        raise DataError("the mesh has vertices that are not finite")
    return Mesh(moved, mesh.faces, mesh.colours, normals)


def _write_ply(file: IO[bytes], mesh: Mesh, up: Array) -> None:
    kinds: list[tuple[str, str, str]] = [(name, "<f4", "float") for name in "xyz"]
    parts = [mesh.vertices]
    if mesh.normals is not None:
        kinds += [(name, "<f4", "float") for name in ("nx", "ny", "nz")]
        parts.append(mesh.normals)
    if mesh.colours is not None:
        kinds += [(name, "u1", "uchar") for name in ("red", "green", "blue")]
    rows = np.empty(len(mesh.vertices), np.dtype([(name, kind) for name, kind, _ in kinds]))
    for index, (name, _, _) in enumerate(kinds):
        rows[name] = parts[index // 3][:, index % 3] if index < 3 * len(parts) else _colours(mesh)[:, index % 3]
    faces = np.empty(len(mesh.faces), np.dtype([("count", "u1"), ("corners", "<i4", 3)]))
    faces["count"], faces["corners"] = 3, mesh.faces
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(rows)}",
        *(f"property {word} {name}" for name, _, word in kinds),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    file.write(("\n".join(header) + "\n").encode())
    file.write(rows.tobytes())
    file.write(faces.tobytes())


def _write_obj(file: IO[bytes], mesh: Mesh, up: Array) -> None:
    """Colours follow the position on its line, which is no part of the format but read by most programs."""
    rows: list[NDArray[Any]] = [mesh.vertices]
    if mesh.colours is not None:
        rows.append(mesh.colours / np.float32(255))
    _lines(file, "v" + " %.7g" * 3 * len(rows), np.concatenate(rows, axis=1))
    if mesh.normals is not None:
        _lines(file, "vn %.4f %.4f %.4f", mesh.normals)
        _lines(file, "f %d//%d %d//%d %d//%d", np.repeat(mesh.faces + 1, 2, axis=1))
    else:
        _lines(file, "f %d %d %d", mesh.faces + 1)


def _lines(file: IO[bytes], pattern: str, rows: NDArray[Any]) -> None:
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[start : start + _ROWS_AT_ONCE]
        file.write(((pattern + "\n") * len(part) % tuple(part.ravel().tolist())).encode())


def _write_glb(file: IO[bytes], mesh: Mesh, up: Array) -> None:
    binary = bytearray()
    views, accessors, attributes = list[dict[str, Any]](), list[dict[str, Any]](), dict[str, int]()

    def add(values: NDArray[Any], component: int, kind: str, target: int, **more: Any) -> int:
        views.append({"buffer": 0, "byteOffset": len(binary), "byteLength": values.nbytes, "target": target})
        binary.extend(np.ascontiguousarray(values).tobytes())
        binary.extend(bytes(-len(binary) % 4))
        count = values.size if kind == "SCALAR" else len(values)
        facts = {"bufferView": len(views) - 1, "componentType": component, "count": count, "type": kind}
        accessors.append(facts | more)
        return len(accessors) - 1

    bounds = {"min": mesh.vertices.min(0).tolist(), "max": mesh.vertices.max(0).tolist()}
    attributes["POSITION"] = add(mesh.vertices.astype("<f4"), _FLOAT, "VEC3", _VERTICES, **bounds)
    if mesh.normals is not None:
        attributes["NORMAL"] = add(mesh.normals.astype("<f4"), _FLOAT, "VEC3", _VERTICES)
    if mesh.colours is not None:
        attributes["COLOR_0"] = add(_linear(mesh.colours), _USHORT, "VEC4", _VERTICES, normalized=True)
    indices = add(mesh.faces.astype("<u4"), _UINT, "SCALAR", _INDICES)
    material = {
        "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 1], "metallicFactor": 0, "roughnessFactor": 1},
        "doubleSided": True,
        "extensions": {"KHR_materials_unlit": {}},  # the photographs' light is in the colours
    }
    document = {
        "asset": {"version": "2.0", "generator": "anchorfield"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "mesh", "rotation": upright(up).tolist()}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": indices, "material": 0}]}],
        "materials": [material],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(binary)}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    if total >= 1 << 32:
        raise DataError(f"a .glb file holds at most 4 GiB, this mesh needs {total:,} bytes: write .ply")
    file.write(b"glTF" + np.array([2, total, len(text)], "<u4").tobytes() + b"JSON" + text)
    file.write(np.array([len(binary)], "<u4").tobytes() + b"BIN\0" + binary)


def upright(up: ArrayLike) -> Array:
    """The unit quaternion [x, y, z, w] of the shortest turn from `up` to +y; `up` near an axis means that axis."""
    from scipy.spatial.transform import Rotation

    given = np.asarray(up, np.float64)
    length = float(np.linalg.norm(given))
    if given.shape != (3,) or not np.isfinite(length) or length < 1e-12:
        raise UsageError(f"expected a direction of three numbers for up, got {given.tolist()}")
    direction = given / length
    axis = int(np.abs(direction).argmax())
    if abs(direction[axis]) >= _AXIS_CONE:
        direction = np.sign(direction[axis]) * np.eye(3)[axis]
    turned = np.cross(direction, [0.0, 1.0, 0.0])
    cosine = float(direction[1])
    if cosine < -1 + 1e-9:  # upside down: any half turn about a level axis
        return np.array([1.0, 0.0, 0.0, 0.0])
    angle = np.arctan2(np.linalg.norm(turned), cosine)
    about = turned / max(float(np.linalg.norm(turned)), 1e-12)
    return np.asarray(Rotation.from_rotvec(angle * about).as_quat(), np.float64)


def linear_light(share: Array) -> Array:
    """Linear light in [0, 1] of sRGB values in [0, 1] (IEC 61966-2-1)."""
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def _linear(colours: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Linear light with an opaque alpha [V, 4] of sRGB colours."""
    table = np.rint(linear_light(np.arange(256) / 255) * 65535).astype("<u2")
    return np.concatenate([table[colours], np.full((len(colours), 1), 65535, "<u2")], axis=1)


def _colours(mesh: Mesh) -> NDArray[np.uint8]:
    assert mesh.colours is not None
    return mesh.colours


WRITERS: dict[str, Callable[[IO[bytes], Mesh, Array], None]] = {
    ".ply": _write_ply,
    ".glb": _write_glb,
    ".obj": _write_obj,
}
