import itertools
import math
import os
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import hydra
import processes
import pytest
from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf, open_dict

from masa.cli import sweep
from masa.cli.config_store import conf_dir
from masa.cli.resume import ADDED, check_resume_config
from masa.config import OptimizerConfig, load
from masa.errors import ConfigError

SWEEPS = sorted(path.stem for path in (conf_dir() / "sweep").glob("[!_]*.yaml"))
PRESETS = {path.stem for path in (conf_dir() / "algorithm").glob("*.yaml")}
SETTINGS = {
    "difficulty_base": 4, "bc": 3, "components": 7, "control": 3, "cutoff": 3, "architectures": 3,
    "gating": 3,
    "hints": 2, "kl": 4, "meta_coef": 4, "meta_rollouts": 3, "seeds": 1, "start_step": 3,
    "audit": 3,
}  # fmt: skip
"""Settings of each sweep with which every value comes up; `control` sweeps two, so has four."""
SEVERAL_PRESETS = {"methods": 5, "gates": 3, "lr": 2, "alignment": 3, "samplers": 3}
"""Sweeps over presets, which have names of their own, and their seeds."""


@pytest.fixture(autouse=True)
def in_hydra():
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        yield


def compose(*overrides):
    return hydra.compose("config", [*overrides, "++output_dir=."], return_hydra_config=True)


def values(overrides):
    parsed = OverridesParser.create().parse_overrides(overrides)
    return [f"{o.get_key_element()}={o.get_value_element_as_str()}" for o in parsed]


@pytest.mark.parametrize("name", SWEEPS)
def test_every_sweep_names_its_settings_and_directories(name):
    jobs = sweep.combinations("config", [f"+sweep={name}", "seed=0"])
    composed = [compose(*job) for job in jobs]
    seeds = range(SEVERAL_PRESETS.get(name, 5))
    assert composed[0].hydra.sweeper.params.seed == ",".join(map(str, seeds))
    subdirs = [cfg.hydra.sweep.subdir for cfg in composed]
    assert len(set(subdirs)) == len(jobs)
    for cfg in composed:
        assert cfg.hydra.sweep.dir == f"outputs/{cfg.name}/{cfg.sweep.name}"
        with open_dict(cfg):
            del cfg["hydra"]
    checked = [load(cfg) for cfg in composed]
    baselines = {config.sweep.baseline for config in checked}
    named = {config.algorithm.name for config in checked} | {"grpo, lr=0.0009"}
    assert len(baselines) == 1 and (name == "seeds" or baselines <= named)
    if name not in SEVERAL_PRESETS:
        assert len({config.algorithm.name for config in checked}) == len(jobs) == SETTINGS[name]


def test_methods_are_compared():
    jobs = sweep.combinations("config", ["+sweep=methods", "seed=0"])
    compared = {compose(*job).algorithm.name for job in jobs}
    wanted = {"grpo", "masa", "masa_efficient", "dapo", "masa_dapo"}
    assert compared == wanted & PRESETS


def test_the_page_counts_the_jobs_of_every_sweep():
    page = (conf_dir().parent / "docs" / "sweeps.md").read_text()
    counts = dict(re.findall(r"^\| `(\w+)` \|.*\| (\d+) \| [^|]+ \|$", page, re.MULTILINE))
    parse = OverridesParser.create().parse_override
    for name in SWEEPS:
        swept = compose(f"+sweep={name}").hydra.sweeper.params.items()
        jobs = [len(list(parse(f"{k}={v}").sweep_string_iterator())) for k, v in swept]
        assert int(counts.pop(name)) == math.prod(jobs), name
    assert not counts


def test_gates_are_compared_over_five_epochs():
    jobs = [compose(*job) for job in sweep.combinations("config", ["+sweep=gates", "seed=0"])]
    names = {cfg.algorithm.name for cfg in jobs}
    assert names == {
        "grpo",
        "greso",
        "grpo_counts",
        "masa_efficient",
        "masa_combined",
        "masa_calibrated",
    }
    for cfg in jobs:
        seen = cfg.trainer.max_rollouts * cfg.trainer.prompts_per_rollout
        assert (cfg.name, seen) == ("arithmetic_epochs", 5 * cfg.task.config.train_size)


def test_learning_rates_are_tuned_on_problems_of_their_own():
    jobs = sweep.combinations("config", ["+sweep=lr"])
    settings = {(compose(*job).algorithm.name, compose(*job).optimizer.lr) for job in jobs}
    assert {lr for _, lr in settings} == {3e-4, 9e-4, 2e-3}
    assert {name for name, _ in settings} == {"grpo", "masa", "masa_efficient"}
    assert {compose(*job).task.config.held_out for job in jobs} == {"tuning"}


