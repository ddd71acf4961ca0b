"""One name for one thing, all over the package."""

import ast
from collections import defaultdict
from pathlib import Path

MASA = Path(__file__).parents[2] / "masa"
UNCLEAR = {"told", "said", "held", "found"}


def trees():
    for path in sorted(MASA.rglob("*.py")):
        yield path.relative_to(MASA), ast.parse(path.read_text())


def test_no_two_classes_have_one_name():
    where = defaultdict(list)
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                where[node.name].append(str(path))
    assert len(where) > 100
    assert {name: paths for name, paths in where.items() if len(paths) > 1} == {}


def test_names_say_what_they_name():
    for path, tree in trees():
        stored = {
            node.id.lstrip("_")
            for node in ast.walk(tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        assert stored & UNCLEAR == set(), path
