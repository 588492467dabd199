"""Image textures of the sample still life, painted with Pillow and numpy from fixed seeds.

Every function returns an RGB picture. Nothing is read from disk: the only font is the one built into Pillow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Colour = tuple[int, int, int]
Floats = NDArray[np.float32]

INK: Colour = (32, 38, 52)
IVORY: Colour = (236, 228, 208)
COBALT: Colour = (28, 62, 140)
TERRACOTTA: Colour = (186, 84, 48)
OCHRE: Colour = (212, 152, 52)
TEAL: Colour = (26, 104, 108)
SAGE: Colour = (126, 148, 122)
CRIMSON: Colour = (150, 36, 44)

PARAGRAPH = (
    "A still life of vase, books, tea",
    "and twigs, made to be measured:",
    "64 views, known cameras, known",
    "depth. Every line of this card",
    "should read clearly in 3D.",
)


def fractal_noise(height: int, width: int, cells: tuple[int, int], octaves: int, seed: int) -> Floats:
    """Smooth noise in about [-1, 1]: random grids of `cells` (rows, columns), each octave twice as fine."""
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        rows, columns = cells[0] << octave, cells[1] << octave
        grid = Image.fromarray(rng.uniform(-1, 1, (rows + 1, columns + 1)).astype(np.float32))
        total += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC)) * 0.55**octave
    return total


def blend(low: Colour, high: Colour, weight: Floats) -> Floats:
    """Interpolate between two colours by a picture of weights (clipped to [0, 1])."""
    t = np.clip(weight, 0, 1)[..., None]
    return np.asarray(low, np.float32) * (1 - t) + np.asarray(high, np.float32) * t


def to_image(pixels: Floats | NDArray[np.float64]) -> Image.Image:
    """Round a float picture in [0, 255] to an 8-bit one."""
    return Image.fromarray(np.clip(pixels + 0.5, 0, 255).astype(np.uint8), "RGB")


def mottle(image: Image.Image, amount: float, seed: int, cells: int = 12) -> Image.Image:
    """Vary the brightness of a picture by smooth noise, so that no painted area is perfectly flat."""
    noise = fractal_noise(image.height, image.width, (cells, cells), 5, seed)
    return to_image(np.asarray(image, np.float32) * (1 + amount * noise[..., None]))


def seamless(image: Image.Image) -> Image.Image:
    """Mirror the left half onto the right one, so that the picture closes around a lathed object."""
    half = image.crop((0, 0, image.width // 2, image.height))
    image.paste(half.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (image.width - half.width, 0))
    return image


def write(
    draw: ImageDraw.ImageDraw, centre: tuple[float, float], text: str, size: float, fill: Colour, bold: float = 0.0
) -> None:
    """Write one centred line; `bold` thickens the strokes by that fraction of the size."""
    stroke = round(size * bold)
    draw.text(centre, text, fill, ImageFont.load_default(size), anchor="mm", stroke_width=stroke, stroke_fill=fill)


def wood(width: int, height: int, dark: Colour, light: Colour, seed: int) -> Image.Image:
    """Wood with its grain along x: warped growth lines and soft streaks, all of them broad and low in contrast."""
    warp = fractal_noise(height, width, (4, 2), 2, seed)
    y = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    rings = np.sin(2 * np.pi * (6 * y + 1.8 * warp))
    streaks = fractal_noise(height, width, (14, 3), 2, seed + 1)
    return to_image(blend(dark, light, 0.53 + 0.11 * rings + 0.13 * streaks))


def table_top(size: int = 2048, planks: int = 7) -> Image.Image:
    """Planks of walnut side by side, each with its own grain and tone, with dark joints."""
    image = Image.new("RGB", (size, size))
    edges = np.linspace(0, size, planks + 1).astype(int)
    for index, (top, bottom) in enumerate(pairwise(edges)):
        tone = 1 + 0.16 * np.sin(2.4 * index)
        plank = wood(size, int(bottom - top), (88, 54, 32), (166, 112, 68), 20 + index)
        image.paste(to_image(np.asarray(plank, np.float32) * tone), (0, int(top)))
    draw = ImageDraw.Draw(image)
    for row in edges[1:-1]:
        draw.line((0, row, size, row), (62, 40, 26), 8)
    return mottle(image.filter(ImageFilter.GaussianBlur(2)), 0.07, 31, 8)


def cloth(size: int = 1536) -> Image.Image:
    """Checked linen: wide and narrow coloured stripes both ways, a dotted border and some unevenness."""
    weave = np.zeros((size, size, 3), np.float32) + np.asarray((214, 204, 182), np.float32)
    stripes = [
        (c, w, colour)
        for i in range(6)
        for c, w, colour in ((0.08 + i * 0.168, 0.026, TEAL), (0.115 + i * 0.168, 0.011, CRIMSON))
    ]
    for centre, width, colour in stripes:
        low, high = int((centre - width / 2) * size), int((centre + width / 2) * size)
        for band in (weave[low:high], weave[:, low:high]):
            band[:] = 0.45 * band + 0.55 * np.asarray(colour, np.float32)
    image = to_image(weave)
    draw = ImageDraw.Draw(image)
    for step in np.linspace(0.03, 0.97, 32) * size:
        for x, y in ((step, 0.025 * size), (step, 0.975 * size), (0.025 * size, step), (0.975 * size, step)):
            draw.regular_polygon((x, y, size * 0.010), 4, fill=CRIMSON)
    return mottle(image.filter(ImageFilter.GaussianBlur(2)), 0.05, 41, 8)


def _vase_band(draw: ImageDraw.ImageDraw, kind: int, top: float, bottom: float, width: int) -> None:
    """Paint one ornamental band between two rows: diamonds, petals, waves, a meander or leaves."""
    height = bottom - top
    middle = (top + bottom) / 2
    count = (16, 12, 24, 18, 14)[kind % 5]
    pitch = width / count
    for index in range(count):
        x = (index + 0.5) * pitch
        if kind % 5 == 0:
            draw.regular_polygon((x, middle, height * 0.46), 4, rotation=45, fill=COBALT)
            draw.regular_polygon((x, middle, height * 0.24), 4, rotation=45, fill=OCHRE)
        elif kind % 5 == 1:
            for angle in np.arange(0, 2 * np.pi, np.pi / 4):
                px, py = x + np.cos(angle) * height * 0.24, middle + np.sin(angle) * height * 0.24
                draw.circle((px, py), height * 0.13, fill=COBALT)
            draw.circle((x, middle), height * 0.13, fill=TERRACOTTA)
        elif kind % 5 == 2:
            draw.arc((x - pitch / 2, top + 0.1 * height, x + pitch / 2, bottom + 0.7 * height), 180, 360, COBALT, 9)
            draw.circle((x, middle + 0.2 * height), height * 0.12, fill=TEAL)
        elif kind % 5 == 3:
            a, b, u = x - pitch * 0.4, x + pitch * 0.4, height * 0.3
            draw.line(
                [
                    (a, bottom - 8),
                    (a, middle - u),
                    (b, middle - u),
                    (b, middle + u * 0.7),
                    (x - pitch * 0.1, middle + u * 0.7),
                    (x - pitch * 0.1, middle),
                ],
                COBALT,
                10,
            )
        else:
            draw.ellipse((x - pitch * 0.14, top + 6, x + pitch * 0.14, bottom - 6), fill=TEAL)
            draw.line((x, top, x, bottom), IVORY, 4)
            write(draw, (x + pitch / 2, middle), "AF", height * 0.5, TERRACOTTA, 0.03)


def vase(width: int = 2048, height: int = 1280) -> Image.Image:
    """Blue and white ceramic with five kinds of painted bands between double lines."""
    image = Image.new("RGB", (width, height), (232, 230, 222))
    draw = ImageDraw.Draw(image)
    edges = np.linspace(0, height, 10)
    for index, (top, bottom) in enumerate(pairwise(edges)):
        draw.line((0, top, width, top), COBALT, 10)
        draw.line((0, top + 16, width, top + 16), TERRACOTTA, 7)
        _vase_band(draw, index, top + 22, bottom - 8, width)
    return mottle(image.filter(ImageFilter.GaussianBlur(1.0)), 0.05, 51, 20)


def speckled(base: Colour, spots: Colour, seed: int, size: int = 1024, count: int = 420) -> Image.Image:
    """Speckled stoneware: a mottled colour strewn with small blurred spots."""
    rng = np.random.default_rng(seed)
    image = seamless(mottle(Image.new("RGB", (size, size), base), 0.13, seed, 8))
    draw = ImageDraw.Draw(image)
    for x, y, radius in zip(
        rng.uniform(0, size, count), rng.uniform(0, size, count), rng.exponential(2.5, count) + 3.0, strict=True
    ):
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=spots)
    return image.filter(ImageFilter.GaussianBlur(0.8))


def striped(width: int, height: int, bands: Sequence[tuple[float, Colour]], seed: int) -> Image.Image:
    """Horizontal bands from bottom to top; each is (its upper end as a fraction of the height, its colour)."""
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    start = 0.0
    for end, colour in bands:
        draw.rectangle((0, round((1 - end) * height), width, round((1 - start) * height)), fill=colour)
        start = end
    return mottle(image, 0.06, seed, 10)


def ball(width: int = 1536, height: int = 768) -> Image.Image:
    """A painted sphere: triangles in four colours around the belly, dots towards the poles."""
    image = Image.new("RGB", (width, height), IVORY)
    draw = ImageDraw.Draw(image)
    colours = (TERRACOTTA, TEAL, OCHRE, COBALT)
    for row in range(6):
        top, bottom = height * (0.14 + row * 0.12), height * (0.24 + row * 0.12)
        for index in range(16):
            x = (index + 0.5 * (row % 2)) * width / 16
            corners = [(x, bottom), (x + width / 17, bottom), (x + width / 34, top)]
            draw.polygon(corners, fill=colours[(index + row) % 4])
    return mottle(image, 0.06, 61)


def fruit(base: Colour, blush: Colour, seed: int, size: int = 768) -> Image.Image:
    """Skin of a fruit: two colours mixed by smooth noise, with soft pale pores."""
    pixels = blend(base, blush, 0.5 + 0.7 * fractal_noise(size, size, (3, 3), 4, seed))
    rng = np.random.default_rng(seed)
    pores = Image.fromarray((rng.random((size, size)) > 0.996).astype(np.uint8) * 255)
    pores_blurred = np.asarray(pores.filter(ImageFilter.GaussianBlur(3)), np.float32) / 255
    return seamless(to_image(pixels * (1 + 2.5 * pores_blurred[..., None])))


def bark(size: int = 512) -> Image.Image:
    """Brown bark with rings, for the twigs."""
    noise = fractal_noise(size, size, (30, 4), 2, 71)
    return to_image(blend((60, 40, 28), (142, 104, 74), 0.5 + 0.35 * noise))


def leaf(colour: Colour, seed: int, size: int = 256) -> Image.Image:
    """A leaf's blade: a midrib, side veins and some mottling."""
    image = Image.new("RGB", (size, size), colour)
    draw = ImageDraw.Draw(image)
    vein: Colour = (min(255, colour[0] + 50), min(255, colour[1] + 50), min(255, colour[2] + 30))
    draw.line((size / 2, 0, size / 2, size), vein, 10)
    for y in range(20, size, 60):
        draw.line((size / 2, y + 20, 0, y - 24), vein, 6)
        draw.line((size / 2, y + 20, size, y - 24), vein, 6)
    return mottle(image, 0.1, seed, 4)


