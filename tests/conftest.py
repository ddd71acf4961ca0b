import gc
import io
import os
import pickle

# no test may touch the network, and a missing file is to fail at once
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# two workers share few cores
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import HealthCheck, settings
from omegaconf import OmegaConf

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
    load, parsed = OmegaConf.load, {}

    def load_once(file):
        if not hasattr(file, "read"):
            return load(file)
        text = file.read()
        if text not in parsed:
            parsed[text] = pickle.dumps(load(io.StringIO(text)))
        # Hydra takes the defaults list out of what it gets
        return pickle.loads(parsed[text])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", load_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tests share few cores, and sums of one thread have one order."""
    torch.set_num_threads(1)
