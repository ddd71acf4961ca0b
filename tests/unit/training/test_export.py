"""A run becomes a Hugging Face folder that is complete or absent."""

import json
import os
import shlex
import sys
from pathlib import Path

import hub_server
import processes
import pytest
import runs
import torch
from builders import hub_run_config, model_folder
from hub_server import running_hub
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, GenerationConfig

from masa.errors import ConfigError
from masa.export import export, last_validation, main
from masa.tracking.manifest import Manifest, digests, write_manifest
from masa.training.checkpoint import shapes
from masa.training.loading import generation_eos


@pytest.fixture
def run(tmp_path):
    """A run of no steps on a local model, with a checkpoint whose weights are all halved."""
    folder = model_folder(tmp_path / "model")
    directory, config = tmp_path / "run", hub_run_config(folder)
    checkpoint = directory / "checkpoints" / "step-000003.ckpt"
    checkpoint.parent.mkdir(parents=True)
    config["task"]["config"] = {
        "_target_": "masa.tasks.arithmetic.ArithmeticConfig", "modulus": 97, "levels": 6,
        "train_size": 60, "validation_size_per_level": 2, "seed": 0,
    }  # fmt: skip
    OmegaConf.save(OmegaConf.create(config), directory / "config.yaml")
    (directory / "metrics.csv").write_text("step,loss,val/accuracy\n0,,0.25\n3,1.0,0.5\n")
    save(checkpoint, AutoModelForCausalLM.from_pretrained(folder))
    return directory


