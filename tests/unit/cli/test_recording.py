"""What engine=recorded refuses before anything starts, each in one line."""

import hydra
import pytest
from builders import group, model_folder
from omegaconf import OmegaConf

from masa import evaluate, train
from masa.cli.config_store import conf_dir
from masa.cli.recording import FREE, SAME, check_recording, recording_of
from masa.config import load
from masa.engine.recorded import RecordedEngine, Recording
from masa.engine.settings import check_engine
from masa.errors import ConfigError
from masa.tracking import records

GROUPS = [
    group(solution_rewards=(1.0, 0.0), solution_advantages=(1.0, -1.0), task_rewards=({}, {}))
]
RUN = ("algorithm=masa", "trainer.max_rollouts=2", "algorithm.control.start_step=1")


def compose(*overrides, config="config"):
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return hydra.compose(config, [*overrides, "++output_dir=."])


def checked(run, *overrides):
    cfg = compose(*RUN, "engine=recorded", f"engine.run={run}", *overrides)
    check_recording(cfg, load(cfg))


def refused(message, run, *overrides):
    with pytest.raises(ConfigError, match=message) as caught:
        checked(run, *overrides)
    assert "\n" not in str(caught.value)


@pytest.fixture
def run(tmp_path):
    """Two recorded rollouts of `RUN`."""
    OmegaConf.save(compose(*RUN), tmp_path / "config.yaml", resolve=True)
    for step in (1, 2):
        path = Recording(tmp_path).path("train", step)
        records.write(records.rows(GROUPS, step, "train", 10, True), path, True)
    return tmp_path


def test_the_settings_of_the_run_are_accepted(run):
    checked(run)
    checked(run, "trainer.max_rollouts=1", "algorithm.control.start_step=0", "ckpt=auto")
    # to change these is what it is for
    checked(
        run, "algorithm.meta.rewards.length.weight=0", "gate=history", "algorithm.cutoff.margin=1",
        "optimizer.lr=1", "trainer.micro_batch_tokens=100", "model.cache_dir=elsewhere",
    )  # fmt: skip


@pytest.mark.parametrize(
    "override",
    ["seed=1", "allow_special_tokens=true", "algorithm.group_size=4", "algorithm.temperature=0.9",
     "algorithm.meta.group_size=2", "trainer.prompts_per_rollout=4", "trainer.val_samples=8",
     "trainer.val_meta_samples=8", "model.architecture.hidden_size=64", "model=tiny_llama"],
)  # fmt: skip
def test_another_setting_is_named(run, override):
    key, _, value = override.partition("=")
    named = f"{key} is {value}, but" if key != "model" else "model.architecture"
    refused(f"(?i){named}.* was recorded with .*repeat its settings", run, override)


def test_every_setting_that_counts_is_one(run):
    cfg = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    typed = load(compose(*RUN))
    for key, default in SAME.items():
        value = typed
        for name in key.split("."):
            value = getattr(value, name)
        assert type(value) is type(default), key
    assert set(FREE) & set(cfg["model"]) == {"cache_dir"}


def test_what_is_no_recording(run, tmp_path):
    refused("engine.run=.*nowhere: there is no such folder", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused("engine.run=.*empty is no run of masa-train", tmp_path / "empty")
    with pytest.raises(ConfigError, match="name it with engine.run=RUN"):
        recording_of(compose("engine=recorded"))
    with pytest.raises(ConfigError, match="name it with engine.run=RUN"):
        train.check(compose("engine=recorded", "engine.run=null"))
    assert recording_of(compose("engine=hf")) is None
    refused(
        "trainer.max_rollouts is 3, but .* has the tokens of 2 rollouts", run,
        "trainer.max_rollouts=3",
    )  # fmt: skip
    refused("leave out strategy=fsdp", run, "strategy=fsdp", "strategy.devices=2")
    refused("ckpt=last: engine=recorded trains nothing", run, "ckpt=last")
    refused("engine.run=.* is no run", run / "rollouts")
    records.write(records.rows(GROUPS, 1, "train", 10), Recording(run).path("train", 1))
    refused("has no tokens of its first rollout.*trainer.record_tokens=true", run)
    Recording(run).path("train", 1).write_text("no table")
    refused("train-000001.parquet cannot be read", run)


def test_a_damaged_config(run):
    (run / "config.yaml").write_text("a: [")
    refused("config.yaml cannot be read", run)


def test_a_run_is_not_overwritten_by_its_replay(run):
    cfg = compose(*RUN, "engine=recorded", f"engine.run={run}")
    with pytest.raises(ConfigError, match="would be overwritten by its own replay"):
        train.train(cfg, load(cfg), run / "rollouts" / "..")
    assert Recording(run).rollouts == 2


def test_the_settings_of_a_preset_fit_the_engine():
    cfg = compose("experiment=paper", "model=qwen3_8b", "engine=recorded", "engine.run=x")
    assert cfg.engine.dtype == "bfloat16"
    check_engine(RecordedEngine, cfg.engine)


def test_each_program_refuses_the_engine_of_the_other(tmp_path):
    model_folder(tmp_path)
    with pytest.raises(ConfigError, match="engine=gold_answers answers the benchmarks"):
        train.check(compose("engine=gold_answers"))
    for settings in (["engine.run=x"], []):
        cfg = compose(
            "engine=recorded", *settings, "benchmark=arithmetic", f"model.name={tmp_path}",
            config="evaluate",
        )  # fmt: skip
        with pytest.raises(ConfigError, match="engine=recorded plays rollouts of masa-train"):
            evaluate.check(cfg)
