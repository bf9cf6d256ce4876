"""Prefix reuse: a pass from a boundary gives the bits of a full one, whatever the family."""

import itertools

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig

from search.evaluation.generation import CausalSteps, PromptBatch, PromptPasses
from search.evaluation.token_scorer import TokenScorer
from search.reuse.activations import Room, SharedScratch
from search.reuse.batching import Scored, TokenRow, collate
from search.reuse.blocks import Blocks, choose_boundaries
from search.reuse.forward import ForwardPasses
from search.reuse.prefix import PrefixReuse
from search.weights.matrices import find_matrices

SIZES = dict(
    vocab_size=48,
    hidden_size=32,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=56,
    pad_token_id=0,
)
GROUPED = dict(SIZES, num_key_value_heads=2)
HEADS = dict(GROUPED, head_dim=8)
GPT = dict(vocab_size=48, n_embd=32, n_layer=4, n_head=4, n_positions=32)
LM, MLM, S2S = "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForSeq2SeqLM"
FAMILIES = {
    "GPT-2": (LM, "gpt2", GPT),
    "GPT-J": (LM, "gptj", dict(GPT, rotary_dim=4)),
    "CodeGen": (LM, "codegen", dict(GPT, rotary_dim=4)),
    "GPT-Neo": (
        LM,
        "gpt_neo",
        dict(
            vocab_size=48,
            hidden_size=32,
            num_layers=4,
            num_heads=4,
            window_size=3,
            attention_types=[[["global", "local"], 2]],
        ),
    ),
    "GPT-NeoX": (LM, "gpt_neox", SIZES),
    "Llama": (LM, "llama", GROUPED),
    "Mistral, sliding window": (LM, "mistral", dict(GROUPED, sliding_window=3)),
    "Phi": (LM, "phi", SIZES),
    "Phi-3": (LM, "phi3", GROUPED),
    "Mixtral": (LM, "mixtral", dict(GROUPED, num_local_experts=3, num_experts_per_tok=2)),
    "Qwen 3": (LM, "qwen3", HEADS),
    "Gemma-3": (LM, "gemma3_text", dict(HEADS, sliding_window=3, sliding_window_pattern=2)),
    "OPT": (LM, "opt", dict(SIZES, ffn_dim=56, word_embed_proj_dim=32)),
    "BLOOM": (LM, "bloom", dict(vocab_size=48, hidden_size=32, n_layer=4, n_head=4)),
    "Falcon": (LM, "falcon", SIZES),
    "BERT": (MLM, "bert", SIZES),
    "RoBERTa": (MLM, "roberta", dict(SIZES, max_position_embeddings=40)),
    "DistilBERT": (
        MLM, "distilbert", dict(vocab_size=48, dim=32, n_layers=4, n_heads=4, hidden_dim=56)
    ),
    "T5": (
        S2S,
        "t5",
        dict(vocab_size=48, d_model=32, num_layers=3, num_heads=4, d_ff=56, d_kv=8,
             decoder_start_token_id=0),
    ),
    "BART": (
        S2S,
        "bart",
        dict(vocab_size=48, d_model=32, encoder_layers=3, decoder_layers=3,
             encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=56,
             decoder_ffn_dim=56, pad_token_id=0, max_position_embeddings=64),
    ),
}  # fmt: skip


def make(name, dtype=torch.float32):
    auto, kind, settings = FAMILIES[name]
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **settings)
    return getattr(transformers, auto).from_config(config).eval().to(dtype)


def inputs_of(model, left):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 48, (3, 9), generator=generator)
    mask = torch.ones_like(ids)
    for row, length in enumerate((9, 6, 4)):
        padding = slice(0, 9 - length) if left else slice(length, 9)
        mask[row, padding] = 0
        ids[row, padding] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids[:, 2:7].contiguous()
    return inputs


def passes_of(model, inputs):
    options = {} if model.config.model_type in ("albert", "bert", "roberta", "distilbert") else {
        "use_cache": False
    }  # fmt: skip

    def run():
        with torch.inference_mode():
            return model(**inputs, **options).logits

    return run


def disturb(block, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator).to(parameter))


