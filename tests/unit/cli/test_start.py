"""Commands start fast: what is slow to import comes only after what can be refused without it."""

import copy
import json
import re
import subprocess
import sys

import hydra
import processes
import pytest
from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from masa.cli.config_store import conf_dir
from masa.tracking.manifest import Manifest, write_manifest

SLOW = ("torch", "transformers", "lightning", "vllm", "scipy.stats", "datasets")
MODULES = ("train", "sft", "evaluate", "predict", "solve", "report", "browse", "export")
PROGRAM = f"""
import importlib, json, os, sys, tempfile

for module in {MODULES}:
    importlib.import_module("masa." + module)
for line in sys.stdin:
    module, *arguments = json.loads(line)
    with tempfile.TemporaryFile() as printed:
        if not (child := os.fork()):
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
            sys.argv = ["masa", *arguments]
            try:
                status = sys.modules["masa." + module].main()
            except SystemExit as end:
                status = end.code
            slow = [name for name in {SLOW} if name in sys.modules]
            print(flush=True)
            print(json.dumps([status or 0, slow]), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        printed.seek(0)
        print(json.dumps(printed.read().decode()), flush=True)
"""


@pytest.fixture(scope="module")
def imported():
    """A function that starts a command: exit code, which slow packages were imported, and what
    was printed.

    Each command is a fork of a process that has imported what all of them begin with.
    """
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:

        def start(module, *arguments):
            process.stdin.write(json.dumps([module, *arguments]).encode() + b"\n")
            process.stdin.flush()
            *printed, last = json.loads(process.stdout.readline()).splitlines()
            return *json.loads(last), "\n".join(printed).strip()

        yield start
        process.stdin.close()


@pytest.mark.parametrize("module", MODULES)
def test_help_imports_nothing_slow(imported, module):
    assert imported(module, "--help")[:2] == (0, [])


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("train", ["trainer.max_rollouts=-1"]),
        ("train", ["trainer.max_rolouts=3"]),
        ("train", ["algorithm=nonesuch"]),
        ("train", ["trainer.prompts_per_rollout=1000000"]),
        ("train", ["-m", "seed=0,1", "algorithm.gate.min_precision=2"]),
        ("train", ["engine.gpu_memory_utilization=2"]),
        ("sft", ["sft.epochs=-1"]),
        ("sft", ["engine=hf", "engine.dtype=int8"]),
        ("evaluate", ["benchmark=task", "n=0"]),
        ("evaluate", ["benchmark=task", "engine.max_num_seqs=0"]),
        ("solve", ["problems=", "model=m"]),
        ("solve", ["problems=x", "model=m", "engine.threads=1.5"]),
        ("predict", ["model=m", "samples=0"]),
        ("predict", ["model=./missing", "problems=x"]),
        ("solve", ["model=./missing", "problems=x"]),
        ("solve", ["model=org/name", "problems=x", "solve.abstain=2"]),
        ("evaluate", ["model=./missing", "benchmark=task"]),
        ("train", ["plan=true", "model=hub", "model.name=./missing"]),
        ("train", ["benchmark=aime25", "benchmark.aime25.scorer=nonesuch"]),
        ("train", ["ckpt=last"]),
        ("sft", ["ckpt=step-000001.ckpt"]),
        ("report", ["nowhere"]),
    ],
)
def test_a_mistake_is_refused_before_anything_slow(imported, module, arguments, tmp_path):
    folder = [] if module == "report" else [f"hydra.run.dir={tmp_path}"]
    status, names, printed = imported(module, *arguments, *folder)
    assert status == 2 and names == []
    assert len(printed.splitlines()) == 1 and printed.startswith("masa-")


@pytest.mark.parametrize("module", ["train", "sft"])
@pytest.mark.parametrize(
    "arguments",
    [
        ["model=hub", "model.name=./missing"],
        ["model=hub", "model.name={folder}"],
        ["model=hub", "model.name=org/missing"],
        ["task.config.profile=nonesuch"],
    ],
)
def test_a_model_that_is_not_there_is_refused_before_anything_slow(
    imported, module, arguments, tmp_path
):
    filled = [argument.format(folder=tmp_path) for argument in arguments]
    status, names, printed = imported(module, *filled, f"hydra.run.dir={tmp_path / 'run'}")
    assert status == 2 and names == []
    assert len(printed.splitlines()) == 1 and printed.startswith("masa-")


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("train", ["ckpt=null"], "holds a run already: resume with ckpt=auto"),
        ("train", ["ckpt=auto", "seed=5"], "seed is 5, but"),
        ("train", ["ckpt=last", "algorithm=grpo", "trainer.max_rollouts=5"], "is of rollout 7"),
        ("sft", ["ckpt=best", "sft.batch_size=5"], "sft.batch_size is 5, but"),
    ],
)
def test_a_run_that_cannot_go_on_is_refused_before_anything_slow(
    imported, module, arguments, message, tmp_path
):
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = hydra.compose({"train": "config", "sft": "sft"}[module], ["output_dir=."])
    if module == "sft":
        cfg.model.warmstart = None
    OmegaConf.save(cfg, tmp_path / "config.yaml")
    (tmp_path / "metrics.csv").touch()
    checkpoint = tmp_path / "checkpoints" / "step-000007.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    write_manifest(Manifest(7, 0.5, {}, {}), checkpoint)
    status, names, printed = imported(module, *arguments, f"hydra.run.dir={tmp_path}")
    assert status == 2 and names == [] and message in printed
    assert len(printed.splitlines()) == 1


@pytest.mark.parametrize("text", ["a: [", "[1, 2]", "\0"])
def test_a_run_whose_settings_cannot_be_read_is_refused_in_one_line(imported, text, tmp_path):
    (tmp_path / "config.yaml").write_text(text)
    checkpoint = tmp_path / "checkpoints" / "step-000007.ckpt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    for arguments in (
        ["train", "ckpt=last", f"hydra.run.dir={tmp_path}"],
        ["predict", f"model={tmp_path}", "problems=x"],
        ["evaluate", f"model={tmp_path}", "benchmark=task"],
        ["train", "plan=true", "model=hub", f"model.name={tmp_path}"],
    ):
        status, names, printed = imported(*arguments)
        assert status == 2 and names == [] and len(printed.splitlines()) == 1
        assert re.match(r"masa-\w+: error: \S+/config.yaml cannot be read", printed), printed
        assert "full_key" not in printed


def test_a_file_in_place_of_a_directory_is_refused_before_anything_slow(imported, tmp_path):
    (tmp_path / "run").touch()
    status, names, printed = imported("train", f"hydra.run.dir={tmp_path / 'run'}")
    assert status == 2 and names == [] and "cannot be written to" in printed


def test_help_may_be_cut_off():
    code = "import sys; from masa.train import main; sys.argv = ['masa-train', '--help']; main()"
    done = processes.run(["sh", "-c", f'"{sys.executable}" -c "{code}" | head -1'])
    assert done.stdout.startswith("masa-train: ") and done.stderr == ""


def test_the_config_store_is_not_copied():
    assert conf_dir().is_dir()
    store = ConfigStore.instance()
    assert copy.deepcopy({"store": store})["store"] is store
