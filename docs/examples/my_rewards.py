"""A component of the meta reward: predictions earn more where the solutions stay short."""

from masa.types import MetaPrediction, RolloutGroup


def brevity(prediction: MetaPrediction, group: RolloutGroup, tokens: int = 1000) -> float:
    """How far below `tokens` the solutions stay on average: 1 for none, 0 for `tokens`."""
    return 1 - sum(group.lengths) / len(group.lengths) / tokens
