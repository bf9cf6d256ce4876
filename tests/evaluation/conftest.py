"""Tokenizers of every kind and tiny random models, made here."""

import json

import pytest
import torch
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "The mother tongue of Danielle Darrieux is French",
    "BBC One is my favorite product out of everything owned by the BBC",
    "The profession of Arun Nehru is politician, Paris is in France.",
    "Review: a fine film\nSentiment: positive\nReview: dull\nSentiment: negative",
    "Question: is it (Rome) or 12 or foobar? Answer: yes. A longer text of many words. foo bar",
] * 8
SIZE = 420


def _byte_level(specials, post=None, **names):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=specials,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _finish(tokenizer, post, **names)


def _settled(tokenizer):
    """The same tokenizer with its pieces in alphabetical order: training numbers ties as it likes.

    Random models then say the same in every run.
    """
    data = json.loads(tokenizer.to_str())
    specials = [token["content"] for token in data["added_tokens"]]
    scores = dict(data["model"]["vocab"])
    pieces = specials + sorted(piece for piece in scores if piece not in specials)
    data["model"]["vocab"] = [[piece, round(scores[piece], 3)] for piece in pieces]
    return Tokenizer.from_str(json.dumps(data))


def _finish(tokenizer, post=None, **names):
    if isinstance(tokenizer.model, models.Unigram):
        tokenizer = _settled(tokenizer)
    if post:
        single, pair = post
        ids = [(t, tokenizer.token_to_id(t)) for t in names.values() if isinstance(t, str)]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=single, pair=pair, special_tokens=ids
        )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _gpt2():
    return _byte_level(["<|endoftext|>"], bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def _roberta():
    from transformers import AddedToken

    tokenizer = _byte_level(
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        ("<s> $A </s>", "<s> $A </s> </s> $B </s>"),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    tokenizer.add_special_tokens({"mask_token": AddedToken("<mask>", lstrip=True)})
    return tokenizer


def _unigram(
    specials=("<unk>", "<s>", "</s>"),
    post=("<s> $A", "<s> $A <s> $B"),
    **names,
):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        special_tokens=list(specials),
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    names = names or {"bos_token": "<s>"}
    return _finish(tokenizer, post, **names, eos_token="</s>", unk_token="<unk>")


def _t5():
    """As T5 has it: an end, no beginning."""
    return _unigram(("<pad>", "</s>", "<unk>"), ("$A </s>", "$A </s> $B </s>"), pad_token="<pad>")


def _wordpiece():
    """Not trained, because training breaks its ties by chance: letters, and most words."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    text = tokenizer.normalizer.normalize_str(" ".join(CORPUS))
    words = sorted({word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(text)})
    letters = sorted(set("".join(words)))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces += [*letters, *(f"##{letter}" for letter in letters)]
    pieces += [word for n, word in enumerate(words) if n % 4 and len(word) > 1]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    tokenizer.model = models.WordPiece(vocabulary, unk_token="[UNK]")
    return _finish(
        tokenizer,
        ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1"),
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    )


def _wordlevel():
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(
        vocab_size=200, special_tokens=["<unk>", "<eos>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _finish(tokenizer, unk_token="<unk>", eos_token="<eos>")


MAKERS = {
    "byte-level": _gpt2,
    "byte-level with specials": _roberta,
    "unigram": _unigram,
    "unigram with end": _t5,
    "wordpiece": _wordpiece,
    "wordlevel": _wordlevel,
}


@pytest.fixture(scope="session")
def tokenizers():
    return {name: make() for name, make in MAKERS.items()}


SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 2}
SPECIALS = {"bos_token_id": 0, "eos_token_id": 0}

CAUSAL = {
    "gpt2": ("GPT2", {**GPT, **SPECIALS, "n_positions": 48}, "byte-level"),
    "llama": (
        "Llama",
        {**SIZES, "intermediate_size": 48, "max_position_embeddings": 48, "num_key_value_heads": 1},
        "unigram",
    ),
    "gptj": ("GPTJ", {**GPT, **SPECIALS, "n_positions": 48, "rotary_dim": 8}, "wordlevel"),
    "gemma2": (
        "Gemma2",
        {
            **SIZES,
            "intermediate_size": 48,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "final_logit_softcapping": 0.5,
            "sliding_window": 6,
        },
        "unigram",
    ),
    "cohere": (
        "Cohere",
        {
            **SIZES,
            "intermediate_size": 48,
            "logit_scale": 0.3,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        "byte-level with specials",
    ),
    "granite": ("Granite", {**SIZES, "intermediate_size": 48, "logits_scaling": 3.0}, "byte-level"),
    "opt": (
        "OPT",
        {
            **SIZES,
            "ffn_dim": 48,
            "max_position_embeddings": 48,
            "word_embed_proj_dim": 32,
            "bos_token_id": 0,
            "eos_token_id": 0,
        },
        "byte-level",
    ),
}
MASKED = {
    "bert": (
        "Bert",
        {**SIZES, "intermediate_size": 48, "max_position_embeddings": 32},
        "wordpiece",
    ),
    "roberta": (
        "Roberta",
        {
            **SIZES,
            "intermediate_size": 48,
            "max_position_embeddings": 34,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
        },
        "byte-level with specials",
    ),
    "distilbert": (
        "DistilBert",
        {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48, "max_position_embeddings": 32},
        "wordpiece",
    ),
}
SEQ2SEQ = {
    "t5": (
        "T5",
        {
            "d_model": 32,
            "d_kv": 16,
            "d_ff": 48,
            "num_layers": 2,
            "num_heads": 2,
            "feed_forward_proj": "gated-gelu",
            "decoder_start_token_id": 0,
            "pad_token_id": 0,
            "eos_token_id": 1,
        },
        "unigram with end",
    ),
    "bart": (
        "Bart",
        {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 48,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "decoder_start_token_id": 2,
            "forced_bos_token_id": 0,
            "forced_eos_token_id": None,
            "tie_word_embeddings": False,
        },
        "byte-level with specials",
    ),
}
HEADS = {
    "causal": {"GPT2": "GPT2LMHeadModel"},
    "seq2seq": {},
    "masked": {},
    "classifier": {},
}
SUFFIX = {
    "causal": "ForCausalLM",
    "masked": "ForMaskedLM",
    "seq2seq": "ForConditionalGeneration",
    "classifier": "ForSequenceClassification",
}


def _enlarged(model):
    """What of a T5 may grow: its attention is not scaled, so larger keys would amplify rounding."""
    return [n for n, _ in model.named_parameters() if "Dense" in n or "lm_head" in n]


@pytest.fixture(scope="session")
def build(tokenizers):
    """Build a tiny model with a given head, and its tokenizer; large weights so logits differ."""
    cache = {}

    def build(head, name, **changes):
        key = (head, name, repr(changes))
        if key not in cache:
            family, sizes, kind = {**CAUSAL, **MASKED, **SEQ2SEQ}[name]
            tokenizer = tokenizers[kind]
            config = getattr(transformers, f"{family}Config")(
                vocab_size=len(tokenizer), **{**sizes, **changes}
            )
            title = HEADS[head].get(family, family + SUFFIX[head])
            torch.manual_seed(0)
            model = getattr(transformers, title)(config).eval()
            with torch.no_grad():
                for title, parameter in model.named_parameters():
                    if parameter.ndim > 1 and (family != "T5" or title in _enlarged(model)):
                        parameter.mul_(4)
            cache[key] = model, tokenizer
        return cache[key]

    return build
