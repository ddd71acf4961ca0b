"""Engines that cannot be built."""

from masa.errors import ConfigError


def out_of_memory(**settings):
    raise RuntimeError("Free memory on device\nis less than desired")


def of_another_model(**settings):
    raise ConfigError("engine=vllm has no such heads: use engine=hf")
