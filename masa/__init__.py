"""MASA: meta-aware reasoning by self-alignment reinforcement learning."""

__version__ = "0.1.0"
