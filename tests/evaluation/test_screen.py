"""The screen: its predictions are the slope of the loss that trials measure."""

import math
from contextlib import nullcontext
from dataclasses import dataclass

import pytest
import torch
import transformers
from transformers import AutoConfig

from laser_search.testing.kinds import measured
from search.cuts.composition import Composition
from search.evaluation.predictor import make_predictor
from search.evaluation.screen import Asking, predict_changes, predict_costs
from search.reuse.forward import ForwardPasses
from search.study.objective import Goal, Objective
from search.weights.edit import Editor
from search.weights.factors import FactorCache
from search.weights.matrices import find_matrices
from search.weights.whitening import floored_root, whiten
from tasks.base import Choose, Classify, Complete, Example, Generate, Outcome
from tasks.errors import InputError
from tasks.metrics import PERPLEXITY
from tasks.perplexity import Perplexity

SIZES = dict(
    vocab_size=420, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
    intermediate_size=56,
)  # fmt: skip
GPT = dict(vocab_size=420, n_embd=32, n_layer=2, n_head=4, n_positions=64)
T5 = dict(
    vocab_size=420, d_model=32, num_layers=2, num_heads=4, d_ff=56, d_kv=8,
    decoder_start_token_id=0,
)  # fmt: skip
LM, CLS = "AutoModelForCausalLM", "AutoModelForSequenceClassification"
KINDS = {
    "GPT-2, transposed and fused": (LM, "gpt2", GPT, "byte-level", "causal"),
    "GPT-NeoX, fused by head": (LM, "gpt_neox", SIZES, "byte-level", "causal"),
    "Llama": (LM, "llama", dict(SIZES, num_key_value_heads=2), "byte-level", "causal"),
    "Mixtral, stacked experts": (
        LM,
        "mixtral",
        dict(SIZES, num_key_value_heads=2, num_local_experts=3, num_experts_per_tok=2),
        "byte-level",
        "causal",
    ),
    "BERT classifier": (CLS, "bert", SIZES, "wordpiece", "classifier"),
    "GPT-2 classifier": (CLS, "gpt2", dict(GPT, pad_token_id=0), "byte-level", "classifier"),
    "BERT": ("AutoModelForMaskedLM", "bert", SIZES, "wordpiece", "masked"),
    "T5": ("AutoModelForSeq2SeqLM", "t5", T5, "unigram with end", "seq2seq"),
}
PROMPTS = (
    "The mother tongue of Danielle is",
    "The profession of Arun Nehru is politician, Paris is in",
    "Review: a fine film",
    "Question: is it (Rome) or 12 or foobar?",
)


@dataclass
class Ask:
    """Choices and open answers in turn, of weights 1 and 2; classes of a classifier."""

    name: str = "ask"
    metric: str = "accuracy"

    def request(self, example, head):
        if head == "classifier":
            return Classify(example.prompt)
        prompt = example.prompt + (" [MASK]" if head == "masked" else "")
        if example.label == 1:
            return Choose(prompt, (" French", " in France", " dull"))
        return Complete(prompt, " French film")

    def outcome(self, example, reply):
        values = getattr(reply, "log_likelihoods", getattr(reply, "log_probabilities", None))
        if values is None:
            value = reply.log_likelihood
        else:
            own = values[example.label % len(values)]
            value = own - math.log(math.fsum(math.exp(v) for v in values))
        weight = 1.0 + example.label
        return Outcome(example.id, example.group, 0.0, value, None, weight=weight)


def examples():
    return [Example(str(n), str(n), text, "", label=n % 2) for n, text in enumerate(PROMPTS)]


def loss(task, asked, predictor, prepared):
    found = [task.outcome(x, r) for x, r in zip(asked, predictor.answer(prepared), strict=True)]
    total = sum(o.weight for o in found)
    return -math.fsum(o.weight * o.log_probability for o in found) / total