def save(checkpoint, model):
    weights = {f"policy.{name}": tensor / 2 for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": weights}, checkpoint)
    write_manifest(
        Manifest(3, 0.5, shapes(model), digests(checkpoint, checkpoint.name)), checkpoint
    )


def exported(run, out):
    export(run, out)
    before = AutoModelForCausalLM.from_pretrained(run.parent / "model")
    after = AutoModelForCausalLM.from_pretrained(out)
    for one, two in zip(before.parameters(), after.parameters(), strict=True):
        torch.testing.assert_close(two, one / 2)
    assert not list(out.parent.glob("*.partial"))
    return (out / "README.md").read_text()


def test_weights_and_card(run, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "| val/accuracy | 0.5 |" in exported(run, tmp_path / "empty")


def test_without_a_validation_there_is_still_a_card(run, tmp_path):
    (run / "metrics.csv").write_text("step,loss\n1,1.0\n")
    assert "val/accuracy" not in exported(run, tmp_path / "out")
    (run / "metrics.csv").write_text("step,val/accuracy\n4,0.5\n")
    assert last_validation(run / "metrics.csv", 3) == {}
    assert last_validation(tmp_path / "nothing.csv", 3) == {}


def test_the_card_says_which_phase_made_the_weights(run, tmp_path):
    assert "- reinforcement-learning\n" in exported(run, tmp_path / "rl")
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + "sft: {source: task}\n")
    card = exported(run, tmp_path / "sft")
    assert "- sft\n" in card and "- Method: fine-tuning on demonstrations" in card
    assert "reinforcement" not in card


def test_a_checkpoint_of_another_model_is_refused_and_nothing_written(run, tmp_path):
    path = run / "checkpoints" / "step-000003.ckpt"
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    other.model.embed_tokens.weight.data = torch.zeros(5, 32)
    save(path, other)
    with pytest.raises(ConfigError, match="is of another model") as caught:
        export(run, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    path.with_suffix(".json").unlink()
    with pytest.raises(ConfigError):
        export(run, tmp_path / "out")


def test_a_failed_export_leaves_nothing(run, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("masa.export.model_card", full)
    with pytest.raises(OSError, match="No space"):
        export(run, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["model", "run"]


def test_a_model_that_has_moved_is_refused(run, tmp_path):
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="model.name=.*: there is no such folder"):
        export(run, tmp_path / "out")


def test_a_folder_with_files_is_refused(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").touch()
    with pytest.raises(ConfigError, match="holds files already"):
        export(run, tmp_path / "out")


INVALID = {
    "do_sample": False, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "length_penalty": 2.0,
    "early_stopping": True, "num_return_sequences": 4, "max_new_tokens": 0, "output_scores": True,
    "cache_implementation": "unknown", "pad_token_id": -1, "logits_processor": [1],
}  # fmt: skip
FATAL = ("max_new_tokens", "cache_implementation")
"""With these in config.json transformers makes no model."""


@pytest.mark.parametrize("place", ["generation_config.json", "config.json"])
@pytest.mark.parametrize("names", [[name] for name in INVALID] + [["do_sample", "temperature"]])
def test_generation_settings_that_do_not_validate_are_left_out(run, tmp_path, place, names):
    file = tmp_path / "model" / place
    settings = json.loads(file.read_text())
    if place == "config.json":
        (tmp_path / "model" / "generation_config.json").unlink()
    file.write_text(json.dumps(settings | {name: INVALID[name] for name in names}))
    if place == "config.json" and names[0] in FATAL:
        with pytest.raises(ConfigError, match="cannot be loaded"):
            export(run, tmp_path / "out")
        return
    export(run, tmp_path / "out")
    GenerationConfig.from_pretrained(tmp_path / "out").validate(strict=True)
    assert generation_eos(tmp_path / "out") == [0]


def test_generation_settings_that_validate_are_kept(run, tmp_path):
    settings = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "max_new_tokens": 7}
    file = tmp_path / "model" / "generation_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    exported(run, tmp_path / "out")
    exported_settings = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert exported_settings.items() >= settings.items()


def test_a_folder_that_cannot_be_written_is_refused_before_weights_are_loaded(run, tmp_path):
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "x", tmp_path / ("x" * 250), tmp_path / ("x" * 300)):
        with pytest.raises((ConfigError, OSError), match="cannot be written|too long|Not a dir"):
            export(run, out)


# --- push


@pytest.fixture
def hub():
    with running_hub() as hub:
        yield hub


def command(*words, endpoint, cache, token=hub_server.TOKEN, code=0):
    """A command of a machine whose hub is `endpoint`."""
    known = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_TOKEN": token}
    known["HF_HUB_OFFLINE"] = "0"
    environment = runs.environment(cache) | known
    return processes.run(words, code=code, env=environment)


def pushed(run, out, *settings, **machine):
    words = [sys.executable, "-m", "masa.export", str(run), f"out={out}", *settings]
    return command(*words, cache=run.parent / "cache", **machine)


def files_of(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_an_export_is_pushed_private_unless_asked_otherwise(
    run, tmp_path, hub, monkeypatch, capsys
):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    commands = {
        "a": ["push=org/one"],
        "b": ["push=org/two", "private=false"],
        "c": ["push=org/one", "private=false", "dtype=bfloat16"],
    }
    for folder, settings in commands.items():
        out, repo = tmp_path / folder, settings[0].removeprefix("push=")
        monkeypatch.setattr(sys, "argv", ["masa-export", str(run), f"out={out}", *settings])
        main()
        assert capsys.readouterr().out == f"{out}\n{hub.endpoint}/{repo}\n"
        assert hub.files[repo] == files_of(out)
    assert {"config.json", "model.safetensors", "README.md"} < set(hub.files["org/one"])
    # a repository that is there stays as it is
    assert hub.private == {"org/one": True, "org/two": False}


@pytest.mark.slow
def test_a_failed_push_leaves_the_export_and_says_how_to_repeat_it(run, tmp_path, hub):
    out = tmp_path / "it's out"
    failed = pushed(run, out, "push=org/three", code=1, endpoint=hub.endpoint, token="hf_expired")
    line = failed.stderr.splitlines()[-1]
    assert "Traceback" not in failed.stderr
    assert line.startswith("masa-export: error: push=org/three failed (") and "401" in line
    AutoModelForCausalLM.from_pretrained(out)
    assert "org/three" not in hub.private

    # the first command would be refused, its folder is there
    repeat = shlex.split(line.partition("repeat with ")[2])
    repeat[0] = str(Path(sys.executable).with_name(repeat[0]))
    command(*repeat, endpoint=hub.endpoint, cache=tmp_path / "cache")
    assert hub.private["org/three"] is True
    assert hub.files["org/three"] == files_of(out)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["push=name"], "ORG/NAME"),
        (["push=a/b/c"], "push=a/b/c: Repo id must be in the form"),
        (["push=org/-x"], "push=org/-x: Repo id must use alphanumeric"),
        (["push="], "push=: Repo id must"),
        (["push=org/x", "private=yes"], "private is 'yes', it must be true or false"),
        (["private=true"], "private is a setting of push=ORG/NAME"),
        (["push=org/x"], "there is no token of the hub: log in with hf auth login"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_the_export(
    run, tmp_path, settings, message, monkeypatch, capsys
):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(
        sys, "argv", ["masa-export", str(run), f"out={tmp_path / 'out'}", *settings]
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    line = capsys.readouterr().err
    assert stopped.value.code == 2 and line.count("\n") == 1
    assert message in line
    assert not (tmp_path / "out").exists()
