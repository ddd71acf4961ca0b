"""The arithmetic of experiments/speed, and how long its models' completions are."""

import argparse
import ast
import itertools
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path

import bench
import compare_trl
import hydra
import logprob_memory
import processes
import pytest
import record
import scaling
import speed_report
import step_time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from masa.cli.config_store import conf_dir
from masa.tasks.build import build_task


def work(**changes):
    settings = {
        "size": "1M", "response": 16, "prompts": 2, "group": 4, "steps": 3, "threads": 2,
        "folder": Path("x"),
    }  # fmt: skip
    return compare_trl.Work(**settings | changes)


def test_trl_makes_no_forward_pass_that_ours_does_not():
    tree = ast.parse((bench.HERE / "trl_steps.py").read_text())
    settings = {
        key.value: value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
    }
    assert settings["vllm_importance_sampling_correction"] is False


def test_both_sides_leave_compilation_off():
    assert bench.ENVIRONMENT["TORCH_COMPILE_DISABLE"] == "1"


def runs(generated, tokens):
    return [{"steps": [{"generated": generated, "tokens": tokens}] * 2}]


def test_equal_work_is_accepted_and_other_work_is_refused():
    assert compare_trl.require_same_work(work(), {"a": runs(128, 150), "b": runs(128, 150)}) == 150
    for other in (runs(127, 150), runs(128, 149)):
        with pytest.raises(record.Failed, match="differ"):
            compare_trl.require_same_work(work(), {"a": runs(128, 150), "b": other})
    with pytest.raises(record.Failed, match="not 128 generated"):
        compare_trl.require_same_work(work(), {"a": runs(100, 150), "b": runs(100, 150)})


def test_micro_batches_of_both_sides_hold_about_as_many_tokens():
    assert work().rows(36) == 8  # all of them
    assert work(prompts=3).rows(1020) == 4  # of 12, which 4 divides
    assert work().rows(10020) == 1
    assert 0 < work(response=1000).longest() - 1000 < 64


def test_ratios_are_taken_within_a_repetition():
    ratios = record.ratios([[1, 1, 9], [4]], [[2], [2]])
    assert (ratios["low"], ratios["high"], ratios["median"]) == (0.5, 2, 1.25)
    assert record.ranged(ratios) == "1.25 (0.500 to 2.00)"
    assert record.ranged({"median": 1234.5, "low": 0.0, "high": 99999.0}) == "1234 (0 to 99999)"


def test_ours_is_compared_with_the_best_of_trl():
    def run(*walls):
        parts = dict.fromkeys(("generate", "train", "rest"), 0.1)
        steps = [{"wall": w, "generated": 500, **parts} for w in walls]
        return [{"steps": steps, "memory": 1.0, "threads": 2}]

    runs_of = {"ours, vLLM": run(1, 1), "TRL, HF": run(4, 4), "TRL, vLLM": run(2, 2)}
    result = compare_trl.summary(runs_of)
    assert result["best of TRL"] == "TRL, vLLM"
    assert result["ratios"]["ours, vLLM"]["median"] == 0.5
    assert compare_trl.ratios_of(result)[compare_trl.BETTER] == result["ratios"]["ours, vLLM"]
    # per 1,000 generated tokens
    assert result["systems"]["TRL, vLLM"]["wall"]["median"] == 4


def test_the_parts_of_a_step_sum_to_its_time():
    parts = dict.fromkeys((f"timing_s/{name}" for name in step_time.PARTS), 1.0)
    row = parts | {"timing_s/rollout": 8.0, "timing_s/update": 3.5, "timing_s/step": 11.5}
    rows = [row | {"wall": 14.0}, row | {"timing_s/log": 0.5, "wall": 14.0}]
    (parts_of_step,) = step_time.parts_of(rows)
    assert sum(parts_of_step.values()) == pytest.approx(14)
    assert parts_of_step["log"] == 0.5
    assert [parts_of_step[name] for name in step_time.RESTS] == [3, 1.5, 1]
    shares = step_time.shares([parts_of_step])
    # log and write are half a second and one, the rests 5.5, verify, gather and pack one each
    assert shares["around"] == pytest.approx(10 / 14)
    assert sum(shares[name] for name in parts_of_step) == pytest.approx(1)


