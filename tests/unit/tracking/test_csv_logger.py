import csv
import errno
import os

import pytest

from masa.errors import TrainingError
from masa.tracking.csv_logger import CsvLogger


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def log(directory, steps, resume_step=None):
    logger = CsvLogger(directory, resume_step)
    for step in steps:
        logger.log_metrics({"reward": step / 3, "timing_s/step": 1.5, "perf/mfu": 2}, step)
        if step % 2 == 0:
            logger.log_metrics({"val/accuracy": 0.5, "timing_s/validation": 9.0}, step)
    return logger


def test_a_row_per_rollout_and_timings_in_a_separate_file(tmp_path):
    log(tmp_path, [0, 1, 2])
    metrics, timings = read(tmp_path / "metrics.csv"), read(tmp_path / "timings.csv")
    assert [row["step"] for row in metrics] == ["0", "1", "2"]
    assert set(metrics[0]) == {"step", "reward", "val/accuracy"}
    assert set(timings[0]) == {"step", "timing_s/step", "timing_s/validation", "perf/mfu"}
    assert [row["val/accuracy"] for row in metrics] == ["0.5", "", "0.5"]
    assert [float(row["reward"]) for row in metrics] == [0, 1 / 3, 2 / 3]  # to the last digit
    assert sorted(os.listdir(tmp_path)) == ["metrics.csv", "timings.csv"]


def test_the_file_is_complete_after_every_row(tmp_path):
    logger = CsvLogger(tmp_path / "new")
    for step in (1, 2, 3):
        logger.log_metrics({"a": step, f"b{step}": 0}, step)
        rows = read(tmp_path / "new" / "metrics.csv")
        assert [row["a"] for row in rows] == [f"{float(s)!r}" for s in range(1, step + 1)]
        assert None not in rows[0]  # no cell without a column


def test_nothing_to_log(tmp_path):
    logger = CsvLogger(tmp_path)
    logger.log_metrics({"a": 1.0}, None)
    logger.log_metrics({}, 1)
    logger.log_hyperparams({"a": 1})
    assert os.listdir(tmp_path) == []


def test_resume_drops_what_came_later_and_ends_as_if_uninterrupted(tmp_path):
    log(tmp_path / "straight", range(7))
    log(tmp_path / "stopped", range(6))  # the checkpoint was of step 3
    logger = log(tmp_path / "stopped", range(4, 7), resume_step=3)
    for name in ("metrics.csv", "timings.csv"):
        straight = (tmp_path / "straight" / name).read_bytes()
        assert (tmp_path / "stopped" / name).read_bytes() == straight
    assert sorted(logger.tables["metrics.csv"]) == list(range(7))


def test_resume_keeps_the_rows_up_to_its_step(tmp_path):
    log(tmp_path, range(6))
    CsvLogger(tmp_path, resume_step=2).log_metrics({"reward": 7.0}, 3)
    rows = read(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[-1] == {"step": "3", "reward": "7.0", "val/accuracy": ""}


def test_a_new_run_does_not_read_old_rows(tmp_path):
    log(tmp_path, range(6))
    CsvLogger(tmp_path).log_metrics({"reward": 7.0}, 1)
    assert read(tmp_path / "metrics.csv") == [{"step": "1", "reward": "7.0"}]


def test_resume_without_a_file(tmp_path):
    log(tmp_path, [4], resume_step=3)
    assert [row["step"] for row in read(tmp_path / "metrics.csv")] == ["4"]


def test_a_full_disk_gives_one_line_and_leaves_the_file(tmp_path, monkeypatch):
    logger = log(tmp_path, [1])
    before = (tmp_path / "metrics.csv").read_bytes()

    def full(partial, final):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("masa.tracking.files.atomic_replace", full)
    with pytest.raises(TrainingError, match="No space left on device.*ckpt=auto"):
        logger.log_metrics({"reward": 1.0}, 2)
    assert (tmp_path / "metrics.csv").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["metrics.csv", "timings.csv"]
