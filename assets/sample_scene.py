"""The sample still life as Blender objects: meshes, materials and lights, all in world coordinates (metres, z up).

The origin is the middle of the table top. Objects carry no transform of their own: every placement is baked into the
vertices, so that the meshes written as ground truth are the very triangles that are rendered.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import bmesh
import bpy
import numpy as np
import sample_textures as paint
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float64]
Point = tuple[float, float, float]

TABLE_RADIUS = 0.34
FLOOR_Z = -0.74
BACKDROP_RADIUS = 2.0
CLOTH_Z = 0.002
# Right and up direction of the picture on each side of a box (+x, -x, +y, -y, +z, -z).
FACE_AXES = np.array(
    [
        [[0, 1, 0], [0, 0, 1]],
        [[0, -1, 0], [0, 0, 1]],
        [[-1, 0, 0], [0, 0, 1]],
        [[1, 0, 0], [0, 0, 1]],
        [[1, 0, 0], [0, 1, 0]],
        [[1, 0, 0], [0, -1, 0]],
    ],
    float,
)


@dataclass(frozen=True)
class Part:
    """A mesh on its way into the scene; `uvs` has one row per face corner."""

    vertices: Array
    faces: list[tuple[int, ...]]
    uvs: Array
    smooth: bool = True

    def moved(self, at: Point = (0, 0, 0), turn: float = 0, tilt: float = 0) -> Part:
        """Rotate by `tilt` degrees about x, then by `turn` degrees about z, then translate."""
        return replace(self, vertices=self.vertices @ rotation(turn, tilt).T + np.array(at))


def rotation(turn: float, tilt: float = 0) -> Array:
    """Matrix that tilts about x, then turns about z (degrees)."""
    a, b = np.radians(turn), np.radians(tilt)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    both: Array = about_z @ about_x
    return both


# --- shapes ----------------------------------------------------------------------------------------------------------


def smooth_path(points: Sequence[Sequence[float]] | Array, count: int) -> Array:
    """A Catmull-Rom curve through the points, sampled evenly between them."""
    p = np.asarray(points, float)
    p = np.vstack([2 * p[0] - p[1], p, 2 * p[-1] - p[-2]])
    s = np.linspace(0, len(p) - 3, count)
    i = np.minimum(s.astype(int), len(p) - 4)
    t = (s - i)[:, None]
    a, b, c, d = p[i], p[i + 1], p[i + 2], p[i + 3]
    curve: Array = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return curve


def grid(points: Array, wrap: bool = False, v: Array | None = None) -> Part:
    """Quads over a rows x columns grid of points; `wrap` joins the last column to the first."""
    rows, columns = points.shape[:2]
    spans = columns if wrap else columns - 1
    v = np.linspace(0, 1, rows) if v is None else v
    faces, uvs = [], []
    for r in range(rows - 1):
        for c in range(spans):
            corners = ((r, c), (r, c + 1), (r + 1, c + 1), (r + 1, c))
            faces.append(tuple(i * columns + j % columns for i, j in corners))
            uvs += [(j / spans, v[i]) for i, j in corners]
    return Part(points.reshape(-1, 3), faces, np.array(uvs))


def lathe(profile: Array, segments: int = 64) -> Part:
    """Turn a profile of (radius, z) about the z axis; the texture runs along the profile by arc length."""
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    ring = np.stack([np.cos(angle), np.sin(angle)], -1)
    points = np.empty((len(profile), segments, 3))
    points[..., :2] = profile[:, None, :1] * ring
    points[..., 2] = profile[:, 1:]
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(profile, axis=0), axis=1))])
    return grid(points, wrap=True, v=length / length[-1])


def tube(path: Array, radius: float | Array, segments: int = 10, caps: bool = True) -> Part:
    """Sweep a circle along a path, without twist; `caps` closes its ends."""
    radii = np.broadcast_to(np.asarray(radius, float), len(path))
    tangents = np.gradient(path, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    normal = np.cross(tangents[0], [0.3, 0.5, 0.81])
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    rings = []
    for centre, tangent, r in zip(path, tangents, radii, strict=True):
        normal = normal - tangent * (normal @ tangent)
        normal /= np.linalg.norm(normal)
        side = np.cross(tangent, normal)
        rings.append(centre + r * (np.cos(angle)[:, None] * normal + np.sin(angle)[:, None] * side))
    if caps:
        rings = [np.tile(path[0], (segments, 1)), *rings, np.tile(path[-1], (segments, 1))]
    return grid(np.array(rings), wrap=True)


def ring(radius: float, wire: float, count: int = 64) -> Part:
    """A closed circle of wire about the z axis."""
    around, across = np.linspace(0, 2 * np.pi, count, endpoint=False), np.linspace(0, 2 * np.pi, 9)[:, None]
    r = radius + wire * np.cos(across)
    points = np.stack([r * np.cos(around), r * np.sin(around), wire * np.sin(across) * np.ones(count)], -1)
    return grid(points, wrap=True)


def box(size: Point, bevel: float) -> Part:
    """A box with rounded edges standing on z = 0, each side mapped to its cell of a texture atlas."""
    mesh = bmesh.new()
    bmesh.ops.create_cube(mesh, size=1)
    bmesh.ops.scale(mesh, vec=size, verts=mesh.verts)
    bmesh.ops.bevel(mesh, geom=mesh.edges[:], offset=bevel, segments=3, profile=0.5, affect="EDGES")
    mesh.verts.index_update()
    vertices = np.array([v.co for v in mesh.verts])
    faces, uvs = [], []
    for face in mesh.faces:
        normal = np.array(face.normal)
        axis = int(np.argmax(abs(normal)))
        side = 2 * axis + int(normal[axis] < 0)
        faces.append(tuple(v.index for v in face.verts))
        uvs.append(_atlas_uv(vertices[list(faces[-1])], side, np.array(size)))
    mesh.free()
    return Part(vertices + np.array([0, 0, size[2] / 2]), faces, np.concatenate(uvs), smooth=False)


def _atlas_uv(corners: Array, side: int, size: Array) -> Array:
    """Texture coordinates of points on one side of a box, in the 3 x 2 atlas of `sample_textures.box_atlas`."""
    axes = FACE_AXES[side]
    inside = np.clip(corners @ axes.T / abs(axes @ size) + 0.5, 0.004, 0.996)
    uv: Array = (inside + np.array([side % 3, 1 - side // 3])) / [3, 2]
    return uv


def planar(part: Part, extent: float) -> Part:
    """Map a part's texture straight down the z axis, over a square of this side."""
    corners = np.concatenate([np.array(face) for face in part.faces])
    return replace(part, uvs=part.vertices[corners, :2] / extent + 0.5)