def test_components_are_each_alone_and_each_removed():
    jobs = sweep.combinations("config", ["+sweep=components", "seed=0"])
    rewards = [load(compose(*job)).algorithm.meta.components for job in jobs]
    weights = {tuple(component.weight for component in components) for components in rewards}
    assert weights == set(itertools.product((0, 1), repeat=3)) - {(0, 0, 0)}


def test_every_value_comes_up():
    swept = ["seed=3,4", "algorithm=grpo,masa", "optimizer.lr=interval(1e-5,1e-3)"]
    jobs = sweep.combinations("config", ["hydra/sweeper=optuna", *swept, "ckpt=auto"])
    assert [values(job) for job in jobs] == [
        ["seed=3", "algorithm=grpo", "optimizer.lr=1e-05", "ckpt=auto"],
        ["seed=4", "algorithm=grpo", "optimizer.lr=1e-05", "ckpt=auto"],
        ["seed=3", "algorithm=masa", "optimizer.lr=1e-05", "ckpt=auto"],
        ["seed=3", "algorithm=grpo", "optimizer.lr=0.001", "ckpt=auto"],
    ]
    assert sweep.combinations("config", []) == [[]]


def test_a_glob_is_a_sweep_over_what_there_is():
    jobs = sweep.combinations("config", ["algorithm=glob(masa*)"])
    assert {compose(*job).algorithm.name for job in jobs} == {
        name for name in PRESETS if name.startswith("masa")
    }


def test_the_command_line_wins_over_a_sweep_s_own_values():
    jobs = sweep.combinations("config", ["+sweep=kl", "seed=7"])
    assert [compose(*job).seed for job in jobs] == [7] * 4
    with pytest.raises(HydraException, match="nonsense"):
        sweep.combinations("config", ["+sweep=nonsense"])


@pytest.mark.parametrize(
    "plugin",
    [
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=4"],
        ["hydra/launcher=submitit_slurm", "hydra.launcher.gpus_per_node=8"],
        ["hydra/launcher=submitit_local"],
        ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=20", "hydra.sweeper.direction=maximize"],
    ],
)
def test_launchers_and_sweepers_compose(plugin):
    cfg = compose("+sweep=seeds", *plugin)
    name = plugin[0].partition("=")[2].partition("_")[0]
    assert name in cfg.hydra[plugin[0].partition("/")[2].partition("=")[0]]._target_
    assert cfg.hydra.sweeper.params.seed == "0,1,2,3,4"


def test_a_directory_with_jobs_is_gone_on_with_only_on_demand(tmp_path):
    here = ["+sweep=kl", f"hydra.sweep.dir={tmp_path}"]
    assert sweep.sweep_directory("config", here) == tmp_path
    (tmp_path / "masa-seed0").mkdir()
    (tmp_path / "masa-seed0" / "console.txt").touch()
    (tmp_path / "failed.txt").write_text("of an earlier start\n")
    with pytest.raises(ConfigError, match=r"sweep\.resume=true"):
        sweep.sweep_directory("config", here)
    assert sweep.sweep_directory("config", [*here, "sweep.resume=true"]) == tmp_path
    assert not (tmp_path / "failed.txt").exists()


def test_a_run_that_a_model_is_of_is_compared_not_the_folder_of_its_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for run in ("first", "second"):
        weights = tmp_path / run / "model" / "step-000004-0a1b2c3d"
        weights.mkdir(parents=True)
        (tmp_path / run / "config.yaml").write_text("seed: 0\n")
        (weights / "config.json").write_text("{}")
    saved = tmp_path / "config.yaml"
    settled = str(tmp_path / "first" / "model" / "step-000004-0a1b2c3d")
    OmegaConf.save(settings_of(model={"name": settled}), saved)
    for name in ("first", "./first", str(tmp_path / "first"), settled):
        for finished in (False, True):
            check_resume_config(settings_of(model={"name": name}), saved.parent, finished)
    with pytest.raises(ConfigError, match=r"model\.name is .*second, but .* run with .*first"):
        check_resume_config(settings_of(model={"name": "second"}), saved.parent)
    # a later checkpoint of the same run is another base for an adapter, and another reference
    later = str(tmp_path / "first" / "model" / "step-000008-0a1b2c3d")
    (tmp_path / "first" / "model" / "step-000008-0a1b2c3d").mkdir()
    check_resume_config(settings_of(model={"name": later}), saved.parent)
    for changed in ({"model": {"lora": {"rank": 4}}}, {"algorithm": {"kl_beta": 0.1}}):
        before, now = (
            OmegaConf.merge(settings_of(model={"name": name}), changed) for name in (settled, later)
        )
        OmegaConf.save(before, saved)
        check_resume_config(before, saved.parent)
        with pytest.raises(ConfigError, match=r"model\.name is .*step-000008.*step-000004"):
            check_resume_config(now, saved.parent)


