"""Prompts and endings over the tokenizers of three model families."""

import json

import families
import pytest
import torch
from builders import meta_text, prompt
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, MambaConfig, MambaForCausalLM

from masa.engine.hf import HfEngine
from masa.errors import ConfigError
from masa.tasks.templates import PromptRenderer, Templates
from masa.training.loading import generation_eos, load_tokenizer
from masa.training.models import HubModel

TEMPLATES = Templates("Solve {problem}.", "Of {problem}: 0..8", "{problem} ({hint})")
BOS = {"qwen3": None, "llama": "<|begin_of_text|>", "gemma2": "<bos>"}


def renderer(family, chat, **changes):
    tokenizer = families.family_tokenizer(family, chat)
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return PromptRenderer(TEMPLATES, tokenizer, 8, 64)


def decoded(prompts, ids):
    return prompts.tokenizer.decode(list(ids), skip_special_tokens=False)


@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.parametrize("chat", [True, False])
def test_bos_is_there_once_where_the_family_has_it(family, chat):
    prompts = renderer(family, chat)
    for ids in (prompts.meta_prompt(prompt()), prompts.solution_prompt(prompt(), ["sum"])):
        bos = prompts.tokenizer.bos_token_id
        assert (bos is None) == (BOS[family] is None)
        assert ids.tolist().count(bos) == (BOS[family] is not None)
        assert bos is None or ids[0] == bos


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_chat_prompt_is_what_transformers_encodes(family):
    prompts = renderer(family, True)
    ids = prompts.solution_prompt(prompt(problem="1+1"), ())
    oracle = prompts.tokenizer.apply_chat_template(
        [{"role": "user", "content": "Solve 1+1."}],
        add_generation_prompt=True,
        return_dict=False,
        date_string="26 Jul 2024",
    )
    assert list(ids) == oracle


@pytest.mark.parametrize("family", families.FAMILIES)
def test_a_plain_prompt_is_what_the_tokenizer_encodes(family):
    prompts = renderer(family, False)
    oracle = prompts.tokenizer("Solve 1+1.")["input_ids"]
    assert list(prompts.solution_prompt(prompt(problem="1+1"), ())) == oracle


def test_a_bos_of_the_template_is_not_doubled():
    tokenizer = families.family_tokenizer("llama", chat=False)
    template = Templates("<|begin_of_text|>{problem}", "{problem}", "{problem} {hint}")
    prompts = PromptRenderer(template, tokenizer, 8, 64)
    assert (
        decoded(prompts, prompts.solution_prompt(prompt(problem="x"), ())) == "<|begin_of_text|>x"
    )


def test_an_eos_that_the_tokenizer_appends_is_left_out():
    from tokenizers import processors

    tokenizer = families.family_tokenizer("gemma2", chat=False)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    assert tokenizer("x")["input_ids"][-1] == tokenizer.eos_token_id
    prompts = PromptRenderer(TEMPLATES, tokenizer, 8, 64)
    assert decoded(prompts, prompts.solution_prompt(prompt(problem="x"), ())) == "<bos>Solve x."


def test_a_prompt_does_not_contain_the_date():
    prompts = renderer("llama", True)
    assert "Today: 26 Jul 2024" in decoded(prompts, prompts.meta_prompt(prompt()))


@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.parametrize("chat", [True, False])
def test_completions_end_as_the_family_ends_them(family, chat):
    prompts = renderer(family, chat)
    eos = prompts.tokenizer.eos_token
    turn_end = families.TURN_END[family]
    names = prompts.tokenizer.convert_ids_to_tokens(list(prompts.eos_token_ids))
    assert names == ([turn_end, eos] if chat else [eos])
    expert = prompts.rewrite(meta_text(1, 2, ["sum"]), 4, 10, mixed=True)
    assert decoded(prompts, expert).endswith("}" + (turn_end if chat else eos))
    assert expert[0] != prompts.tokenizer.bos_token_id
    assert prompts.parse(prompts.texts([expert])[0]).parsed


@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.parametrize("chat", [True, False])
def test_eos_lists_of_the_generation_config_are_kept(family, chat, tmp_path):
    families.save_family(tmp_path, family, chat=chat)
    tokenizer = load_tokenizer(tmp_path)
    prompts = PromptRenderer(TEMPLATES, tokenizer, 8, 64, generation_eos(tmp_path))
    turn_end = tokenizer.convert_tokens_to_ids(families.TURN_END[family])
    assert set(prompts.eos_token_ids) == {turn_end, tokenizer.eos_token_id}
    assert prompts.eos_token_ids[0] == (turn_end if chat else tokenizer.eos_token_id)


