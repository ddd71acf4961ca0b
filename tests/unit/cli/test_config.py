import dataclasses
import functools
import inspect
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import hydra
import processes
import pytest
import yaml
from builders import model_folder
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from transformers import AutoConfig

from masa import train
from masa.algorithm.controller import Controller
from masa.algorithm.cutoffs import MeanLengthCutoff
from masa.algorithm.gates import (
    CombinedGate,
    CountsGate,
    Gate,
    HistoryGate,
    JudgedGate,
    PredictionGate,
)
from masa.algorithm.value_gate import ValueGate
from masa.cli import app, config_store
from masa.cli.config_store import conf_dir
from masa.cli.resume import flatten
from masa.cli.sweep import parse
from masa.config import (
    RENAMED,
    RENAMED_OPTIONS,
    AlgorithmConfig,
    BCConfig,
    ControlConfig,
    CutoffConfig,
    GateConfig,
    MetaConfig,
    OptimizerConfig,
    RunConfig,
    SelectionConfig,
    StrategyConfig,
    SweepConfig,
    TrainerConfig,
    load,
    paper_rewards,
)
from masa.engine.hf import HfEngine
from masa.engine.settings import check_arguments, check_engine, check_sampling_engine
from masa.engine.vllm import VllmEngine
from masa.errors import ConfigError, TrainingError, engine_values
from masa.fitting import write_config
from masa.loaded_model import _literal
from masa.plugins import build_plugin, built, escaped
from masa.rollout.build import build_engine, longest_sequence, room_for_recent
from masa.rollout.validation import validation_config
from masa.tasks.build import build_task
from masa.training.devices import check_devices
from masa.training.models import HubModel

NAN = float("nan")


def names(group):
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


ALGORITHMS = names("algorithm")


@functools.cache
def compose(*overrides):
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return hydra.compose("config", [*overrides, "++output_dir=."])


def read(name):
    return yaml.safe_load((conf_dir() / name).read_text())


@functools.cache
def preset(name):
    """The algorithm as it stands in conf/, without the numbers that come with the built-in task."""
    return load(compose("task=gsm8k", f"algorithm={name}"))


# --- values that cannot be

IMPOSSIBLE = [
    (MetaConfig, "group_size", [-1, 0, 1]),
    (MetaConfig, "first", [0, -1, 9]),
    (MetaConfig, "coef", [-0.1, NAN, math.inf]),
    (MetaConfig, "rewards", [{}, {"a": 1}]),
    (MetaConfig, "min_length", [0, -5]),
    (MetaConfig, "response_limit", [0]),
    (BCConfig, "mode", ["", "on", "Joint"]),
    (BCConfig, "coef", [-0.1, NAN, math.inf]),
    (BCConfig, "min_notion_score", [math.inf, NAN]),
    (BCConfig, "min_reward", [math.inf, NAN]),
    (BCConfig, "pool_size", [0, -1, 10**23]),
    (MetaConfig, "recent", [-1, 10**23]),
    (BCConfig, "learning_rate", [0, -1e-6, NAN, math.inf]),
    (GateConfig, "min_precision", [-0.1, 1.1, NAN]),
    (GateConfig, "min_gain", [-0.1, math.inf, NAN]),
    (CutoffConfig, "max_lost", [-0.1, 1.1, NAN]),
    (ControlConfig, "start_step", [-1]),
    (ControlConfig, "audit_trivial", [-0.1, 1.1, NAN]),
    (ControlConfig, "audit_hopeless", [-0.1, 1.1, NAN]),
    (ControlConfig, "alarm", [-0.1, 1.1, NAN]),
    (ControlConfig, "max_skipped", [-0.1, 1.1, NAN]),
    (ControlConfig, "target_loss", [-0.1, 1.1, NAN]),
    (ControlConfig, "audit_fraction", [-0.1, 1.1, NAN]),
    (ControlConfig, "min_evidence", [0, 65]),
    (ControlConfig, "window", [0, 15, 10**23]),
    (SelectionConfig, "max_draws", [0, -1]),
    (SelectionConfig, "max_tokens", [0, -1]),
    (MetaConfig, "extra_updates", [-1]),
    (MetaConfig, "extra_until", [0, -1]),
    (MetaConfig, "extra_until_precision", [0, -0.1, 1.1, NAN]),
    (BCConfig, "target", ["", "worst"]),
    (AlgorithmConfig, "group_size", [-1, 0, 1]),
    (AlgorithmConfig, "response_limit", [0]),
    (AlgorithmConfig, "temperature", [0, -1, NAN, math.inf]),
    (AlgorithmConfig, "eps_low", [-0.1, 1.1, NAN]),
    (AlgorithmConfig, "eps_high", [-0.1, NAN]),
    (AlgorithmConfig, "dual_clip", [1, 0.5, -3, NAN]),
    (AlgorithmConfig, "kl_beta", [-0.1, NAN, math.inf]),
    (AlgorithmConfig, "advantage", ["", "gae"]),
    (AlgorithmConfig, "loss", ["", "ppo"]),
    (AlgorithmConfig, "entropy_coef", [-0.1, NAN, math.inf]),
    (AlgorithmConfig, "overlong_buffer", [-0.1, 4096, NAN]),
    (AlgorithmConfig, "overlong_penalty", [-0.1, NAN, math.inf]),
    (AlgorithmConfig, "dynamic_sampling", [-1]),
    (AlgorithmConfig, "mismatch", ["", "mis"]),
    (AlgorithmConfig, "mismatch_low", [-0.1, 1.1, NAN]),
    (AlgorithmConfig, "mismatch_high", [0.9, NAN]),
    (AlgorithmConfig, "token_mean", ["", "mean"]),
    (AlgorithmConfig, "updates_per_rollout", [0, -1]),
    (TrainerConfig, "precision", ["", "bf16", "bf16-true", "16-mixed"]),
    (TrainerConfig, "packing", ["", "flash"]),
    (StrategyConfig, "cpu_offload", [True]),
    (StrategyConfig, "fsdp_size", [1, 2]),
    (OptimizerConfig, "lr", [0, -1e-6, NAN, math.inf]),
    (OptimizerConfig, "weight_decay", [-0.1, NAN, math.inf]),
    (OptimizerConfig, "beta1", [-0.1, 1, NAN]),
    (OptimizerConfig, "beta2", [-0.1, 1, NAN]),
    (OptimizerConfig, "schedule", ["", "Linear", "constant_with_warmup"]),
    (OptimizerConfig, "warmup_steps", [-1]),
    (OptimizerConfig, "grad_clip", [0, -1, NAN]),
    (TrainerConfig, "max_rollouts", [0, -1]),
    (TrainerConfig, "prompts_per_rollout", [0]),
    (TrainerConfig, "val_every", [0]),
    (TrainerConfig, "val_samples", [0, 1]),
    (TrainerConfig, "val_meta_samples", [-1, 1]),
    (TrainerConfig, "checkpoint_every", [0]),
    (TrainerConfig, "keep_best", [-1]),
    (TrainerConfig, "micro_batch_tokens", [0]),
    (TrainerConfig, "max_nonfinite_updates", [0]),
    (TrainerConfig, "logprob_tolerance", [0, -1, NAN]),
    (TrainerConfig, "logprob_mean_tolerance", [0, -1, NAN]),
    (StrategyConfig, "name", ["", "ddp2"]),
    (StrategyConfig, "devices", [0, 2]),
    (StrategyConfig, "num_nodes", [0, 2]),
]

