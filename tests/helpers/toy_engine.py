"""An engine that fails during a rollout."""

import os

from masa.engine.hf import HfEngine


class FailingEngine(HfEngine):
    """Fails after five rollouts, unless ENGINE_FIXED is set."""

    def generate(self, requests):
        if self.version == 5 and "ENGINE_FIXED" not in os.environ:
            raise RuntimeError("out of luck")
        return super().generate(requests)
