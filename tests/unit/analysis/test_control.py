"""The metrics of a rollout and the analysis of its parquet agree on gate and cutoff."""

import math

import pandas as pd
import pytest
import yaml
from builders import World, algorithm, meta_text, prompts

from masa.algorithm.step import collect
from masa.analysis import control, load_run
from masa.tracking import records
from masa.tracking.metrics import rollout_metrics


def number(problem):
    return int(problem.removeprefix("problem "))


def predicts(problem, seed):
    """Hopeless, right half of the time or trivial, and always short."""
    return meta_text((0, 4, 8)[number(problem) % 3], 15, ["carry"])


def solves(problem, seed):
    """As predicted for most prompts; some answers are longer than the cutoff."""
    share = (0, 0.5, 1)[(number(problem) + (number(problem) % 7 == 0)) % 3]
    right = seed % 100 < 100 * share
    return "x" * (seed % 29) + f"={number(problem) if right else 'wrong'}"


@pytest.mark.parametrize("gate", [False, True], ids=["gate in shadow", "gate active"])
@pytest.mark.parametrize("cutoff", [False, True], ids=["cutoff in shadow", "cutoff active"])
def test_metrics_equal_the_analysis_of_the_parquet(gate, cutoff, tmp_path):
    config = algorithm(
        gate={
            "enabled": True, "min_precision": 0.0 if gate else 1.0,
        },
        control={"audit_fraction": 0.3},
        cutoff={"enabled": True, "margin": 1.5, "max_lost": 1.0 if cutoff else 0.0},
    )  # fmt: skip
    world = World(config, predicts, solves, seed=3)
    groups = collect(prompts(60), world.at(1))
    assert {(g.plan.gate_active, g.plan.cutoff_active) for g in groups} == {(gate, cutoff)}
    measured = rollout_metrics(groups, 64)
    table = records.rows(groups, 1, "train", 64)
    records.write(table, tmp_path / "rollouts" / "train-000001.parquet")
    (tmp_path / "config.yaml").write_text(
        yaml.safe_dump({"algorithm": {"name": "masa", "gate": {"enabled": True}}, "seed": 0})
    )
    (tmp_path / "metrics.csv").write_text("step,completions/total_tokens\n1,1\n")
    (tmp_path / "timings.csv").write_text("step,timing_s/step\n1,1\n")

    run = load_run(tmp_path)
    precision, recall = control.precision_recall(control.gate_evidence(run))
    lost = control.lost_correct(run, "active" if cutoff else "shadow")
    for estimate, metric in (
        (precision, "gate/precision"),
        (recall, "gate/recall"),
        (lost, "cutoff/lost_correct"),
    ):
        assert 0 < estimate.n and not math.isnan(measured[metric])
        assert estimate.value == pytest.approx(measured[metric])
    kept = control.gain(run, "active" if gate else "shadow")
    for column, metric in zip(
        control.GAIN, ("signal_kept", "tokens_kept", "gain", "skipped_accuracy"), strict=True
    ):
        assert kept[column].value == pytest.approx(measured[f"gate/{metric}"])
        assert kept[column].low < kept[column].value < kept[column].high
    skips = run.prompts[run.prompts["skip_evidence"]]
    assert len(skips) == sum(g.skip_evidence for g in groups) > 0


def test_spells_of_a_gate_that_is_withdrawn_and_comes_back():
    steps = {1: False, 2: False, 4: True, 5: False, 6: True, 9: True}
    rows = pd.DataFrame({"step": [*steps] * 2, "gate_active": [*steps.values()] * 2})
    assert control.stretches(rows) == [(False, 1, 2), (True, 4, 4), (False, 5, 5), (True, 6, 9)]
    assert control.stretches(rows[:0]) == []
