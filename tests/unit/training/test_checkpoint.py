import json
import os
import random
import resource
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import masa
from masa.config import AlgorithmConfig, OptimizerConfig, StrategyConfig, TrainerConfig
from masa.errors import ConfigError, TrainingError, VerdictError
from masa.tracking.checkpoints import (
    find_checkpoint,
    list_checkpoints,
    ranked,
    require_strategy,
    require_version,
)
from masa.tracking.manifest import (
    Manifest,
    damage,
    digests,
    manifest_path,
    read_manifest,
    write_manifest,
)
from masa.training.checkpoint import (
    CheckpointCallback,
    DirectCheckpointIO,
    require_plain,
    require_same_model,
)
from masa.training.module import MasaModule
from masa.training.random_state import random_state, set_random_state
from masa.training.stopping import Stopped, StopSignal


@pytest.fixture
def run_dir(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def save_checkpoints(run_dir, *steps, **accuracies):
    for step in steps:
        path = run_dir / "checkpoints" / f"step-{step:06d}.ckpt"
        path.write_text(f"state {step}")
        accuracy = accuracies.get(f"at_{step}")
        write_manifest(Manifest(step, accuracy, {}, digests(path, path.name)), path)
    return path


def test_a_new_run(run_dir):
    assert find_checkpoint(None, run_dir) is None
    assert find_checkpoint(None, run_dir / "not-yet") is None


def test_a_new_run_in_the_directory_of_an_old_one_is_refused(run_dir):
    (run_dir / "metrics.csv").write_text("step\n")
    with pytest.raises(ConfigError, match="holds a run already: resume with ckpt=auto"):
        find_checkpoint(None, run_dir)


def test_last_is_the_newest_complete_one(run_dir):
    save_checkpoints(run_dir, 9, 100, 20)
    (run_dir / "checkpoints" / "partial").write_text("torn")
    (run_dir / "metrics.csv").write_text("step\n")
    assert find_checkpoint("last", run_dir).name == "step-000100.ckpt"
    assert [p.name for p in list_checkpoints(run_dir / "checkpoints")] == [
        "step-000009.ckpt", "step-000020.ckpt", "step-000100.ckpt"
    ]  # fmt: skip


@pytest.mark.parametrize("ckpt", ["last", "best"])
@pytest.mark.parametrize("folder", ["checkpoints", "not-yet"])
def test_resume_without_a_checkpoint_is_refused(run_dir, folder, ckpt):
    where = run_dir if folder == "checkpoints" else run_dir / folder
    with pytest.raises(ConfigError, match=f"ckpt={ckpt}: no checkpoint in"):
        find_checkpoint(ckpt, where)


def test_a_path(run_dir):
    path = save_checkpoints(run_dir, 9)
    assert find_checkpoint(str(path), run_dir / "elsewhere") == path
    with pytest.raises(ConfigError, match="no such checkpoint"):
        find_checkpoint(str(run_dir / "gone.ckpt"), run_dir)
    path.rename(run_dir / "mine.ckpt")
    with pytest.raises(ConfigError, match="is called step-N.ckpt"):
        find_checkpoint(str(run_dir / "mine.ckpt"), run_dir)


def test_auto_resumes_where_there_is_a_checkpoint(run_dir):
    assert find_checkpoint("auto", run_dir) is None
    assert find_checkpoint("auto", run_dir / "not-yet") is None
    save_checkpoints(run_dir, 9, 20)
    assert find_checkpoint("auto", run_dir).name == "step-000020.ckpt"


def test_best_is_the_first_of_the_highest_accuracy(run_dir):
    save_checkpoints(run_dir, 3, 6, 9, 12, at_3=0.1, at_6=0.5, at_9=0.5)
    assert find_checkpoint("best", run_dir).name == "step-000006.ckpt"
    names = [path.name for _, path in ranked(run_dir / "checkpoints")]
    assert names == ["step-000006.ckpt", "step-000009.ckpt", "step-000003.ckpt"]


def truncate(path):
    os.truncate(path, 3)


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def forget(path):
    manifest_path(path).unlink()


@pytest.mark.parametrize("spoil", [truncate, flip, forget])
def test_a_damaged_checkpoint_is_noticed_and_the_one_before_is_used(run_dir, capsys, spoil):
    before, newest = save_checkpoints(run_dir, 9), save_checkpoints(run_dir, 20)
    assert damage(newest) is None
    spoil(newest)
    assert find_checkpoint("auto", run_dir) == find_checkpoint("last", run_dir) == before
    assert f"warning: {newest} is damaged" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="is damaged: .*choose another"):
        find_checkpoint(str(newest), run_dir)
    spoil(before)
    with pytest.raises(ConfigError, match="every checkpoint in"):
        find_checkpoint("auto", run_dir)


def test_a_damaged_folder_is_noticed(run_dir):
    folder = run_dir / "checkpoints" / "step-000003.ckpt"
    (folder / "inner").mkdir(parents=True)
    for name in ("a", "inner/b"):
        (folder / name).write_text(name)
    write_manifest(Manifest(3, None, {}, digests(folder, folder.name)), folder)
    assert damage(folder) is None
    flip(folder / "inner" / "b")
    assert damage(folder) == "step-000003.ckpt/inner/b is not as it was written"
    (folder / "inner" / "b").unlink()
    assert damage(folder) == "step-000003.ckpt/inner/b is missing"