SAID_OF = {
    "devices": "devices|strategy=single",
    "num_nodes": "num_nodes|strategy=single",
}


def refused(build, *words):
    with pytest.raises(ConfigError) as caught:
        build()
    message = str(caught.value)
    assert message and "\n" not in message and len(message) < 250
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize(("schema", "name", "values"), IMPOSSIBLE)
def test_an_impossible_value_is_refused_in_one_line(schema, name, values):
    schema()  # the defaults are possible
    for value in values:
        message = refused(lambda value=value: schema(**{name: value}))
        assert re.search(SAID_OF.get(name, rf"\b{name}\b"), message)


def weighted(*weights):
    """The paper's component rewards with these weights."""
    pairs = zip(paper_rewards().items(), weights, strict=True)
    return {name: entry | {"weight": weight} for (name, entry), weight in pairs}


EDGES = [
    (MetaConfig, {"group_size": 1, "coef": 0}),
    (MetaConfig, {"group_size": 2, "coef": 0, "rewards": weighted(0, 0, 1)}),
    (BCConfig, {"mode": "separate", "coef": 0, "pool_size": 1}),
    (GateConfig, {"min_precision": 1}),
    (CutoffConfig, {"max_lost": 0}),
    (ControlConfig, {"start_step": 0, "window": 1, "min_evidence": 1, "audit_fraction": 1}),
    (AlgorithmConfig, {"group_size": 2, "eps_low": 0, "eps_high": 0, "dual_clip": 1.1}),
    (OptimizerConfig, {"weight_decay": 0, "warmup_steps": 0, "beta1": 0, "beta2": 0}),
    (TrainerConfig, {"max_rollouts": 1, "val_samples": 2, "val_meta_samples": 0}),
    (StrategyConfig, {"name": "fsdp", "devices": 8, "num_nodes": 2}),
    (StrategyConfig, {"name": "fsdp"}),
]


@pytest.mark.parametrize(("schema", "values"), EDGES)
def test_an_extreme_but_possible_value_is_taken(schema, values):
    schema(**values)


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"control": ControlConfig(hint=True)}, "control.hint"),
        ({"bc": BCConfig(mode="joint")}, "bc.mode"),
    ],
)
def test_control_without_predictions_is_refused(values, word):
    refused(lambda: AlgorithmConfig(meta=MetaConfig(enabled=False), **values), word, "predictions")
    AlgorithmConfig(meta=MetaConfig(group_size=2), **values)


def test_settings_that_contradict_each_other_are_refused():
    none = weighted(0, 0, 0)
    refused(lambda: MetaConfig(rewards=none), "meta.enabled=false")
    refused(lambda: MetaConfig(enabled=False, rewards=none), "weight")  # validation may predict
    refused(lambda: AlgorithmConfig(response_limit=100), "min_length", "response_limit")
    refused(
        lambda: AlgorithmConfig(selection=SelectionConfig(refill=True)), "gate.enabled is false"
    )
    unmeasured = ControlConfig(audit_fraction=0)
    for values in (
        {"gate": GateConfig(enabled=True, min_precision=0.5)},
        {"gate": GateConfig(enabled=True, min_gain=1)},
        {"gate": GateConfig(enabled=True), "control": replace(unmeasured, adaptive=True)},
        {"gate": GateConfig(enabled=True), "control": replace(unmeasured, alarm=0.5)},
        {"cutoff": CutoffConfig(enabled=True, max_lost=0.1)},
    ):
        steering = AlgorithmConfig(**{"control": unmeasured, **values})
        refused(lambda a=steering: run_config(algorithm=a), "audit_fraction is 0")
    # what is skipped is audited by kind
    of_skipped = replace(unmeasured, audit_trivial=0.1, audit_hopeless=0.1, alarm=0.5)
    gate = GateConfig(enabled=True, min_gain=1)
    run_config(algorithm=AlgorithmConfig(gate=gate, control=of_skipped))
    # kept prompts are cut, so that only audits say what they would have been
    cut = AlgorithmConfig(gate=gate, control=of_skipped, cutoff=CutoffConfig(enabled=True))
    refused(lambda: run_config(algorithm=cut), "no evidence for gate.min_gain")
    # one kind is never seen again, or nothing is while the gate would skip few
    for control in (replace(of_skipped, audit_hopeless=0), replace(unmeasured, max_skipped=0.5)):
        blind = AlgorithmConfig(gate=gate, control=replace(control, alarm=0.5))
        refused(lambda blind=blind: run_config(algorithm=blind), "gate.min_gain and control.alarm")
    for nothing in ({"enabled": False}, {"coef": 0}):
        refused(lambda nothing=nothing: MetaConfig(extra_updates=1, **nothing), "extra_updates")
    without = {name: entry for name, entry in paper_rewards().items() if name != "notion"}
    meta = MetaConfig(rewards=without)
    refused(lambda: AlgorithmConfig(meta=meta, bc=BCConfig(mode="joint")), "bc.target=best")
    AlgorithmConfig(meta=meta, bc=BCConfig(mode="joint", target="best"))