def test_what_is_named_after_the_time_cannot_be_resumed(tmp_path):
    plain = ["algorithm=grpo,masa", "sweep.resume=true"]
    with pytest.raises(ConfigError, match=r"hydra\.sweep\.dir=DIR, or use \+sweep=NAME"):
        sweep.sweep_directory("config", plain)
    here = f"hydra.sweep.dir={tmp_path / 'mine'}"
    assert sweep.sweep_directory("config", [*plain, here]) == tmp_path / "mine"


@pytest.mark.parametrize("command", ["evaluate", "predict", "solve"])
def test_a_command_without_sweeps_says_so(command):
    with pytest.raises(ConfigError, match="-m is for masa-train and masa-sft"):
        sweep.sweep_directory(command, ["seed=0,1"])


def settings_of(**changes):
    plain = {
        "seed": 0,
        "algorithm": {"group_size": 8},
        "trainer": {
            "max_rollouts": 60, "prompts_per_rollout": 36, "val_every": 15, "val_samples": 4,
            "val_meta_samples": 4, "precision": "32-true", "micro_batch_tokens": 4096,
            "packing": "auto", "checkpoint_every": 20, "keep_best": 1, "accelerator": "auto",
        },
        "engine": {"_target_": "masa.engine.hf.HfEngine", "dtype": "float32", "max_num_seqs": 9},
        "strategy": {"devices": 1},
        "logger": {},
    }  # fmt: skip
    return OmegaConf.merge(plain, OmegaConf.from_dotlist([f"{k}={v}" for k, v in changes.items()]))


NUMBERS = {
    "seed": 1, "algorithm.group_size": 4, "trainer.prompts_per_rollout": 18,
    "trainer.val_every": 5, "trainer.val_samples": 8, "trainer.val_meta_samples": 0,
    "trainer.precision": "bf16-mixed", "engine.dtype": "bfloat16", "engine._target_": "other",
    "sampler.history": 3, "benchmark.amc23.n": 1, "optimizer.schedule": "cosine",
    "optimizer.beta2": 0.99,
}  # fmt: skip
FREE = {
    "trainer.checkpoint_every": 10, "trainer.keep_best": 3, "trainer.accelerator": "cpu",
    "trainer.micro_batch_tokens": 2048, "trainer.packing": "padded", "engine.max_num_seqs": 3,
    "strategy.devices": 2, "logger.wandb.project": "x",
}  # fmt: skip


@pytest.mark.parametrize("finished", [True, False])
def test_a_run_goes_on_only_under_settings_that_leave_its_numbers(tmp_path, finished):
    saved = tmp_path / "config.yaml"
    OmegaConf.save(settings_of(), saved)
    for key, value in NUMBERS.items():
        with pytest.raises(ConfigError, match=f"^{key} is {value}, but .* was run with"):
            check_resume_config(settings_of(**{key: value}), saved.parent, finished)
    check_resume_config(settings_of(**FREE), saved.parent, finished)


def test_special_tokens_are_read_as_before(tmp_path):
    OmegaConf.save(settings_of(), tmp_path / "config.yaml")
    check_resume_config(settings_of(allow_special_tokens=False), tmp_path)
    with pytest.raises(ConfigError, match="allow_special_tokens is True, but .* with False"):
        check_resume_config(settings_of(allow_special_tokens=True), tmp_path)