def blocks_of(model):
    return Blocks.of(model, find_matrices(model))


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_pass_from_any_boundary_is_a_full_pass_to_the_bit(name, left, dtype):
    model = make(name, dtype)
    blocks = blocks_of(model)
    run = passes_of(model, inputs_of(model, left))
    prefix = PrefixReuse(blocks, range(len(blocks)))
    with torch.inference_mode():
        prefix.record([("x", 27, run)])
    assert not prefix.refused
    assert prefix.boundaries == tuple(range(1, len(blocks)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = []
    for place in reversed(range(len(blocks))):
        model.load_state_dict(before)
        disturb(blocks.modules[place], place)
        full = run()
        prefix.start = place
        with prefix.replaying("x") as start:
            assert start == place
            assert torch.equal(run(), full)
        seen.append(full)
    assert torch.equal(run(), full), "the blocks run again afterwards"
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(seen, 2))


STEPS = 3


def passes_over_prompts(model, passes):
    """Three prompts, padded on the left, and a function that decodes them: logits of all steps."""
    inputs = inputs_of(model, True)
    batch = PromptBatch((), inputs["input_ids"], inputs["attention_mask"])
    prompts = PromptPasses(passes, lambda batch: CausalSteps(model, batch))

    def decode():
        with torch.inference_mode():
            steps, logits = prompts.begin(batch)
            found = [logits]
            for _ in range(STEPS):
                found.append(steps.next(found[-1].argmax(-1)))
        return torch.stack(found)

    return batch, prompts, decode


HYBRID = {
    "Jamba": dict(
        GROUPED, num_experts=2, num_experts_per_tok=1, use_mamba_kernels=False, mamba_d_state=4,
        attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1,
    ),
    "LFM2": dict(GROUPED, layer_types=["conv", "full_attention"] * 2),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, torch.float32) for name in FAMILIES if FAMILIES[name][0] is LM]
    + [(name, torch.bfloat16) for name in ("GPT-2", "Gemma-3")],
)
def test_decoding_from_any_boundary_is_decoding_in_full_to_the_bit(name, dtype, count_blocks):
    model = make(name, dtype)
    matrices = find_matrices(model)
    passes = ForwardPasses.of(model, matrices)
    batch, prompts, decode = passes_over_prompts(model, passes)
    whole = passes_over_prompts(model, ForwardPasses())[2]
    prompts.record([batch])
    blocks = passes.prefix.blocks
    assert not passes.prompts.refused
    assert passes.prompts.boundaries == tuple(range(1, len(blocks)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ran = count_blocks(passes.prefix)
    for place in (0, 2, 3):
        model.load_state_dict(before)
        disturb(blocks.modules[place], place)
        passes.prefix.start = place
        ran.clear()
        found = decode()
        assert ran == [*range(place, len(blocks)), *[*range(len(blocks))] * STEPS]
        assert torch.equal(found, whole())


@pytest.mark.parametrize("name", HYBRID)
def test_prompts_of_a_model_with_a_recurrent_cache_are_read_in_full(name):
    torch.manual_seed(0)
    config = AutoConfig.for_model(name.lower(), **HYBRID[name])
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    passes = ForwardPasses.of(model, find_matrices(model))
    batch, prompts, decode = passes_over_prompts(model, passes)
    whole = decode()
    prompts.record([batch])
    assert "its key-value cache holds a LinearAttention" in passes.prompts.refused
    assert passes.recorded((), [batch])
    passes.prefix.start = 3
    assert torch.equal(decode(), whole)


def _plain(model, rows):
    """Log-probability of token 5 at each row's scored place, one row at a time."""
    with torch.inference_mode():
        tables = [model(input_ids=torch.tensor([row.ids])).logits[0].double() for row in rows]
    return [
        float(table[row.scored[0].position].log_softmax(-1)[5])
        for table, row in zip(tables, rows, strict=True)
    ]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("T5", "BART")])
def test_scoring_with_every_short_cut_is_scoring_without_reuse(name, rounding):
    model = make(name)
    matrices = find_matrices(model)
    generator = torch.Generator().manual_seed(1)
    rows = [
        TokenRow(
            tuple(torch.randint(3, 48, (n,), generator=generator).tolist()),
            (Scored(n - 2, 5, slot),),
        )
        for slot, n in enumerate((9, 6, 4))
    ]
    batch = collate(rows, 0, torch.device("cpu"))
    fast = TokenScorer(model, ForwardPasses.of(model, matrices))
    whole = TokenScorer(model, ForwardPasses.of(model, matrices, room=Room(0)))
    for scorer in (fast, whole):
        scorer.calibrate(batch)
        assert scorer.picks_before_head
        assert scorer.ends_early
    fast.passes.record([batch], fast.run)
    prefix = fast.passes.prefix
    for place in reversed(range(len(prefix.blocks))):
        disturb(prefix.blocks.modules[place], place)
        prefix.start = place
        assert fast.score([batch], 3) == whole.score([batch], 3)
        found = fast.score([batch], 3).log_probabilities
        rounding.check(found, *(_plain(one, rows) for one in (model, rounding.exact(model))))


