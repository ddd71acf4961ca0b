"""docs/metrics.md names what the code records: no more, no less."""

import ast
import re
from pathlib import Path

import pyarrow as pa
import pytest
from builders import World, algorithm, group, meta_text, prompts

from masa.algorithm.step import collect
from masa.data.metrics import rollout_metrics
from masa.data.records import SCHEMA
from masa.training.validation import validation_metrics

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "metrics.md").read_text()
METRICS, ROLLOUTS = PAGE.split("## Rollouts as tables")
LISTED = re.findall(r"^\| `([^`]+)` \|", METRICS, re.MULTILINE)
ROOMS = ("algorithm", "data", "training")
SOURCES = [path for room in ROOMS for path in (ROOT / "masa" / room).glob("*.py")]


def strings():
    """Every text in the rooms that measure, but docstrings."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "_timed":
                yield f"timing_s/{node.args[0].value}"


def stored():
    """Names that are put into a dict called metrics."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Subscript) and getattr(node.value, "id", "") == "metrics":
                if isinstance(node.slice, ast.Constant):
                    yield node.slice.value


TEXTS = set(strings())
IN_CODE = {text for text in TEXTS if re.fullmatch(r"[a-z_]+(/[a-z_]+)+", text)}
NO_METRICS = {
    "val/completions", "val/predictions", "trainer/global_step",  # tables and axis of W&B
    "tok/s",  # progress bar
    "accuracy/level_",  # start of a name
}  # fmt: skip


def general(name):
    return re.sub(r"level_\d+$", "level_*", name)


def test_each_name_is_listed_once():
    assert len(set(LISTED)) == len(LISTED) > 50


def test_what_the_code_names_is_on_the_page():
    assert IN_CODE - NO_METRICS - set(LISTED) == set()
    # those of a validation get their prefix later
    assert {name for name in stored() if not {name, f"val/{name}"} & set(LISTED)} == set()


@pytest.mark.parametrize("name", LISTED)
def test_what_the_page_names_is_in_the_code(name):
    if name.startswith("val/"):
        name = name.removeprefix("val/").replace("/level_*", "")
    if name.startswith("loss/"):
        name = name.removeprefix("loss/")  # one per objective
    assert name in TEXTS | IN_CODE


def test_what_is_measured_is_on_the_page():
    config = algorithm(gate={"enabled": True, "sigma": 1}, cutoff={"enabled": True})
    world = World(
        config,
        lambda problem, seed: meta_text(seed % 9, 20, ["sum"]),
        lambda problem, seed: f"sum ={seed % 20}",
    )
    groups = collect(prompts(12), 1, config, world.actors, 0)
    assert set(rollout_metrics(groups, 200)) <= set(LISTED)
    levels = [group(decided=g.plan, prompt=g.prompt) for g in groups]
    measured = {**validation_metrics(groups), **validation_metrics(levels)}
    assert {general(f"val/{name}") for name in measured} <= set(LISTED)


def test_the_schema_is_on_the_page():
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", ROLLOUTS, re.MULTILINE)
    kinds = {pa.float64(): "float64", pa.list_(pa.string()): "list of strings"}
    assert rows == [(field.name, kinds.get(field.type, str(field.type))) for field in SCHEMA]