def test_one_device_does_not_read_what_many_wrote(run_dir):
    single = save_checkpoints(run_dir, 3)
    sharded = run_dir / "checkpoints" / "step-000006.ckpt"
    sharded.mkdir()
    for path, strategy in ((single, "single"), (single, "fsdp"), (sharded, "fsdp")):
        require_strategy(path, strategy)
    with pytest.raises(ConfigError, match="is sharded.*resume with strategy=fsdp"):
        require_strategy(sharded, "single")


# --- saving


class FakeTrainer:
    """Saves a file, or as sharded checkpoints do a folder."""

    is_global_zero = True

    def __init__(self, folders=False, size=1):
        self.folders = folders
        self.size = size
        self.strategy = SimpleNamespace(barrier=lambda: None)

    def save_checkpoint(self, path):
        if self.folders:
            path.mkdir()
            path = path / "shard"
        DirectCheckpointIO().save_checkpoint({"x": torch.zeros(self.size)}, path)


class Saving:
    """The callback in a run of `max_rollouts`, rollout by rollout."""

    def __init__(self, directory, folders=False, **settings):
        self.module = MasaModule(
            lambda _: torch.nn.Linear(2, 3),
            AlgorithmConfig(),
            OptimizerConfig(),
            TrainerConfig(),
            StrategyConfig(),
        )
        self.module.policy = torch.nn.Linear(2, 3)
        rollout = SimpleNamespace(module=self.module)
        self.validation = SimpleNamespace(step=-1, accuracy=0.0, rollout=rollout)
        self.stop = StopSignal()
        self.trainer = FakeTrainer(folders)
        self.directory = directory
        self.callback = CheckpointCallback(
            directory, TrainerConfig(**settings), self.validation, self.stop
        )

    def end(self, step, accuracy=None):
        """Rollout `step` ends; returns the checkpoints of the directory."""
        self.module.version = step
        if accuracy is not None:
            self.validation.step, self.validation.accuracy = step, accuracy
        self.callback.on_train_batch_end(
            self.trainer, self.module, None, SimpleNamespace(step=step), step - 1
        )
        return [int(path.stem[5:]) for path in list_checkpoints(self.directory)]


@pytest.mark.parametrize("folders", [False, True])
def test_saved_every_n_rollouts_and_at_the_end(tmp_path, folders):
    run = Saving(tmp_path / "checkpoints", folders, max_rollouts=8, checkpoint_every=3)
    after_each = [run.end(step) for step in range(1, 9)]
    # the newest two are kept
    assert after_each == [[], [], [3], [3], [3], [3, 6], [3, 6], [6, 8]]
    assert sorted(os.listdir(run.directory)) == [
        "step-000006.ckpt", "step-000006.json", "step-000008.ckpt", "step-000008.json"
    ]  # fmt: skip
    assert all(damage(path) is None for path in list_checkpoints(run.directory))


def test_the_best_are_saved_when_validated_and_kept(tmp_path):
    run = Saving(tmp_path / "checkpoints", max_rollouts=100, checkpoint_every=10, keep_best=2)
    accuracies = {2: 0.5, 4: 0.3, 6: 0.2, 8: 0.6, 12: 0.6, 14: 0.5, 22: 0.4}
    after_step = {step: run.end(step, accuracies.get(step)) for step in range(1, 41)}
    assert after_step[4] == [2, 4]
    assert after_step[6] == [2, 4]  # worse than both
    assert after_step[8] == [2, 4, 8]  # 4 is still among the newest two
    assert after_step[12] == [8, 10, 12]
    assert after_step[14] == [8, 10, 12]
    assert after_step[40] == [8, 12, 30, 40]
    assert ranked(run.directory)[0] == (0.6, run.directory / "step-000008.ckpt")


@pytest.mark.parametrize("folders", [False, True])
def test_a_checkpoint_that_is_there_is_replaced(tmp_path, folders):
    run = Saving(tmp_path, folders, max_rollouts=1)
    (tmp_path / "partial").mkdir()  # of a process that was killed
    (tmp_path / "partial" / "shard").write_text("torn")
    for _ in range(2):
        run.end(1)
    assert sorted(os.listdir(tmp_path)) == ["step-000001.ckpt", "step-000001.json"]


