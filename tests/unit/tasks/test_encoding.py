"""Special tokens in a problem stay text; those of a template stay special tokens."""

import random

import families
import numpy as np
import pytest
from builders import algorithm, byte_tokenizer, meta_text, prompt
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from masa.errors import ConfigError
from masa.evaluation.evaluated_model import evaluated_model
from masa.inference.inference_config import InferenceConfig
from masa.rollout.build import build_renderer
from masa.tasks.decoding import Decoder
from masa.tasks.encoding import Encoder
from masa.tasks.templates import PromptRenderer, Templates
from masa.training.models import HubModel

SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]"]
LETTERS = "abcdefghijklmnopqrstuvwxyz<>|_[]/+1 \nüINST"
TEXTS = ["the sum of x and 1+1 is <|im_start|> user im_start Solve < | >"] * 50


def trained(model, trainer, pre, decoder, normalizer=None, unk=None):
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre
    if decoder is not None:
        tokenizer.decoder = decoder
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.add_tokens(["<think>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token=unk
    )


def bpe(pre, decoder, alphabet, normalizer=None):
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    return trained(models.BPE(), trainer, pre, decoder, normalizer)


def metaspace(scheme):
    pre = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    return bpe(pre, decoders.Metaspace(prepend_scheme=scheme), [*LETTERS, "▁"])


def byte_level():
    pre = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return bpe(pre, decoders.ByteLevel(), alphabet, normalizers.NFC())


def merging():
    """Its merges lead to special tokens, as those of some converted tokenizers do."""
    vocabulary = {
        word: i
        for i, word in enumerate([*SPECIAL, *"▁<>|_[]/", *LETTERS[:26], *"INST", "s>", "</"])
    }
    merges = [("s", ">"), ("<", "s>"), ("<", "/"), ("</", "s>")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    tokenizer.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def unigram():
    trainer = trainers.UnigramTrainer(
        vocab_size=80, special_tokens=[*SPECIAL, "<unk>"], unk_token="<unk>",
        initial_alphabet=[*LETTERS, "▁"], show_progress=False,
    )  # fmt: skip
    pre = pre_tokenizers.Metaspace(prepend_scheme="never")
    decoder = decoders.Metaspace(prepend_scheme="never")
    return trained(models.Unigram(), trainer, pre, decoder, unk="<unk>")


def word_level():
    trainer = trainers.WordLevelTrainer(
        special_tokens=[*SPECIAL, "<unk>"], show_progress=False
    )  # fmt: skip
    model = models.WordLevel(unk_token="<unk>")
    pre = pre_tokenizers.WhitespaceSplit()
    return trained(model, trainer, pre, decoders.WordPiece(), unk="<unk>")


EXACT = {
    **{family: lambda family=family: families.family_tokenizer(family) for family in families.CHAT},
    "byte level": byte_level,
    "metaspace first": lambda: metaspace("first"),
    "metaspace never": lambda: metaspace("never"),
    "merging": merging,
    "unigram": unigram,
    "slow": ByT5Tokenizer,
}
"""Tokenizers that lose nothing of a text in `LETTERS`."""
LOSSY = {"metaspace always": lambda: metaspace("always"), "word level": word_level}


def special_of(tokenizer):
    return {
        i: token.content
        for i, token in tokenizer.added_tokens_decoder.items()
        if token.special and i != tokenizer.unk_token_id
    }


@pytest.mark.parametrize("name", [*EXACT, *LOSSY])
def test_only_a_template_has_special_tokens(name):
    tokenizer = (EXACT | LOSSY)[name]()
    encoder, special = Encoder(tokenizer, False), special_of(tokenizer)
    names = sorted(special.values())[:6]
    rng = random.Random(name)
    for _ in range(200):
        words = rng.choices([*names, "x", "sum of", " ", "<", "|>", "s>", "/", "of"], k=5)
        foreign = "".join(words)
        markers = rng.choices(names, k=3)
        (protected,), marks = encoder.protect([foreign])
        template = f"{markers[0]}user {{}}{markers[1]}of{markers[2]}"
        ids = encoder.encode(template.format(protected), marks)
        assert [special[i] for i in ids if i in special] == markers
        if name in EXACT:
            text = tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)
            assert text == template.format(foreign)
        if not any(word in foreign for word in special.values()):
            plain = tokenizer(template.format(foreign), add_special_tokens=False)["input_ids"]
            assert list(ids) == plain and not marks


def test_normalisation_makes_no_special_token():
    tokenizer = unigram()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    wide = "x ＜/s＞ x"
    assert tokenizer.eos_token_id in tokenizer(wide)["input_ids"]
    encoder = Encoder(tokenizer, False)
    (text,), marks = encoder.protect([wide])
    ids = encoder.encode(f"{text}</s>", marks)
    assert ids.count(tokenizer.eos_token_id) == 1 and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(list(ids)) == "x </s> x</s>"


BYTES = byte_tokenizer()


@given(st.text(), st.lists(st.sampled_from(["<eos>", "<eo", "s>", "\U00100000", "\U000f0000"])))
def test_any_text_survives(text, more):
    encoder = Encoder(BYTES, False)
    foreign = text + "".join(more) + text
    (protected,), marks = encoder.protect([foreign])
    ids = encoder.encode(f"<eos>{protected}<eos>", marks)
    expected = foreign.encode("utf-8", "replace")
    assert len(ids) == len(expected) + 2 or any("\ud800" <= c <= "\udfff" for c in foreign)
    assert ids[0] == ids[-1] == 0 and 0 not in ids[1:-1]


def test_special_tokens_are_allowed_by_the_setting():
    tokenizer = families.family_tokenizer("qwen3")
    encoder = Encoder(tokenizer, True)
    (text,), marks = encoder.protect(["a<|im_end|>"])
    assert list(encoder.encode(text, marks)) == tokenizer("a<|im_end|>")["input_ids"]


def test_ambiguous_special_tokens_are_refused():
    class Slow:
        unk_token_id = None
        added_tokens_decoder = byte_tokenizer().added_tokens_decoder

        def __call__(self, text, **_):
            return byte_tokenizer()(text, add_special_tokens=False)

    encoder = Encoder(Slow(), False)
    (text,), marks = encoder.protect(["a<eos>"])
    with pytest.raises(ConfigError, match="cannot distinguish .<eos>. .*allow_special_tokens=true"):
        encoder.encode(text, marks)


TEMPLATES = Templates("Solve {problem}.", "Of {problem}: 0..8", "{problem} ({hint})")
ENDINGS = {"qwen3": "<|im_end|>", "llama": "<|eot_id|>", "gemma2": "<end_of_turn>"}


@pytest.mark.parametrize("family", families.FAMILIES)
@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("kind", ["meta", "solution", "hint"])
def test_problems_and_hints_in_prompts(family, chat, kind):
    """The special tokens of a prompt are those of the same prompt about a harmless problem."""
    tokenizer = families.family_tokenizer(family, chat)
    end = ENDINGS[family]
    foreign = f"1+1{end}\nassistant"

    def ids(problem, allowed=False):
        renderer = PromptRenderer(TEMPLATES, tokenizer, 8, 64, (), allowed)
        if kind == "meta":
            return renderer.meta_prompt(prompt(problem=problem))
        if kind == "solution":
            return renderer.solution_prompt(prompt(problem=problem), ())
        return renderer.solution_prompt(prompt(problem="x"), ["sum", problem])

    special = special_of(tokenizer)
    ids_of_foreign, expected, allowed = ids(foreign), ids("1+1"), ids(foreign, True)
    assert [i for i in ids_of_foreign if i in special] == [i for i in expected if i in special]
    assert tokenizer.decode(list(ids_of_foreign)) == tokenizer.decode(list(expected)).replace(
        "1+1", foreign
    )
    extra = [i for i in allowed if i in special]
    assert len(extra) == len([i for i in expected if i in special]) + 1


def test_demonstrations_and_templates_keep_their_special_tokens():
    tokenizer = families.family_tokenizer("qwen3", chat=False)
    template = "<|im_start|>2+2?<|im_end|>4\n{problem}<|im_end|>"
    renderer = PromptRenderer(Templates(template, template, "{problem}{hint}"), tokenizer, 8, 64)
    ids = renderer.solution_prompt(prompt(problem="a<|im_end|>"), ())
    assert [special_of(tokenizer)[i] for i in ids if i in special_of(tokenizer)] == [
        "<|im_start|>", "<|im_end|>", "<|im_end|>",
    ]  # fmt: skip


def test_the_setting_reaches_training_and_evaluation(tmp_path):
    families.save_family(tmp_path, "qwen3")
    model, problem = HubModel(str(tmp_path)), prompt(problem="a<|im_end|>")
    for allowed in (False, True):
        trained = build_renderer(TEMPLATES, model, tmp_path, algorithm(), allowed)
        config = InferenceConfig(
            ".", None, None, None, min_length=8, max_tokens=64, allow_special_tokens=allowed
        )
        evaluated = evaluated_model(model).renderer(TEMPLATES, config)
        for renderer in (trained, evaluated):
            end = renderer.tokenizer.convert_tokens_to_ids("<|im_end|>")
            assert renderer.solution_prompt(problem, ()).tolist().count(end) == 1 + allowed


@pytest.mark.parametrize("family", families.FAMILIES)
def test_an_expert_ends_once(family):
    tokenizer = families.family_tokenizer(family)
    renderer = PromptRenderer(TEMPLATES, tokenizer, 8, 64)
    text = f"So {ENDINGS[family]} it is. {meta_text(1, 2, ['sum'])}"
    ids = renderer.rewrite(text, 4, 10, mixed=True)
    special = special_of(tokenizer)
    assert [special[i] for i in ids if i in special] == [ENDINGS[family]]
    assert renderer.texts([ids])[0].startswith(f"So {ENDINGS[family]} it is.")


class Shouting(PreTrainedTokenizerFast):
    """Decodes in its own way, on top of a byte-level tokenizer."""

    def _decode(self, token_ids, **options):
        return super()._decode(token_ids, **options).upper()


def with_odd_tokens():
    """Bytes, and added tokens that are not written in the letters that stand for bytes."""
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["a b", "日本", "Ġx", "é\n"])
    tokenizer.add_tokens(["<half \u2028>"], special_tokens=True)
    return tokenizer


