"""Settings of the devices."""

from __future__ import annotations

from dataclasses import dataclass

from masa.checks import one_of, require


@dataclass
class StrategyConfig:
    """How the policy lies on the devices."""

    name: str = "single"
    """single (one device) or fsdp (FSDP2 over all devices)."""
    devices: int = 1
    """Devices per node."""
    num_nodes: int = 1
    fsdp_size: int | None = None
    """Devices that hold one copy of the parameters between them; null: all. With fewer, copies are
    kept equal by an all-reduce (hybrid sharding), best one copy per node."""
    cpu_offload: bool = False
    """Keep parameters, gradients and optimizer state in CPU memory (fsdp)."""

    def __post_init__(self) -> None:
        one_of("strategy.name", self.name, ("single", "fsdp"))
        require(self.devices >= 1, "strategy.devices must be >= 1")
        require(self.num_nodes >= 1, "strategy.num_nodes must be >= 1")
        require(
            self.name == "fsdp" or self.devices * self.num_nodes == 1,
            f"strategy=single is one device, not {self.devices * self.num_nodes}: use fsdp",
        )
        require(
            self.name == "fsdp" or not (self.cpu_offload or self.fsdp_size),
            "strategy.cpu_offload and strategy.fsdp_size need strategy=fsdp",
        )
        require(
            self.shards >= 1 and self.world_size % self.shards == 0,
            f"strategy.fsdp_size is {self.fsdp_size}, it must divide the {self.world_size} devices",
        )

    @property
    def world_size(self) -> int:
        """Devices of all nodes."""
        return self.devices * self.num_nodes

    @property
    def shards(self) -> int:
        """Devices that hold one copy of the parameters."""
        return self.world_size if self.fsdp_size is None else self.fsdp_size
