"""Who may import whom: section 12 of the architecture, read from the source by ast."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "flowapp"
COMMON = ("flowapp.errors", "flowapp.topics", "flowapp.settings")
CORE_LIBRARIES = frozenset({"polars", "numpy", "msgspec"})
ENTRY_POINTS = frozenset({"flowapp.cli", "flowapp.worker", "flowapp", "flowapp.bench.nothing"})


@dataclass(frozen=True)
class Import:
    """One imported module, by whom, and whether only for the type checker."""

    importer: str
    imported: str
    for_types: bool = False


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def all_imports() -> Iterator[Import]:
    for path in sorted(PACKAGE.rglob("*.py")):
        importer, tree = module_name(path), ast.parse(path.read_text(encoding="utf-8"))
        guarded = {id(node) for block in ast.walk(tree) if _is_type_checking(block) for node in ast.walk(block)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{importer} imports relatively"
                names = [_target(node.module or "", alias.name) for alias in node.names]
            else:
                continue
            yield from (Import(importer, name, id(node) in guarded) for name in names)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def _target(module: str, name: str) -> str:
    """Return the module that `from module import name` brings: a submodule where there is one."""
    place = ROOT.joinpath(*module.split("."), name)
    return f"{module}.{name}" if place.with_suffix(".py").is_file() or (place / "__init__.py").is_file() else module


IMPORTS = tuple(all_imports())


def within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def broken(importer: str, *forbidden: str, allowed: tuple[str, ...] = ()) -> list[str]:
    """Return imports of the forbidden packages by the importer package."""
    return [
        f"{item.importer} imports {item.imported}"
        for item in IMPORTS
        if within(item.importer, importer) and within(item.imported, *forbidden) and not within(item.imported, *allowed)
    ]


def ours_but(importer: str, *allowed: str) -> list[str]:
    """Return imports of our own packages other than the allowed ones."""
    return broken(importer, "flowapp", allowed=(importer, *COMMON, *allowed))


def test_core_is_pure() -> None:
    standard = sys.stdlib_module_names | CORE_LIBRARIES | {"flowapp"}
    foreign = [
        f"{item.importer} imports {item.imported}"
        for item in IMPORTS
        if within(item.importer, "flowapp.core") and item.imported.partition(".")[0] not in standard
    ]
    assert foreign == []
    assert ours_but("flowapp.core", "flowapp.records") == []
    assert broken("flowapp.core", "flowapp.records.registry") == []


def test_the_common_modules_depend_on_nothing_of_ours_but_each_other() -> None:
    for module in COMMON:
        assert broken(module, "flowapp", allowed=COMMON) == []


def test_the_edge_imports_only_what_it_may() -> None:
    allowed = ("flowapp.core", "flowapp.records", "flowapp.simulator", "flowapp.engine.producer", "flowapp.runs", "flowapp.logs")
    assert ours_but("flowapp.edge", *allowed) == []


@pytest.mark.parametrize("package", ["flowapp.core", "flowapp.engine", "flowapp.agents"])
def test_what_decides_outputs_never_sees_the_simulator(package: str) -> None:
    assert broken(package, "flowapp.simulator") == []


@pytest.mark.parametrize("module", ["flowapp.engine.checkpoint", "flowapp.engine.producer", "flowapp.engine.runner"])
def test_the_engines_own_half_imports_no_faust(module: str) -> None:
    assert broken(module, "faust", "mode") == []


def test_only_entry_points_import_cli_or_worker() -> None:
    wrong = [
        f"{item.importer} imports {item.imported}"
        for item in IMPORTS
        if within(item.imported, "flowapp.cli", "flowapp.worker") and item.importer not in ENTRY_POINTS and not item.for_types
    ]
    assert wrong == []


def test_the_simulator_knows_neither_engine_nor_edge() -> None:
    assert broken("flowapp.simulator", "flowapp.engine", "flowapp.edge", "flowapp.agents", "flowapp.embedded") == []


def test_records_know_nothing_above_them() -> None:
    assert ours_but("flowapp.records") == []


def test_the_embedded_stack_knows_no_rules() -> None:
    assert broken("flowapp.embedded", "flowapp.core", "flowapp.engine", "flowapp.agents", "flowapp.simulator") == []
    assert broken("flowapp.embedded", "flowapp.edge", allowed=("flowapp.edge.feeds",)) == []
