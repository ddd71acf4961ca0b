"""Make the first weights that come with the package: `make weights`, after a change of the task."""

from __future__ import annotations

import shutil

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from masa.cli.config_store import conf_dir
from masa.tasks.build import build_task
from masa.training.warmstart import SHIPPED

if __name__ == "__main__":
    shutil.rmtree(SHIPPED, ignore_errors=True)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose("config", ["task=arithmetic", f"model.cache_dir={SHIPPED}"])
        print(instantiate(cfg.model).resolve(build_task(cfg.task)))
    for lock in SHIPPED.glob("*.lock"):
        lock.unlink()
