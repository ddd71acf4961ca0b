"""MASA: meta-aware reasoning by self-alignment reinforcement learning."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from masa.loaded_model import load as load

__version__ = "0.3.0"


def __getattr__(name: str) -> Any:
    # PyTorch and Hydra are imported where they are needed
    if name == "load":
        from masa.loaded_model import load

        return load
    raise AttributeError(f"module 'masa' has no attribute {name!r}")