@pytest.mark.parametrize("preset, field", [("masa_calibrated", "meta_mixed"), ("metis", "recent")])
def test_texts_that_predictions_need_are_there_or_the_run_is_refused(preset, field, tmp_path):
    rows = [{"problem": f"{i} + {i}", "answer": str(2 * i)} for i in range(200)]
    (tmp_path / "sums.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = ["task=hub", f"task.path={tmp_path}/sums.jsonl", f"algorithm={preset}"]
    command += ["engine=hf", "model=hub", f"model.name={model_folder(tmp_path / 'model')}"]
    limits = ["response_limit=64", "meta.response_limit=64", "meta.min_length=2"]
    command += [f"algorithm.{limit}" for limit in limits]
    train.check(compose(*command))
    refused(
        lambda: train.check(compose(*command, f"~task.templates.{field}")),
        "algorithm.meta.", f"have no {field}",
    )  # fmt: skip


def run_config(**changes):
    values = {
        "algorithm": AlgorithmConfig(),
        "optimizer": OptimizerConfig(),
        "trainer": TrainerConfig(),
        "strategy": StrategyConfig(),
        "sweep": SweepConfig(),
        "task": {}, "model": {}, "engine": {}, "sampler": {}, "logger": None, "output_dir": "out",
    }  # fmt: skip
    return RunConfig(**values | changes)


def test_a_run_that_contradicts_itself_is_refused():
    run_config()
    steering = AlgorithmConfig(gate=GateConfig(enabled=True), control=ControlConfig(start_step=10))
    short = TrainerConfig(max_rollouts=10)
    refused(lambda: run_config(algorithm=steering, trainer=short), "start_step", "never start")
    run_config(algorithm=steering, trainer=TrainerConfig(max_rollouts=11))
    run_config(algorithm=AlgorithmConfig(control=ControlConfig(start_step=10)), trainer=short)

    for schedule in ("linear", "cosine"):
        falling = OptimizerConfig(schedule=schedule, warmup_steps=10)
        refused(
            lambda o=falling: run_config(optimizer=o, trainer=short), "warmup_steps is 10", schedule
        )
        run_config(optimizer=falling, trainer=TrainerConfig(max_rollouts=11))
    run_config(optimizer=OptimizerConfig(warmup_steps=10), trainer=short)

    three = StrategyConfig("fsdp", devices=3)
    refused(lambda: run_config(strategy=three), "prompts_per_rollout", "3 devices")
    run_config(strategy=three, trainer=TrainerConfig(prompts_per_rollout=129))

    four = StrategyConfig("fsdp", devices=2, num_nodes=2, fsdp_size=2)
    run_config(strategy=four, engine={"tensor_parallel_size": 2})
    for size in (3, 8):
        wide = {"tensor_parallel_size": size}
        refused(lambda e=wide: run_config(strategy=four, engine=e), f"size is {size}", "4 devices")
    refused(lambda: StrategyConfig("fsdp", devices=4, fsdp_size=3), "fsdp_size is 3", "4 devices")
    refused(lambda: StrategyConfig("fsdp", devices=4, fsdp_size=0), "fsdp_size is 0")

    often = AlgorithmConfig(updates_per_rollout=65)
    two = StrategyConfig("fsdp", devices=2)
    run_config(algorithm=often)
    refused(lambda: run_config(algorithm=often, strategy=two), "updates_per_rollout")

    grpo = AlgorithmConfig(response_limit=100, meta=MetaConfig(enabled=False))
    refused(lambda: run_config(algorithm=grpo), "min_length", "val_meta_samples")
    run_config(algorithm=grpo, trainer=TrainerConfig(val_meta_samples=0))


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("seed", [-1, 1.5, "abc", None, True]),
        ("ckpt", [3, True]),
        ("name", [None, 3]),
        ("output_dir", [None, 3]),
    ],
)
def test_a_top_level_value_of_the_wrong_type_is_refused(key, values):
    for value in values:
        refused(lambda value=value: run_config(**{key: value}), key)


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("changes", [{}, {"val_samples": 2}, {"val_meta_samples": 0}])
def test_what_is_accepted_can_be_validated(name, changes):
    trainer = TrainerConfig(**changes)
    measured = validation_config(preset(name).algorithm, trainer)
    assert not measured.steers and measured.bc.mode == "off"
    assert measured.group_size == trainer.val_samples
    assert measured.meta.predictions == trainer.val_meta_samples


# --- load


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["+algorithm.sigma=1"], ["algorithm", "sigma"]),
        (["+trainer.max_rollout=1"], ["trainer", "max_rollout"]),
        (["+foo=1"], ["unknown key foo", "seed"]),
        (["+foo.bar=1", "+baz=2"], ["unknown key baz, foo"]),
        (["optimizer.lr=abc"], ["optimizer", "abc"]),
        (["optimizer.lr=null"], ["optimizer", "None"]),
        (["algorithm.gate=5"], ["algorithm"]),
        (["trainer.max_rollouts=1.5"], ["trainer", "1.5"]),
        (["trainer.max_rollouts=many"], ["trainer", "many"]),
        (["algorithm.gate.enabled=perhaps"], ["algorithm", "perhaps"]),
        (["algorithm.bc.mode=often"], ["bc.mode", "often", "joint"]),
        (["algorithm=masa", "algorithm.meta.group_size=1"], ["no advantage", "meta.coef=0"]),
        (["algorithm.group_size=1"], ["group_size"]),
        (["algorithm=masa_efficient", "trainer.max_rollouts=5"], ["start_step"]),
        (["algorithm.meta.rewards=5"], ["algorithm", "int"]),
        (["algorithm.meta.rewards=null"], ["meta.rewards"]),
        (["algorithm.meta.rewards.length.weight=-1"], ["rewards.length.weight is -1"]),
        (["algorithm.meta.rewards.length=3"], ["rewards.length is 3"]),
        *(
            (["algorithm=masa_v1", without], ["bc.mode", "rewards.notion"])
            for without in ("~algorithm.meta.rewards.notion", "algorithm.meta.rewards.notion=null")
        ),
        (["seed=abc"], ["seed", "abc"]),
        (["seed=4294967296"], ["seed is 4294967296", "from 0 to 2**32 - 1"]),
        ([f"algorithm.control.window={10**23}"], ["control.window is 1", "lie in [1, 1,000,000]"]),
        (["~engine"], ["missing key engine"]),
        (["task=hub"], ["task.path: there is no default, give a value"]),
        (["task=env", "model=hub"], ["model.name, task.environment: there is no default"]),
    ],
)
def test_load_refuses_in_one_line(overrides, words):
    refused(lambda: load(compose(*overrides)), *words)


