"""The task of a config."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from masa.config import TaskConfig, with_settings
from masa.tasks.base import Task


def build_task(node: DictConfig) -> Task:
    """The task of a config, made with its own settings."""
    plain: Any = OmegaConf.to_container(node, resolve=True)
    task: Any = instantiate(with_settings(plain, TaskConfig)["settings"])
    return task  # type: ignore[no-any-return]