@pytest.mark.parametrize("folders", [False, True])
def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, folders):
    run = Saving(tmp_path, folders, checkpoint_every=1)
    run.end(1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    run.trainer.size = 10**6
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**5, limits[1]))
    try:
        with pytest.raises(TrainingError, match="rollout 2 could not be saved .* free space there"):
            run.end(2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(os.listdir(tmp_path)) == ["step-000001.ckpt", "step-000001.json"]
    assert find_checkpoint(str(tmp_path / "step-000001.ckpt"), tmp_path)
    assert run.end(3) == [1, 3]


def test_later_checkpoints_are_dropped_on_resume(tmp_path):
    run = Saving(tmp_path, checkpoint_every=1)
    for step in (1, 2, 3):
        run.end(step)
    run.module.version = 2
    run.callback.on_train_start(run.trainer, run.module)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000002.ckpt"]


def test_a_validation_that_a_stop_left_out_counts_once_it_was_made(tmp_path):
    run = Saving(tmp_path, checkpoint_every=1)
    for step, accuracy in ((1, 0.2), (2, None)):
        run.end(step, accuracy)
    assert [accuracy for accuracy, _ in ranked(tmp_path)] == [0.2]
    # resumed, the run validates before it goes on
    run.validation.step, run.validation.accuracy = 2, 0.6
    run.callback.on_train_start(run.trainer, run.module)
    assert ranked(tmp_path)[0] == (0.6, tmp_path / "step-000002.ckpt")
    assert damage(tmp_path / "step-000002.ckpt") is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_with_a_checkpoint_after_a_signal(tmp_path, number):
    run = Saving(tmp_path, checkpoint_every=100, max_rollouts=100)
    numbers = signal.SIGTERM, signal.SIGUSR1, signal.SIGINT
    handlers = {n: signal.getsignal(n) for n in numbers}
    try:
        run.stop.on_train_start(run.trainer, run.module)
        assert run.end(1) == []
        os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.SIG_DFL  # a second one ends the process
        with pytest.raises(Stopped):
            run.end(2)
        with pytest.raises(Stopped), run.stop.interruptible():
            pytest.fail("not interrupted")
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000002.ckpt"]


def test_a_signal_interrupts_a_rollout(tmp_path):
    stop = StopSignal()
    before = signal.signal(signal.SIGUSR1, stop._receive)
    try:
        with pytest.raises(Stopped), stop.interruptible():
            os.kill(os.getpid(), signal.SIGUSR1)
            pytest.fail("not interrupted")
    finally:
        signal.signal(signal.SIGUSR1, before)


def aborted(error):
    """As `RolloutCallback.roll_out` marks it."""
    error.nothing_changed = True
    return error


@pytest.mark.parametrize(
    "cause", [Stopped(), aborted(TrainingError("dead")), aborted(VerdictError("no sandbox"))]
)
def test_an_aborted_rollout_loses_no_earlier_one(tmp_path, cause):
    run = Saving(tmp_path, checkpoint_every=100)
    run.callback.on_exception(run.trainer, run.module, cause)
    assert list_checkpoints(tmp_path) == []  # nothing to keep yet
    run.end(1)
    for error in (ValueError("a mistake"), TrainingError("in the middle of an update")):
        run.callback.on_exception(run.trainer, run.module, error)
    assert list_checkpoints(tmp_path) == []
    run.callback.on_exception(run.trainer, run.module, cause)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-000001.ckpt"]


def test_another_model_is_refused(tmp_path):
    run = Saving(tmp_path, checkpoint_every=1)
    run.end(1)
    path = tmp_path / "step-000001.ckpt"
    assert json.loads(manifest_path(path).read_text())["parameters"] == {
        "weight": [3, 2],
        "bias": [3],
    }
    require_same_model(path, torch.nn.Linear(2, 3))
    with pytest.raises(ConfigError, match="bias is 3 there and 4 here"):
        require_same_model(path, torch.nn.Linear(2, 4))
    with pytest.raises(ConfigError, match="bias is 3 there and missing here"):
        require_same_model(path, torch.nn.Linear(2, 3, bias=False))


def test_random_generators_are_restored(tmp_path):
    draw = lambda: (random.gauss(0, 1), float(np.random.normal()), float(torch.rand(())))  # noqa: E731
    draw()  # half of a pair of Gaussian numbers waits in numpy
    torch.save(random_state(), tmp_path / "state")
    expected = [draw() for _ in range(3)]
    set_random_state(torch.load(tmp_path / "state", weights_only=True))
    assert [draw() for _ in range(3)] == expected


def test_a_run_of_another_version_does_not_resume(run_dir):
    path = save_checkpoints(run_dir, 3)
    require_version(path)
    # as the first version wrote them
    facts = json.loads(manifest_path(path).read_text())
    assert facts.pop("version") == masa.__version__
    manifest_path(path).write_text(json.dumps(facts))
    assert read_manifest(path).version == "0.1.0"
    with pytest.raises(ConfigError, match=f"is of masa 0.1.0, this is {masa.__version__}"):
        require_version(path)


@pytest.mark.parametrize("state", [{}, {"a": [1, 2.5, "x", None, True]}, {"t": torch.zeros(2)}])
def test_plain_states_can_be_saved(state):
    require_plain("sampler", state)


@pytest.mark.parametrize("state", [np.zeros(3), np.float64(1), {"f": lambda: 1}, SimpleNamespace()])
def test_states_that_cannot_be_read_again_are_refused_when_they_are_saved(state):
    with pytest.raises(TrainingError, match="sampler: Own.state_dict returns what") as caught:
        require_plain("sampler: Own.state_dict", {"own": state})
    assert "\n" not in str(caught.value)
