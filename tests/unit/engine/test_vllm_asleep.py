"""What is asked of vLLM around the training of a step, where there is a GPU: none is here."""

import numpy as np
import pytest

from masa.engine.vllm import VllmEngine
from masa.types import Request


class Recorder:
    """Takes every call, in order; `generate` has nothing to say."""

    def __init__(self):
        self.calls = []

    def __getattr__(self, name):
        def call(*args, **kwargs):
            self.calls.append((name, kwargs.get("level") or kwargs.get("tags")))
            return []

        return call


@pytest.mark.parametrize(("lora_rank", "level"), [(None, 2), (8, 1)])
def test_the_cache_wakes_after_the_weights_are_there(lora_rank, level):
    engine = object.__new__(VllmEngine)
    engine.llm, engine.on_cpu, engine.lora_rank = Recorder(), False, lora_rank
    engine.threads, engine.temperature, engine.eos_token_ids = 1, 1.0, [0]
    engine._adapter, engine._cache_sleeps = None, False
    engine._sampling_params = lambda **settings: settings
    request = Request(np.array([1], np.int32), (), 4)

    def step(version):
        engine.wake()
        engine.load_weights(iter(()), version)
        engine.generate([request])  # no sample, and nothing is woken for it
        with pytest.raises(StopIteration):
            engine.generate([Request(np.array([1], np.int32), (7,), 4)])
        engine.sleep()

    step(1)
    first = engine.llm.calls
    # an engine that never slept needs no waking
    assert first == [
        ("collective_rpc", None), ("reset_prefix_cache", None), ("generate", None),
        ("sleep", level),
    ]  # fmt: skip
    engine.llm.calls = []
    step(2)
    assert engine.llm.calls == [
        ("wake_up", ["weights"]),
        *first[:2],
        ("wake_up", ["kv_cache"]),
        *first[2:],
    ]
