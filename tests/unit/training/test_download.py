"""What is fetched of a repository of the hub, which no test may reach."""

from fnmatch import fnmatch

import pytest

from masa.errors import ConfigError
from masa.training.models import HubModel


@pytest.mark.parametrize(("there", "fetched"), [
    (
        ["config.json", "model.safetensors", "pytorch_model.bin"],
        ["config.json", "model.safetensors"],
    ),
    (["config.json", "pytorch_model.bin"], ["config.json", "pytorch_model.bin"]),
    (["config.json", "model.gguf"], None),
])  # fmt: skip
def test_weights_come_in_one_format(tmp_path, monkeypatch, there, fetched):
    def snapshot_download(name, revision, allow_patterns, ignore_patterns):
        for file in there:
            if any(fnmatch(file, pattern) for pattern in allow_patterns):
                (tmp_path / file).touch()
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    model = HubModel("org/model")
    if fetched is None:
        with pytest.raises(ConfigError, match="org/model: the repository has no weights"):
            model.resolve(None)
    else:
        model.resolve(None)
        assert sorted(path.name for path in tmp_path.iterdir()) == fetched
