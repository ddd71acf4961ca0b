"""MASA: meta-aware reasoning by self-alignment reinforcement learning."""

__version__ = "0.2.0"
