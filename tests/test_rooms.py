"""Imports inside the package run down the floors that pyproject.toml lists, and never in a circle."""

import importlib
import shutil
import sys
import tomllib

import grimp
import pytest

from lungseg_utils.core.files import CHECKOUT

PACKAGE = "lungseg_utils"


def floors():
    """The rooms, top floor first: the list that import-linter holds as well."""
    contracts = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    return layers


def wrong_imports(folder):
    """One line for each import that goes up, closes a circle, or hides where a name comes from.

    All imports count: type-only ones and those inside functions too.
    """
    graph = grimp.build_graph(PACKAGE, cache_dir=None)
    level = {room: number for number, room in enumerate(floors())}

    def floor(module):
        return level.get(module.split(".")[1] if "." in module else "", -1)  # the package itself: the roof

    def place(importer, imported):
        path = importer.replace(".", "/")
        name = f"{path}.py" if (folder / f"{path}.py").exists() else f"{path}/__init__.py"
        lines = graph.get_import_details(importer=importer, imported=imported)
        return f"{name}:{lines[0]['line_number']} imports {imported}"

    rooms = {module for module in graph.modules if graph.find_children(module)} - {PACKAGE}
    for importer in sorted(graph.modules - {PACKAGE, f"{PACKAGE}.__main__"}):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            if imported in rooms:
                yield f"{place(importer, imported)}, a room: name the module, or a circle goes unseen"
            elif imported != PACKAGE and floor(imported) < floor(importer):
                yield f"{place(importer, imported)}, which is a floor up"
    for room in sorted(rooms | {PACKAGE}):
        for importer, imported in sorted(graph.nominate_cycle_breakers(room)):
            yield f"{place(importer, imported)}, which closes a circle"


def test_every_module_is_on_a_floor():
    entries = (CHECKOUT / PACKAGE).glob("*")
    rooms = {path.stem for path in entries if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__", "__main__"} == set(floors())


def test_imports_run_down_without_circles():
    assert list(wrong_imports(CHECKOUT)) == []


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the package that grimp finds in place of the real one."""
    shutil.copytree(
        CHECKOUT / PACKAGE, tmp_path / PACKAGE, ignore=shutil.ignore_patterns("weights", "__pycache__")
    )
    monkeypatch.delitem(sys.modules, PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path


def plant(copy, module, line):
    """Appends a line to a module and says where it stands."""
    path = copy / PACKAGE / module
    text = f"{path.read_text(encoding='utf-8')}{line}\n"
    path.write_text(text, encoding="utf-8")
    return f"{PACKAGE}/{module}:{len(text.splitlines())} "


@pytest.mark.parametrize(
    "line",
    [
        f"from {PACKAGE}.data.find import find_data",
        f"if TYPE_CHECKING: from {PACKAGE}.data import find",
        f"def later(): import {PACKAGE}.cli",
    ],
)
def test_a_planted_upward_import_is_found(copy, line):
    place = plant(copy, "core/npy.py", line)
    found = list(wrong_imports(copy))
    assert any(one.startswith(place) and "floor up" in one for one in found), found


def test_a_planted_circle_is_found(copy):
    places = (
        plant(copy, "core/classes.py", f"from {PACKAGE}.core.stopping import Stop"),
        plant(copy, "core/stopping.py", f"def later(): from {PACKAGE}.core.classes import CLASSES"),
    )
    found = list(wrong_imports(copy))
    assert any(one.startswith(places) and "circle" in one for one in found), found


def test_a_planted_import_of_a_room_is_found(copy):
    place = plant(copy, "evaluation/metrics.py", f"from {PACKAGE}.evaluation import submit")
    found = list(wrong_imports(copy))
    assert any(one.startswith(place) and "a room" in one for one in found), found
