"""The arithmetic of experiments/speed, and that its models never end a completion."""

import ast
import statistics
from pathlib import Path

import bench
import compare_trl
import pytest
import scaling
import step
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


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


def test_equal_work_is_accepted_and_anything_else_ends_the_comparison():
    assert (
        compare_trl.require_equal_tokens(work(), {"a": runs(128, 150), "b": runs(128, 150)}) == 150
    )
    for other in (runs(127, 150), runs(128, 149)):
        with pytest.raises(SystemExit, match="differ"):
            compare_trl.require_equal_tokens(work(), {"a": runs(128, 150), "b": other})
    with pytest.raises(SystemExit, match="not 128 generated"):
        compare_trl.require_equal_tokens(work(), {"a": runs(100, 150), "b": runs(100, 150)})


def test_micro_batches_of_both_sides_hold_about_as_many_tokens():
    assert work().rows(20) == 8  # all of them
    assert work(response=1000, prompts=3).rows(20) == 4  # of 12, which 4 divides
    assert work(response=10000).rows(20) == 1


def test_ratios_are_taken_within_a_repetition():
    found = bench.ratios([[1, 1, 9], [4]], [[2], [2]])
    assert (found["low"], found["high"], found["median"]) == (0.5, 2, 1.25)
    assert bench.shown(found) == "1.25 (0.500 to 2.00)"
    assert bench.shown({"median": 1234.5, "low": 0.0, "high": 99999.0}) == "1234 (0 to 99999)"


def test_the_best_of_trl_is_what_ours_is_measured_against():
    def run(*walls):
        parts = dict.fromkeys(("generate", "train", "rest"), 0.1)
        return [{"steps": [{"wall": w, **parts} for w in walls], "memory": 1.0}]

    found = {"ours, vLLM": run(1, 1), "TRL, HF": run(4, 4), "TRL, vLLM": run(2, 2)}
    result = compare_trl.summary(found)
    assert result["best of TRL"] == "TRL, vLLM"
    assert result["ratios"]["ours, vLLM"]["median"] == 0.5


def test_all_of_a_step_is_accounted_for():
    parts = dict.fromkeys((f"timing_s/{name}" for name in step.PARTS), 1.0)
    row = parts | {"timing_s/rollout": 8.0, "timing_s/update": 3.5, "timing_s/step": 11.5}
    rows = [row | {"wall": 14.0}, row | {"timing_s/log": 0.5, "wall": 14.0}]
    (found,) = step.parts_of(rows)
    assert sum(found.values()) == pytest.approx(14)
    assert found["log"] == 0.5
    assert [found[name] for name in step.RESTS] == [2, 1.5, 2]
    shares = step.shares([found])
    assert shares["rest"] == pytest.approx(5.5 / 14)
    assert sum(shares[name] for name in found) == pytest.approx(1)


def test_exponents():
    x = [1, 2, 4, 8]
    points = [dict.fromkeys((*scaling.PARTS, "memory"), 3 * v**1.5) | {"x": v} for v in x]
    for fit in scaling.fits(points).values():
        assert fit["all"] == pytest.approx(1.5) == fit["largest"]


def test_a_step_lasts_from_one_note_to_the_next_without_validation(tmp_path):
    (tmp_path / "clock.csv").write_text("1,10.0,0.5\n2,14.0,0.5\n3,15.0,0.75\n")
    costs = ("cost/tokens_trained", "cost/tokens_total", "cost/tokens_prompt")
    rows = [f"{i},{10 * i},{8 * i},{2 * i}" for i in range(1, 4)]
    (tmp_path / "metrics.csv").write_text("\n".join([",".join(("step", *costs)), *rows]))
    timings = "step,timing_s/step,timing_s/validation\n0,,7\n1,1,3\n2,1,\n3,1,2\n"
    (tmp_path / "timings.csv").write_text(timings)
    second, third = bench.rows_of(tmp_path)
    assert (second["wall"], third["wall"]) == (1, 1)
    assert third["memory"] == 0.75
    assert second["step/cost/tokens_trained"] == 10


def test_no_completion_ends_early(tmp_path):
    bench.write_model("0.3M", tmp_path, 64)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = torch.randint(3, len(tokenizer), (4, 32))
    with torch.no_grad():
        probability = torch.softmax(model(input_ids=ids).logits, -1)
    assert float(probability[..., tokenizer.eos_token_id].max()) == 0
    others = probability[..., : tokenizer.eos_token_id]
    assert statistics.median(others.flatten().tolist()) > 1e-4