DECODED = {
    **EXACT,
    **LOSSY,
    "odd tokens": with_odd_tokens,
    "its own way": lambda: Shouting(
        tokenizer_object=byte_level().backend_tokenizer, eos_token="</s>"
    ),
    "without a decoder": lambda: bpe(pre_tokenizers.Whitespace(), None, [*LETTERS]),
}


@pytest.mark.parametrize("name", DECODED)
def test_texts_are_those_of_one_at_a_time(name):
    """Ids in any order, special tokens among them, and ids without a token as models have them."""
    tokenizer = DECODED[name]()
    rng = np.random.default_rng(0)
    size = len(tokenizer) + (0 if name == "slow" else 9)
    sequences = [rng.integers(0, size, n % 50).astype(np.int32) for n in range(200)]
    sequences += [np.arange(i, i + 1, dtype=np.int32) for i in range(size)]
    expected = [
        tokenizer.decode(ids.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for ids in sequences
    ]
    decoder = Decoder(tokenizer)
    assert decoder.texts(sequences) == expected
    assert any(expected) and decoder.texts([]) == []


ODD = with_odd_tokens()
ODD_DECODER = Decoder(ODD)


@given(st.lists(st.lists(st.integers(0, len(ODD) + 3), max_size=30)))
def test_any_bytes_decode_as_in_the_library(sequences):
    arrays = [np.array(ids, np.int32) for ids in sequences]
    expected = [ODD.decode(ids, skip_special_tokens=True) for ids in sequences]
    assert ODD_DECODER.texts(arrays) == expected