@pytest.mark.parametrize("kind", KINDS)
def test_a_prediction_is_the_slope_of_the_loss_towards_the_cut(kind, tokenizers, tmp_path):
    auto, family, settings, tokens, head = KINDS[kind]
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **settings)
    model = getattr(transformers, auto).from_config(config).eval()
    if family != "mixtral":  # whose experts' product has no float64
        model = model.double()
    with torch.no_grad():  # random models say nearly nothing: slopes above the rounding of a loss
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_({"t5": 1.5, "bert": 12}.get(family, 6))
    matrices = [m for m in find_matrices(model) if m.searchable]
    passes = ForwardPasses.of(model, matrices)
    predictor = make_predictor(head, model, tokenizers[tokens], passes=passes)
    inputs = {m.ref: measured(m.shape[1]) for m in matrices}
    editor = Editor(model, matrices, FactorCache(tmp_path, inputs=inputs))
    texts = [f"{m.ref}=rho:{rho}" for m in matrices for rho in (0.05, 0.4, 0.9)]
    plain = len(texts)
    texts += [f"{m.ref}=whitened/0.4" for m in matrices]
    cuts = [Composition.parse([text]).interventions[0] for text in texts]
    task, asked = Ask(), examples()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    objective = Objective((Goal("", "accuracy"),))

    asking = Asking(editor, predictor, task, passes)
    found = predict_changes(asking, asked, cuts, objective)

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    assert list(found) == cuts
    assert len({round(value, 12) for value in found.values()}) > len(cuts) // 2
    prepared = predictor.prepare([task.request(x, head) for x in asked])
    step = 5e-4  # log-softmax is float32, so the quotient is good to 1e-3
    slopes = []
    whitened = cuts[plain :: max(1, len(matrices) // 6)]
    for cut in [*cuts[: plain : max(1, plain // 24)], *whitened]:
        parameter, matrix = editor.parameter(cut.matrix), editor.matrix(cut.matrix)
        original = matrix.read(parameter)
        if cut.kind == "whitened":
            root = floored_root(inputs[cut.matrix].read())
            U, S, columns = (part.to(original.dtype) for part in whiten(original, root))
            V = columns.T
        else:
            U, S, V = torch.linalg.svd(original, full_matrices=False)
        rank = cut.rule.rank(min(original.shape))
        change = (U[:, :rank] * S[:rank]) @ V[:rank] - original
        values = []
        for sign in (1, -1):
            matrix.write(parameter, original + sign * step * change)
            values.append(loss(task, asked, predictor, prepared))
        matrix.write(parameter, original)
        slope = (values[0] - values[1]) / (2 * step)
        assert found[cut] == pytest.approx(slope, rel=3e-2, abs=2e-3), cut
        slopes.append(slope)
    assert max(map(abs, slopes)) > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_before_the_first_candidate_runs_once_and_changes_no_bit(
    kind, tokenizers, tmp_path, count_blocks
):
    auto, family, settings, tokens, head = KINDS[kind]
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **settings)
    model = getattr(transformers, auto).from_config(config).eval()
    matrices = [m for m in find_matrices(model) if m.searchable]
    last = max((m.ref for m in matrices), key=lambda ref: (ref.stack == "decoder", ref.layer))
    cuts = Composition.parse(
        [f"{m.ref}=rho:0.4" for m in matrices if m.ref.row == last.row]
    ).interventions
    editor, task, asked = Editor(model, matrices, FactorCache(tmp_path)), Ask(), examples()

    backward = []

    def screened(passes):
        predictor = make_predictor(head, model, tokenizers[tokens], passes=passes)
        forward = predictor.log_probabilities
        predictor.log_probabilities = lambda *of: (backward.append(of), forward(*of))[1]
        asking = Asking(editor, predictor, task, passes)
        return predict_changes(asking, asked, cuts, Objective((Goal("", "accuracy"),)))

    without, passes = ForwardPasses.of(model, matrices), ForwardPasses.of(model, matrices)
    without.keeping_for_now = lambda place: nullcontext()
    ran = count_blocks(passes.prefix)
    whole = screened(without)
    twice = ran.count(0)
    ran.clear()
    backward.clear()
    assert screened(passes) == whole, "bit by bit"
    assert backward
    assert ran.count(0) == twice - len(backward)
    assert ran.count(passes.prefix.blocks.place_of[cuts[0].matrix]) > ran.count(0)
    assert not passes.prefix.ahead
    assert passes.prefix.start == 0
    assert not passes.prefix._records, "nothing of it is kept"


@pytest.fixture
def causal(tokenizers, tmp_path):
    """A small random language model: its editor, predictor and passes."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(AutoConfig.for_model("gpt2", **GPT))
    matrices = find_matrices(model)
    passes = ForwardPasses.of(model, matrices)
    predictor = make_predictor("causal", model, tokenizers["byte-level"], passes=passes)
    editor = Editor(model, matrices, FactorCache(tmp_path))
    return editor, predictor, passes


def test_a_cost_is_the_slope_and_half_the_mean_square_of_slopes(causal):
    editor, predictor, passes = causal
    cuts = Composition.parse(["0.fc_in=rho:0.1", "1.fc_out=rho:0.1"]).interventions
    texts = [Example(str(n), str(n), text, "") for n, text in enumerate(PROMPTS)]
    task = Perplexity()
    asking = Asking(editor, predictor, task, passes)
    objective = Objective((Goal("", PERPLEXITY),))

    found = predict_costs(asking, texts, cuts)

    total, tokens = dict.fromkeys(cuts, 0.0), 0.0
    for text in texts:
        slopes = predict_changes(asking, [text], cuts, objective)
        (reply,) = predictor.answer(predictor.prepare([task.request(text, "causal")]))
        count = task.outcome(text, reply).weight
        tokens += count
        for cut, slope in slopes.items():
            total[cut] += count * slope + (count * slope) ** 2 / 2
    assert found == pytest.approx({cut: value / tokens for cut, value in total.items()}, rel=1e-4)
    assert all(found.values())


def test_a_task_without_a_scored_answer_is_refused(causal):
    class Open(Ask):
        def request(self, example, head):
            return Generate(example.prompt, 2)

        def outcome(self, example, reply):
            return Outcome(example.id, example.group, 0.0, 0.0, reply.text)

    editor, predictor, passes = causal
    cuts = Composition.parse(["0.fc_in=rho:0.1"]).interventions
    with pytest.raises(InputError, match="does not screen"):
        asking = Asking(editor, predictor, Open(), passes)
        predict_changes(asking, examples(), cuts, Objective((Goal("", "x"),)))