@pytest.mark.parametrize("name", ["Llama", "BERT"])
def test_a_scorer_reads_the_first_block_twice_before_its_first_trial(name):
    """Once to try its short cuts and once to record: a model may be larger than memory."""
    model = make(name)
    scorer = TokenScorer(model, ForwardPasses.of(model, find_matrices(model)))
    rows = [TokenRow((5, 6, 7, 8), (Scored(2, 5, 0),)), TokenRow((9, 8, 7), (Scored(2, 5, 1),))]
    batch = collate(rows, 0, torch.device("cpu"))
    runs = []
    block = scorer.passes.prefix.blocks.modules[0]
    attention = block.self_attn if name == "Llama" else block.attention
    attention.register_forward_hook(lambda *_: runs.append(1))
    scorer.calibrate(batch)
    assert len(runs) == 1
    assert scorer.picks_before_head and scorer.ends_early
    scorer.passes.record([batch], scorer.run)
    assert len(runs) == 2
    assert not scorer.passes.prefix.refused
    assert scorer.passes.prefix.boundaries == (1, 2, 3)


def test_layers_that_share_their_weights_run_whole():
    config = AutoConfig.for_model("albert", **SIZES, embedding_size=16)
    model = transformers.AutoModelForMaskedLM.from_config(config).eval()
    shared = model.albert.encoder.albert_layer_groups[0].albert_layers[0]
    prefix = PrefixReuse(Blocks((shared, shared), ("0", "1"), {}), [1])

    prefix.record([("x", 27, passes_of(model, inputs_of(model, False)))])
    assert "in their order" in prefix.refused
    prefix.start = 1
    with prefix.replaying("x") as start:
        assert start == 0
    assert blocks_of(model).place_of == {}


@pytest.mark.parametrize("room", [Room(0, 0, 10**9), Room(3 * 9 * 32 * 4, 0, 10**9)])
def test_boundaries_in_a_file_give_the_same_bits(room, tmp_path):
    model = make("T5")
    scratch = SharedScratch("study", str(tmp_path))
    room = Room(room.device_bytes, 0, room.file_bytes, scratch)
    run = passes_of(model, inputs_of(model, False))
    blocks = blocks_of(model)
    prefix = PrefixReuse(blocks, range(len(blocks)), room)
    with torch.inference_mode():
        prefix.record([("x", 27, run)])
    assert list(scratch.path.glob("*.safetensors"))
    assert prefix.activations.held["device"] <= room.device_bytes
    disturb(blocks.modules[4], 0)
    full = run()
    prefix.start = 4
    with prefix.replaying("x") as start:
        assert start == 4
        assert torch.equal(run(), full)
    another = SharedScratch("study", str(tmp_path))
    scratch.close()
    assert list(another.path.glob("*.safetensors")), "another process uses it still"
    another.close()
    assert not another.path.exists()


def test_a_folder_that_nobody_holds_is_removed(tmp_path):
    left = SharedScratch("old", str(tmp_path))
    left._lock.close()  # as when its process is killed
    assert left.path.exists()
    mine = SharedScratch("new", str(tmp_path))
    assert not left.path.exists()
    mine.close()


def test_a_small_room_keeps_the_boundaries_that_save_most():
    model = make("GPT-2")
    run = passes_of(model, inputs_of(model, False))
    one = 27 * 32 * 4
    prefix = PrefixReuse(blocks_of(model), [1, 3, 3], Room(one))
    prefix.record([("x", 27, run)])
    assert prefix.boundaries == (3,)
    prefix.start = 2
    with prefix.replaying("x") as start:
        assert start == 0
    assert prefix.activations.held["device"] == one


@given(st.lists(st.integers(0, 8), max_size=8), st.integers(0, 5))
def test_the_chosen_boundaries_leave_the_fewest_blocks(places, room):
    def waste(chosen):
        return sum(p - max((c for c in chosen if c <= p), default=0) for p in places)

    wanted = sorted({p for p in places if p})
    options = [c for n in range(room + 1) for c in itertools.combinations(wanted, n)]
    found = choose_boundaries(places, room)
    assert len(found) <= room
    assert waste(found) == min(map(waste, options))