def test_a_single_eos_and_none(tmp_path):
    assert generation_eos(tmp_path) == []
    for written_eos, read in (("7", [7]), ("[7, 8]", [7, 8]), ("null", [])):
        (tmp_path / "generation_config.json").write_text(f'{{"eos_token_id": {written_eos}}}')
        assert generation_eos(tmp_path) == read


def test_a_chat_template_without_an_ending_falls_back_on_eos():
    plain = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    prompts = renderer("llama", True, chat_template=plain)
    assert prompts.eos_token_ids == (prompts.tokenizer.eos_token_id,)


def test_a_missing_pad_token_is_replaced():
    prompts = renderer("llama", True)
    assert prompts.tokenizer.pad_token_id is None
    assert prompts.pad_token_id == prompts.eos_token_ids[0]
    gemma = renderer("gemma2", True)
    assert gemma.pad_token_id == gemma.tokenizer.pad_token_id == 0


def test_the_prompt_format_is_described():
    assert "chat template;" in renderer("qwen3", True).describe()
    assert "<|im_end|> or <|endoftext|>" in renderer("qwen3", True).describe()
    assert "plain after <bos>" in renderer("gemma2", False).describe()
    assert "plain, as" in renderer("qwen3", False).describe()


# --- bad input


def refused(build, *words):
    with pytest.raises(ConfigError) as caught:
        build()
    message = str(caught.value)
    assert message and "\n" not in message
    for word in words:
        assert word in message


def test_a_tokenizer_without_eos_is_refused(tmp_path):
    families.save_family(tmp_path, "qwen3")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    refused(lambda: HubModel(str(tmp_path)).check(None), "no end-of-sequence token", "eos_token")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    families.save_family(tmp_path, "qwen3")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    size = json.loads((tmp_path / "config.json").read_text())["vocab_size"]
    tokenizer.add_tokens([f"<{i}>" for i in range(size)])
    tokenizer.save_pretrained(tmp_path)
    refused(lambda: HubModel(str(tmp_path)).check(None), f"vocab_size is {size}", "resize_token")


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\3\4 cut off"])
def test_damaged_weights_of_torch_are_refused_before_they_are_loaded(content, tmp_path):
    families.save_family(tmp_path, "qwen3")
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    HubModel(str(tmp_path)).check(None)
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    refused(lambda: HubModel(str(tmp_path)).check(None), "pytorch_model.bin", "damaged")


def test_an_unknown_model_is_refused(tmp_path):
    refused(
        lambda: HubModel("nobody/nothing-of-the-kind").check(None),
        "model.name=nobody/nothing-of-the-kind",
    )
    (tmp_path / "empty").mkdir()
    refused(lambda: HubModel(str(tmp_path / "empty")).check(None), "no config.json")
    (tmp_path / "empty" / "config.yaml").touch()
    refused(lambda: HubModel(str(tmp_path / "empty")).check(None), "is a run", "masa-export")
    (tmp_path / "weights.gguf").touch()
    refused(lambda: HubModel(str(tmp_path / "weights.gguf")).check(None), "is a file")
    (tmp_path / "config.json").write_text('{"model_type": "never-heard-of"}')
    refused(lambda: HubModel(str(tmp_path)).check(None), str(tmp_path), "never-heard-of")


@pytest.mark.parametrize(
    "name",
    ["/no/such/folder", "./no", "../no", "~/no", "~nobody/no", "a/b/c", "ü", "a b", "x" * 999],
)
def test_a_missing_folder_is_refused(name):
    refused(lambda: HubModel(name).check(None), f"model.name={name}: there is no such folder")


@pytest.mark.parametrize("name", [None, "", 7])
def test_a_name_is_a_text(name):
    refused(lambda: HubModel(name), "model.name is", "folder or a hub id")


