"""Generated texts with the prompts read from the first edited block on: those of a full pass."""

import pytest
import torch

from search.cuts.composition import Composition
from search.evaluation.predictor import make_predictor
from search.reuse.activations import Room, SharedScratch
from search.reuse.blocks import Blocks
from search.reuse.forward import ForwardPasses
from search.weights.edit import Editor
from search.weights.factors import FactorCache
from search.weights.matrices import find_matrices
from tasks.base import Complete, Generate

LAYERS = {"gpt2": {"n_layer": 3}, "gptj": {"n_layer": 3}, "bart": {}, "t5": {}}
"""Of what is not named, and is no Llama."""
PROMPTS = [
    "The mother tongue of Danielle Darrieux is",
    "BBC One, by",
    "BBC One is my favorite",
    "Paris is in",
    "is",
]
REQUESTS = [Generate(prompt, 3 + 2 * n) for n, prompt in enumerate(PROMPTS)]


class Model:
    """One of three blocks that is edited, and two who ask it: with reuse and in full."""

    def __init__(self, head, model, tokenizer, folder, room=None):
        self.model, self.tokenizer = model, tokenizer
        matrices = find_matrices(model)
        self.editor = Editor(model, matrices, FactorCache(folder))
        own = {self._place(matrices, m): str(m.ref) for m in matrices if m.ref.type == "fc_out"}
        self.last = [own[place] for place in sorted(own)]
        self.asked, self.full = (
            make_predictor(
                head, model, tokenizer, 60, passes=ForwardPasses.of(model, matrices, room=room)
            )
            for room in (room, Room(0))
        )
        self.passes = self.asked.scorer.passes

    def _place(self, matrices, matrix):
        return Blocks.of(self.model, matrices).place_of[matrix.ref]

    def answers(self, cut, prepared):
        """With a cut, of both."""
        composition = Composition.parse(cut.split())
        with self.editor.applied(composition):
            self.passes.prefix.start = self.passes.prefix.blocks.first_edited(composition)
            return self.asked.answer(prepared), self.full.answer(prepared)


@pytest.fixture
def model(build, tmp_path):
    def make(family, room=None, head="causal"):
        sizes = LAYERS.get(family, {"num_hidden_layers": 3})
        return Model(head, *build(head, family, **sizes), tmp_path, room)

    return make


@pytest.mark.parametrize("family", ["gpt2", "llama", "gptj", "gemma2", "opt"])
def test_a_trial_says_what_generate_says(model, rounding, family):
    one = model(family)
    prepared = one.asked.prepare(REQUESTS)
    one.asked.record(prepared)
    assert any((batch.attention_mask == 0).any() for batch in prepared.prompts)
    said = []
    for cut in ("", *(f"{ref}=zero" for ref in one.last)):
        ours, full = one.answers(cut, prepared)
        assert ours == full
        said.append([reply.text for reply in ours])
    for composition in ("", f"{one.last[-1]}=zero"):
        with one.editor.applied(Composition.parse(composition.split())):
            twin = rounding.exact(one.model)
        expected = [
            _plain(twin, one.tokenizer, request, one.asked, rounding) for request in REQUESTS
        ]
        assert said[0 if not composition else -1] == expected
    assert len(set(map(tuple, said))) == len(said), "every cut says something else"


def _plain(twin, tokenizer, request, predictor, rounding):
    """The text of transformers' own greedy search, in float64."""
    ids = predictor.prepare([request]).prompts[0].input_ids
    done = twin.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=request.max_new_tokens,
        eos_token_id=sorted(predictor.decoder.end_ids) or None,
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    for logits in done.logits:
        rounding.decided(logits[0])
    return tokenizer.decode(done.sequences[0, ids.shape[1] :], skip_special_tokens=True)


@pytest.mark.parametrize("family", ["t5", "bart"])
def test_a_source_is_encoded_from_the_first_edit_on(model, family, count_blocks):
    one = model(family, head="seq2seq")
    prepared = one.asked.prepare(REQUESTS)
    one.asked.record(prepared)
    assert not one.passes.prompts.refused
    said = []
    for ref in one.last:
        ours, full = one.answers(f"{ref}=zero", prepared)
        assert ours == full
        said.append(ours)
    assert len(said) == len(one.passes.prefix.blocks)
    ran = count_blocks(one.passes.prefix)
    one.answers(f"{one.last[-1]}=zero", prepared)
    encoder = one.passes.prefix.blocks.encoder
    once = len(prepared.prompts)
    assert [ran.count(block) for block in range(encoder)] == [once] * encoder, "of the full pass"


