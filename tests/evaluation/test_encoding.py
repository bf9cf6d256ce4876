"""The seam between prompt and answer, on real tokenizers of every kind."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.evaluation.encoding import Encoder
from tasks.errors import InputError
from tasks.prompts import continuation

KINDS = ["byte-level", "byte-level with specials", "unigram", "wordpiece", "wordlevel"]


def _tokens(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(list(ids))


def _text(tokenizer, ids):
    return " ".join(tokenizer.decode(list(ids)).split())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("The mother tongue of Danielle Darrieux is", "French"),
        ("BBC One, by", "BBC"),
        ("Paris is in ", "France"),
        ("The profession of Arun Nehru is", "politician, Paris"),
        ("Review: dull\nSentiment:\n", "negative"),
        ("", "Paris"),
    ],
)
def test_the_answer_is_the_whole_words_after_the_prompt(tokenizers, kind, prompt, answer):
    tokenizer = tokenizers[kind]
    ((before, after),) = Encoder(tokenizer).split([(prompt, continuation(prompt, answer))])
    lower = str.lower if kind == "wordpiece" else str
    squeeze = lambda text: lower(text).replace(" ", "").replace("\n", "")  # noqa: E731
    assert squeeze(_text(tokenizer, before)) == squeeze(prompt)
    assert squeeze(_text(tokenizer, after)) == squeeze(answer)
    # Generation reads the same tokens: prompt and answer together are the whole text's own.
    if not prompt.endswith("\n"):
        whole = tokenizer(prompt + continuation(prompt, answer), add_special_tokens=False)
        assert before + after == tuple(whole["input_ids"])


def test_the_space_belongs_to_the_answer(tokenizers):
    for prompt in ("Paris is in", "Paris is in "):
        pair = [(prompt, continuation(prompt, "France"))]
        for kind, first in (("byte-level", "Ġ"), ("unigram", "▁")):
            tokenizer = tokenizers[kind]
            ((before, after),) = Encoder(tokenizer).split(pair)
            assert _tokens(tokenizer, after)[0].startswith(first), kind
            assert _text(tokenizer, before) == "Paris is in"
            assert before[-1] != tokenizer.convert_tokens_to_ids(first)


@pytest.mark.parametrize("kind", KINDS)
@given(
    words=st.lists(
        st.sampled_from(["Paris", "is", "the", "BBC", "owned", "French", "film", "fine"]),
        min_size=2,
        max_size=6,
    ),
    cut=st.integers(1, 5),
)
def test_seams_between_words_fall_between_words(tokenizers, kind, words, cut):
    cut = min(cut, len(words) - 1)
    tokenizer = tokenizers[kind]
    prompt, answer = " ".join(words[:cut]), " ".join(words[cut:])
    ((before, after),) = Encoder(tokenizer).split([(prompt, " " + answer)])
    decoded = [_text(tokenizer, before), _text(tokenizer, after)]
    expected = [prompt, answer]
    if kind == "wordpiece":
        expected = [text.lower() for text in expected]
    assert decoded == expected


def test_a_token_across_the_seam_is_split(tokenizers):
    """'foo' + 'bar' is one word in the corpus; after the prompt 'foo' comes 'bar', no space."""
    for kind in ("byte-level", "unigram"):
        tokenizer = tokenizers[kind]
        encoder = Encoder(tokenizer)
        ((before, after),) = encoder.split([("or foo", "bar")])
        assert before == encoder.plain(["or foo"])[0]
        assert _tokens(tokenizer, after)[0][0] not in "Ġ▁"
        assert _text(tokenizer, after) == "bar"


def test_specials_around_a_text(tokenizers):
    found = {kind: Encoder(tokenizers[kind]) for kind in KINDS}
    around = {
        kind: (_tokens(tokenizers[kind], e.prefix), _tokens(tokenizers[kind], e.suffix))
        for kind, e in found.items()
    }
    assert around == {
        "byte-level": ([], []),
        "byte-level with specials": (["<s>"], ["</s>"]),
        "unigram": (["<s>"], []),
        "wordpiece": (["[CLS]"], ["[SEP]"]),
        "wordlevel": ([], []),
    }


def test_a_prompt_that_spells_out_its_bos_gets_no_second(tokenizers):
    encoder = Encoder(tokenizers["unigram"])
    ((plain, _), (spelled, _)) = encoder.split([("Paris", " is"), ("<s>Paris", " is")])
    assert encoder.open(plain)[0] == encoder.prefix[0] not in plain
    assert encoder.open(spelled) == spelled
    assert spelled[0] == encoder.prefix[0]


def test_an_answer_without_tokens_is_refused(tokenizers):
    with pytest.raises(InputError, match="answer ' ' has no tokens"):
        Encoder(tokenizers["wordlevel"]).split([("Paris", " ")])


def test_questions_keep_their_order(tokenizers):
    encoder = Encoder(tokenizers["byte-level"])
    pairs = [("Paris is in ", "France"), ("a", " b"), ("or foo", "bar"), ("a", " b")]
    assert encoder.split(pairs) == [encoder.split([pair])[0] for pair in pairs]