def cloth_sheet(side: float = 0.40, count: int = 81) -> Part:
    """A square of cloth with soft random folds, lying close to the table along its hem."""
    span = np.linspace(-side / 2, side / 2, count)
    x, y = np.meshgrid(span, span)
    folds = paint.fractal_noise(count, count, (5, 5), 2, 7).astype(float)
    ridge = np.exp(-(((x + y * 0.6 + 0.1) / 0.016) ** 2)) + np.exp(-(((y - x * 0.4 - 0.11) / 0.02) ** 2))
    hem = np.clip((side / 2 - np.maximum(abs(x), abs(y))) / 0.02, 0, 1)
    z = 0.0006 + hem * (0.0008 + 0.0012 * np.clip(folds + 0.2, 0, 1) + 0.0035 * ridge)
    bend = 0.004 * folds
    return grid(np.stack([x + bend, y + 0.7 * bend[::-1], z], -1))


def sphere(radius: float, squash: float = 1.0, columns: int = 48, rows: int = 25) -> Part:
    """A ball standing on z = 0, slightly flattened by `squash`, with a dimple at the top when flattened."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, rows)
    dimple = (1 - squash) * np.exp(-(((angle - np.pi / 2) / 0.25) ** 2))
    profile = np.stack([radius * np.cos(angle), radius * squash * (1 + np.sin(angle)) - radius * dimple], -1)
    return lathe(profile, columns)


def leaf(length: float) -> Part:
    """A pointed, slightly folded and drooping leaf along +x."""
    t = np.linspace(0, 1, 7)
    width = 0.30 * length * np.sin(np.pi * t**0.8) + 0.0004
    across = np.linspace(-1, 1, 3)
    x = np.repeat(t[:, None] * length, 3, 1)
    y = width[:, None] * across
    z = 0.25 * abs(y) - 0.25 * length * (t**2)[:, None]
    return grid(np.stack([x, y, z], -1)[:, ::-1])


# --- materials -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finish:
    """How a surface scatters light, apart from its colour; bump heights are in metres."""

    roughness: float = 0.6
    specular: float = 0.5
    coat: float = 0.0
    metallic: float = 0.0
    image_bump: float = 0.0
    noise_bump: float = 0.0
    noise_scale: float = 300.0


MATT = Finish(0.8, specular=0.25)
PAPER = Finish(0.7, specular=0.25)
GLAZE = Finish(0.42, coat=0.3)
METAL = Finish(0.45, metallic=1.0)
WOOD = Finish(0.7, specular=0.25)


def load_image(name: str, picture: Image.Image) -> bpy.types.Image:
    """Hand a Pillow picture to Blender."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.png"
        picture.save(path)
        image = bpy.data.images.load(str(path))
        image.pack()
    return image


