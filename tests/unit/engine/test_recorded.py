"""The engine of recorded completions against the engine that sampled them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import World, algorithm, meta_text, prompts

from masa.algorithm.step import collect
from masa.engine.recorded import RecordedEngine, Recording
from masa.errors import ConfigError, TrainingError
from masa.tracking import records
from masa.types import Request

SEED = 3
GATED = {"enabled": True, "sigma": 1, "tolerance": 0.3}
AUDITED = {"start_step": 0, "audit_fraction": 0.2}


def meta(problem, seed):
    rate = 0 if int(problem.split()[1]) % 2 else 4
    return meta_text(rate, 4 + seed % 60, ["carry"]) if seed % 5 else "unreadable"


def solve(problem, seed):
    return "x" * (seed % 70) + f"={problem.split()[1]}"


def world(**settings):
    return World(algorithm(**settings), meta, solve, SEED)


def record(folder: Path, groups, name: str, step: int) -> None:
    split, _, number = name.rpartition("-")
    table = records.rows(groups, step, split, 200, True)
    records.write(table, folder / "rollouts" / f"{split}-{int(number):06d}.parquet", True)


def engine(run, version: int) -> RecordedEngine:
    made = RecordedEngine(str(run), Path("unused"), [0], 99)
    made.load_weights(iter(()), version)
    return made


def played(run, version: int, step: int, count: int = 12, **settings):
    """Groups of the recorded engine, in a world whose own engine is never asked."""
    again = world(**settings)
    context = replace(again.at(step), generate=engine(run, version).generate)
    groups = collect(prompts(count), context)
    assert not again.engine.calls
    return groups


@pytest.fixture
def run(tmp_path):
    """A run of two rollouts with gate, cutoff and hints, and a validation after the first."""
    (tmp_path / "config.yaml").write_text(f"seed: {SEED}\n")
    for step in (1, 2):
        record(tmp_path, sampled(step, **CONTROLLED), f"train-{step}", step)
    record(tmp_path, sampled(0), "val-1", 1)
    return tmp_path


CONTROLLED = {
    "gate": GATED,
    "cutoff": {"enabled": True, "margin": 1.0},
    "control": AUDITED | {"hint": True},
}


def sampled(step, **settings):
    original = world(**settings)
    original.engine.version = step - 1 if step else 1
    return collect(prompts(12), original.at(step))


def rounded(groups):
    """Rows with log-probs as float32, which is what a file keeps of them."""
    table = records.rows(groups, 1, "train", 200, True)
    for row in table:
        for name in ("prompt_ids", "token_ids", "logprobs"):
            if name in row:
                row[name] = np.float32(row[name]).tolist()
    return table


def test_the_same_rollouts_come_out(run):
    for step in (1, 2):
        groups = sampled(step, **CONTROLLED)
        assert {(g.skipped, g.uncensored) for g in groups} == {
            (True, False), (False, True), (False, False)
        }  # fmt: skip
        assert rounded(played(run, step - 1, step, **CONTROLLED)) == rounded(groups)
    assert rounded(played(run, 1, 0)) == rounded(sampled(0))


def test_a_run_in_shadow_mode_answers_for_any_control(tmp_path):
    """What gate and cutoff would have made of it, against a run that they were active in."""
    (tmp_path / "config.yaml").write_text(f"seed: {SEED}\n")
    record(tmp_path, sampled(1), "train-1", 1)
    controlled = CONTROLLED | {"control": AUDITED}
    groups = sampled(1, **controlled)
    assert {(g.skipped, g.uncensored) for g in groups} == {
        (True, False), (False, True), (False, False)
    }  # fmt: skip
    assert rounded(played(tmp_path, 0, 1, **controlled)) == rounded(groups)


@pytest.mark.parametrize("limit", [1, 7, 30, 63, 64])
def test_a_shorter_limit_cuts_as_the_sampling_would_have(tmp_path, limit):
    (tmp_path / "config.yaml").write_text(f"seed: {SEED}\n")
    record(tmp_path, sampled(1), "train-1", 1)
    shorter = {"response_limit": limit, "meta": {"group_size": 4, "min_length": 1}}
    groups = sampled(1, **shorter)
    cut = {c.finished for g in groups for c in g.solutions}
    assert cut == ({False} if limit == 1 else {True, False})
    assert rounded(played(tmp_path, 0, 1, **shorter)) == rounded(groups)


def test_what_was_not_sampled_is_an_error_that_names_prompt_and_rollout(run):
    def refused(text, version, step, count=12, **settings):
        with pytest.raises(TrainingError, match=text) as caught:
            played(run, version, step, count, **settings)
        assert "\n" not in str(caught.value)

    skipped = [g.prompt.id for g in sampled(2, **CONTROLLED) if g.skipped]
    refused(
        f"prompt {skipped[0]} of rollout 2 was skipped in .*gate.enabled=false", 1, 2,
        **CONTROLLED | {"gate": {"enabled": False}},
    )  # fmt: skip
    stopped = next(
        (g.prompt.id, len(c.token_ids))
        for g in sampled(2, **CONTROLLED)
        for c in g.solutions
        if not g.plan.audited and not c.finished and len(c.token_ids) < 64
    )
    refused(
        f"prompt {stopped[0]} of rollout 2 was stopped after {stopped[1]} .* have 64 now", 1, 2,
        **CONTROLLED | {"cutoff": {"enabled": False}},
    )  # fmt: skip
    refused(
        "of rollout 1 has another text than in .*templates", 0, 1,
        **CONTROLLED | {"control": AUDITED},
    )  # fmt: skip
    refused("prompt id12 of rollout 1 is not in .*task, sampler", 0, 1, 13, **CONTROLLED)
    refused("prompt id12 of the validation after rollout 1 is not in", 1, 0, 13)


def test_a_rollout_without_tokens_is_none(run):
    recording = Recording(run)
    assert recording.rollouts == 2
    assert recording.has("val", 1) and not recording.has("val", 0)
    path = recording.path("train", 1)
    records.write(records.rows(sampled(1), 1, "train", 200), path)
    assert not recording.has("train", 1) and recording.rollouts == 0
    path.write_bytes(b"half a file")
    with pytest.raises(ConfigError, match="train-000001.parquet cannot be read") as caught:
        assert recording.rollouts
    assert "\n" not in str(caught.value)


def test_a_prompt_without_any_completion_is_recorded_as_well(tmp_path):
    """A gate by history skips before predictions are made."""
    (tmp_path / "config.yaml").write_text(f"seed: {SEED}\n")
    config = {"meta": {"enabled": False}}
    groups = sampled(1, **config)
    gone = replace(groups[0], solutions=(), correct=(), solution_rewards=(), solution_advantages=())
    record(tmp_path, [gone, *groups[1:]], "train-1", 1)
    with pytest.raises(TrainingError, match="prompt id0 of rollout 1 was skipped"):
        played(tmp_path, 0, 1, **config)
    assert engine(tmp_path, 0).generate([Request((1, 2), (), 0)]) == [[]]