def test_sides_begin_in_turn():
    assert compare_trl.turns(["a", "b", "c"], 3) == [
        (0, "a"), (0, "b"), (0, "c"), (1, "c"), (1, "b"), (1, "a"), (2, "a"), (2, "b"), (2, "c"),
    ]  # fmt: skip
    ran = []
    sides = {name: lambda name=name: ran.append(name) or name.upper() for name in "ab"}
    assert step_time.in_turn(0, sides) == step_time.in_turn(1, sides) == {"a": "A", "b": "B"}
    assert ran == ["a", "b", "b", "a"]


def test_trl_runs_with_its_fastest_number_of_threads(monkeypatch, tmp_path):
    runs_of_trl = []

    def run_trl(work, vllm, python, out):
        runs_of_trl.append((vllm, work.threads, work.steps))
        wall = work.threads if vllm else 1 / work.threads
        return {"steps": [{"wall": wall * slow, "generated": 1000} for slow in (9, 1, 1)]}

    monkeypatch.setattr(compare_trl, "run_trl", run_trl)
    seconds = compare_trl.calibrate(work(folder=tmp_path), compare_trl.SYSTEMS, Path("python"))
    assert seconds == {"TRL, HF": {1: 1, 2: 0.5}, "TRL, vLLM": {1: 1, 2: 2}}
    steps = work().steps
    assert runs_of_trl == [(False, 1, steps), (False, 2, steps), (True, 1, steps), (True, 2, steps)]
    large = work(folder=tmp_path, size="10M")
    assert compare_trl.calibrate(large, compare_trl.SYSTEMS, Path("python")) == {}


def test_a_run_with_another_number_of_threads_fails():
    bench.require_threads("TRL", 2, 2.0)
    with pytest.raises(record.Failed, match="TRL was given 2 threads and ended with 1"):
        bench.require_threads("TRL", 2, 1)