def test_an_unfinished_run_may_grow_and_a_finished_one_is_not_a_longer_one(tmp_path):
    OmegaConf.save(settings_of(), tmp_path / "config.yaml")
    longer = settings_of(**{"trainer.max_rollouts": 100})
    assert not sweep.is_finished(longer, tmp_path)
    check_resume_config(longer, tmp_path)
    (tmp_path / "finished").touch()
    assert sweep.is_finished(settings_of(), tmp_path)
    with pytest.raises(ConfigError, match=r"max_rollouts is 100, but .* was run with 60"):
        sweep.is_finished(longer, tmp_path)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_run_whose_rate_falls_over_its_length_keeps_it(tmp_path, schedule):
    settings = {"optimizer.schedule": schedule}
    saved = tmp_path / "config.yaml"
    OmegaConf.save(settings_of(**settings), saved)
    check_resume_config(settings_of(**settings), saved.parent)
    with pytest.raises(ConfigError, match=r"max_rollouts is 100, but .* was run with 60"):
        check_resume_config(settings_of(**settings, **{"trainer.max_rollouts": 100}), saved.parent)


def test_a_run_of_before_there_were_schedules_goes_on(tmp_path):
    saved = tmp_path / "config.yaml"
    OmegaConf.save(settings_of(), saved)
    names = [key for key in ADDED if key.startswith("optimizer.")]
    now = {key: getattr(OptimizerConfig(), key.removeprefix("optimizer.")) for key in names}
    check_resume_config(settings_of(**now, **{"trainer.max_rollouts": 100}), saved.parent)


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job whose process says its rank, and fails where a file asks for it."""
    overrides = SimpleNamespace(task=["seed=0"])
    hydra_job = SimpleNamespace(
        runtime=SimpleNamespace(output_dir=str(tmp_path / "job")),
        sweep=SimpleNamespace(dir=str(tmp_path)),
        overrides=overrides,
    )
    monkeypatch.setattr(sweep.HydraConfig, "get", lambda: hydra_job)
    code = "import os; print('task', os.environ.get('SLURM_PROCID', 'alone'))"
    monkeypatch.setattr(sweep, "_command", lambda *_: [sys.executable, "-c", code])
    return tmp_path / "job"


def test_every_task_of_a_job_runs_and_the_first_alone_takes_the_directory(job, monkeypatch, capsys):
    cfg = settings_of()
    job.mkdir()
    # as the first task holds it while the others start
    with FileLock(job / "job.lock"):
        for task in ("1", "2"):
            monkeypatch.setenv("SLURM_PROCID", task)
            sweep.run_job("masa-train", cfg)
        assert not capsys.readouterr().out and not (job / "finished").exists()
        assert not (job.parent / "failed.txt").exists()
        monkeypatch.setenv("SLURM_PROCID", "0")
        sweep.run_job("masa-train", cfg)
    assert "another job runs here" in (job.parent / "failed.txt").read_text()
    sweep.run_job("masa-train", cfg)
    assert (job / "finished").exists()
    for task, name in (("0", "console.txt"), ("1", "console-1.txt"), ("2", "console-2.txt")):
        assert (job / name).read_text() == f"task {task}\n"
    monkeypatch.setenv("SLURM_PROCID", "1")
    sweep.run_job("masa-train", cfg)  # finished before: not again
    assert (job / "console-1.txt").read_text() == "task 1\n"


def test_a_job_that_failed_has_no_value(job, monkeypatch):
    """Optuna takes NaN for an error of its own, and stops; None is a failed trial."""
    monkeypatch.setattr(sweep, "_command", lambda *_: [sys.executable, "-c", "raise SystemExit(3)"])
    assert sweep.run_job("masa-train", settings_of()) is None
    assert (job.parent / "failed.txt").exists() and not (job / "finished").exists()


def test_what_a_sweeper_maximises(tmp_path):
    assert sweep.objective(tmp_path) is None
    for text, value in (
        ("step,val/accuracy\n0,0.25\n1,\n2,0.5\n3,\n", 0.5),
        ("step,loss,val/loss\n0,,3.0\n1,2.0,\n2,,1.5\n", -1.5),
        ("step,loss\n1,2.0\n", None),
    ):
        (tmp_path / "metrics.csv").write_text(text)
        assert sweep.objective(tmp_path) == value


KEY = {"WANDB_API_KEY": "0" * 40}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "offline"),
    [
        ({}, True),
        (KEY, False),
        ({"WANDB_MODE": "online"}, False),
        (KEY | {"WANDB_MODE": "offline"}, False),
    ],
)
def test_wandb_is_online_where_somebody_logged_in(environment, offline, tmp_path):
    """With WANDB_MODE the choice is left to wandb."""
    code = "from masa.tracking.loggers import WandbLogger; print(WandbLogger()._offline)"
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    done = processes.run(
        [sys.executable, "-c", code],
        env=inherited | {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")} | environment,
        cwd=Path(sweep.__file__).parents[2],
    )
    assert done.stdout.strip() == str(offline), done.stderr
