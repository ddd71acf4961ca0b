import errno
import math
import os
import queue
import threading

import pyarrow.parquet as pq
import pytest
from builders import (
    World,
    algorithm,
    completion,
    group,
    meta_text,
    plan,
    prediction,
    prompt,
    prompts,
)
from synthetic_run import prompt_rows, write_run

from masa.algorithm.step import collect
from masa.analysis import load_run, tables
from masa.errors import TrainingError
from masa.tracking import records


def roll_out():
    """Groups with everything: gated, cut, audited, unparsed."""
    config = algorithm(
        gate={"enabled": True},
        control={"audit_fraction": 0.3},
        cutoff={"enabled": True, "margin": 1.0},
    )

    def meta(problem, seed):
        rate = 0 if int(problem.split()[1]) % 2 else seed % 9
        return meta_text(rate, 20, ["carry"]) if seed % 5 else "unreadable"

    world = World(config, meta, lambda p, s: "x" * (s % 40) + f"={p.split()[1]}", seed=1)
    return collect(prompts(24), world.at(3))


def test_rows_against_groups(tmp_path):
    groups = roll_out()
    assert {(g.skipped, g.plan.audited, g.uncensored) for g in groups} >= {
        (True, False, False), (False, True, True), (False, False, False)
    }  # fmt: skip
    records.write(records.rows(groups, 3, "train", 200), tmp_path / "deep" / "r.parquet")
    table = pq.read_table(tmp_path / "deep" / "r.parquet")
    assert table.schema == records.SCHEMA
    rows = iter(table.to_pylist())
    for g in groups:
        for i, (response, predicted) in enumerate(zip(g.meta, g.predictions, strict=True)):
            row = next(rows)
            shared(row, g, response, i, "meta", 200)
            assert row["correct"] is None
            assert row["predicted_pass_rate"] == predicted.pass_rate
            assert row["predicted_length"] == predicted.length
            notions = row["predicted_notions"]
            assert (None if notions is None else tuple(notions)) == predicted.notions
            assert row["predicted_mixed"] == predicted.mixed
            assert row["parse_error"] == predicted.error
            assert row["meta_rewards"] == (list(g.meta_scores[i].items()) if g.uncensored else None)
            assert row["reward"] == (g.meta_rewards[i] if g.uncensored else None)
            assert row["advantage"] == (g.meta_advantages[i] if g.uncensored else None)
        for i, (response, correct) in enumerate(zip(g.solutions, g.correct, strict=True)):
            row = next(rows)
            shared(row, g, response, i, "solution", g.plan.max_tokens)
            assert row["correct"] is correct
            assert row["reward"] == float(correct)
            assert row["advantage"] == g.solution_advantages[i]
            for name in ("predicted_pass_rate", "predicted_length", "predicted_notions",
                         "predicted_mixed", "parse_error", "meta_rewards"):  # fmt: skip
                assert row[name] is None
    assert next(rows, None) is None


def shared(row, g, response, sample, kind, limit):
    assert (row["step"], row["split"], row["kind"], row["sample"]) == (3, "train", kind, sample)
    assert (row["prompt_id"], row["level"]) == (g.prompt.id, g.prompt.level)
    assert (row["problem"], row["answer"]) == (g.prompt.problem, g.prompt.answer)
    assert (row["text"], row["tokens"]) == (response.text, len(response.token_ids))
    prompt_ids = g.meta_prompt_ids if kind == "meta" else g.solution_prompt_ids
    assert row["prompt_tokens"] == len(prompt_ids) > 0
    assert row["finish_reason"] == ("stop" if response.finished else "length")
    assert (row["max_tokens"], row["version"]) == (limit, response.version)
    assert (row["would_skip"], row["audited"]) == (g.plan.would_skip, g.plan.audited)
    assert [row[name] for name in ("gate_active", "cutoff_active", "skipped", "kept")] == [
        g.plan.gate_active, g.plan.cutoff_active, g.skipped, g.kept,
    ]  # fmt: skip
    assert row["cutoff_tokens"] == g.plan.cutoff_tokens


def test_no_rollouts_are_a_table_without_rows(tmp_path):
    records.write(records.rows([], 1, "train", 10), tmp_path / "r.parquet")
    table = pq.read_table(tmp_path / "r.parquet")
    assert table.num_rows == 0 and table.schema == records.SCHEMA