# --- six-sided boxes -------------------------------------------------------------------------------------------------
# A box carries one atlas of 3 x 2 cells in the order +x, -x, +y, -y, +z, -z.

CELL = 768
FacePainter = Callable[[int, int, int], Image.Image]


def box_atlas(size: tuple[float, float, float], paint: FacePainter) -> Image.Image:
    """Paint the six faces of a box of this size in metres; `paint` gets (face number, width, height in pixels)."""
    x, y, z = size
    atlas = Image.new("RGB", (3 * CELL, 2 * CELL))
    for face, (width, height) in enumerate(((y, z), (y, z), (x, z), (x, z), (x, y), (x, y))):
        scale = CELL / max(width, height)
        picture = paint(face, max(8, round(width * scale)), max(8, round(height * scale)))
        cell = picture.resize((CELL, CELL), Image.Resampling.LANCZOS)
        atlas.paste(cell, (face % 3 * CELL, face // 3 * CELL))
    return atlas


def chest_face(face: int, width: int, height: int) -> Image.Image:
    """A pine box: planks, a lid line, corner plates and a stencilled name on its long sides."""
    image = wood(width, height, (142, 88, 44), (214, 160, 96), 80 + face)
    draw = ImageDraw.Draw(image)
    if face < 4:
        draw.line((0, height * 0.27, width, height * 0.27), (64, 38, 20), max(3, height // 60))
        for x in (0, width - height * 0.16):
            for y in (0, height * 0.84):
                draw.rectangle((x, y, x + height * 0.16, y + height * 0.16), fill=(88, 70, 40))
                draw.circle((x + height * 0.08, y + height * 0.08), height * 0.025, fill=(190, 160, 100))
    if face in (2, 3):
        write(draw, (width / 2, height * 0.55), "ANCHORFIELD", height * 0.2, INK, 0.02)
        write(draw, (width / 2, height * 0.78), "FINE TEAS  No. 64", height * 0.13, CRIMSON, 0.01)
    if face in (0, 1):
        write(draw, (width / 2, height * 0.6), "AF 64", height * 0.24, INK, 0.02)
    if face == 4:
        draw.rectangle((width * 0.06, height * 0.08, width * 0.94, height * 0.92), outline=INK, width=5)
        for ring, colour in enumerate((INK, TERRACOTTA, INK, OCHRE)):
            draw.regular_polygon(
                (width / 2, height / 2, height * (0.38 - 0.09 * ring)), 8, rotation=ring * 22, outline=colour, width=9
            )
    return image


def _contours(draw: ImageDraw.ImageDraw, width: int, height: int, top: float) -> None:
    """Rows of hills: the cover's printed landscape."""
    colours = (TEAL, SAGE, OCHRE, TERRACOTTA, CRIMSON)
    xs = np.linspace(0, width, 120)
    for row in range(5):
        base = height * (top + 0.085 * row)
        ys = base + height * 0.035 * np.sin(xs / width * (5 + 2 * row) + row * 1.7)
        draw.polygon([*zip(xs, ys, strict=True), (width, height), (0, height)], fill=colours[row])
        draw.line(list(zip(xs, ys - 8, strict=True)), IVORY, 3)


def novel_face(face: int, width: int, height: int) -> Image.Image:
    """The upper book: printed cloth cover with its title, landscape and author; the block's other sides are paper."""
    if face in (0, 2, 3):
        return pages(width, height)
    navy: Colour = (24, 52, 84)
    if face == 1:
        return spine(width, height, navy, "ANCHORFIELD")
    image = Image.new("RGB", (width, height), navy)
    draw = ImageDraw.Draw(image)
    _contours(draw, width, height, 0.5)
    draw.circle((width * 0.72, height * 0.40), width * 0.1, fill=OCHRE)
    write(draw, (width / 2, height * 0.12), "ANCHORFIELD", width * 0.125, IVORY, 0.025)
    write(draw, (width / 2, height * 0.21), "a measured still life", width * 0.07, OCHRE)
    subtitle = ("Being an account of light,", "of places, and of the many", "small things between them")
    for row, line in enumerate(subtitle):
        write(draw, (width * 0.36, height * (0.3 + 0.05 * row)), line, width * 0.044, IVORY)
    write(draw, (width / 2, height * 0.94), "SIXTY-FOUR VIEWS", width * 0.075, IVORY, 0.015)
    return mottle(image, 0.05, 91)


def atlas_face(face: int, width: int, height: int) -> Image.Image:
    """The lower book: a red cloth binding with a diaper pattern and a spine title."""
    if face in (0, 2, 3):
        return pages(width, height)
    if face == 1:
        return spine(width, height, CRIMSON, "SPLATS & SURFACES")
    image = Image.new("RGB", (width, height), CRIMSON)
    draw = ImageDraw.Draw(image)
    step = CELL / 14
    for row in range(int(height / step) + 1):
        for column in range(int(width / step) + 1):
            centre = ((column + 0.5 * (row % 2)) * step, (row + 0.5) * step, step * 0.22)
            draw.regular_polygon(centre, 4, rotation=45, fill=OCHRE)
    return mottle(image, 0.1, 95)


def pages(width: int, height: int) -> Image.Image:
    """The fore-edge of a book: layers of thin sheets, which show as broad, soft bands."""
    rows = 226 + 10 * fractal_noise(height, width, (6, 2), 2, width * 31 + height)
    return to_image(rows[..., None] * np.asarray((1.0, 0.95, 0.84), np.float32))


def spine(width: int, height: int, cover: Colour, title: str) -> Image.Image:
    """The back of a book: its cover's colour with gold lines and the title along it."""
    image = Image.new("RGB", (width, height), cover)
    draw = ImageDraw.Draw(image)
    for x in (0.06, 0.09, 0.91, 0.94):
        draw.line((width * x, 0, width * x, height), OCHRE, max(2, width // 160))
    write(draw, (width / 2, height / 2), title, height * 0.62, IVORY, 0.02)
    return mottle(image, 0.08, len(title))


def block_face(letters: str, colour: Colour, seed: int) -> FacePainter:
    """A toy block: maple with a framed letter on every side."""

    def paint(face: int, width: int, height: int) -> Image.Image:
        image = wood(width, height, (196, 158, 110), (232, 204, 160), seed + face)
        draw = ImageDraw.Draw(image)
        margin = width * 0.08
        draw.rectangle((margin, margin, width - margin, height - margin), outline=colour, width=width // 14)
        write(draw, (width / 2, height * 0.51), letters[face], height * 0.56, colour, 0.04)
        return image

    return paint


def card_side(face: int, width: int, height: int) -> Image.Image:
    """The tent card: a heading, a rule and a paragraph of fine print on cream paper, on its front only."""
    image = Image.new("RGB", (width, height), (240, 234, 220))
    if face != 3:
        return image
    draw = ImageDraw.Draw(image)
    draw.rectangle((14, 14, width - 14, height - 14), outline=TEAL, width=7)
    write(draw, (width / 2, height * 0.17), "ANCHORFIELD", height * 0.17, CRIMSON, 0.02)
    draw.line((width * 0.12, height * 0.29, width * 0.88, height * 0.29), INK, 4)
    for row, line in enumerate(PARAGRAPH):
        write(draw, (width / 2, height * (0.385 + 0.122 * row)), line, height * 0.098, INK, 0.01)
    return mottle(image, 0.025, 99)