@pytest.mark.parametrize(
    "value", ["5", "null", "true", "1.5", "hf,5", "null,hf", "[1]", "range(1,3)"]
)
@pytest.mark.parametrize("group", ["engine", "task", "strategy", "algorithm", "gate", "logger"])
def test_a_group_takes_the_name_of_an_option(group, value):
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        refused(lambda: parse([f"{group}={value}"]), "takes the name of an option; it offers: ")
        refused(lambda: parse([f"~{group.lstrip('+')}=5"]), "takes the name of an option")
        parse(["~logger", "engine=hf", "+sweep=methods", "algorithm=masa,grpo", "task@a.b=hub"])
        parse(
            ["engine={dtype: bfloat16}", "sampler='greso'", "algorithm=glob(*)", "logger=[wandb]"]
        )


ENV = ["task=env", "task.environment=x", "model=hub", "model.name=x"]
HUB = ["task=hub", "task.path=x.jsonl", "model=hub", "model.name=x"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["engine._target_=no.Engine"], "engine: no.Engine cannot be imported"),
        (["engine._target_=masa.errors.require"], "engine: masa.errors.require is no class"),
        (["model._target_=no.Model"], "model: no.Model cannot be imported"),
        (["task._target_=no.Task"], "task: no.Task cannot be imported"),
        (["+logger.mine._target_=no.Logger"], "logger.mine: no.Logger cannot be imported"),
        (["+logger.mine=5"], "logger.mine is 5, it must be {_target_"),
        (["task.config.train_size=abc"], "task.config.train_size is 'abc', it must be an integer"),
        (["task.config.levels=2.5"], "task.config.levels is 2.5, it must be an integer"),
        (["task.config.profile=null"], "task.config.profile is None, it must be a text"),
        ([*HUB, "task.templates=null"], "task.templates is None, it must be Templates"),
        ([*HUB, "task.validation=null"], "task.validation is None, it must be a group of settings"),
        ([*HUB, "task.validation.fraction=abc"], "task.validation.fraction is 'abc', it must be a"),
        ([*HUB, "+task.validation.share=1"], "task.validation: got an unexpected keyword argument"),
        ([*HUB, "task.verifier=null"], "task.verifier is None, it must be a text"),
        ([*HUB, "task.max_examples=abc"], "task.max_examples is 'abc', it must be an integer or n"),
        ([*HUB, "task.score_seconds=true"], "task.score_seconds is True, it must be a number"),
        ([*HUB, "task.score_seconds=inf"], "task.score_seconds is inf, it must be > 0 and finite"),
        ([*HUB, "task.levels=2"], "task.levels is 2, it must be a list or null"),
        ([*HUB, "task.split=5"], "task.split is 5, it must be a text"),
        (["task=gym", "model=hub", "model.name=x", "task.datasets=5"], "task.datasets is 5, it m"),
        ([*ENV, "task.validation.fraction=abc"], "task.validation.fraction is 'abc', it must be a"),
        ([*ENV, "+task.validation.share=1"], "task.validation: got an unexpected keyword argument"),
        ([*ENV, "task.max_score=inf"], "task.max_score is inf, it must be > 0 and finite"),
    ],
)
def test_what_hydra_builds_is_refused_by_its_setting(overrides, message):
    refused(lambda: train.check(compose(*overrides)), message)


@pytest.mark.parametrize("name", sorted(names("task")))
def test_every_task_can_be_built(name):
    needed = {"hub": ["task.path=x.jsonl"], "env": ["task.environment=x"]}.get(name, [])
    cfg = compose(f"task={name}", "model=hub", "model.name=x", *needed)
    assert build_task(cfg.task).templates.solution


def test_an_option_that_is_not_there_among_others():
    with pytest.raises(HydraException) as caught:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            hydra.compose("evaluate", ["benchmark=[task,nosuch]", "++output_dir=."])
    message = app.one_line(caught.value, "evaluate", ["benchmark=[task,nosuch]"])
    assert message.startswith("there is no benchmark/nosuch; benchmark offers: aime24, aime25")


@pytest.mark.parametrize(("overrides", "message"), [
    (["seeed=1"], "seeed; did you mean seed?"),
    (["task=math", "task.colums.level=a"], "task.colums.level; did you mean task.columns.level?"),
    (["task=math", "task.columns={levl: 1}"],
     "task.columns.levl; did you mean task.columns.level?"),
    (["model=hub", "model.lora={rnk: 3}"], "model.lora.rnk; did you mean model.lora.rank?"),
    (["model=hub", "model.warmstart.seed=3"],
     "model.warmstart.seed for the model that this command names"),
    (["logger=[wandb,tensorboard]", "logger.wandb.projct=a"],
     "logger.wandb.projct; did you mean logger.wandb.project?"),
    (["algorithm=grpo,masa", "trainer.max_rolouts=1"],
     "trainer.max_rolouts; did you mean trainer.max_rollouts?"),
    (["zzzz.q=1"], "zzzz.q; --help lists the groups and keys"),
])  # fmt: skip
def test_a_setting_that_is_not_there(overrides, message):
    """The hint is of the groups that the command names."""
    with pytest.raises(HydraException) as caught:
        compose(*(override for override in overrides if "," not in override or "[" in override))
    said = app.one_line(caught.value, "config", overrides)
    assert said == f"there is no setting {message}"