def test_every_size_is_given_the_same_number_of_sequences():
    args = argparse.Namespace(prompts=8, group=8, steps=None, threads=2, repetitions=None)
    works = [
        (work, compare_trl.repetitions_of(args, work))
        for size in ("1M", "10M", "50M")
        for response in (64, 192)
        for work in [compare_trl.work_of(args, size, "fixed", response, Path("x"))]
    ]
    assert {work.generated // work.response for work, _ in works} == {64}
    assert [(work.steps - 1, repetitions) for work, repetitions in works] == [
        (3, 3), (3, 3), (3, 3), (3, 2), (2, 2), (2, 1),
    ]  # fmt: skip
    for_all = compare_trl.minutes(works, compare_trl.SYSTEMS)
    assert 20 < for_all < 90
    assert compare_trl.minutes(works[:1], compare_trl.SYSTEMS) < for_all / 5


def test_rows_of_a_plain_loop_have_the_tokens_or_also_the_attention_of_the_sequences():
    mean, weighted = step_time.row_lengths([10, 30]).values()
    assert mean == 20
    assert weighted == 25  # of 40 tokens: 25 * 40 = 10**2 + 30**2
    assert len(set(step_time.row_lengths([7, 7, 7]).values())) == 1


def test_a_rate_is_the_middle_of_those_of_the_steps():
    assert step_time.median_rate(12, [1, 2, 12]) == 6
    assert step_time.median_rate([10, 100, 12], [1, 2, 12]) == 10
    assert record.met(0.95, at_least=0.95) == "met" == record.met(0.04, at_most=0.05)
    assert record.met(0.94, at_least=0.95) == "missed" == record.met(0.51, at_most=0.5)


def test_the_engine_in_the_framework_over_the_bare_one(monkeypatch, tmp_path):
    rows = [{"step/cost/tokens_total": 64, "timing_s/generate": s, "threads": 2} for s in (1, 2, 4)]
    monkeypatch.setattr(bench, "run", lambda *args: 1.0)
    monkeypatch.setattr(bench, "rows_of", lambda out: rows)
    monkeypatch.setattr(bench, "write_model", lambda *args: 1)
    monkeypatch.setattr(step_time, "alone", lambda *args: {"same": [1, 2, 9], "plain": [1, 1, 1]})
    piece = record.Report()
    args = argparse.Namespace(size="1M", prompts=2, group=4, response=8, steps=3, threads=2)
    step_time.measure_engine(piece, tmp_path, 2, args)
    assert [run["ratio"] for run in piece.data["runs"]] == [1, 1]
    assert "1.00 (1.00 to 1.00) | met |" in "\n".join(piece.lines)
    assert piece.lines[-1].startswith("The bare engine without seeds and log-probs: 64.0")


def point(x, wall, memory):
    return dict.fromkeys(scaling.PARTS, wall) | {"x": x, "memory": memory}


def test_exponents():
    x = [1, 2, 4, 8]
    exponents = scaling.fits([point(v, 3 * v**1.5, 1.8 + 0.1 * v) for v in x])
    for part in scaling.PARTS:
        assert exponents[part] == {"all": pytest.approx(1.5), "largest": pytest.approx(1.5)}
    # 1.8 GiB are constant: the rest grows in proportion
    assert exponents["memory"] == {"all": pytest.approx(1), "largest": pytest.approx(1)}
    assert "step 1.50" in scaling.flagged(exponents) and "memory" not in scaling.flagged(exponents)
    flat = scaling.fits([point(v, v, 2 + 0.001 * v) for v in x])
    assert flat["memory"] == {"all": None, "largest": None}
    assert scaling.flagged(flat).endswith("none.")
    # of a rest that is measured as a difference
    assert scaling.fits([point(v, v - 2, 1) for v in x])["rest"] == {
        "all": None, "largest": pytest.approx(1.58, abs=0.01),
    }  # fmt: skip


def test_points_have_the_spread_of_their_runs():
    combined = scaling.combined([{"wall": 2.0, "memory": 1.0}, {"wall": 4.0, "memory": 3.0}])
    assert (combined["wall"], combined["memory"]) == (3, 2)
    assert (combined["spread"]["low"], combined["spread"]["high"]) == (2, 4)


def pieces_of(folder, *words):
    parser = argparse.ArgumentParser(prog="verifier_time.py")
    parser.add_argument("--kinds", nargs="+", default=["a", "b"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    return record.Pieces(parser, parser.parse_args(words), "Verdicts", folder)


def measure_pieces(pieces, line):
    for kind in pieces.args.kinds:
        with pieces.piece(kind, ["ab".index(kind)], kinds=kind) as piece:
            piece(f"{kind}: {line}")


def test_a_piece_replaces_only_itself_and_has_its_command(tmp_path, monkeypatch):
    measure_pieces(pieces_of(tmp_path), "first")
    measure_pieces(pieces_of(tmp_path, "--kinds", "b", "--steps", "5"), "again")
    saved = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert {name: piece["lines"] for name, piece in saved.items()} == {
        "verifier_time-a": ["a: first"], "verifier_time-b": ["b: again"],
    }  # fmt: skip
    again = "python experiments/speed/verifier_time.py --kinds b --steps 5"
    assert saved["verifier_time-b"]["command"] == again

    arguments = [f"{tmp_path}/out", f"--results={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["speed_report.py", *arguments])
    speed_report.main()
    text = (tmp_path / "out/report.md").read_text()
    assert text.index("### Verdicts") < text.index("a: first") < text.index("b: again")
    assert f"`{again}` on " in text and text.count("of the CPU time") == 2
    assert "\n## " not in text


def test_a_piece_that_fails_is_not_written_and_stops_no_other(tmp_path, capsys):
    pieces = pieces_of(tmp_path)
    with pieces.piece("a", [0]):
        raise record.Failed("out of memory")
    with pieces.piece("b", [1]) as piece:
        piece("fine")
    assert [path.stem for path in tmp_path.glob("*.json")] == ["verifier_time-b"]
    assert "verifier_time a: out of memory" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="verifier_time: failed: a"):
        pieces.end()


def test_a_smoke_test_keeps_nothing(tmp_path):
    measure_pieces(pieces_of(tmp_path, "--quick"), "worthless")
    assert not list(tmp_path.iterdir())


def test_the_ratios_of_all_pieces_are_one_table():
    def piece(parameters, response, ratio):
        ratios = {"ours, vLLM": record.spread([ratio])}
        return {
            "parameters": parameters, "response": response, "ratios": ratios,
            "best of TRL": "TRL, HF",
        }  # fmt: skip

    *_, small, large = compare_trl.trend([piece(1e6, 64, 0.9), piece(5e7, 192, 1.2)])
    assert small.startswith("| 1.0 M | 64 tokens per response | 0.900 (0.900 to 0.900); 1 or below")
    assert "reached: met | not measured |" in small
    assert "1.20 (1.20 to 1.20); 1 or below reached: missed" in large


def test_goals_of_drawn_lengths():
    def verdict(name, ratio):
        ours = "ours, vLLM" if name == compare_trl.BETTER else name
        data = {"lengths": "geometric", "ratios": {ours: record.spread([ratio])}}
        return compare_trl.verdict(data, name)

    assert verdict("ours, vLLM", 0.5) == "at most 0.55: met"
    assert verdict(compare_trl.BETTER, 0.5) == "at most 0.45: missed"
    assert verdict("ours, HF", 0.5) == "–"


def test_the_share_of_other_processes_is_without_this_one(tmp_path, monkeypatch):
    ticks = os.sysconf("SC_CLK_TCK")
    stat = tmp_path / "stat"
    monkeypatch.setattr(record, "PROC_STAT", stat)

    def seconds(user, idle, waiting):
        stat.write_text(f"cpu  {user * ticks} 0 0 {idle * ticks} {waiting * ticks} 0 0 0 0 0\ncpu0")

    seconds(0, 0, 0)
    others = record.OtherWork()
    seconds(60, 130, 10)
    monkeypatch.setattr(os, "times", lambda: [others.began[2] + 20, 0, 0, 0, 0])
    assert others.share() == pytest.approx(0.2)  # 40 of 200
    stat.unlink()
    assert others.share() is None


def test_a_process_that_takes_too_long_is_stopped_with_what_it_has_started(tmp_path):
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    code = f"import subprocess; print('so far', flush=True); subprocess.run({sleeper})"
    started = time.monotonic()
    with pytest.raises(record.Failed, match="(?s)stopped after 1 s.*so far"):
        bench.run([sys.executable, "-c", code], tmp_path / "log", 1, timeout=1)
    assert time.monotonic() - started < 20
    with pytest.raises(record.Failed, match="(?s)status 3.*because"):
        bench.run([sys.executable, "-c", "print('because'); exit(3)"], tmp_path / "log", 1)
    assert bench.run([sys.executable, "-c", "pass"], tmp_path / "log", 1) > 0


def make_bench(folder, *words):
    """Programs that `make bench` runs where step_time.py fails, and its process."""
    python = folder / "venv/bin/python"
    python.parent.mkdir(parents=True, exist_ok=True)
    python.write_text('#!/bin/sh\necho "ran $*"\ncase "$1" in *step_time.py) exit 3;; esac\n')
    python.chmod(0o755)
    # make does not rebuild targets that are newer than their prerequisites
    for name, ahead in (("venv/.masa-ready", 100), ("trl/.ready", 200)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
        os.utime(folder / name, (time.time() + ahead,) * 2)
    command = ["make", "bench", f"VENV={folder}/venv", f"VENV_TRL={folder}/trl", *words]
    process = processes.run(command, code=None, cwd=bench.ROOT)
    ran = [Path(line.split()[1]).stem for line in process.stdout.splitlines() if line[:4] == "ran "]
    return ran, process


def test_make_bench_publishes_after_a_failure_and_reports_it(tmp_path):
    programs = ["compare_trl", "step_time", "scaling", "startup", "verifier_time"]
    programs += ["logprob_memory", "adapter_sync"]
    ran, process = make_bench(tmp_path)
    assert ran == [*programs, "speed_report", "publish"]
    assert process.returncode and "not measured in full: step_time.py" in process.stderr
    ran, process = make_bench(tmp_path, "BENCH_ARGS=--quick")
    assert ran == programs and process.returncode
    assert process.stdout.count("--quick") == len(programs)


def test_pages_of_files_count_as_available_memory():
    text = "MemTotal: 9 kB\nMemFree: 1 kB\nMemAvailable:    4 kB\n"
    assert logprob_memory.available(text) == 4096
    measured = logprob_memory.measure("chunked", 64, 1000, 32)
    assert measured["seconds"] > 0


def test_a_step_lasts_from_one_end_to_the_next_without_validation(tmp_path):
    (tmp_path / "clock.csv").write_text("1,10.0,0.5,2\n2,14.0,0.5,2\n3,15.0,0.75,1\n")
    costs = ("cost/tokens_trained", "cost/tokens_total", "cost/tokens_prompt")
    rows = [f"{i},{10 * i},{8 * i},{2 * i}" for i in range(1, 4)]
    (tmp_path / "metrics.csv").write_text("\n".join([",".join(("step", *costs)), *rows]))
    timings = "step,timing_s/step,timing_s/validation\n0,,7\n1,1,3\n2,1,\n3,1,2\n"
    (tmp_path / "timings.csv").write_text(timings)
    second, third = bench.rows_of(tmp_path)
    assert (second["wall"], third["wall"]) == (1, 1)
    assert (third["memory"], third["threads"]) == (0.75, 1)
    assert second["step/cost/tokens_trained"] == 10


@pytest.mark.parametrize("count", [4, 16])
def test_both_sides_have_the_same_prompts(tmp_path, count):
    command = bench.short_run(tmp_path, tmp_path, "hf", count, 2, 8, 1)
    overrides = [word for word in command[2:] if "logger" not in word]
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        task = build_task(hydra.compose("config", overrides).task)
    ours = [task.templates.solution_text(prompt.problem) for prompt in task.train]
    assert sorted(ours) == sorted(bench.prompt_texts(count)) and len(set(ours)) > 1
    unknown = bench.prompt_tokenizer().unk_token_id
    assert unknown not in [i for t in ours for i in bench.prompt_tokenizer()(t)["input_ids"]]


def test_what_is_measured_is_not_measured_again(tmp_path, monkeypatch):
    parser = argparse.ArgumentParser(prog="x.py")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--quick", action="store_true")

    def pieces(*words):
        return record.Pieces(parser, parser.parse_args(words), "X", tmp_path)

    changed = []
    monkeypatch.setattr(record, "commit", lambda: "abc1234")
    monkeypatch.setattr(record, "unchanged", lambda since: since == "abc1234" and not changed)
    assert not pieces().done("a", sizes="1M")
    with pieces().piece("a", [0], sizes="1M") as report:
        report("line")
    assert pieces().done("a", sizes="1M")
    assert not pieces("--quick").done("a", sizes="1M")
    # another command, or other code
    assert not pieces("--steps", "4").done("a", sizes="1M")
    assert not pieces().done("a", sizes="2M")
    changed.append("masa/train.py")
    assert not pieces().done("a", sizes="1M")


def test_a_result_names_the_commit_that_it_measured():
    code = record.commit()
    assert code is None or record.unchanged(code) != code.endswith("-dirty")
    assert not record.unchanged("0000000-dirty")


def test_no_completion_ends_early(tmp_path):
    bench.write_model("0.3M", tmp_path, 64)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = torch.randint(3, len(tokenizer), (4, 32))
    with torch.no_grad():
        probability = torch.softmax(model(input_ids=ids).logits, -1)
    assert float(probability[..., tokenizer.eos_token_id].max()) < 1e-15
    # of the tokens of the only phase any may come next
    assert float(probability.max()) == pytest.approx(1 / bench.WORDS, rel=1e-3)


def test_drawn_lengths_are_those_of_their_distribution():
    geometric = bench.Phases.geometric(20)
    assert geometric.chances(1000)[:3] == pytest.approx([0.05, 0.05 * 0.95, 0.05 * 0.95**2])
    assert geometric.mean(1000) == pytest.approx(20)
    # longer ones are cut at the limit
    assert sum(geometric.chances(3)) == pytest.approx(1)
    assert geometric.mean(2) == pytest.approx(0.05 + 2 * 0.95)
    fixed = bench.Phases.fixed()
    assert (fixed.mean(64), fixed.chances(64)[-1]) == (64, 1)
    for mean, sigma in ((110, 1.0), (60, 0.7)):
        chances = bench.Phases.log_normal(mean, sigma).chances(4000)
        normal = statistics.NormalDist(math.log(mean) - sigma**2 / 2, sigma)
        below = list(itertools.accumulate(chances))
        worst = max(abs(p - normal.cdf(math.log(n + 0.5))) for n, p in enumerate(below, 1))
        assert worst < 0.02


def test_a_model_draws_lengths_by_its_phases(tmp_path):
    phases = bench.Phases.log_normal(30)
    bench.write_model("0.3M", tmp_path, 64, phases)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)

    def next_token(*ids):
        with torch.no_grad():
            return torch.softmax(model(input_ids=torch.tensor([ids])).logits[0, -1], -1)

    for k, (end, leave) in enumerate(zip(phases.ends, phases.leaves, strict=True)):
        chances = next_token(10, 11, bench._words(tokenizer, max(k - 1, 0))[1],
                             bench._words(tokenizer, k)[2])  # fmt: skip
        assert float(chances[tokenizer.eos_token_id]) == pytest.approx(end, rel=1e-2, abs=1e-6)
        stay = float(chances[bench._words(tokenizer, k)].sum())
        assert stay == pytest.approx(1 - end - leave, abs=1e-3)
        if leave:
            onward = float(chances[bench._words(tokenizer, k + 1)].sum())
            assert onward == pytest.approx(leave, abs=1e-3)
    first = next_token(10, 11, 12)
    assert float(first[tokenizer.eos_token_id]) == pytest.approx(phases.ends[0], rel=1e-2, abs=1e-6)


def test_updates_leave_the_lengths_as_they_are(tmp_path):
    """Even if each moves every weight towards an end of the completion."""
    phases = bench.Phases.log_normal(110)
    bench.write_model("10M", tmp_path, 64, phases)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    words = [bench._words(tokenizer, k)[0] for k in range(len(phases.ends))]
    ids = torch.tensor([[10, 11, word] for word in words])

    def ends():
        return torch.softmax(model(input_ids=ids).logits[:, -1], -1)[:, tokenizer.eos_token_id]

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    for _ in range(4):
        optimizer.zero_grad()
        (-ends().log().mean()).backward()
        optimizer.step()
    with torch.no_grad():
        assert ends().tolist() == pytest.approx(phases.ends, rel=0.1)


def test_lengths_of_another_distribution_are_refused():
    work_ = work(lengths="geometric", response=384, prompts=16, group=8)

    def runs_of(mean):
        return {"a": [{"steps": [{"generated": 128 * mean, "tokens": 5}] * 3}]}

    assert compare_trl.require_same_work(work_, runs_of(100)) == 5
    with pytest.raises(record.Failed, match="geometric lengths"):
        compare_trl.require_same_work(work_, runs_of(60))
    with pytest.raises(record.Failed, match="the same lengths in several repetitions"):
        compare_trl.require_same_work(work_, {"a": runs_of(100)["a"] * 2})