def material(name: str, colour: Image.Image | paint.Colour, finish: Finish) -> bpy.types.Material:
    """A Principled surface with an image or one plain colour (8-bit sRGB)."""
    result = bpy.data.materials.new(name)
    result.use_nodes = True
    nodes, link = result.node_tree.nodes, result.node_tree.links.new
    surface = nodes["Principled BSDF"]
    surface.inputs["Roughness"].default_value = finish.roughness
    surface.inputs["Specular IOR Level"].default_value = finish.specular
    surface.inputs["Metallic"].default_value = finish.metallic
    surface.inputs["Coat Weight"].default_value = finish.coat
    surface.inputs["Coat Roughness"].default_value = 0.3
    height = None
    if isinstance(colour, Image.Image):
        texture = nodes.new("ShaderNodeTexImage")
        texture.image = load_image(name, colour)
        link(texture.outputs["Color"], surface.inputs["Base Color"])
        height = (texture.outputs["Color"], finish.image_bump) if finish.image_bump else None
    else:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in np.array(colour) / 255]
        surface.inputs["Base Color"].default_value = (*linear, 1)
    if finish.noise_bump:
        noise = nodes.new("ShaderNodeTexNoise")
        noise.inputs["Scale"].default_value = finish.noise_scale
        coordinates = nodes.new("ShaderNodeTexCoord")
        link(coordinates.outputs["Object"], noise.inputs["Vector"])
        height = (noise.outputs["Fac"], finish.noise_bump)
    if height:
        bump = nodes.new("ShaderNodeBump")
        bump.inputs["Distance"].default_value = height[1]
        link(height[0], bump.inputs["Height"])
        link(bump.outputs["Normal"], surface.inputs["Normal"])
    return result


def add(group: bpy.types.Collection, part: Part, look: bpy.types.Material) -> None:
    """Put a part into the scene with one material."""
    mesh = bpy.data.meshes.new(look.name)
    mesh.from_pydata(part.vertices.tolist(), [], part.faces)
    mesh.uv_layers.new().data.foreach_set("uv", part.uvs.astype(np.float32).ravel())
    # The poles of lathed parts are rings of coinciding points: weld them, which also removes their empty faces.
    welded = bmesh.new()
    welded.from_mesh(mesh)
    bmesh.ops.remove_doubles(welded, verts=welded.verts, dist=1e-6)
    welded.to_mesh(mesh)
    welded.free()
    mesh.materials.append(look)
    if part.smooth:
        mesh.polygons.foreach_set("use_smooth", [True] * len(mesh.polygons))
        mesh.set_sharp_from_angle(angle=np.radians(40))
    group.objects.link(bpy.data.objects.new(look.name, mesh))


def add_box(
    group: bpy.types.Collection,
    name: str,
    size: Point,
    painter: paint.FacePainter,
    at: Point,
    turn: float,
    tilt: float = 0,
    bevel: float = 0.0015,
    finish: Finish = MATT,
) -> None:
    """Put a six-sided box with a painted atlas into the scene."""
    look = material(name, paint.box_atlas(size, painter), finish)
    add(group, box(size, bevel).moved(at, turn, tilt), look)


# --- the still life --------------------------------------------------------------------------------------------------