def test_texts_with_a_dollar_and_a_brace_are_texts(tmp_path):
    """LaTeX has ${, which a configuration takes for an interpolation."""
    text = "Solve ${x}$, \\\\${y}: {problem} ${oc.env:HOME}"
    cfg = compose("task=hub", "task.path=x.jsonl", "model=hub", "model.name=x")
    cfg.task.templates.solution = escaped(text)
    cfg.name = escaped("a${b}")
    assert load(cfg).name == "a${b}"
    assert load(cfg).task.settings["templates"]["solution"] == text
    assert build_task(cfg.task).templates.solution == text
    plain = OmegaConf.to_container(cfg, resolve=True)
    write_config(plain, tmp_path)
    again = OmegaConf.load(tmp_path / "config.yaml")
    assert OmegaConf.to_container(again, resolve=True) == plain
    assert build_task(again.task).templates.solution == text
    # in lists and groups, and in Python's settings
    node = {"_target_": "builtins.dict", "a": [text], "b": {"c": text, "d": None}}
    assert built(node) == {"a": [text], "b": {"c": text, "d": None}}
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        own = [f"templates.solution={_literal(text)}", "++output_dir=."]
        cfg = hydra.compose("predict", own)
    assert built(cfg.templates).solution == text


def test_load_takes_the_values():
    config = load(
        compose("algorithm=masa", "algorithm.meta.coef=0.25", "seed=7", "optimizer.lr=1e-3")
    )
    assert (config.algorithm.meta.coef, config.seed, config.optimizer.lr) == (0.25, 7, 1e-3)
    assert isinstance(config.algorithm.meta, MetaConfig)
    assert config.output_dir == "." and config.ckpt is None


def test_a_component_can_be_left_out_and_its_settings_changed():
    overrides = ["~algorithm.meta.rewards.notion", "algorithm.meta.rewards.difficulty.base=0.1"]
    first, second = load(compose(*overrides)).algorithm.meta.components
    assert (first.name, first.function.keywords["base"]) == ("difficulty", 0.1)
    assert second.name == "length"


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_setting_of_before_is_answered_with_its_name_now(old, new, capsys):
    assert OmegaConf.select(compose(), new) is not None or new == "gate"  # a group
    key = old.rpartition(".")
    for override in (f"+{old}=1", f"++{old}=null", f"+{key[0]}={{{key[2]}: 1}}"):
        refused(lambda override=override: load(compose(override)), f"{old} is called {new} now")
    for override in (f"{old}=1", f"{key[0]}={{{key[2]}: 1}}", f"name=a${{{old}}}"):
        with pytest.raises((HydraException, OmegaConfBaseException)) as caught:
            load(compose(override))
        message = app.one_line(caught.value, "config", [override])
        assert message == f"{old} is called {new} now"


@pytest.mark.parametrize("config", ["config", "evaluate"])
@pytest.mark.parametrize(("old", "new"), RENAMED_OPTIONS.items())
def test_an_option_of_before_is_answered_with_its_name_now(old, new, config):
    assert (conf_dir() / f"{new}.yaml").is_file() and not (conf_dir() / f"{old}.yaml").exists()
    with pytest.raises(HydraException) as caught:
        with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
            chosen = ("+" if old.startswith("sweep/") else "") + old.replace("/", "=")
            hydra.compose(config, [chosen, "++output_dir=."])
    message = app.one_line(caught.value, config, [chosen])
    assert message == f"{old} is called {new} now"


# --- conf/

EVERY = [f"algorithm={name}" for name in ALGORITHMS] + [
    f"experiment={name}" for name in names("experiment")
]


@pytest.mark.parametrize("choice", EVERY)
def test_every_shipped_config_composes_and_loads(choice):
    config = load(compose(choice))
    if choice.startswith("algorithm="):
        assert config.algorithm.name == choice.partition("=")[2]


@pytest.mark.parametrize("group", ["engine", "logger", "strategy", "task"])
def test_every_option_composes(group):
    needed = {"hub": ["task.path=x"], "env": ["task.environment=x"]}
    for name in names(group):
        load(compose(f"{group}={name}", *needed.get(name, [])))


@pytest.mark.parametrize("name", names("model"))
def test_every_model_goes_with_every_experiment(name):
    own = ["model.name=x"] if name == "hub" else []
    for experiment in names("experiment"):
        cfg = compose(f"experiment={experiment}", f"model={name}", *own)
        load(cfg)
    assert hydra.utils.instantiate(cfg.model).trust_remote_code is False


CONTEXT = {
    "qwen3_0.6b": 32768,
    "qwen3_1.7b": 32768,
    "qwen3_4b": 32768,
    "qwen3_8b": 32768,
    "qwen3_14b": 32768,
    "llama3.1_8b_instruct": 131072,
    "gemma2_9b_it": 8192,
    "smollm2": 8192,
}
"""max_position_embeddings of the presets' models."""


def test_the_context_of_every_preset_is_known():
    assert set(CONTEXT) == {n for n in names("model") if n != "hub" and not n.startswith("tiny")}


@pytest.mark.parametrize("name", CONTEXT)
@pytest.mark.parametrize("experiment", ["paper", "paper_math"])
@pytest.mark.parametrize("hint", [True, False])
def test_the_papers_limits_fit_into_the_context_of_every_preset(name, experiment, hint, tmp_path):
    chosen = [f"model={name}", f"experiment={experiment}", "algorithm=masa"]
    cfg = compose(*chosen, f"algorithm.control.hint={hint}")
    config = load(cfg)
    algorithm, limits = config.algorithm, config.response_limits
    context = AutoConfig.for_model("qwen3", max_position_embeddings=CONTEXT[name])
    context.save_pretrained(tmp_path)
    model = hydra.utils.instantiate(cfg.model)
    longest_sequence(algorithm.prompt_limit, model, tmp_path, algorithm, limits)
    if CONTEXT[name] > 8192:
        assert (algorithm.response_limit, algorithm.meta.response_limit) == (8192, 8192)


