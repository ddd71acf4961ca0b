"""docs/metrics.md names what the code records: no more, no less."""

import ast
import re
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pytest
from builders import World, algorithm, group, meta_text, prompts

from masa.algorithm.step import collect
from masa.rollout.validation import validation_metrics
from masa.tracking.metrics import rollout_metrics
from masa.tracking.records import SCHEMA, TOKENS
from masa.types import Objective

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "metrics.md").read_text()
METRICS, ROLLOUTS = PAGE.split("## Rollouts as tables")
LISTED = re.findall(r"^\| `([^`]+)` \|", METRICS, re.MULTILINE)
PACKAGES = ("algorithm", "rollout", "tracking", "training")
SOURCES = [path for package in PACKAGES for path in (ROOT / "masa" / package).glob("*.py")]


def strings():
    """Every text in the packages that measure, but docstrings."""
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


def emitted():
    """Names under which the modules that measure give out a number: keys of the dicts that they
    build, store into or pass on, and timed sections; no other texts."""
    for path in MEASURING:
        for node in ast.walk(ast.parse((ROOT / "masa" / path).read_text())):
            if isinstance(node, ast.Dict):
                yield from (key.value for key in node.keys if isinstance(key, ast.Constant))
            if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store):
                if isinstance(node.slice, ast.Constant):
                    yield node.slice.value
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "_timed":
                yield f"timing_s/{node.args[0].value}"


MEASURING = (
    "algorithm/controller.py", "algorithm/diagnostics.py", "algorithm/mismatch.py",
    "tracking/cost.py",
    "rollout/loader.py", "tracking/metrics.py", "training/module.py", "rollout/callback.py",
    "rollout/validation.py", "rollout/demonstrations.py", "training/held_out.py",
)  # fmt: skip
OBJECTIVES = get_args(Objective)
EMITTED = set(emitted())
TEXTS = set(strings())
IN_CODE = {text for text in TEXTS if re.fullmatch(r"[a-z_]+(/[a-z_]+)+", text)}
NO_METRICS = {
    "val/completions", "val/predictions", "trainer/global_step",  # tables and axis of W&B
    "tok/s",  # progress bar
    "accuracy/level_",  # start of a name
}  # fmt: skip


def general(name):
    name = re.sub(r"level_\d+$", "level_*", name)
    return re.sub(r"(meta/reward/|rewards/)\w+", r"\1<name>", name)


def test_each_name_is_listed_once():
    assert len(set(LISTED)) == len(LISTED) > 50


def test_what_the_code_names_is_on_the_page():
    assert IN_CODE - NO_METRICS - set(LISTED) == set()
    # those of a validation get their prefix later
    assert {name for name in stored() if not {name, f"val/{name}"} & set(LISTED)} == set()


@pytest.mark.parametrize("name", LISTED)
def test_what_the_page_names_is_in_the_code(name):
    assert is_emitted(name)


def is_emitted(name):
    if name == "val/<benchmark>/*":
        return 'f"val/{part.name}"' in (ROOT / "masa" / "rollout" / "validation.py").read_text()
    if name == "val/unseen/*":
        return 'HeldOut("unseen", ' in (ROOT / "masa" / "train.py").read_text()
    if name in EMITTED:
        return True
    if name.startswith("val/"):
        name = name.removeprefix("val/").replace("/level_*", "")
    if "<name>" in name:
        pattern = f'f"{name.replace("<name>", "{name}")}"'
        return pattern in (ROOT / "masa" / "tracking" / "metrics.py").read_text()
    if name.startswith("loss/"):
        return name.removeprefix("loss/") in OBJECTIVES
    return name in EMITTED


def test_the_page_could_name_what_is_not_there():
    """A word of the sources is no metric, nor is a word in a metric's place."""
    for name in ("off", "checkpoints", "val/prefix", "reward/mean", "gate/nonsense", "loss/dapo"):
        assert not is_emitted(name), name
    assert {"off", "checkpoints", "dapo"} <= TEXTS


def test_what_is_measured_is_on_the_page():
    config = algorithm(gate={"enabled": True, "sigma": 1}, cutoff={"enabled": True})
    world = World(
        config,
        lambda problem, seed: meta_text(seed % 9, 20, ["sum"]),
        lambda problem, seed: f"sum ={seed % 20}",
    )
    groups = collect(prompts(12), world.at(1))
    rewarded = group(task_rewards=({"brevity": 0.5}, {"brevity": 1.0}))
    measured = {**rollout_metrics(groups, 200), **rollout_metrics([rewarded], 200)}
    assert "rewards/brevity/std" in measured
    assert set(map(general, measured)) <= set(LISTED)
    levels = [group(decided=g.plan, prompt=g.prompt) for g in groups]
    measured = {**validation_metrics(groups), **validation_metrics(levels)}
    assert {general(f"val/{name}") for name in measured} <= set(LISTED)


def test_the_schema_is_on_the_page():
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", ROLLOUTS, re.MULTILINE)
    kinds = {
        pa.float64(): "float64",
        pa.list_(pa.string()): "list of strings",
        pa.list_(pa.int32()): "list of int32",
        pa.list_(pa.float32()): "list of float32",
    }
    fields = [*SCHEMA, *TOKENS]
    assert rows == [(field.name, kinds.get(field.type, str(field.type))) for field in fields]