def add_table(group: bpy.types.Collection) -> None:
    """A round table of walnut planks on a turned column, with a cloth on it."""
    r = TABLE_RADIUS
    edge = np.array(
        [[r - 0.008, -0.03], [r - 0.002, -0.028], [r, -0.022], [r, -0.008], [r - 0.0015, -0.0025], [r - 0.006, 0]]
    )
    top = lathe(np.vstack([[0, -0.03], edge, [r * 0.5, 0], [0, 0]]), 128)
    add(group, planar(top, 2.12 * r), material("table top", paint.table_top(), WOOD))
    column = [
        [0.05, -0.03],
        [0.05, -0.07],
        [0.03, -0.1],
        [0.042, -0.2],
        [0.028, -0.32],
        [0.045, -0.5],
        [0.032, -0.6],
        [0.05, -0.66],
        [0.16, -0.705],
        [0.19, -0.72],
        [0.19, FLOOR_Z],
    ]
    add(
        group,
        lathe(smooth_path(column, 48)[::-1], 40),
        material("table column", paint.wood(1024, 1024, (70, 42, 26), (128, 84, 52), 5).rotate(90), WOOD),
    )
    linen = Finish(0.9, specular=0.1)
    add(group, cloth_sheet().moved((0.01, -0.01, 0), turn=24), material("cloth", paint.cloth(), linen))


def add_vase(group: bpy.types.Collection) -> None:
    """A painted vase with twigs and leaves."""
    x, y = -0.10, 0.105
    outside = smooth_path(
        [[0.034, 0], [0.046, 0.03], [0.057, 0.08], [0.050, 0.13], [0.030, 0.165], [0.026, 0.185], [0.036, 0.205]], 44
    )
    inside = smooth_path([[0.0335, 0.2055], [0.0235, 0.187], [0.026, 0.165], [0.040, 0.14]], 14)
    profile = np.vstack([[0, 0], [0.031, 0], outside, inside, [0, 0.138]])
    add(group, lathe(profile, 72).moved((x, y, CLOTH_Z)), material("vase", paint.vase(), GLAZE))
    bark = material("twig", paint.bark(), MATT)
    greens = [
        material(f"leaf {i}", paint.leaf(c, i), Finish(0.75, specular=0.25))
        for i, c in enumerate(((74, 112, 52), (112, 138, 58), (164, 132, 48)))
    ]
    rng = np.random.default_rng(3)
    for number in range(6):
        turn = 60 * number + 20
        reach, top = 0.05 + 0.03 * (number % 3), 0.345 - 0.03 * (number % 2)
        knots = np.array([[0.004, 0, 0.14], [0.014, 0, 0.205], [0.4 * reach, 0.006, 0.26], [reach, 0, top]])
        knots[1:] += rng.normal(0, 0.004, (3, 3))
        path = smooth_path(knots, 22) @ rotation(turn).T + [x, y, 0]
        add(group, tube(path, np.linspace(0.0026, 0.0014, 22), 8), bark)
        for step in range(9, 22, 2):
            blade = leaf(rng.uniform(0.020, 0.032)).moved(tilt=rng.uniform(-30, 30))
            add(group, blade.moved(tuple(path[step]), turn=rng.uniform(0, 360)), greens[step % 3])


def add_teapot(group: bpy.types.Collection) -> None:
    """A glazed teapot: body, lid with knob, spout and handle."""
    at, turn = (0.025, 0.005, CLOTH_Z), 205.0
    glaze = material("teapot", paint.speckled((204, 112, 44), (92, 42, 20), 12), replace(GLAZE, roughness=0.38))
    body = np.vstack(
        [
            [0, 0],
            [0.034, 0],
            smooth_path([[0.036, 0.004], [0.055, 0.025], [0.063, 0.052], [0.052, 0.082], [0.033, 0.096]], 36),
            [0, 0.096],
        ]
    )
    lid = np.vstack(
        [
            smooth_path(
                [
                    [0.036, 0.095],
                    [0.037, 0.100],
                    [0.028, 0.108],
                    [0.010, 0.113],
                    [0.006, 0.117],
                    [0.011, 0.124],
                    [0.009, 0.131],
                ],
                32,
            ),
            [0, 0.133],
        ]
    )
    for profile in (body, lid):
        add(group, lathe(profile, 64).moved(at, turn), glaze)
    spout = smooth_path([[0.045, 0, 0.030], [0.072, 0, 0.042], [0.084, 0, 0.070], [0.102, 0, 0.094]], 22)
    add(group, tube(spout, np.linspace(0.0165, 0.0075, 22), 20).moved(at, turn), glaze)
    handle = smooth_path(
        [[-0.050, 0, 0.080], [-0.078, 0, 0.086], [-0.094, 0, 0.066], [-0.086, 0, 0.038], [-0.058, 0, 0.028]], 32
    )
    add(group, tube(handle, 0.0058, 14).moved(at, turn), glaze)