def test_any_text_can_be_written(tmp_path):
    odd = group(
        (True, False),
        predictions=[prediction(None, None, None), prediction(1, 2, ("", "a\x00b", "é"))],
        solution_rewards=(1.0, 0.0),
        solution_advantages=(0.5, -0.5),
        prompt=prompt(problem='quotes " and \n lines', level=20240131),
        meta=(completion(1, text="\x00"), completion(2, text="🙂", finished=False)),
        decided=plan(would_skip=True),
    )
    records.write(records.rows([odd], 1, "val", 10), tmp_path / "r.parquet")
    table = pq.read_table(tmp_path / "r.parquet").to_pylist()
    assert [row["text"] for row in table] == ["\x00", "🙂", "", ""]
    assert table[1]["predicted_notions"] == ["", "a\x00b", "é"]
    assert table[1]["finish_reason"] == "length"
    assert table[0]["level"] == 20240131


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "r.parquet"
    records.write(records.rows([], 1, "train", 10), path)
    before = path.read_bytes()

    def torn(table, where, **kwargs):
        where.write_bytes(b"half a fi")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records.pq, "write_table", torn)
    message = r"r\.parquet could not be written \(No space left on device\).*free space"
    with pytest.raises(TrainingError, match=message) as caught:
        records.write([], path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == before
    monkeypatch.undo()
    records.write(
        records.rows([group(solution_rewards=(1, 0), solution_advantages=(0, 0))], 1, "train", 10),
        path,
    )
    assert pq.read_table(path).num_rows == 2
    assert os.listdir(tmp_path) == ["r.parquet"]


def test_files_are_written_beside_the_caller_one_at_a_time(tmp_path, monkeypatch):
    begun, go_on = queue.Queue(), threading.Semaphore(0)
    whole = records.write

    def held_up(table, path, record_tokens):
        begun.put(path.stem)
        assert go_on.acquire(timeout=60)
        whole(table, path, record_tokens)

    monkeypatch.setattr(records, "write", held_up)
    writer = records.RecordWriter()
    first, second = tmp_path / "1.parquet", tmp_path / "2.parquet"
    writer.write(roll_out(), 1, "train", 200, first)
    assert begun.get(timeout=60) == "1" and not first.exists()
    go_on.release()
    writer.write(roll_out(), 2, "train", 200, second)
    # the second begins once the first is on disk
    assert first.exists() and begun.get(timeout=60) == "2" and not second.exists()
    go_on.release()
    writer.wait()
    assert pq.read_table(first).drop("step") == pq.read_table(second).drop("step")
    writer.wait()


def test_a_full_disk_is_told_to_whoever_waits_or_writes_next(tmp_path, monkeypatch):
    def full(table, where, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(records.pq, "write_table", full)
    writer, path = records.RecordWriter(), tmp_path / "r.parquet"
    writer.write([], 1, "train", 10, path)
    with pytest.raises(TrainingError, match=r"r\.parquet could not be written"):
        writer.wait()
    writer.wait()  # told once
    writer.write([], 2, "train", 10, path)
    with pytest.raises(TrainingError, match=r"r\.parquet could not be written"):
        writer.write([], 3, "train", 10, path)
    assert not path.exists()


def test_a_skipped_prompt_keeps_its_predictions():
    skipped = group((), predictions=[prediction()], decided=plan(would_skip=True, max_tokens=0))
    (row,) = records.rows([skipped], 1, "train", 10)
    assert not any(isinstance(v, float) and math.isnan(v) for v in row.values())
    assert row["kind"] == "meta" and row["skipped"] and "reward" not in row


def test_a_prompt_skipped_without_a_prediction_has_a_row(tmp_path):
    gated = plan(would_skip=True, gate_active=True, max_tokens=0)
    groups = [
        group((), decided=gated, prompt=prompt("a")),
        group(
            decided=plan(gate_active=True), prompt=prompt("b"),
            solution_rewards=(1, 0), solution_advantages=(1, -1),
        ),
    ]  # fmt: skip
    run = write_run(tmp_path / "run", prompt_rows("val", 1, "v", [True, False]), method="greso")
    records.write(records.rows(groups, 1, "train", 10), run / "rollouts" / "train-000001.parquet")
    loaded = load_run(run)
    first, second = (row for _, row in loaded.prompts.query("split == 'train'").iterrows())
    assert (first["samples"], first["skipped"], first["would_skip"]) == (0, True, True)
    assert (second["samples"], second["skipped"]) == (2, False)
    share = tables.headline([loaded]).iloc[0]["skipped share, gate active"]
    assert (share.hits, share.n) == (1, 2)
    assert set(loaded.texts("train", 1)["kind"]) == {"none", "solution"}