class Tight:
    """A model's forward that runs out of memory above a number of tokens."""

    def __init__(self, model, tokens, error):
        self.failures, self.sizes = 0, []
        self._limit, self._error = tokens, error
        model.register_forward_pre_hook(self._check, with_kwargs=True)

    def _check(self, module, arguments, options):
        tokens = options["input_ids"].numel()
        if tokens > self._limit:
            self.failures += 1
            raise self._error
        self.sizes.append(tokens)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(),
              RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")]
)  # fmt: skip
def test_out_of_memory_halves_the_batches_once_and_loses_nothing(error, rounding):
    rows = [TokenRow(tuple(range(3, 3 + n)), (Scored(n - 1, 5, n - 4),)) for n in range(4, 12)]
    batch = collate(rows, 0, torch.device("cpu"))
    model = make("GPT-2")
    scorer = TokenScorer(model, ForwardPasses(PrefixReuse(blocks_of(model), range(4))))
    whole = scorer.score([batch], 8)
    exact = TokenScorer(rounding.exact(model)).score([batch], 8)
    tight = Tight(model, 24, error)
    small = scorer.score([batch], 8)
    assert tight.failures == 2, "88 tokens, then 44 and 28; 22 and 14 fit"
    rounding.check(small.log_probabilities, whole.log_probabilities, exact.log_probabilities)
    assert (small.ranks, small.tops) == (whole.ranks, whole.tops)
    assert scorer.score([batch], 8) == small
    assert tight.failures == 2, "it remembers"
    scorer.passes.record([batch], scorer.run)
    assert scorer.passes.recorded([batch])
    scorer.passes.prefix.start = 3
    assert scorer.score([batch], 8) == small
    assert max(tight.sizes) <= 24


def test_one_row_that_does_not_fit_is_the_end():
    model = make("GPT-2")
    scorer = TokenScorer(model)
    batch = collate([TokenRow((3, 4, 5), (Scored(2, 5, 0),))], 0, torch.device("cpu"))
    Tight(model, 2, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        scorer.score([batch], 1)


def test_files_that_vanish_or_cannot_be_written_cost_speed_alone(tmp_path):
    model = make("GPT-2")
    run = passes_of(model, inputs_of(model, False))
    scratch = SharedScratch("study", str(tmp_path))
    prefix = PrefixReuse(blocks_of(model), range(4), Room(0, 0, 10**9, scratch))
    prefix.record([("x", 27, run)])
    for path in scratch.path.iterdir():
        path.write_bytes(b"torn")
    prefix.start = 2
    full = run()
    with prefix.replaying("x") as start:
        assert start == 0
        assert torch.equal(run(), full)
    assert not prefix.known("x"), "it is recorded again before the next job"
    assert not list(scratch.path.iterdir()), "what is torn does not stay"
    scratch.path.rmdir()
    prefix.record([("x", 27, run)])
    assert "cannot be kept" in prefix.refused
    with prefix.replaying("x") as start:
        assert start == 0
    fresh = PrefixReuse(blocks_of(model), range(4), Room(0, 0, 10**9, scratch))
    fresh.record([("x", 27, run)])
    assert "cannot be kept" in fresh.refused


def test_without_room_nothing_is_run_for_the_sake_of_recording():
    model = make("GPT-2")
    run = passes_of(model, inputs_of(model, False))
    runs = []

    def counted():
        runs.append(1)
        return run()

    prefix = PrefixReuse(blocks_of(model), range(4), Room(0))
    prefix.record([("x", 27, counted)])
    first = len(runs)
    prefix.record([(key, 27, counted) for key in "xyz"])
    assert len(runs) == first
    assert prefix.known("z")


@pytest.mark.parametrize("family", ["GPT-2", "T5"])
def test_what_one_process_recorded_another_takes(family, tmp_path):
    model = make(family)
    blocks = blocks_of(model)
    passes = {}
    for key in ("a", "b", "c"):
        inputs = inputs_of(model, False)
        inputs["input_ids"] = inputs["input_ids"].roll(ord(key), -1)
        passes[key] = passes_of(model, inputs)
    ran = []

    def counted(key):
        return lambda: ran.append(key) or passes[key]()

    scratches = [SharedScratch("study", str(tmp_path)) for _ in range(2)]
    first, second = (
        PrefixReuse(blocks, range(len(blocks)), Room(0, 0, 10**9, scratch)) for scratch in scratches
    )
    with torch.inference_mode():
        first.record([(key, 27, passes[key]) for key in passes])
        second.record([(key, 27, counted(key)) for key in passes])
    assert set(ran) == {"a"}, "only the batch that proves the boundaries runs"
    disturb(blocks.modules[2], 0)
    for key, run in passes.items():
        full = run()
        second.start = 2
        with second.replaying(key) as start:
            assert start == 2
            assert torch.equal(run(), full)
    for scratch in scratches:
        scratch.close()