@pytest.mark.parametrize("context, room", [(400, 300), (250, 150), (90, -10)])
def test_recent_outcomes_are_shown_within_prompt_limit_and_context(context, room, tmp_path):
    shape = AutoConfig.for_model("qwen3", max_position_embeddings=context)
    shape.save_pretrained(tmp_path)
    cfg = compose("algorithm=metis", "algorithm.prompt_limit=300", "algorithm.response_limit=100")
    model, config = hydra.utils.instantiate(cfg.model), load(cfg)
    algorithm, limits = config.algorithm, config.response_limits
    assert room_for_recent(model, tmp_path, algorithm) == room
    if room > 50:
        assert longest_sequence(50, model, tmp_path, algorithm, limits) == room + 100
    none = replace(algorithm, meta=replace(algorithm.meta, recent=0))
    assert room_for_recent(model, tmp_path, none) == 0


def test_a_task_brings_its_own_settings():
    """`masa-train model=hub model.name=X task=gsm8k` is all that it takes."""
    other = load(compose("model=hub", "model.name=x", "task=gsm8k", "algorithm=masa"))
    assert (other.name, other.algorithm.response_limit) == ("masa", 8192)
    built_in = load(compose("model=hub", "model.name=x", "algorithm=masa"))
    assert (built_in.name, built_in.algorithm.response_limit) == ("arithmetic", 192)
    assert load(compose("experiment=arithmetic")) == load(compose())
    longer = load(compose("experiment=arithmetic_claim", "algorithm.response_limit=100"))
    assert (longer.algorithm.response_limit, longer.trainer.max_rollouts) == (100, 100)


def test_defaults_come_from_the_dataclasses():
    """A number of the framework stands once: in its dataclass, unless a preset differs."""
    config = preset("masa")
    assert config.algorithm == AlgorithmConfig(
        gate=config.algorithm.gate, cutoff=config.algorithm.cutoff
    )
    assert config.optimizer == OptimizerConfig()
    assert config.trainer == TrainerConfig()
    assert config.strategy == StrategyConfig()
    assert config.sweep == SweepConfig()
    composed = compose()
    assert {str(key) for key in composed} == {f.name for f in dataclasses.fields(RunConfig)}


@pytest.mark.parametrize(
    "plugin", [PredictionGate, HistoryGate, CombinedGate, CountsGate, JudgedGate, ValueGate]
)
def test_defaults_of_a_gate_come_from_its_class(plugin):
    name = plugin.__name__.removesuffix("Gate").lower()
    gate = load(compose("task=gsm8k", "algorithm=grpo", f"gate={name}")).algorithm.gate
    assert build_plugin("algorithm.gate", gate.settings, Gate) == plugin()
    assert replace(gate, settings={}) == GateConfig(settings={})


@pytest.mark.parametrize("name", ALGORITHMS)
def test_presets_hold_the_papers_numbers(name):
    config = preset(name)
    a = config.algorithm
    assert (a.group_size, a.response_limit, a.temperature) == (16, 8192, 1.0)
    bounds = {"gspo": (3e-4, 4e-4), "cispo": (1, 4)}.get(name, (0.2, 0.28))
    assert (a.eps_low, a.eps_high) == bounds
    assert (a.dual_clip, a.kl_beta, a.entropy_coef, a.mismatch) == (10, 0, 0, "none")
    settings = {c.name: (c.weight, dict(c.function.keywords)) for c in a.meta.components}
    of_paper = {"masa_calibrated": 0.2, "masa_cloned": 0.2, "metis": 0}.get(name, 1)
    mixed = {"mixed": (1, {})} if name in ("masa_calibrated", "masa_cloned", "metis") else {}
    assert settings == mixed | {
        "difficulty": (of_paper, {"base": 0.01}), "length": (of_paper, {"strict": False}),
        "notion": (of_paper, {}),
    }  # fmt: skip
    assert a.meta.predict_mixed == bool(mixed)
    assert a.meta.min_length == 128
    papers = {"masa_v1": 16, "masa_calibrated": 2, "masa_cloned": 1, "metis": 2}
    assert a.meta.predictions == papers.get(name, 8 if "masa" in name else 0)
    assert a.meta.coef == (0 if name == "masa_cloned" else 1)
    assert a.bc.min_notion_score == 0.2
    assert a.control.start_step == (0 if name in ("greso", "grpo_counts", "metis") else 80)
    controller = Controller(a, seed=0)
    gates = {
        "greso": HistoryGate(),
        "grpo_counts": CountsGate(),
        "masa_combined": CombinedGate(),
        "masa_calibrated": ValueGate(),
        "masa_cloned": ValueGate(),
        "metis": JudgedGate(),
    }
    assert controller.gate == gates.get(name, PredictionGate(0.1, 1 / 16, 0.5))
    assert (a.control.audit_fraction, controller.cutoff) == (0.05, MeanLengthCutoff(2.0, 0.5))
    assert (config.trainer.prompts_per_rollout, config.trainer.max_rollouts) == (128, 314)
    o = config.optimizer
    assert (o.lr, o.weight_decay, o.warmup_steps, o.grad_clip) == (1e-6, 0.1, 20, 1.0)


