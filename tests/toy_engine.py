"""An engine that fails in mid-rollout."""

from masa.engine.hf import HfEngine


class DyingEngine(HfEngine):
    """Good for five rollouts."""

    def generate(self, requests):
        if self.version == 5:
            raise RuntimeError("out of luck")
        return super().generate(requests)