FILES = {
    "config.json": ["{", "[]", "", "{}", '{"model_type": "qwen3", "hidden_size": "many"}'],
    "generation_config.json": ["{", "[]", '{"eos_token_id": "x"}', '{"eos_token_id": [[1]]}'],
    "tokenizer.json": ["{", "{}", "[]", None],
    "tokenizer_config.json": ["{", "[]"],
    "chat_template.jinja": [
        "{% if %}", "{{ raise_exception('no') }}", "{{ 1 / 0 }}", "{{ messages[9].content }}", "hi",
        "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}",
    ],
    "model.safetensors": ["", "version https://git-lfs.github.com/spec/v1\n", 1000, -10],
    "model.safetensors.index.json": ["{", '{"weight_map": {"a": "model-2.safetensors"}}'],
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_broken_file_is_refused_before_weights_are_loaded(name, tmp_path):
    families.save_family(tmp_path, "qwen3")
    file = tmp_path / name
    full = file.read_bytes() if file.exists() else b""
    for content in FILES[name]:
        if content is None:
            file.unlink()
            (tmp_path / "tokenizer_config.json").unlink()
        else:
            cut = full[:content] if isinstance(content, int) else content.encode()
            file.write_bytes(cut)
        refused(lambda: HubModel(str(tmp_path)).check(None), str(tmp_path))


def test_a_model_that_is_no_causal_one_is_refused(tmp_path):
    families.save_family(tmp_path, "qwen3")
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    refused(lambda: HubModel(str(tmp_path)).check(None), "t5 is no causal language model")


def test_weights_that_are_missing_or_of_another_shape_are_refused(tmp_path):
    families.save_family(tmp_path, "qwen3")
    weights, name = load_file(tmp_path / "model.safetensors"), "model.layers.1.mlp.up_proj.weight"
    for change in ({}, {name: weights[name][:5].clone()}):
        rest = {key: value for key, value in weights.items() if key != name}
        save_file(rest | change, tmp_path / "model.safetensors", {"format": "pt"})
        HubModel(str(tmp_path)).check(None)
        refused(lambda: HubModel(str(tmp_path)).load(tmp_path), str(tmp_path), name)


def test_a_chat_template_that_leaves_out_answers_falls_back_on_eos():
    template = (
        "<|start_header_id|>{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    )
    prompts = renderer("llama", True, chat_template=template)
    assert prompts.eos_token_ids == (prompts.tokenizer.eos_token_id,)


def test_a_chat_template_that_fails_on_one_problem_is_refused():
    template = (
        "{% for m in messages %}{% if 'x' in m.content %}{{ raise_exception('no x') }}{% endif %}"
    )
    prompts = renderer("llama", True, chat_template=template + "{{ m.content }}{% endfor %}")
    refused(lambda: prompts.solution_prompt(prompt(problem="x"), ()), "chat template fails", "no x")


def test_attention_without_the_soft_cap_is_refused(tmp_path):
    families.save_family(tmp_path, "gemma2")
    model = HubModel(str(tmp_path), attn_implementation="sdpa")
    refused(lambda: model.check(None), "sdpa", "soft cap", "eager")
    plain = HubModel(str(tmp_path))
    plain.check(None)
    assert plain.load(tmp_path).config._attn_implementation == "eager"


def test_recurrent_layers_are_refused(tmp_path):
    config = MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=1, state_size=4)
    MambaForCausalLM(config).save_pretrained(tmp_path)
    refused(lambda: HubModel(str(tmp_path)).check(None), str(tmp_path), "packed sequences")
    refused(lambda: HubModel(str(tmp_path)).load(tmp_path), str(tmp_path), "packed sequences")
    refused(lambda: HfEngine(tmp_path, [0], 64), "engine=hf", "mamba", "engine=vllm")


def test_an_impossible_dtype_is_refused():
    refused(lambda: HubModel("x", dtype="float16"), "model.dtype", "bfloat16")


def test_attention_that_is_unknown_or_not_installed_is_refused(tmp_path, monkeypatch):
    families.save_family(tmp_path, "qwen3")
    unknown = HubModel(str(tmp_path), attn_implementation="sdpaa")
    refused(lambda: unknown.check(None), "model.attn_implementation is 'sdpaa'", "sdpa", "eager")
    refused(lambda: unknown.load(tmp_path), "cannot be loaded", "model.attn_implementation")
    monkeypatch.setattr("masa.training.loading.find_spec", lambda name: None)
    flash = HubModel(str(tmp_path), attn_implementation="flash_attention_2")
    refused(lambda: flash.check(None), "flash_attn is not installed", "sdpa")
    HubModel(str(tmp_path), attn_implementation="eager").check(None)


def test_a_folder_whose_weights_are_missing_or_damaged_is_refused(tmp_path):
    families.save_family(tmp_path, "qwen3")
    (weights,) = tmp_path.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    refused(lambda: HubModel(str(tmp_path)).load(tmp_path), str(tmp_path), "cannot be loaded")
    weights.unlink()
    refused(lambda: HubModel(str(tmp_path)).check(None), str(tmp_path), "no weights")
