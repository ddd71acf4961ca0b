import copy
import gc
import os

# no test may touch the network, and a missing file is to fail at once
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# two workers share few cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hypothesis import HealthCheck, settings

# derandomized: the same examples on every machine; no deadline: the machine may be busy
settings.register_profile(
    "masa",
    deadline=None,
    derandomize=True,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("masa")


def pytest_collection_finish():
    """What was imported stays: no collection need look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def configs_parsed_once():
    """Hydra parses some twenty files anew for each of the thousand compositions of the tests."""
    load, parsed = FileConfigSource.load_config, {}

    def load_once(source, name):
        path = os.path.join(source.path, source._normalize_file_name(name))
        if not os.path.exists(path):
            return load(source, name)
        file = os.stat(path)
        key = os.path.realpath(path), source.provider, file.st_mtime_ns, file.st_size
        if key not in parsed:
            parsed[key] = load(source, name)
        # Hydra takes the defaults list out of what it gets
        return copy.deepcopy(parsed[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileConfigSource, "load_config", load_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tests share few cores, and sums of one thread have one order."""
    torch.set_num_threads(1)