def add_mug(group: bpy.types.Collection) -> None:
    """A striped cup with a thin handle."""
    at, turn = (0.025, 0.215, 0.0), 60.0
    bands = [(0.36, paint.TEAL), (0.42, paint.IVORY), (0.46, paint.CRIMSON), (0.50, paint.IVORY), (1.0, paint.SAGE)]
    glaze = material("mug", paint.striped(512, 1024, bands, 14), GLAZE)
    profile = np.vstack(
        [
            [0, 0],
            [0.026, 0],
            [0.031, 0.004],
            [0.036, 0.035],
            [0.037, 0.073],
            [0.0358, 0.0745],
            [0.0345, 0.073],
            [0.033, 0.035],
            [0.027, 0.008],
            [0, 0.006],
        ]
    )
    add(group, lathe(profile, 64).moved(at, turn), glaze)
    handle = smooth_path(
        [[0.034, 0, 0.060], [0.055, 0, 0.060], [0.060, 0, 0.040], [0.052, 0, 0.022], [0.032, 0, 0.020]], 28
    )
    add(group, tube(handle, 0.0036, 10).moved(at, turn), glaze)


def add_books_and_boxes(group: bpy.types.Collection) -> None:
    """Everything that is a box: a chest, two books, toy blocks and the tent card."""
    add_box(
        group, "chest", (0.165, 0.105, 0.085), paint.chest_face, (0.150, 0.110, CLOTH_Z), -28, bevel=0.003, finish=WOOD
    )
    add_box(group, "lower book", (0.150, 0.205, 0.030), paint.atlas_face, (-0.140, -0.090, CLOTH_Z), 32)
    add_box(group, "upper book", (0.130, 0.180, 0.022), paint.novel_face, (-0.143, -0.088, CLOTH_Z + 0.030), 14)
    blocks = (
        ("ANCHOR", paint.CRIMSON, (0.205, -0.130, 0.0), 20.0),
        ("FIELDS", paint.TEAL, (0.243, -0.120, 0.0), -8.0),
        ("SPLATS", paint.COBALT, (0.224, -0.124, 0.034), 38.0),
    )
    for seed, (letters, colour, at, turn) in enumerate(blocks):
        add_box(group, letters, (0.034,) * 3, paint.block_face(letters, colour, 10 * seed), at, turn, bevel=0.002)
    height, lean = 0.092, 16.0
    foot = height * np.sin(np.radians(lean))
    for side, turn in ((-1, 8.0), (1, 188.0)):
        at = np.array([0.050, -0.190, CLOTH_Z]) + rotation(8) @ [0, side * foot, 0]
        add_box(
            group,
            f"card {side}",
            (0.150, 0.0014, height),
            paint.card_side,
            tuple(at),
            turn,
            tilt=-lean,
            bevel=0.0003,
            finish=PAPER,
        )


def add_small_things(group: bpy.types.Collection) -> None:
    """A painted ball on a wire stand, fruit and pencils."""
    steel = material("wire", (168, 164, 156), METAL)
    stand: Point = (0.150, -0.020, CLOTH_Z)
    add(group, ring(0.026, 0.0016).moved((stand[0], stand[1], 0.088)), steel)
    for number in range(3):
        path = smooth_path(
            [[0.026, 0, 0.086], [0.031, 0, 0.058], [0.040, 0, 0.014], [0.052, 0, 0.0022], [0.058, 0, 0.010]], 26
        )
        add(group, tube(path, 0.0016, 8).moved(stand, turn=120 * number + 40), steel)
    add(group, sphere(0.036).moved((stand[0], stand[1], 0.077), turn=10), material("ball", paint.ball(), GLAZE))
    peel = Finish(0.55, specular=0.4, noise_bump=0.0006, noise_scale=200)
    orange = material("orange", paint.fruit((226, 120, 24), (236, 150, 40), 16), peel)
    add(group, sphere(0.036, 0.94).moved((-0.245, 0.060, 0)), orange)
    add(group, sphere(0.033, 0.93).moved((-0.215, 0.125, 0), turn=70), orange)
    pear = np.vstack(
        [
            [0, 0.004],
            smooth_path(
                [
                    [0.010, 0.0],
                    [0.032, 0.016],
                    [0.034, 0.036],
                    [0.020, 0.066],
                    [0.012, 0.081],
                    [0.006, 0.085],
                    [0.002, 0.0845],
                ],
                34,
            ),
            [0, 0.084],
        ]
    )
    skin = material("pear", paint.fruit((150, 168, 62), (206, 176, 74), 17), Finish(0.5))
    add(group, lathe(pear, 40).moved((0.235, 0.025, 0)), skin)
    stalk = smooth_path([[0, 0, 0.083], [0.002, 0, 0.094], [0.008, 0, 0.104]], 8)
    add(group, tube(stalk, 0.0016, 8).moved((0.235, 0.025, 0)), material("stalk", paint.bark(), MATT))
    add_pencils(group)


