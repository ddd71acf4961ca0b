import os

# no test may touch the network, and a missing file is to fail at once
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
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


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tests share few cores, and sums of one thread have one order."""
    torch.set_num_threads(1)
