import pytest
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from masa.errors import ConfigError
from masa.tracking.loggers import build_loggers, check_loggers


def test_tensorboard_drops_what_came_after_the_checkpoint(tmp_path):
    node = OmegaConf.create(
        {
            "_target_": "lightning.pytorch.loggers.TensorBoardLogger",
            "save_dir": str(tmp_path),
            "name": "",
            "version": "tensorboard",
        }
    )
    for resume_step, steps in ((None, range(6)), (3, range(4, 8))):
        (logger,) = build_loggers([node], tmp_path, resume_step)
        for step in steps:
            logger.log_metrics({"reward": float(step)}, step)
        logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("reward")] == list(range(8))


def test_wandb_resumes_the_same_run_and_logs_no_rollout_twice(tmp_path, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    node = OmegaConf.create(
        {
            "_target_": "masa.tracking.loggers.WandbLogger",
            "save_dir": str(tmp_path),
            "offline": True,
        }
    )
    (first,) = build_loggers([node], tmp_path, None)
    for step in range(6):
        first.log_metrics({"reward": 1.0}, step)
    (again,) = build_loggers([node], tmp_path, 3)  # takes over the process's open run
    again.log_metrics({"reward": 2.0}, 4)
    assert again.experiment.summary["reward"] == 1.0
    again.log_metrics({"reward": 3.0}, 6)
    assert again.experiment.summary["reward"] == 3.0
    assert again.experiment.summary["trainer/global_step"] == 6
    run_id = again.experiment.id
    wandb.finish()
    assert (tmp_path / "wandb_id").read_text() == run_id
    (later,) = build_loggers([node], tmp_path, 6)
    assert later.experiment.id == run_id
    wandb.finish()


KEY = "0123456789" * 4


@pytest.mark.parametrize(
    "settings, environment, refused",
    [
        ({}, {}, None),
        ({"offline": True}, {}, None),
        ({}, {"WANDB_MODE": "disabled"}, None),
        ({}, {"WANDB_MODE": "offline", "WANDB_API_KEY": "short"}, None),
        ({"offline": False}, {"WANDB_API_KEY": KEY}, None),
        ({"offline": True}, {"WANDB_MODE": "online"}, None),
        ({"offline": False}, {}, "logger.wandb.offline is false, but nobody has logged in"),
        ({}, {"WANDB_MODE": "online"}, "mode is online, but nobody has logged in"),
        ({"mode": "online"}, {}, "mode is online, but nobody has logged in"),
        ({}, {"WANDB_MODE": "onlin"}, "mode is 'onlin', it must be one of online"),
        ({}, {"WANDB_API_KEY": "short"}, r"login or settings \(WANDB_API_KEY"),
        ({}, {"WANDB_PROJECT": "a/b"}, r"login or settings \(Invalid project name 'a/b'"),
    ],
)
def test_wandb_is_refused_where_it_would_ask_for_a_login(
    settings, environment, refused, monkeypatch, tmp_path
):
    import wandb

    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    wandb.teardown()  # what it read of another environment
    node = OmegaConf.create({"_target_": "masa.tracking.loggers.WandbLogger", **settings})
    if refused is None:
        check_loggers({"wandb": node})
        return
    with pytest.raises(ConfigError, match=refused):
        check_loggers({"wandb": node})