def add_pencils(group: bpy.types.Collection) -> None:
    """Two hexagonal pencils on the table and one on the chest."""
    lengths = np.array([0, 0.0005, 0.006, 0.020, 0.0205, 0.15, 0.1505, 0.170])
    radii = np.array([0.0003, 0.0005, 0.0013, 0.0038, 0.0040, 0.0040, 0.0041, 0.0041])
    lead, cedar, brass = paint.INK, (222, 184, 134), (190, 160, 90)
    spots = (
        ((-0.115, 0.232, 0.0042), 20.0, paint.CRIMSON),
        ((-0.045, -0.262, 0.0042), -6.0, paint.TEAL),
        ((0.068, 0.118, CLOTH_Z + 0.0892), -8.0, paint.OCHRE),
    )
    for seed, (at, turn, paint_colour) in enumerate(spots):
        bands = [(0.12, lead), (0.30, cedar), (0.78, paint_colour), (0.84, brass), (1.0, paint_colour)]
        # The texture runs by grid row; rows are placed closer where the pencil changes.
        path = np.stack([lengths, 0 * lengths, 0 * lengths], -1)
        part = replace(tube(path, radii, 6), smooth=False).moved(at, turn)
        add(group, part, material(f"pencil {seed}", paint.striped(64, 1024, bands, seed), Finish(0.5)))


def add_backdrop(group: bpy.types.Collection) -> None:
    """A photographer's seamless backdrop all around: floor and wall of one matt grey, joined by a wide sweep."""
    r, sweep, top = BACKDROP_RADIUS, 1.0, 2.4
    bend = np.linspace(0, np.pi / 2, 33)
    profile = np.stack([r - sweep * (1 - np.sin(bend)), FLOOR_Z + sweep * (1 - np.cos(bend))], -1)
    grey = material("backdrop", (176, 170, 162), Finish(1.0, specular=0.0))
    add(group, lathe(np.vstack([[0, FLOOR_Z], profile, [r, top]]), 192), grey)


def add_lights() -> None:
    """A large round soft light overhead and a warmer key light, also wide; the cameras do not see either."""
    lights = (
        ("ceiling", 3.4, 98.0, (0.96, 0.98, 1.0), (0, 0, 2.1)),
        ("key", 1.2, 30.0, (1.0, 0.94, 0.86), (-0.9, -1.05, 1.5)),
    )
    for name, diameter, power, colour, at in lights:
        data = bpy.data.lights.new(name, "AREA")
        data.shape, data.size, data.energy, data.color = "DISK", diameter, power, colour
        light = bpy.data.objects.new(name, data)
        light.location = at
        # An area light shines along its local -z axis: point its +z away from the table.
        z = np.array(at) / np.linalg.norm(at)
        light.rotation_euler = (np.arccos(z[2]), 0, np.arctan2(z[1], z[0]) + np.pi / 2)
        light.visible_camera = False
        bpy.context.scene.collection.objects.link(light)


def build() -> tuple[bpy.types.Collection, bpy.types.Collection]:
    """Replace the current scene by the still life; returns its objects and the backdrop around it."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    still_life, backdrop = bpy.data.collections.new("still life"), bpy.data.collections.new("backdrop")
    for group in (still_life, backdrop):
        bpy.context.scene.collection.children.link(group)
    for fill in (add_table, add_vase, add_teapot, add_mug, add_books_and_boxes, add_small_things):
        fill(still_life)
    add_backdrop(backdrop)
    add_lights()
    return still_life, backdrop
