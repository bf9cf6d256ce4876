"""Masked replies against a plain loop that fills one mask after the other, unbatched.

The loop in float64 is exact; what float32 may be off is said by the loop in float32.
"""

import pytest
import torch

from search.evaluation.predictor import NonFiniteLogits, make_predictor
from tasks.base import Choose, Classify, Complete
from tasks.errors import InputError

FAMILIES = ["bert", "roberta", "distilbert"]
REQUESTS = [
    Complete("The mother tongue of Danielle Darrieux is [MASK].", " French"),
    Complete("BBC One, by [MASK].", " BBC"),
    Complete("[MASK] is in France", "Paris"),
    Choose("A [MASK] film", (" fine", " French politician", " dull")),
    Complete("BBC One is my favorite product out of [MASK] owned by the BBC", " everything"),
]


def _plain(model, tokenizer, prompt, answer, rounding=None):
    """(log-likelihood, first-choice tokens, answer's tokens, rank of the first).

    `rounding`: assert that it cannot change the tokens or the ranks.
    """
    targets = tokenizer(answer, add_special_tokens=False)["input_ids"]
    text = prompt.replace("[MASK]", tokenizer.mask_token * len(targets))
    ids = torch.tensor([tokenizer(text)["input_ids"]])
    places = (ids[0] == tokenizer.mask_token_id).nonzero().flatten().tolist()
    assert len(places) == len(targets)
    total, said, ranks = 0.0, [], []
    for place, target in zip(places, targets, strict=True):
        with torch.inference_mode():
            logits = model(input_ids=ids).logits[0, place].double()
        if rounding:
            rounding.decided(logits)
            rounding.decided(logits, target)
        total += logits.log_softmax(-1)[target].item()
        said.append(int(logits.argmax()))
        ranks.append(int((logits > logits[target]).sum()))
        ids[0, place] = target
    return total, said, targets, ranks[0]


@pytest.mark.parametrize("tokens_per_batch", [1, 60, 8192])
@pytest.mark.parametrize("family", FAMILIES)
def test_replies_equal_a_plain_loop(build, rounding, family, tokens_per_batch):
    model, tokenizer = build("masked", family)
    predictor = make_predictor("masked", model, tokenizer, tokens_per_batch=tokens_per_batch)
    prepared = predictor.prepare(REQUESTS)
    assert predictor.scorer.picks_before_head
    twin = rounding.exact(model)
    lengths, found, plain, exact = set(), [], [], []
    for request, reply in zip(REQUESTS, predictor.answer(prepared), strict=True):
        answers = [request.answer] if isinstance(request, Complete) else request.choices
        plain += [_plain(model, tokenizer, request.prompt, answer)[0] for answer in answers]
        if isinstance(request, Complete):
            total, said, targets, rank = _plain(
                twin, tokenizer, request.prompt, request.answer, rounding
            )
            found.append(reply.log_likelihood)
            exact.append(total)
            assert (reply.rank, reply.greedy) == (rank, said == targets)
            assert reply.text == tokenizer.decode(said)
            lengths.add(len(targets))
        else:
            right = [_plain(twin, tokenizer, request.prompt, choice) for choice in answers]
            found += reply.log_likelihoods
            exact += [one[0] for one in right]
            assert reply.lengths_tokens == tuple(len(one[2]) for one in right)
            lengths |= set(reply.lengths_tokens)
    rounding.check(found, plain, exact)
    assert 1 in lengths
    assert max(lengths) > 1


def test_the_space_before_the_mask_is_part_of_a_byte_level_answer(build):
    model, tokenizer = build("masked", "roberta")
    predictor = make_predictor("masked", model, tokenizer)
    (batch,) = predictor.prepare([Complete("BBC One, by [MASK].", " BBC")]).batches
    tokens = tokenizer.convert_ids_to_tokens(batch.input_ids[0].tolist())
    assert tokens[:1] + tokens[-3:] == ["<s>", "<mask>", ".", "</s>"]
    assert tokenizer.convert_ids_to_tokens(batch.targets.tolist()) == ["ĠBBC"]


def test_a_prompt_may_use_the_tokenizers_own_mask(build):
    predictor = make_predictor("masked", *build("masked", "roberta"))
    ours, own = (Complete(f"BBC One, by {mask}.", " BBC") for mask in ("[MASK]", "<mask>"))
    first, second = predictor.answer(predictor.prepare([ours, own]))
    assert first == second


@pytest.mark.parametrize("family", FAMILIES)
def test_a_long_prompt_is_cut_but_never_at_its_mask(build, family):
    model, tokenizer = build("masked", family)
    predictor = make_predictor("masked", model, tokenizer)
    assert predictor.limit_tokens == 32
    filler = "Paris is in France . " * 12
    requests = [
        Complete(f"{filler}[MASK] is fine", " film"),
        Complete(f"[MASK] is fine {filler}", "film"),
        Complete(f"{filler} [MASK] {filler}", " film"),
        Complete("A fine [MASK]", " film"),
    ]
    prepared = predictor.prepare(requests)
    assert prepared.truncated == 3
    for batch in prepared.batches:
        assert batch.input_ids.shape[1] <= 32
        assert (batch.input_ids == tokenizer.mask_token_id).any(-1).all()
        assert set(batch.input_ids[:, 0].tolist()) == {predictor.encoder.prefix[0]}
    assert len(predictor.answer(prepared)) == 4


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Complete("no mask", " x"), "has 0 masks, expected one"),
        (Complete("[MASK] or [MASK]", " x"), "has 2 masks"),
        (Complete("a [MASK]", " "), "answer ' ' has no tokens"),
        (Complete("a [MASK]", " film fine" * 40), "does not fit into the model's 32"),
        (Classify("x"), "masked head cannot answer Classify"),
    ],
)
def test_questions_that_cannot_be_asked(build, request_, words):
    predictor = make_predictor("masked", *build("masked", "bert"))
    with pytest.raises(InputError, match=words):
        predictor.prepare([request_])


def test_a_tokenizer_without_mask_is_refused(build, tokenizers):
    model, _ = build("masked", "bert")
    with pytest.raises(InputError, match="mask token"):
        make_predictor("masked", model, tokenizers["byte-level"])


def test_broken_weights_are_reported(build):
    model, tokenizer = build("masked", "distilbert")
    predictor = make_predictor("masked", model, tokenizer)
    prepared = predictor.prepare(REQUESTS)
    weight = model.vocab_transform.weight
    kept = weight[0, 0].item()
    weight.data[0, 0] = float("nan")
    with pytest.raises(NonFiniteLogits):
        predictor.answer(prepared)
    weight.data[0, 0] = kept
