"""Layers: imports go one way, and each heavy library is imported in one place."""

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = {
    "": 0,  # masa itself: its version
    "types": 0,
    "checks": 0,
    "plugins": 1,
    "strategy": 2,
    "objective": 2,
    "meta": 2,
    "config": 3,
    "algorithm": 4, "verifiers": 4, "engine": 4,
    "tasks": 5,  # they ask the verifiers
    "data": 6,
    "training": 7,
    "evaluation": 8,
    "analysis": 8,  # stands apart, see below
}  # fmt: skip
ENTRY = 9  # modules of masa/ itself
STATISTICS = "masa.analysis.statistics"  # numbers in, numbers out: shared with evaluation
FILES = sorted((ROOT / "masa").rglob("*.py"))
LIMIT = 420


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Every module that a file imports, wherever in the file."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            for alias in node.names:
                # `from masa.data import records` imports masa.data.records
                inner = f"{node.module}.{alias.name}"
                ours = inner.startswith("masa.") and importlib.util.find_spec(node.module)
                module = ours and ours.submodule_search_locations
                yield inner if module and importlib.util.find_spec(inner) else node.module


def place(module):
    """(package, layer) of a module of ours."""
    package = module.split(".")[1] if "." in module else ""
    return package, LAYERS.get(package, ENTRY)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_go_one_way(path):
    package, layer = place(name_of(path))
    for module in imports(path):
        if not module.startswith("masa"):
            continue
        if module == STATISTICS and layer >= LAYERS["evaluation"]:
            continue
        other, its = place(module)
        if other == package or (layer == its == ENTRY):
            continue
        assert its < layer, f"{name_of(path)} (layer {layer}) imports {module} (layer {its})"
        if "analysis" in (package, other):
            assert layer == ENTRY, f"masa.analysis and {module} know nothing of each other"


def importers(library):
    """Files of masa that import a library, its submodules included."""
    return {
        path.relative_to(ROOT / "masa").as_posix()
        for path in FILES
        if any(module.split(".")[0] == library for module in imports(path))
    }


def test_vllm_is_imported_in_one_place():
    assert importers("vllm") == {"engine/vllm.py"}


@pytest.mark.parametrize("library", ["lightning", "pytorch_lightning"])
def test_lightning_stays_upstairs(library):
    for path in importers(library):
        upstairs = path.startswith("training/") or "/" not in path
        assert upstairs and path not in ("types.py", "config.py") or path == "data/datamodule.py"


def test_the_algorithm_is_pure():
    for library in ("lightning", "vllm", "transformers", "hydra", "pandas", "pyarrow", "os"):
        assert not [path for path in importers(library) if path.startswith("algorithm/")]


def test_analysis_stands_apart():
    for path in FILES:
        if path.is_relative_to(ROOT / "masa" / "analysis"):
            for module in imports(path):
                root = module.split(".")[0]
                assert root not in ("torch", "lightning", "transformers", "vllm"), path
                assert root != "masa" or module.startswith("masa.analysis"), path


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_has_one_subject(path):
    lines = len(path.read_text().splitlines())
    assert lines <= LIMIT, f"{lines} lines: split it"


def test_every_package_is_installed():
    """A wheel holds the packages that pyproject.toml lists."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    there = {name_of(path) for path in FILES if path.name == "__init__.py" and path.read_text()}
    holding = {name_of(path).rpartition(".")[0] for path in FILES if path.name != "__init__.py"}
    assert there | holding <= listed
    for package in listed - {"masa.conf"}:
        assert (ROOT / package.replace(".", "/") / "__init__.py").is_file()
    for script in project["project"]["scripts"].values():
        module, _, function = script.partition(":")
        source = ROOT / (module.replace(".", "/") + ".py")
        assert f"def {function}(" in source.read_text(), script
