"""The task of a config."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig, OmegaConf

from masa.config import TaskConfig, with_settings
from masa.plugins import built, check_types, load_target
from masa.tasks.base import Task


def build_task(node: DictConfig) -> Task:
    """The task of a config, made with its own settings."""
    plain: Any = OmegaConf.to_container(node, resolve=True)
    settings = with_settings(plain, TaskConfig)["settings"]
    _check("task", settings)
    task: Task = built(settings)
    return task


def _check(key: str, node: dict[str, Any]) -> None:
    """Raise ConfigError where a class is not there, or a value of another type than it takes."""
    check_types(key, load_target(key, node), node)
    for name, value in node.items():
        if isinstance(value, dict) and "_target_" in value and node.get("_recursive_", True):
            _check(f"{key}.{name}", value)
