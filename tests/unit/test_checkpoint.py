import os
from types import SimpleNamespace

import pytest

from masa.config import ConfigError, TrainerConfig
from masa.training.checkpoint import CheckpointCallback, find_checkpoint, list_checkpoints


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def put(run_dir, *steps):
    for step in steps:
        (run_dir / "checkpoints" / f"step-{step:06d}.ckpt").write_text("x")


def test_a_new_run(run_dir):
    assert find_checkpoint(None, run_dir) is None
    assert find_checkpoint(None, run_dir / "not-yet") is None


def test_a_new_run_in_the_directory_of_an_old_one_is_refused(run_dir):
    (run_dir / "metrics.csv").write_text("step\n")
    with pytest.raises(ConfigError, match="holds a run already: go on with ckpt=last"):
        find_checkpoint(None, run_dir)


def test_last_is_the_newest_complete_one(run_dir):
    put(run_dir, 9, 100, 20)
    (run_dir / "checkpoints" / "partial").write_text("torn")
    (run_dir / "metrics.csv").write_text("step\n")
    assert find_checkpoint("last", run_dir).name == "step-000100.ckpt"
    assert [p.name for p in list_checkpoints(run_dir / "checkpoints")] == [
        "step-000009.ckpt", "step-000020.ckpt", "step-000100.ckpt"
    ]  # fmt: skip


@pytest.mark.parametrize("there", ["checkpoints", "not-yet"])
def test_last_without_a_checkpoint_is_refused(run_dir, there):
    where = run_dir if there == "checkpoints" else run_dir / there
    with pytest.raises(ConfigError, match="ckpt=last: no checkpoint in"):
        find_checkpoint("last", where)


def test_a_path(run_dir):
    put(run_dir, 9)
    path = run_dir / "checkpoints" / "step-000009.ckpt"
    assert find_checkpoint(str(path), run_dir / "elsewhere") == path
    with pytest.raises(ConfigError, match="no such checkpoint"):
        find_checkpoint(str(run_dir / "gone.ckpt"), run_dir)
    path.rename(run_dir / "mine.ckpt")
    with pytest.raises(ConfigError, match="is called step-N.ckpt"):
        find_checkpoint(str(run_dir / "mine.ckpt"), run_dir)


def test_auto_goes_on_where_there_is_something_to_go_on_from(run_dir):
    assert find_checkpoint("auto", run_dir) is None
    assert find_checkpoint("auto", run_dir / "not-yet") is None
    put(run_dir, 9, 20)
    assert find_checkpoint("auto", run_dir).name == "step-000020.ckpt"


class FakeTrainer:
    """Saves a file, or as sharded checkpoints do a folder."""

    is_global_zero = True

    def __init__(self, folders):
        self.folders = folders
        self.strategy = SimpleNamespace(barrier=lambda: None)

    def save_checkpoint(self, path):
        path.parent.mkdir(exist_ok=True, parents=True)
        if self.folders:
            path.mkdir()
            path = path / "shard"
        path.write_text("saved")


@pytest.mark.parametrize("folders", [False, True])
def test_saved_every_n_rollouts_and_at_the_end(tmp_path, folders):
    directory = tmp_path / "checkpoints"
    callback = CheckpointCallback(directory, TrainerConfig(max_rollouts=8, checkpoint_every=3))
    seen = []
    for step in range(1, 9):
        callback.on_train_batch_end(
            FakeTrainer(folders), None, None, SimpleNamespace(step=step), step - 1
        )
        seen.append([int(p.stem[5:]) for p in list_checkpoints(directory)])
    # the newest two are kept
    assert seen == [[], [], [3], [3], [3], [3, 6], [3, 6], [6, 8]]
    assert sorted(os.listdir(directory)) == ["step-000006.ckpt", "step-000008.ckpt"]


@pytest.mark.parametrize("folders", [False, True])
def test_a_checkpoint_that_is_there_is_replaced(tmp_path, folders):
    directory = tmp_path / "checkpoints"
    callback = CheckpointCallback(directory, TrainerConfig(max_rollouts=1))
    for _ in range(2):
        callback.on_train_batch_end(FakeTrainer(folders), None, None, SimpleNamespace(step=1), 0)
    assert os.listdir(directory) == ["step-000001.ckpt"]
