"""An engine that fails in mid-rollout."""

import os

from masa.engine.hf import HfEngine


class DyingEngine(HfEngine):
    """Good for five rollouts, unless it was mended."""

    def generate(self, requests):
        if self.version == 5 and "ENGINE_MENDED" not in os.environ:
            raise RuntimeError("out of luck")
        return super().generate(requests)
