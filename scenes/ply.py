"""PLY files: header, and one element's columns by name, from ASCII or binary bodies of either byte order.

Counts are compared with the size of the file before anything is allocated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from anchorfield.renderer.errors import DataError

Columns = dict[str, NDArray[Any]]

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_BYTE_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_LONGEST_HEADER = 1 << 20


@dataclass
class Element:
    """A table of the file."""

    name: str
    count: int
    columns: list[tuple[str, str]] = field(default_factory=list)  # name and numpy type; lists are "count:item"

    @property
    def has_lists(self) -> bool:
        """Whether rows differ in length."""
        return any(":" in kind for _, kind in self.columns)


@dataclass(frozen=True)
class Header:
    """What stands before the body."""

    path: Path
    order: str  # "<", ">" or "" for ASCII
    elements: tuple[Element, ...]
    comments: tuple[str, ...]
    body: int  # offset in bytes

    def element(self, name: str) -> Element:
        """The element called `name`."""
        for element in self.elements:
            if element.name == name:
                return element
        raise DataError(
            f"{self.path}: no element {name!r}; it has {', '.join(e.name for e in self.elements) or 'none'}"
        )


def read_header(path: Path) -> Header:
    """The header of a PLY file, checked."""
    try:
        with open(path, "rb") as file:
            lines = _header_lines(path, file)
            body = file.tell()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    order, elements, comments = None, list[Element](), []
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "format":
            order = _BYTE_ORDERS.get(rest.split(" ")[0])
        elif word in ("comment", "obj_info"):
            comments.append(rest)
        elif word == "element":
            elements.append(_element(path, rest))
        elif word == "property" and elements:
            elements[-1].columns.append(_column(path, rest))
        elif word:
            raise DataError(f"{path}: header line {line[:80]!r} has no meaning in a PLY file")
    if order is None:
        raise DataError(f"{path}: the header names no known format; expected one of {', '.join(_BYTE_ORDERS)}")
    return Header(path, order, tuple(elements), tuple(comments), body)


def read_columns(header: Header, name: str) -> Columns:
    """The columns of element `name`, one array of its rows per property; lists are not among them."""
    element = header.element(name)
    names = [column for column, _ in element.columns]
    if len(set(names)) != len(names):
        raise DataError(f"{header.path}: element {name!r} has two properties of one name")
    if element.has_lists:
        raise DataError(f"{header.path}: lists inside element {element.name!r} are not supported")
    if header.order == "":
        return _read_ascii(header, element)
    return _read_binary(header, element)


def read_points(path: Path) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """A point cloud: positions [N, 3] and colours [N, 3], grey where the file has none."""
    columns = read_columns(read_header(path), "vertex")
    if not {"x", "y", "z"} <= columns.keys():
        raise DataError(f"{path}: expected properties x, y, z, got {', '.join(columns) or 'none'}")
    xyz = np.stack([columns[axis] for axis in "xyz"], axis=-1).astype(np.float64)
    if not {"red", "green", "blue"} <= columns.keys():
        return xyz, np.full(xyz.shape, 128, np.uint8)
    rgb = np.stack([columns[channel] for channel in ("red", "green", "blue")], axis=-1)
    if np.issubdtype(rgb.dtype, np.floating):
        rgb = np.nan_to_num(rgb) * 255  # colours stored as floats lie in [0, 1]
    return xyz, np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def _header_lines(path: Path, file: IO[bytes]) -> list[str]:
    """The lines between "ply" and "end_header"."""
    if file.readline(16).strip() != b"ply":
        raise DataError(f"{path}: not a PLY file (its first line is not 'ply')")
    lines = list[str]()
    while file.tell() < _LONGEST_HEADER:
        line = file.readline(_LONGEST_HEADER)
        if line.strip() == b"end_header":
            return lines
        if not line:
            break
        lines.append(line.decode("utf-8", "replace").strip())
    raise DataError(f"{path}: the PLY header has no 'end_header'; the file is truncated")


def _element(path: Path, rest: str) -> Element:
    name, _, count = rest.partition(" ")
    if not count.strip().isascii() or not count.strip().isdigit():
        raise DataError(f"{path}: element {name!r} needs a count, got {count[:40]!r}")
    return Element(name, int(count))


def _column(path: Path, rest: str) -> tuple[str, str]:
    *kinds, name = rest.split() or [""]
    plain = [_TYPES.get(kind, "") for kind in kinds if kind != "list"]
    if "" in plain or len(plain) != (2 if "list" in kinds else 1):
        raise DataError(f"{path}: property {rest[:80]!r} is of no known type; known are {', '.join(_TYPES)}")
    return name, ":".join(plain)


def _truncated(header: Header, element: Element, needed: int, left: int, what: str) -> DataError:
    return DataError(
        f"{header.path}: says {element.count} rows of {element.name!r}, which need {needed} {what}, but {left} are"
        " left; the file is truncated or damaged, copy or export it again"
    )


def _read_binary(header: Header, element: Element) -> Columns:
    row = _row(header, element)
    start = header.body + sum(_size(header, before) for before in header.elements[: header.elements.index(element)])
    left = header.path.stat().st_size - start
    if element.count * row.itemsize > left:
        raise _truncated(header, element, element.count * row.itemsize, max(0, left), "bytes")
    if element.count == 0 or row.itemsize == 0:
        return {name: np.zeros(0, kind) for name, kind in element.columns}
    rows = np.memmap(header.path, row, "r", start, (element.count,))
    return {name: rows[name] for name, _ in element.columns}


def _row(header: Header, element: Element) -> np.dtype[Any]:
    return np.dtype([(name, header.order + kind) for name, kind in element.columns])


def _size(header: Header, element: Element) -> int:
    """Bytes of an element that stands before the wanted one."""
    if element.has_lists:
        raise DataError(
            f"{header.path}: element {element.name!r} with lists stands before the wanted one; not supported"
        )
    return _row(header, element).itemsize * element.count


def _read_ascii(header: Header, element: Element) -> Columns:
    lines = header.path.read_bytes()[header.body :].splitlines()
    start = sum(before.count for before in header.elements[: header.elements.index(element)])
    rows = lines[start : start + element.count]
    if len(rows) < element.count:
        raise _truncated(header, element, element.count, len(rows), "lines")
    try:
        table = np.array([line.split() for line in rows], dtype=np.float64).reshape(element.count, -1)
    except ValueError as error:
        raise DataError(f"{header.path}: the rows of {element.name!r} are not all numbers of one length") from error
    if element.count == 0:
        return {name: np.zeros(0, kind) for name, kind in element.columns}
    if table.shape[1] != len(element.columns):
        raise DataError(
            f"{header.path}: expected {len(element.columns)} numbers in a row of {element.name!r}, got {table.shape[1]}"
        )
    with np.errstate(all="ignore"):  # a number that does not fit its type is the file's mistake
        return {name: table[:, index].astype(kind) for index, (name, kind) in enumerate(element.columns)}
