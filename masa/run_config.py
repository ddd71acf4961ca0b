"""The settings that a run was started with."""

from __future__ import annotations

from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from masa.errors import ConfigError, require


def run_config(run: Path) -> DictConfig:
    """The config.yaml of a run.

    Args:
        run: run directory; ~ is the home directory.

    Raises:
        ConfigError: it cannot be read.
    """
    path = run.expanduser() / "config.yaml"
    try:
        cfg = OmegaConf.load(path)
    except (YAMLError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read ({reason[:200]})") from error
    require(isinstance(cfg, DictConfig), f"{path} cannot be read: it is no group of settings")
    assert isinstance(cfg, DictConfig)
    return cfg
