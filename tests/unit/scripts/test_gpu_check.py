"""The runs of scripts/gpu_check.py, which need a GPU, are at least runs that would start."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import hydra
import pytest

from masa.cli.config_store import conf_dir
from masa.config import load

ROOT = Path(__file__).parents[3]


class Started(Exception):
    """Instead of the run."""


@pytest.fixture(scope="module")
def gpu_check():
    spec = importlib.util.spec_from_file_location("gpu_check", ROOT / "scripts" / "gpu_check.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("part", ["task", "sharded", "sharded_bfloat16", "pretrained"])
def test_every_run_has_settings_that_are_accepted(gpu_check, monkeypatch, tmp_path, part, quick):
    started = []

    def masa_train(folder, out, *overrides):
        started.append(overrides)
        raise Started

    monkeypatch.setattr(gpu_check, "masa_train", masa_train)
    more = {"model": tmp_path} if part == "pretrained" else {}
    with pytest.raises(Started):
        gpu_check.PARTS[part](SimpleNamespace(path=tmp_path / f"{part}.json"), quick, **more)
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = hydra.compose("config", ["engine=hf", *started[0], "++output_dir=."])
    config = load(cfg)
    assert config.trainer.max_rollouts == int(started[0][-2].partition("=")[2])
