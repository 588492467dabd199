"""The repository's own rules: which part may import which, what the package holds, that public names are explained."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from anchorfield import methods
from anchorfield.app.settings import Setting, flatten

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("cuda_ext", "renderer", "scenes", "methods", "app")  # each may import itself and those before it
SOURCES = [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]
PYTHON = [
    *SOURCES,
    *(path for folder in ("tests", "bench", "assets") for path in sorted((ROOT / folder).rglob("*.py"))),
]
PACKAGING = tomllib.loads((ROOT / "pyproject.toml").read_text())


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def canonical(name: str) -> str:
    """A distribution's name as package indices compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything a file imports, e.g. `anchorfield.scenes.scene.Scene`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{'.' * node.level}{node.module or ''}.{a.name}") for a in node.names)


def public_definitions(path: Path) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Functions, classes and methods whose names do not start with an underscore, outside of private classes."""
    open_nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while open_nodes:
        for node in ast.iter_child_nodes(open_nodes.pop()):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                yield node
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                open_nodes.append(node)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_part_imports_only_itself_and_the_parts_below_it(path: Path) -> None:
    part = path.relative_to(ROOT).parts[0]
    allowed = PARTS[: PARTS.index(part) + 1]
    wrong = [
        f"line {line}: {name}"
        for line, name in imports(path)
        if name.startswith("anchorfield.") and name.split(".")[1] not in allowed
    ]
    assert not wrong, f"{relative(path)} may import {', '.join(allowed)} only"


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_parts_are_imported_by_their_full_name(path: Path) -> None:
    wrong = [f"line {line}: {name}" for line, name in imports(path) if name.split(".")[0] in (*PARTS, "")]
    assert not wrong, f"{relative(path)}: write `anchorfield.<part>`, neither `<part>` nor a relative import"


@pytest.mark.parametrize("path", sorted((ROOT / "app").rglob("*.py")), ids=relative)
def test_the_application_knows_no_method_by_name(path: Path) -> None:
    files = {file.stem for file in (ROOT / "methods").glob("*.py")} - {"__init__"}
    wrong = [
        f"line {line}: {name}"
        for line, name in imports(path)
        if name.startswith("anchorfield.methods.") and name.split(".")[2] in files
    ]
    assert not wrong, f"{relative(path)}: use what the package `anchorfield.methods` offers, not a method's own file"


def test_the_packaging_table_lists_every_part() -> None:
    table = PACKAGING["tool"]["scikit-build"]["wheel"]["packages"]
    assert table == {f"anchorfield/{part}": part for part in PARTS}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages == set(PARTS), "every top-level package is a part and has an __init__.py"


def test_every_subpackage_has_an_init_file() -> None:
    folders = {path.parent for path in SOURCES}
    assert not [relative(folder) for folder in folders if not (folder / "__init__.py").is_file()]


def test_no_package_at_the_root() -> None:
    assert not (ROOT / "anchorfield").exists()
    assert not (ROOT / "__init__.py").exists()


@pytest.mark.parametrize("part", PARTS)
def test_type_checkers_find_the_part(part: str) -> None:
    link = ROOT / "typings" / "anchorfield" / part
    assert link.is_symlink()
    assert link.resolve() == ROOT / part


def test_every_requirement_is_pinned() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = {canonical(line.split("==")[0]) for line in lines if "==" in line}
    wanted = [
        *PACKAGING["build-system"]["requires"],
        *PACKAGING["project"]["dependencies"],
        *PACKAGING["dependency-groups"]["dev"],
    ]
    assert {canonical(re.split(r"[<>=!~\[; ]", name)[0]) for name in wanted} <= pins


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_public_names_have_docstrings(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), f"{relative(path)} has no docstring"
    missing = [f"line {d.lineno}: {d.name}" for d in public_definitions(path) if not ast.get_docstring(d)]
    assert not missing, f"{relative(path)}: say in one sentence what comes out"


def test_no_file_names_a_place_on_one_machine() -> None:
    home = re.compile(r"(?<![\w.~/])/(?:home|root|work|Users)/\w")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    endings = {".py", ".md", ".toml", ".txt", ".json", ".cpp", ".h", ".inc", ".cu", ".yml", ""}
    texts = [ROOT / name for name in listed.stdout.split("\0") if name and Path(name).suffix in endings]
    wrong = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in texts
        if path.is_file()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if home.search(line)
    ]
    assert not wrong


def every_setting(name: str) -> list[Setting]:
    """The settings of a method under every choice that it offers."""
    defaults = flatten(methods.load(name)())
    picks = [(s.flag, choice) for s in defaults for choice in typing.get_args(s.annotation)]
    chosen = [flatten(methods.load(name)(), {flag: choice}.get) for flag, choice in picks if isinstance(choice, str)]
    return [setting for settings in (defaults, *chosen) for setting in settings]


@pytest.mark.parametrize("name", methods.names())
def test_every_method_has_a_page_with_its_settings(name: str) -> None:
    page = (ROOT / "docs" / "methods" / f"{name}.md").read_text()
    rows = {
        f"| `--{s.flag.replace('_', '-')}` | {s.default} | {' '.join(s.help.split())} |" for s in every_setting(name)
    }
    assert not sorted(row for row in rows if row not in page), f"docs/methods/{name}.md lacks these rows"
    flags = {row.split("|")[1].strip() for row in rows}
    known = set(re.findall(r"^\| (`--[\w-]+`) \|", page, re.MULTILINE))
    assert known == flags


@pytest.mark.parametrize(
    "page", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "assets").glob("*.md")], ids=relative
)
def test_links_between_pages_resolve(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s#]+)", page.read_text())
    assert not [target for target in targets if "://" not in target and not (page.parent / target).exists()]
