"""Tiny models of three families, with the properties of their tokenizers, as folders on disk."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

SPECIAL = {
    "qwen3": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "llama": [
        "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>",
        "<|end_header_id|>",
    ],
    "gemma2": ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
}  # fmt: skip
NAMED = {
    "qwen3": {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"},
    "llama": {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
    "gemma2": {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
}
CHAT = {
    "qwen3": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "llama": "{{ bos_token }}<|start_header_id|>system<|end_header_id|>\n\nToday: "
    "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }}<|eot_id|>"
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}{% if add_generation_prompt %}"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    "gemma2": "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
}
TURN_END = {"qwen3": "<|im_end|>", "llama": "<|eot_id|>", "gemma2": "<end_of_turn>"}
FAMILIES = tuple(CHAT)


def family_tokenizer(family: str, chat: bool = True) -> PreTrainedTokenizerFast:
    """One token per byte beside the special ones; puts a BOS before texts where the family does."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*SPECIAL[family], *alphabet]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL[family])
    bos = NAMED[family].get("bos_token")
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            f"{bos} $A", special_tokens=[(bos, words.index(bos))]
        )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **NAMED[family])
    if chat:
        fast.chat_template = CHAT[family]
    return fast


def family_model(
    family: str, tokenizer: PreTrainedTokenizerFast, tied: bool, context: int = 768
) -> PreTrainedModel:
    """Random weights, large enough for the log-probs of tokens to differ."""
    gemma = {
        # caps and a window that already matter at this size
        "attn_logit_softcapping": 1.0, "final_logit_softcapping": 3.0, "sliding_window": 8,
        "query_pre_attn_scalar": 32, "layer_types": ["sliding_attention", "full_attention"],
    }  # fmt: skip
    config = AutoConfig.for_model(
        family, vocab_size=len(tokenizer) + 3, hidden_size=64, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=32, intermediate_size=96,
        max_position_embeddings=context, tie_word_embeddings=tied, initializer_range=0.15,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, **(gemma if family == "gemma2" else {}),
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    ends = [tokenizer.convert_tokens_to_ids(TURN_END[family]), tokenizer.eos_token_id]
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
    )
    return model.eval()


def save_family(
    folder: Path, family: str, *, tied: bool = True, chat: bool = True, context: int = 768
) -> Path:
    """The model and its tokenizer, as in a hub repository."""
    tokenizer = family_tokenizer(family, chat)
    family_model(family, tokenizer, tied, context).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
