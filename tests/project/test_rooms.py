"""The house: few modules a room, imports in one direction, and a method that is read in one sitting."""

import ast
from pathlib import Path

import pytest

import socketlab

PACKAGE = Path(socketlab.__file__).parent
ORDER = ("images", "networks", "method", "speed", "measures", "figures", "runs", "panels", "course")
"""Rooms from the first to the last: a room imports from those before it, never from those after it."""
BEFORE = {"errors", "files"}
"""Modules that every room may import."""
AFTER = {"cli", "terminal", "app", "__main__", "__init__"}
"""Modules that no room imports."""
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = {".".join(("socketlab", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in MODULES}
ROOT_NAMES = set(socketlab.__all__)


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, anywhere in it, late imports included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in NAMES or f"{full}.__init__" in NAMES else node.module or "")
    return {name for name in found if name.startswith("socketlab.")}  # the package itself has the version


def place(name: str) -> int:
    """How late a module or room stands: modules before all rooms are -1, those after all are 99."""
    parts = name.split(".")
    if len(parts) == 1 or parts[1] in AFTER:
        return 99
    return -1 if parts[1] in BEFORE else ORDER.index(parts[1])


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_from_earlier_rooms_only(path: Path) -> None:
    own = ".".join(("socketlab", *path.relative_to(PACKAGE).with_suffix("").parts))
    if place(own) < 99:
        later = {name for name in imported(path) if place(name) > place(own)}
        assert not later, f"{own} imports {sorted(later)}"
    if own.startswith("socketlab.method"):
        assert not {name for name in imported(path) if name.startswith("socketlab.speed")}


def test_no_circle_within_a_room() -> None:
    """At import time modules can be put in an order; late imports count too."""
    arrows = {name: imported(path) & NAMES.keys() - {name} for name, path in NAMES.items()}
    arrows = {name: found for name, found in arrows.items() if place(name) < 99}
    while arrows:
        free = [name for name, found in arrows.items() if not found & arrows.keys()]
        assert free, f"a circle among {sorted(arrows)}"
        arrows = {name: found for name, found in arrows.items() if name not in free}


@pytest.mark.parametrize("room", ORDER)
def test_a_room_has_few_modules(room: str) -> None:
    modules = [path.name for path in (PACKAGE / room).glob("*.py") if path.name != "__init__.py"]
    assert 1 <= len(modules) <= 9, modules


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_file_is_read_in_one_go(path: Path) -> None:
    assert "exercises" in path.parts or lines(path) <= 500
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert path.stem not in {node.name for node in functions}, "a function bears its module's name"


def test_the_method_is_read_in_one_sitting_and_the_whole_does_not_grow() -> None:
    assert sum(lines(path) for path in (PACKAGE / "method").glob("*.py")) <= 1400
    assert sum(lines(path) for path in MODULES if "exercises" not in path.parts) <= 15_000


def test_the_page_of_the_rooms_names_every_room_and_module() -> None:
    page = (PACKAGE / "README.md").read_text(encoding="utf-8")
    for path in MODULES:
        if path.stem not in ("__init__", "__main__") and "exercises" not in path.parts:
            assert f"`{path.stem}`" in page, path