def test_what_is_kept_of_prompts_keeps_to_the_room(model):
    """Keys and values cost as much as the boundary here: what a later start needs grows with it."""
    requests = [*REQUESTS, Complete(PROMPTS[0], " French is")]
    kept = {}
    for room in (0, 1, 2, 4, 6, 12):
        one = model("llama")
        prepared = one.asked.prepare(requests)
        unit = sum(batch.tokens for batch in prepared.prompts) * 32 * 4
        one.passes.prefix.activations.room = Room(room * unit + 1000)
        one.passes.expect((), prepared.prompts)
        one.asked.record(prepared)
        prompts = one.passes.prompts
        assert sum(prompts.activations.held.values()) <= room * unit + 1000
        assert one.passes.recorded((), prepared.prompts)
        ours, full = one.answers(f"{one.last[2]}=zero", prepared)
        assert ours == full
        kept[room] = prompts.boundaries
    assert kept == {0: (), 1: (), 2: (1,), 4: (1, 2), 6: (1, 2), 12: (1, 2)}


def test_texts_and_scores_share_the_room(model):
    one = model("llama")
    prepared = one.asked.prepare([*REQUESTS, Complete(PROMPTS[0], " French is")])
    tokens = [sum(batch.tokens for batch in some) for some in (prepared.prompts, prepared.batches)]
    room = Room(5 * tokens[0] * 32 * 4)
    one.passes.prefix.activations.room = room
    one.passes.expect(prepared.batches, prepared.prompts)
    one.asked.record(prepared)
    assert one.passes.prompts.boundaries == (1,), "half of the room"
    assert one.passes.prefix.boundaries == (1, 2), "what is left of it"
    assert sum(one.passes.prefix.activations.held.values()) <= room.total_bytes


def test_two_processes_share_what_was_kept_of_prompts(model, tmp_path, count_blocks):
    made = []
    for _ in range(2):
        scratch = SharedScratch("study", str(tmp_path))
        one = model("gemma2", Room(0, 0, 10**9, scratch))
        prepared = one.asked.prepare(REQUESTS)
        ran = count_blocks(one.passes.prefix)
        one.asked.record(prepared)
        made.append((one, prepared, len(ran)))
    batches = len(prepared.prompts)
    assert batches > 1
    assert made[1][2] == made[0][2] - 3 * (batches - 1), "it runs the first batch alone, for proof"
    ours, full = one.answers(f"{one.last[2]}=zero", prepared)
    assert ours == full
    for one, _, _ in made:
        one.passes.prefix.activations.room.close()


def test_a_winner_s_prompts_begin_where_the_baseline_has_been(model, count_blocks):
    one = model("llama")
    prepared = one.asked.prepare(REQUESTS)
    one.passes.prefix.start, one.passes.prefix.ahead = 0, (2,)
    baseline = one.asked.answer(prepared)
    assert baseline == one.full.answer(prepared)
    one.passes.prefix.ahead = ()
    ran = count_blocks(one.passes.prefix)
    ours, full = one.answers(f"{one.last[2]}=zero", prepared)
    assert ours == full != baseline
    assert ran.count(2) - ran.count(0) == ran.count(2) - ran.count(1) == len(prepared.prompts)
    one.passes.forget_all()
    assert not sum(one.passes.prefix.activations.held.values())


def test_prompts_that_memory_has_no_room_for_cost_speed_alone(model, monkeypatch, caplog):
    one = model("gptj")
    prepared = one.asked.prepare(REQUESTS)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patched:
        patched.setattr("search.reuse.activations.Activations.keep", full)
        one.asked.prompts.record(prepared.prompts)
    assert "prompts are read from the first block on: out of memory" in caplog.text
    one.asked.record(prepared)
    assert one.passes.recorded(prepared.batches, prepared.prompts)
    ours, whole = one.answers(f"{one.last[2]}=zero", prepared)
    assert ours == whole


def test_a_step_fetches_once_from_the_device(model, monkeypatch):
    one = model("llama")
    prepared = one.asked.prepare(REQUESTS)
    logits = [torch.eye(420)[torch.arange(len(batch.prompts)) + 7] for batch in prepared.prompts]
    fetched = []

    class Steps:
        def __init__(self, rows):
            self.rows = rows

        def next(self, tokens):
            return self.rows

        def keep(self, rows):
            return False

    for name in ("tolist", "item", "__bool__", "__int__", "cpu", "nonzero"):
        own = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, _counted(fetched, name, own))
    for batch, rows in zip(prepared.prompts, logits, strict=True):
        fetched.clear()
        found = one.asked.decoder.decode(Steps(rows), rows, batch.prompts)
        most = max(said.length_tokens for said in found.values())
        assert fetched == ["tolist"] * most
        assert most == max(prompt.max_new_tokens for prompt in batch.prompts)


def _counted(calls, name, own):
    def method(self, *arguments):
        calls.append(name)
        return own(self, *arguments)

    return method
