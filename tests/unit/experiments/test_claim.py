"""The runs of experiments/claim, and the numbers that results.py makes of runs."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import hydra
import processes
import pytest
import results
import yaml
from hydra.utils import instantiate
from run_record import measure, merged, read, write
from synthetic_run import prompt_rows, write_run

from experiments.claim import oracle
from masa.algorithm.gates import Gate
from masa.analysis import load_sweep
from masa.analysis.compare_methods import speedups
from masa.analysis.load import RunError
from masa.cli.config_store import conf_dir
from masa.config import load
from masa.plugins import build_plugin
from masa.types import Prompt

ROOT = Path(__file__).parents[3]
CLAIM = ROOT / "experiments" / "claim"
RUNS = {
    "families/greso", "families/grpo", "families/grpo_counts", "families/masa",
    "families/masa_calibrated_alone", "families/masa_calibrated_family",
    "families/masa_cloned_family", "families/mopps", "families/oracle", "large_pool/grpo",
    "large_pool/grpo_counts", "large_pool/masa_cloned_family", "uniform/grpo",
    "uniform/masa_cloned",
}  # fmt: skip
MAP = {
    f"map/{mix}/{method}"
    for mix in ("mostly_hopeless", "mostly_mixed", "mostly_trivial")
    for method in ("grpo", "masa_cloned_family")
}
ABLATIONS = {path.stem for path in (conf_dir() / "experiment" / "ablation").glob("[!_]*.yaml")}
MIXED, RIGHT = [True, False], [True, True]


# --- the runs


def compose(name, folder="claim"):
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return load(hydra.compose("config", [f"experiment={folder}/{name}", "++output_dir=."]))


@pytest.mark.parametrize("name", sorted(RUNS | MAP))
def test_every_run_composes_and_is_named_after_its_file(name):
    config = compose(name)
    profile, method = name.removeprefix("map/").split("/")
    assert (config.name, config.algorithm.name) == (f"claim_{profile}", method)
    assert config.trainer.max_rollouts == 100 and config.trainer.val_every == 10
    build_plugin("algorithm.gate", config.algorithm.gate.settings, Gate)
    asked = instantiate(config.task.settings).templates.meta_mixed
    assert asked or not config.algorithm.meta.predict_mixed
    task = config.task.settings["config"]
    assert task["profile"] == ("uniform" if profile == "uniform" else "families")
    rollouts = task["train_size"] / config.trainer.prompts_per_rollout
    assert rollouts >= 300 if profile == "large_pool" else rollouts == 20


def test_runs_of_one_pool_differ_in_the_method_alone():
    for name in RUNS | MAP:
        base, config = compose(f"{name.rpartition('/')[0]}/grpo"), compose(name)
        # the best one of each was looked for on the tuning problems
        lr = config.optimizer.lr if name.endswith("/masa_calibrated_alone") else base.optimizer.lr
        assert config.optimizer == replace(base.optimizer, lr=lr)
        assert config.trainer == base.trainer
        assert (config.task, config.model) == (base.task, base.model)
        assert config.algorithm.selection == base.algorithm.selection


def test_ablations_differ_from_one_method_in_the_algorithm_alone():
    base = compose("family", "ablation")
    assert base.task.settings["config"]["held_out"] == "tuning"
    described = set()
    for name in ABLATIONS:
        config = compose(name, "ablation")
        assert config.name == "ablation" and config.algorithm.name == name
        build_plugin("algorithm.gate", config.algorithm.gate.settings, Gate)
        assert replace(config, algorithm=base.algorithm) == base
        described.add(repr(replace(config.algorithm, name="family")))
    assert len(described) == len(ABLATIONS)


def test_the_page_names_every_ablation():
    page = (ROOT / "experiments" / "ablations" / "README.md").read_text()
    assert {name for name in ABLATIONS if f"| `{name}` |" not in page} == set()


def made(*arguments, target="reproduce"):
    command = ["make", "-n", target, *arguments]
    return processes.run(command, cwd=ROOT).stdout


def test_make_reproduce_lists_every_run():
    printed = made("CLAIM=x")
    line = r"OMP_NUM_THREADS=1 \S+masa-train experiment=claim/(\S+) seed=(\d) ckpt=auto (\S+)"
    listed = re.findall(line, printed)
    assert {(name, seed) for name, seed, _ in listed} == {(n, s) for n in RUNS for s in "01234"}
    assert len(listed) == 5 * len(RUNS)
    assert all(f"hydra.run.dir=x/{name}-seed{seed}" == out for name, seed, out in listed)
    # the methods of one seed come before the next seed, so that pairs are complete early
    assert [seed for _, seed, _ in listed] == sorted(seed for _, seed, _ in listed)
    assert printed.count("results.py x/families --out x/families/results.json") == 1


def test_make_train_has_both_runs_share_the_cores():
    """With as many threads as cores each, two runs at a time take ten times as long."""
    printed = made("RUNS=x", target="train")
    assert printed.count("-j2 x/report.md") == 1 and "-j2" not in made("-j4", target="train")
    assert sorted(re.findall(r"OMP_NUM_THREADS=1 .* algorithm=(\w+)", flat(printed))) == [
        "grpo",
        "masa_cloned",
    ]


def flat(printed):
    return printed.replace("\\\n", " ")


def test_make_reproduce_lists_a_part():
    printed = made("CLAIM=x", "SEEDS=3", "METHODS=uniform/grpo families/oracle")
    listed = re.findall(r"experiment=claim/(\S+) seed=(\d)", printed)
    assert listed == [("uniform/grpo", "3"), ("families/oracle", "3")]
    assert "large_pool" not in printed


def test_the_map_is_two_seeds_of_each_mix():
    printed = made("CLAIM=x", target="map")
    listed = re.findall(r"experiment=claim/(\S+) seed=(\d)", printed)
    assert sorted(listed) == sorted((name, seed) for name in MAP for seed in "01")
    assert "train_size=12000" not in printed and "claim/families" not in printed


def test_make_ablations_lists_every_run():
    printed = made("ABLATION=x", target="ablations")
    line = r"OMP_NUM_THREADS=1 \S+masa-train experiment=ablation/(\S+) seed=(\d) ckpt=auto (\S+)"
    listed = re.findall(line, printed)
    assert {(name, seed) for name, seed, _ in listed} == {(n, s) for n in ABLATIONS for s in "012"}
    assert all(f"hydra.run.dir=x/{name}-seed{seed}" == out for name, seed, out in listed)


def test_the_oracle_knows_levels_and_counts_between_them():
    gate = oracle.OracleGate(key=["level"])

    def skips(level):
        prompt = Prompt("p", "problem", "1", level)
        return gate.skips(prompt, (), 0.0), gate.expected_pass_rate(prompt, ())

    assert [skips(level) for level in (1, 2, 5, 6)] == [(True, 1.0)] * 2 + [(True, 0.0)] * 2
    assert skips(3) == (False, None)


# --- the numbers


def run(
    root, method, seed, rights, tokens=100, *, acts=(), kept=(), size=720, audited=True, gate=False
):  # fmt: skip
    """Held-out accuracy `rights[step]` / 8; a mixed prompt of two solutions of `tokens` each step,
    and prompts of `kept` (all steps) and `acts` (from step 2 on), whose skipped ones had no chance
    to be rolled out where not `audited`."""
    rows = []
    for step in range(max(rights) + 1):
        if step:
            rows += prompt_rows(
                "train", step, f"t{step}", MIXED, tokens=tokens, **acting(step, gate)
            )
            for i, (correct, settings) in enumerate([*kept, *(acts if step > 1 else ())]):
                rows += prompt_rows("train", step, f"t{step}-{i}", correct, **settings)
        for i in range(4) if step in rights else ():
            rows += prompt_rows("val", step, f"v{i}", [j < rights[step] for j in range(8)])
    for row in rows:
        row["full_probability"] *= audited or not row["would_skip"]
    path = write_run(root / f"{method}-seed{seed}", rows, method=method, seed=seed)
    config = yaml.safe_load((path / "config.yaml").read_text())
    config["algorithm"]["gate"] = {"enabled": gate}
    config["task"] = {"config": {"profile": "families", "train_size": size}}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    return path


def acting(step, gate):
    return {"gate_active": gate and step > 1, "cutoff_active": False}


def found(root):
    return json.loads(json.dumps(results.results(measure(root)), allow_nan=False))


RISING = {0: 2, 5: 4, 10: 6}


def test_above_one_is_cheaper(tmp_path):
    for seed in range(3):
        run(tmp_path, "grpo", seed, RISING)
        run(tmp_path, "cheap", seed, RISING, tokens=50)
        run(tmp_path, "slow", seed, {0: 2, 5: 3, 10: 6}, tokens=100 + seed)
    numbers = found(tmp_path)
    assert (numbers["seeds"], numbers["profile"], numbers["pool"]) == (3, "families", 720)
    assert set(numbers["methods"]) == {"cheap", "slow"} and numbers["oracle"] is None
    assert numbers["methods"]["cheap"] == {
        "tokens_ratio": {"mean": 2, "low": 2, "high": 2},
        "seconds_ratio": {"mean": 1, "low": 1, "high": 1},
        "accuracy_difference": {"mean": 0, "low": 0, "high": 0},
        "gate_precision": None,
        "gate_recall": None,
        "meta_share": {"mean": 0, "low": 0, "high": 0},
    }
    # half of the gain: at rollout 5, and where the slow one is at 4 of 8
    ratios = numbers["tokens_ratio_by_share"]
    assert ratios["cheap"]["0.5"] == {"mean": 2, "low": 2, "high": 2}
    assert ratios["slow"]["0.5"]["mean"] == pytest.approx(500 / (101 * (5 + 5 / 3)), rel=1e-2)
    assert "Until other shares" in results.page(numbers)
    # 90 % of the gain: where both curves are at 5.6 of 8, GRPO at rollout 9
    own = numbers["tokens_ratio_by_seed"]
    assert own["cheap"] == {"seeds": [2, 2, 2], "mean": {"mean": 2, "low": 2, "high": 2}}
    at = 5 + 5 * 2.6 / 3
    assert own["slow"]["seeds"] == pytest.approx(
        [900 / ((100 + s) * at) for s in range(3)], rel=0.01
    )
    slow = numbers["methods"]["slow"]["tokens_ratio"]
    assert slow["low"] < slow["mean"] < 1 and slow["low"] < slow["high"] < 1
    table = speedups(methods := load_sweep(tmp_path), [m.label for m in methods].index("grpo"))
    row = table[(table["method"] == "slow") & table["target"].str.startswith("90")].iloc[0]
    assert slow["mean"] == pytest.approx(row["tokens, baseline / method"].value, rel=1e-4)


def test_what_is_not_known_is_null(tmp_path):
    run(tmp_path, "grpo", 0, RISING)
    run(tmp_path, "never", 0, {0: 2, 5: 3, 10: 4})
    run(tmp_path, "elsewhere", 1, RISING)
    methods = found(tmp_path)["methods"]
    assert methods["never"]["tokens_ratio"] is None
    assert found(tmp_path)["tokens_ratio_by_seed"]["never"] == {"seeds": [None], "mean": None}
    assert methods["never"]["accuracy_difference"] == {"mean": -0.25, "low": None, "high": None}
    assert methods["elsewhere"]["tokens_ratio"] is None
    assert methods["elsewhere"]["accuracy_difference"] is None


SKIPPED = {"gate_active": True, "cutoff_active": False, "would_skip": True, "tokens": 100}
ACTS = [
    (RIGHT, {"gate_active": True, "cutoff_active": False, "tokens": 100}),
    (RIGHT, SKIPPED | {"audited": True}),
    (MIXED, SKIPPED | {"audited": True}),
    ([], SKIPPED | {"skipped": True, "predicted": [0.5], "meta_tokens": 55}),
]
"""Beside a mixed prompt that is kept: weights 1, 5, 5 and 0."""


def test_the_gate_is_measured_on_audits_by_their_weight(tmp_path):
    for seed in range(2):
        run(tmp_path, "grpo", seed, RISING)
        run(tmp_path, "gated", seed, RISING, acts=ACTS, gate=True)
    numbers = found(tmp_path)
    gated, factors = numbers["methods"]["gated"], numbers["factors"]["gated"]
    assert gated["gate_precision"]["mean"] == 0.5
    assert gated["gate_recall"]["mean"] == pytest.approx(5 / 6, rel=1e-4)
    assert gated["meta_share"]["mean"] == pytest.approx(9 * 55 / (200 + 9 * 855), rel=1e-4)
    means = {name: factors[name]["mean"] for name in results.FACTORS}
    # one rollout without a gate, then nine with 2 prompts kept and 10 skipped, of 200 tokens each
    assert means == pytest.approx({
        "zero_variance_share": 54 / 109, "mixed_per_kilotoken": 19_000 / (200 + 9 * 855),
        "tokens_before_gate": 200, "skipped_share": 1 / 5, "signal_kept": 1 / 6,
        "tokens_kept": 2 / 12, "prediction_cost": 55 / 2400, "gain": (1 / 6) / (2 / 12 + 55 / 2400),
    }, rel=1e-3)  # fmt: skip
    # nothing is below grpo's cost but the tokens of prompts that were not mixed: it has none
    assert numbers["without_zero_variance"]["tokens_ratio"]["mean"] == 1


def test_groups_of_one_verdict_are_free_for_the_bound(tmp_path):
    for seed in range(2):
        run(tmp_path, "grpo", seed, RISING, kept=[(RIGHT, {"tokens": 300})])
    assert found(tmp_path)["without_zero_variance"]["tokens_ratio"]["mean"] == 4


def test_without_audits_nothing_is_said_of_the_gate(tmp_path):
    run(tmp_path, "grpo", 0, RISING)
    run(tmp_path, "oracle", 0, RISING, acts=ACTS, gate=True, audited=False)
    numbers = found(tmp_path)
    assert numbers["methods"] == {}
    assert numbers["oracle"]["gate_precision"] is numbers["oracle"]["gate_recall"] is None
    assert numbers["factors"]["oracle"]["signal_kept"] is None
    assert numbers["factors"]["oracle"]["skipped_share"]["mean"] == 0.2


def test_methods_that_predict_are_set_beside_those_that_do_not(tmp_path):
    for seed in range(3):
        run(tmp_path, "grpo", seed, RISING)
        run(tmp_path, "ours", seed, RISING, tokens=25, gate=True, acts=ACTS[3:])
        run(tmp_path, "counts", seed, {0: 2, 5: 4, 10: 5}, tokens=50 + seed)
        run(tmp_path, "late", seed, {0: 2, 5: 4, 10: 7})
    run(tmp_path, "oracle", 0, RISING, gate=True)
    numbers = found(tmp_path)
    assert set(numbers["differences"]) == {"ours"}
    assert set(numbers["differences"]["ours"]) == {"counts", "late"}
    cells = numbers["differences"]["ours"]["counts"]
    # counts does not come to 90 % of grpo's gain
    assert cells["tokens_ratio"] is None
    assert cells["accuracy_difference"] == {"mean": 0.125, "low": 0.125, "high": 0.125}
    # where 90 % of grpo's gain is: ours at rollout 9, late, of a larger gain, at 5 + 8 / 3
    late = numbers["differences"]["ours"]["late"]["tokens_ratio"]["mean"]
    assert late == pytest.approx(200 * (5 + 8 / 3) / (9 * 50 + 8 * 55), rel=1e-4)


def test_runs_that_cannot_be_compared_are_refused(tmp_path):
    run(tmp_path, "masa", 0, RISING)
    with pytest.raises(RunError, match="no run of grpo, but of masa"):
        results.results(measure(tmp_path))
    run(tmp_path, "grpo", 0, RISING, size=12000)
    with pytest.raises(RunError, match="several profiles or pools"):
        results.results(measure(tmp_path))


def test_the_program_writes_its_file_and_its_part_of_a_page(tmp_path):
    page = tmp_path / "README.md"
    page.write_text("# Title\n\n<!-- some -->\nold\n<!-- /some -->\n\nend\n")
    stored, out = ROOT / "experiments" / "stored", tmp_path / "some.json"
    command = [sys.executable, CLAIM / "results.py", stored, "--out", out, "--page", page]
    processes.run(command, cwd=ROOT)
    numbers = json.loads(out.read_text())
    assert set(numbers["methods"]) == {"masa", "masa_efficient"} and numbers["seeds"] == 2
    for method in numbers["methods"].values():
        assert list(method) == list(results.HEADS)
        assert (
            method["meta_share"]["low"]
            <= method["meta_share"]["mean"]
            <= method["meta_share"]["high"]
        )
    text = page.read_text()
    assert results.page(numbers) in text and "old" not in text and text.endswith("end\n")


def test_what_was_measured_is_kept(tmp_path, monkeypatch, capsys):
    """A run that is not there any more counts; one that was made anew replaces its record."""

    def program(*runs):
        out = tmp_path / "all.json"
        monkeypatch.setattr(sys, "argv", ["results.py", *map(str, runs), "--out", str(out)])
        try:
            results.main()
            status = 0
        except SystemExit as stopped:
            status = stopped.code
        return status, capsys.readouterr().err, out

    status, error, _ = program()
    assert status == 1 and error.count("\n") == 1
    for seed in range(2):
        run(tmp_path / "first", "grpo", seed, RISING)
        run(tmp_path / "first", "cheap", seed, RISING, tokens=50)
    run(tmp_path / "second", "grpo", 1, RISING, tokens=200)
    run(tmp_path / "second", "slow", 0, RISING, tokens=200)
    program(tmp_path / "first")
    status, error, out = program(tmp_path / "second")
    assert status == 0, error
    methods = json.loads(out.read_text())["methods"]
    assert methods["cheap"]["tokens_ratio"]["mean"] == 3 and set(methods) == {"cheap", "slow"}
    before = out.read_text()
    assert program()[0] == 0 and out.read_text() == before
    records = tmp_path / "all.jsonl"
    assert len(records.read_text().splitlines()) == 5
    write(tmp_path / "copy.jsonl", merged(reversed(read(records))))
    assert (tmp_path / "copy.jsonl").read_text() == records.read_text()
    # runs of another task, of the same names, take nobody's place
    run(tmp_path / "third", "grpo", 0, RISING, size=12000)
    status, error, _ = program(tmp_path / "third")
    assert status == 1 and error.count("\n") == 1 and "grpo have different settings" in error
    assert records.read_text() == (tmp_path / "copy.jsonl").read_text()
    records.write_text('{"method": "grpo"}\n')
    status, error, _ = program()
    assert status == 1 and error.count("\n") == 1 and "no file of records" in error


PUBLISHED = sorted(CLAIM.glob("results*.json"))
MIXES = sorted(CLAIM.glob("map_*.jsonl"))
RECORDS = [*sorted(CLAIM.glob("results*.jsonl")), *MIXES]


def test_the_page_says_what_the_published_files_say():
    page = (CLAIM / "README.md").read_text()
    assert CLAIM / "results.jsonl" in RECORDS
    for name in ("results", "results_large_pool", "results_uniform"):
        assert f"<!-- {name} -->" in page and f"<!-- /{name} -->" in page
    summary = (ROOT / "docs" / "results.md").read_text()
    for path in PUBLISHED:
        numbers = json.loads(path.read_text())
        assert results.page(numbers) in page, path.name
        assert results.short(numbers) in summary, path.name


def test_the_page_has_the_map_of_the_kept_runs(tmp_path):
    command = [sys.executable, CLAIM / "map.py", CLAIM / "results.jsonl", *MIXES]
    made = processes.run([*command, "--out", tmp_path / "map.png"], cwd=ROOT)
    assert made.stdout.strip() in (CLAIM / "README.md").read_text()


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_published_numbers_are_those_of_the_kept_runs(path):
    numbers = json.loads(json.dumps(results.results(read(path))))
    assert numbers == json.loads(path.with_suffix(".json").read_text())


def test_the_map_sets_the_ratio_beside_the_formula(tmp_path):
    for mix, free in (("easy", [(RIGHT, {"tokens": 100})] * 3), ("hard", [])):
        for seed in range(2):
            run(tmp_path / mix, "grpo", seed, RISING, kept=free)
            run(
                tmp_path / mix, "masa_cloned_family", seed, RISING, tokens=50, acts=ACTS,
                gate=True,
            )  # fmt: skip
    out, page = tmp_path / "map.png", tmp_path / "README.md"
    page.write_text("<!-- map -->\n<!-- /map -->\n")
    folders = [tmp_path / "easy", tmp_path / "hard"]
    command = [sys.executable, CLAIM / "map.py", *folders, "--out", out, "--page", page]
    process = processes.run(command, cwd=ROOT)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in process.stdout.splitlines()
        if line.startswith("| easy") or line.startswith("| hard")
    ]
    assert [row[:3] for row in rows] == [["hard", "2", "0.00"], ["easy", "2", "0.75"]]
    precision, recall, overhead, expected = map(float, rows[1][4:8])
    numbers = results.results(measure(tmp_path / "easy"))
    half = numbers["tokens_ratio_by_share"]["masa_cloned_family"]["0.5"]
    goal = numbers["methods"]["masa_cloned_family"]["tokens_ratio"]
    assert (rows[1][8], rows[1][11]) == (results.cell(half), results.cell(goal))
    skipped = recall * 0.75 / precision
    gain = max(1 - skipped * (1 - precision) / 0.25, 0) / (1 - skipped + overhead)
    assert expected == pytest.approx(gain, abs=0.02)
    assert out.stat().st_size > 10_000 and "easy" in page.read_text()
    for folder in folders:
        write(folder.with_name(f"map_{folder.name}.jsonl"), measure(folder))
    kept = [folder.with_name(f"map_{folder.name}.jsonl") for folder in folders]
    assert processes.run([*command[:2], *kept, *command[4:]], cwd=ROOT).stdout == process.stdout
    command[2:4] = [tmp_path / "easy" / "grpo-seed0"]
    process = processes.run(command, code=1, cwd=ROOT)
    assert process.stderr.count("\n") == 1