def test_presets_switch_on_what_they_say():
    switches = {
        name: (a.meta.enabled, a.bc.mode, a.gate.enabled, a.cutoff.enabled, a.control.hint)
        for name in ALGORITHMS
        for a in [preset(name).algorithm]
    }
    assert switches == {
        **dict.fromkeys(
            ("grpo", "dapo", "dr_grpo", "gspo", "cispo", "rloo"),
            (False, "off", False, False, False),
        ),
        "greso": (False, "off", True, False, False),
        "grpo_counts": (False, "off", True, False, False),
        "masa_dapo": (True, "off", True, True, False),
        "masa": (True, "off", False, False, False),
        "masa_calibrated": (True, "joint", True, False, False),
        "masa_cloned": (True, "joint", True, False, False),
        "masa_combined": (True, "off", True, True, False),
        "metis": (True, "off", True, False, False),
        "masa_efficient": (True, "off", True, True, False),
        "masa_v1": (True, "joint", True, True, False),
    }
    losses = {
        name: (a.advantage, a.loss, a.dynamic_sampling > 0, a.overlong_buffer)
        for name in ALGORITHMS
        for a in [preset(name).algorithm]
    }
    plain = ("grpo", "dapo", False, 0)
    assert losses == dict.fromkeys(ALGORITHMS, plain) | {
        "dapo": ("grpo", "dapo", True, 0.2),
        "masa_dapo": ("grpo", "dapo", True, 0.2),
        "dr_grpo": ("dr_grpo", "dr_grpo", False, 0),
        "gspo": ("grpo", "gspo", False, 0),
        "cispo": ("grpo", "cispo", False, 0),
        "rloo": ("rloo", "dapo", False, 0),
    }
    v1, efficient = preset("masa_v1").algorithm, preset("masa_efficient").algorithm
    assert (v1.gate.min_precision, v1.cutoff.max_lost) == (0, 1)  # starts at k without proof
    assert efficient.gate.min_precision > 0 and efficient.cutoff.max_lost < 1


def settings_of(name):
    """What a preset says, with what it builds on."""
    node = read(f"algorithm/{name}.yaml")
    on = [entry for entry in node.pop("defaults", []) if isinstance(entry, str)]
    settings = [settings_of(entry) for entry in on if entry != "_self_"]
    return {k: v for part in [*settings, flatten(OmegaConf.create(node))] for k, v in part.items()}


@pytest.mark.parametrize("task", names("task/settings"))
def test_what_comes_with_a_task_overrides_no_preset(task):
    for name in ALGORITHMS:
        algorithm = flatten(compose(f"task={task}", f"algorithm={name}").algorithm)
        settings = settings_of(name)
        assert settings and {key: algorithm[key] for key in settings} == settings, name


def test_fine_tuning_has_the_settings_of_the_algorithm():
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        overrides = ["task=gsm8k", "algorithm=masa_calibrated", "++output_dir=."]
        algorithm = hydra.compose("sft", [*overrides, "algorithm.prompt_limit=512"]).algorithm
    assert (algorithm.prompt_limit, algorithm.response_limit) == (512, 8192)
    assert algorithm.meta.predict_mixed


# those of a method have its settings
ANY_METHOD = [n for n in names("experiment") if "calibrated" not in n and "smollm2_" not in n]


@pytest.mark.parametrize("experiment", ANY_METHOD)
def test_grpo_predicts_in_no_experiment(experiment):
    algorithm = load(compose(f"experiment={experiment}", "algorithm=grpo")).algorithm
    assert algorithm.meta.predictions == 0 and not algorithm.steers


def test_training_has_the_setting_that_a_missing_sandbox_asks_for():
    cfg = compose("allow_unsafe_execution=true")
    assert load(cfg).allow_unsafe_execution is True


# --- the engine and the machine


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gpu_memory_utilisation": 0.5}, ["engine.gpu_memory_utilisation", "gpu_memory_utiliz"]),
        ({"speed": 3}, ["engine.speed", "max_num_seqs"]),
        ({"max_model_len": 9}, ["engine.max_model_len"]),
        ({"dtype": "fp8"}, ["engine.dtype", "fp8", "bfloat16"]),
        ({"gpu_memory_utilization": 0}, ["gpu_memory_utilization is 0", "(0, 1]"]),
        ({"gpu_memory_utilization": 1.1}, ["gpu_memory_utilization is 1.1"]),
        ({"gpu_memory_utilization": "much"}, ["gpu_memory_utilization is 'much'"]),
        ({"max_num_seqs": 0}, ["engine.max_num_seqs is 0"]),
        ({"kv_cache_gib": -1}, ["engine.kv_cache_gib is -1"]),
        ({"threads": 1.5}, ["engine.threads is 1.5", "integer"]),
        ({"tensor_parallel_size": 1.5}, ["engine.tensor_parallel_size is 1.5", "integer"]),
        ({"tensor_parallel_size": None}, ["engine.tensor_parallel_size is None"]),
    ],
)
def test_settings_that_an_engine_cannot_have_are_refused(settings, words, monkeypatch):
    monkeypatch.setattr(VllmEngine, "check_available", staticmethod(lambda: None))
    given = read("engine/vllm.yaml")

    def check(engine, settings):
        engine_values(settings)
        check_engine(engine, settings)

    check(VllmEngine, given)
    check(HfEngine, read("engine/hf.yaml"))
    refused(lambda: check(VllmEngine, given | settings), *words)


def test_an_engine_that_a_run_cannot_use_is_refused():
    class Small(HfEngine):
        def __init__(self, model_path, temperature):
            pass

    refused(lambda: check_arguments(Small), "Small has no argument eos_token_ids, max_model_len")
    Small.sleep = None
    refused(lambda: check_engine(Small, {}), "Small has no method sleep")


@pytest.mark.parametrize("size", ["null", "two", "1.5", "0"])
def test_devices_of_an_engine_are_a_number(size):
    cfg = compose(f"engine.tensor_parallel_size={size}")
    refused(lambda: load(cfg), "engine.tensor_parallel_size", "integer")


def test_an_evaluation_samples_on_one_device(monkeypatch):
    monkeypatch.setattr(VllmEngine, "check_available", staticmethod(lambda: None))
    settings = OmegaConf.create(read("engine/vllm.yaml"))
    check_sampling_engine(settings)
    settings.tensor_parallel_size = 2
    refused(lambda: check_sampling_engine(settings), "engine.tensor_parallel_size", "set it to 1")


