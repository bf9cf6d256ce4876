"""What a winner costs on general text: the sum, the words, and which texts are read."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest

import search.demo
from search.evaluation.general_text import PROMPTS, read_general_text
from search.model import ModelSource
from search.sections import GuardConfig
from search.study.collateral import Collateral, GeneralText
from search.study.outcomes import Evaluation
from tasks.base import Example, Outcome
from tasks.errors import InputError
from tasks.guarded import GENERAL_TEXT

TEXTS = 40


def evaluation(nats):
    """Texts of 3, 4, 5 ... tokens that each lose nats(n) per token."""
    outcomes = tuple(
        Outcome(
            f"t{n}",
            f"g{n}",
            -nats(n),
            -nats(n),
            None,
            tokens=3 + n,
            weight=3.0 + n,
            task=GENERAL_TEXT,
        )
        for n in range(TEXTS)
    )
    return Evaluation("x", "s", "", "", "guard", 0.0, 0.0, {}, outcomes)


def test_a_perplexity_is_of_all_tokens_and_its_change_is_relative():
    before, after = evaluation(lambda n: 2 + n / 20), evaluation(lambda n: 2 + n / 20 + 0.05)
    found = Collateral.of("some text", before, after)
    tokens = sum(3 + n for n in range(TEXTS))
    nats = math.fsum((3 + n) * (2 + n / 20) for n in range(TEXTS)) / tokens
    assert found.baseline == pytest.approx(math.exp(nats), rel=1e-12)
    assert found.winner == pytest.approx(math.exp(nats + 0.05), rel=1e-12)
    for change in (found.change, found.low, found.high):  # every text loses the same
        assert change == pytest.approx(math.exp(0.05) - 1, rel=1e-9)
    assert (found.texts, found.tokens) == (TEXTS, tokens)
    assert "perplexity" in found.sentence() and "+5.1%" in found.sentence()


@pytest.mark.parametrize(("nats", "warned"), [(0.02, True), (0.009, False), (-0.3, False)])
def test_more_than_one_per_cent_is_a_warning(nats, warned):
    found = Collateral.of("x", evaluation(lambda n: 2.0), evaluation(lambda n: 2.0 + nats))
    assert (found.warning is not None) == warned


def test_the_interval_holds_the_change_and_its_ends_are_in_order():
    found = Collateral.of("x", evaluation(lambda n: 2.0), evaluation(lambda n: 2 + (n % 5) / 10))
    assert found.low < found.change < found.high


def asked(count):
    return [
        Example(f"e{n}", f"g{n // 2}", f"Person {n // 2} plays the", "piano") for n in range(count)
    ]


def test_the_prompts_of_test_are_read_once_each(demo_source):
    found = read_general_text(GuardConfig(), demo_source, asked(20))
    assert found.source == PROMPTS
    assert sorted(x.prompt for x in found.examples) == sorted({x.prompt for x in asked(20)})
    assert {x.task for x in found.examples} == {GENERAL_TEXT}
    assert {x.group for x in found.examples} == {f"g{n}" for n in range(10)}


def test_a_budget_takes_the_same_texts_whatever_their_order(demo_source):
    config = GuardConfig(tokens=30)
    found = read_general_text(config, demo_source, asked(200))
    turned = read_general_text(config, demo_source, asked(200)[::-1])
    assert {x.prompt for x in found.examples} == {x.prompt for x in turned.examples}
    assert found.digest == turned.digest
    count = [len(demo_source.tokenizer()(x.prompt)["input_ids"]) for x in found.examples]
    assert 20 < sum(count) <= 30
    assert found.digest != read_general_text(GuardConfig(), demo_source, asked(200)).digest


def test_a_file_is_named_without_its_folder(demo_source, tmp_path):
    (tmp_path / "text.txt").write_text("We know that Jeremy plays the drums.\n" * 200)
    found = read_general_text(GuardConfig(data=str(tmp_path / "text.txt")), demo_source, [])
    assert found.source == "text.txt", "a verdict may be published"
    assert found.examples[0].prompt.startswith("We know that Jeremy")


def test_a_head_without_a_perplexity_is_compared_on_no_text():
    masked = SimpleNamespace(head="masked")
    assert read_general_text(GuardConfig(), masked, asked(4)) is None
    with pytest.raises(InputError, match=r"guard\.data is 'wikitext2', but a masked head"):
        read_general_text(GuardConfig(data="wikitext2"), masked, asked(4))


def test_a_file_of_texts_that_are_too_short_is_refused_and_such_prompts_are_no_text(
    demo_source, tmp_path
):
    assert read_general_text(GuardConfig(), demo_source, [Example("e", "g", "a", "b")]) is None
    (tmp_path / "text.txt").write_text("We\n")
    with pytest.raises(InputError, match=r"text\.txt contains no text of at least 2 tokens"):
        read_general_text(GuardConfig(data=str(tmp_path / "text.txt")), demo_source, [])


def test_a_digest_is_of_the_texts():
    one = GeneralText("a", (Example("1", "g", "x", ""),))
    assert one.digest == GeneralText("b", one.examples).digest
    assert one.digest != GeneralText("a", (Example("1", "g", "y", ""),)).digest


@pytest.fixture
def demo_source():
    return ModelSource(str(Path(search.demo.__file__).parent / "model"))