@pytest.mark.parametrize("accelerator", ["gpu", "cuda", "mps"])
def test_a_device_that_is_not_there_is_refused(accelerator, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    refused(lambda: check_devices(StrategyConfig(), accelerator), "accelerator", accelerator)
    refused(lambda: TrainerConfig(accelerator="tpu"), "accelerator", "tpu")
    check_devices(StrategyConfig("fsdp", devices=64), "cpu")
    check_devices(StrategyConfig("fsdp", devices=64), "auto")
    for given in ("cpu", "auto"):
        offloaded = StrategyConfig("fsdp", cpu_offload=True)
        refused(lambda given=given, o=offloaded: check_devices(o, given), "strategy.cpu_offload")


def test_a_policy_on_the_cpu_beside_an_engine_on_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    check_devices(StrategyConfig(), "auto")
    refused(lambda: check_devices(StrategyConfig(), "cpu"), "CUDA_VISIBLE_DEVICES=")
    # first weights are made without an engine
    check_devices(StrategyConfig(), "cpu", uses_engine=False)


def test_more_devices_than_there_are_and_other_processes_are_refused(monkeypatch):
    for name in ("WORLD_SIZE", "SLURM_NTASKS", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    four = StrategyConfig("fsdp", devices=4, num_nodes=2)
    refused(lambda: check_devices(four, "auto"), "strategy.devices is 4", "2 GPUs")
    check_devices(StrategyConfig("fsdp", devices=2, num_nodes=2), "gpu")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    check_devices(four, "cpu")
    monkeypatch.setenv("WORLD_SIZE", "4")
    refused(lambda: check_devices(four, "cpu"), "4 processes", "WORLD_SIZE", "4 x 2")
    monkeypatch.setenv("WORLD_SIZE", "8")
    check_devices(four, "cpu")
    # torchrun, started by SLURM with a device for each process
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    refused(lambda: check_devices(four, "cpu"), "2 processes", "SLURM_NTASKS")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    refused(lambda: check_devices(four, "gpu"), "shows 1 GPUs", "CUDA_VISIBLE_DEVICES")


@pytest.mark.parametrize(("name", "rank", "printed"), [
    ("LOCAL_RANK", "0", True), ("LOCAL_RANK", "3", False), ("SLURM_LOCALID", "1", False),
])  # fmt: skip
def test_one_rank_speaks_for_all(name, rank, printed, monkeypatch, capsys):
    monkeypatch.setenv(name, rank)
    for status, speaks in ((2, printed), (1, True)):
        with pytest.raises(SystemExit):
            app.fail("masa-train", "no", status)
        assert bool(capsys.readouterr().err) == speaks


@pytest.mark.parametrize(("engine", "error", "words"), [
    ("out_of_memory", TrainingError, "is less than desired.*engine.gpu_memory_utilization"),
    ("of_another_model", ConfigError, "^engine=vllm has no such heads: use engine=hf$"),
    ("missing", TrainingError, "failing_engines.missing"),
])  # fmt: skip
def test_an_engine_that_cannot_be_built_is_an_error_in_one_line(engine, error, words):
    config = OmegaConf.create({"_target_": f"failing_engines.{engine}"})
    with pytest.raises(error, match=words) as caught:
        build_engine(config, HubModel("x"), Path("x"), 9, [0], 1.0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "overrides, name",
    [
        ("", ""),
        ("optimizer.lr=1e-3,trainer.max_rollouts=3", "_lr-1e-3_max_rollouts-3"),
        ("model.name=/a b/c=d,task.path='x y'", "_name-a-b-c-d_path-x-y"),
        ("+task.rewards={a: 1}", "_rewards-a-1"),
    ],
)
def test_a_directory_is_named_after_what_a_command_changed(overrides, name):
    assert config_store.changes(overrides) == name


def test_long_names_of_directories_stay_apart():
    names = {config_store.changes("model.name=" + 300 * "x" + str(i)) for i in range(9)}
    assert len(names) == 9 and max(map(len, names)) <= config_store.NAME_LENGTH


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_under_the_log_prints_no_traceback():
    code = (
        "import logging, pathlib\nfrom masa.cli import app\napp.quiet(pathlib.Path('/dev/full'))\n"
        "logging.getLogger('masa').info('a line')"
    )
    done = processes.run([sys.executable, "-c", code])
    assert done.stderr.splitlines() == ["a line"], done.stderr


def nodes_of(node):
    """Every node with a `_target_`, the outer ones first."""
    if isinstance(node, dict):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from nodes_of(value)


@pytest.mark.parametrize("path", [
    "engine/vllm.yaml", "engine/hf.yaml", "task/arithmetic.yaml", "model/hub.yaml",
])  # fmt: skip
def test_defaults_of_what_hydra_builds_are_those_of_its_class(path):
    """Its values are in conf/, where --help shows them; built in Python it has the same."""
    compared = 0
    for node in nodes_of(read(path)):
        parameters = inspect.signature(hydra.utils.get_class(node["_target_"])).parameters
        for name, value in node.items():
            default = parameters[name].default if name[0] != "_" else inspect.Parameter.empty
            if default is not inspect.Parameter.empty and not isinstance(value, dict):
                assert "${" in str(value) or value == default, (node["_target_"], name)
                compared += 1
    assert compared >= 2


@pytest.mark.parametrize("name", ["train", "val", "meta", "unseen"])
def test_a_benchmark_cannot_be_called_as_the_runs_own_problems(name):
    other = f"+benchmark.{name}={{domain: x, run: .}}"
    refused(lambda: load(compose(other)), "a benchmark cannot be called", name)
    load(compose(other.replace(name, "mine", 1)))


def test_first_weights_that_cannot_be_made_are_refused_before_anything_starts():
    def checked(*overrides):
        cfg = compose("task.config.profile=uniform", *overrides)
        instantiate(cfg.model).check(build_task(cfg.task))

    refused(checked, "model.warmstart.sft.mixed_predictions is 0.5", "set it to 0")
    checked("model.warmstart.sft.mixed_predictions=0")


def test_responses_that_fill_the_context_are_refused_before_a_download(tmp_path):
    model = model_folder(tmp_path)
    settings = ["model=hub", f"model.name={model}", "engine=hf"]
    with pytest.raises(ConfigError, match="algorithm.response_limit is 2048, but the model's"):
        train.check(compose(*settings, "algorithm.response_limit=2048"))
    fits = ["algorithm.response_limit=64", "algorithm=grpo", "trainer.val_meta_samples=0"]
    train.check(compose(*settings, *fits, "algorithm.meta.response_limit=4096"))
