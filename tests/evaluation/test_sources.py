"""Every command of docs/sources.md on small local models, with what it prints checked by hand."""

import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers
from typer.testing import CliRunner

from cluster.cli import app

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "sources.md"
SENTENCES = [("a fine film", 1), ("a dull film", 0), ("fine and true", 1), ("dull , and long", 0)]


def commands():
    if not PAGE.is_file():
        return []
    fences = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [line for fence in fences for line in fence.strip().splitlines()]


def run(command, capsys):
    """What a command prints; a script runs in this process too."""
    words = shlex.split(command)
    if words[0] == "laser-search":
        result = CliRunner().invoke(app, words[1:])
        assert result.exit_code == 0, result.output
        return result.output
    path = ROOT / words[1]
    spec = importlib.util.spec_from_file_location(f"source_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    capsys.readouterr()
    assert (module.main(words[2:]) if len(words) > 2 else module.main()) == 0
    return capsys.readouterr().out


def one(*parts):
    """The one command of the page that has all of `parts`."""
    if not PAGE.is_file():
        pytest.skip("documents are not shipped with the wheel")
    (found,) = [line for line in commands() if all(part in line for part in parts)]
    return found


@pytest.fixture(scope="module")
def bert(tokenizers, tmp_path_factory):
    """A BERT of 4 layers with two labels, its tokenizer, and sentences in a file."""
    folder = tmp_path_factory.mktemp("bert")
    tokenizers["wordpiece"].save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(tokenizers["wordpiece"]), hidden_size=32, num_hidden_layers=4,
        num_attention_heads=2, intermediate_size=48, max_position_embeddings=64, num_labels=2,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    rows = [f"{text} {n}\t{label}" for n in range(8) for text, label in SENTENCES]
    (folder / "sst2.tsv").write_text("sentence\tlabel\n" + "\n".join(rows))
    return folder


@pytest.fixture(scope="module")
def t5(tokenizers, tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5")
    tokenizers["unigram with end"].save_pretrained(folder)
    config = transformers.T5Config(
        vocab_size=len(tokenizers["unigram with end"]), d_model=32, d_kv=16, d_ff=48, num_layers=2,
        num_heads=2, feed_forward_proj="gated-gelu", decoder_start_token_id=0, pad_token_id=0,
        eos_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    rows = [{"dialogue": f"Arun: Paris {n}", "summary": "Arun is in Paris."} for n in range(3)]
    (folder / "samsum.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


def test_every_layer_of_a_classifier_at_every_fraction(bert, tmp_path, capsys):
    command = one("sst2_layers.py").replace("./bert-large-sst2", str(bert))
    command = command.replace("./sst2-dev.tsv", str(bert / "sst2.tsv"))
    found = json.loads(run(f"{command} --json --factors {tmp_path}", capsys))
    cuts = [(row["layer"], row["removed"]) for row in found["rows"][1:]]
    assert cuts == [(layer, removed) for layer in range(4) for removed in (0.9, 0.95, 0.99)]
    from search.plan import open_task
    from search.sections import TaskConfig
    from tasks.splits import split_examples

    examples = open_task(TaskConfig(name="sst2"), "classifier").load(str(bert / "sst2.tsv"))
    half = split_examples(examples, 0.5, 0, "groups").validation
    model = transformers.AutoModelForSequenceClassification.from_pretrained(bert).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    original = {layer: model.bert.encoder.layer[layer].intermediate.dense.weight.detach().clone()
                for layer in range(4)}  # fmt: skip

    def accuracy():
        right = 0
        for example in half:
            with torch.inference_mode():
                said = int(model(**tokenizer(example.prompt, return_tensors="pt")).logits.argmax())
            right += said == example.label
        return right / len(half)

    for row in found["rows"]:
        if row["layer"] is not None:
            weight = model.bert.encoder.layer[row["layer"]].intermediate.dense.weight
            rank = max(1, int(32 * (1 - row["removed"]) + 1e-9))
            U, S, Vh = torch.linalg.svd(original[row["layer"]].double(), full_matrices=False)
            weight.data.copy_((U[:, :rank] * S[:rank]) @ Vh[:rank])
        assert row["accuracy"] == pytest.approx(accuracy())
        if row["layer"] is not None:
            weight.data.copy_(original[row["layer"]])
    assert set(found["other_half"]) == {"before", "after", "low", "high", "p_value"}


def test_the_parameters_of_a_factored_flan_t5_both_ways(capsys):
    printed = run(one("flan_t5_counts.py"), capsys)
    assert "dense 247,577,856" in printed
    row = next(line for line in printed.splitlines() if line.startswith("| q, k, v | 384 "))
    whole, outside = (int(cell.replace(",", "")) for cell in row.split("|")[3:5])
    # 36 attentions of q, k, v, each 768 x 768: two factors of rank 384 are as many parameters.
    assert outside == 247577856 - 36 * 3 * 768 * 768
    assert whole == 247577856
    assert round(outside / 1e6, 1) == 183.9


def test_rouge_before_and_after(t5, tmp_path, capsys):
    pytest.importorskip("rouge_score")
    command = one("--task samsum").replace("google/flan-t5-base", str(t5))
    command = command.replace("./samsum.jsonl", str(t5 / "samsum.jsonl"))
    command = command.replace("rank:384", "rank:16")
    found = json.loads(run(f"{command} --json --factors {tmp_path}", capsys))
    before, after = found["scores"].values()
    for scores in (before, after):
        assert set(scores["measures"]) >= {"rouge1", "rouge2", "rougeL", "rougeLsum"}
    (name,) = [name for name in found["scores"] if name != "baseline"]
    cuts = name.split()
    assert len(cuts) == 3 * (2 + 2 + 2), "encoder, decoder and the attention between them"
    assert before["log_loss"] != after["log_loss"]


def test_attention_in_thin_layers_is_as_large_as_before(t5, tmp_path, capsys):
    command = one("laser-search cut").replace("google/flan-t5-base", str(t5))
    command = command.replace("rank:384", "rank:16").replace("./flan-t5-384", str(tmp_path / "cut"))
    found = json.loads(run(f"{command} --json --no-verify", capsys))
    size = found["parameters"]
    assert size["base"] == size["here"]
    assert size["thin"] == 3 * 2 * 4 * 32 * 32, "two layers of q, k, v, o in three attentions"


def test_curves_are_those_of_explicit_products(t5, tmp_path, capsys):
    command = one("--address 'encoder.*.q_proj'").replace("google/flan-t5-base", str(t5))
    run(command.replace("./spectra", str(tmp_path / "s")), capsys)
    table = pd.read_parquet(tmp_path / "s" / "spectra.parquet").set_index("matrix")
    assert list(table.index) == ["encoder.0.q_proj", "encoder.1.q_proj"]
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(t5)
    weight = model.encoder.block[1].layer[0].SelfAttention.q.weight.detach().double()
    row = table.loc["encoder.1.q_proj"]
    U, S, Vh = torch.linalg.svd(weight, full_matrices=False)
    torch.testing.assert_close(torch.tensor(row["spectrum"]), S, rtol=1e-5, atol=1e-6)
    x = torch.randn(32, 4000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for rank in (4, 16):
        cut = (U[:, :rank] * S[:rank]) @ Vh[:rank]
        cosine = torch.nn.functional.cosine_similarity(weight @ x, cut @ x, dim=0).mean()
        assert row["cosine_random"][rank - 1] == pytest.approx(float(cosine), abs=0.06)
        tail = sum(value**2 for value in row["spectrum"][rank:]) ** 0.5
        assert tail == pytest.approx(float(torch.dist(weight, cut)), rel=1e-5)
    assert (tmp_path / "s" / "figures" / "encoder.1.q_proj.png").is_file()


def test_factors_of_a_whole_bert_are_counted_and_trained(bert, capsys):
    counted = json.loads(run(one("--count"), capsys))
    assert (counted["dense"], counted["factored"]) == (109_483_778, 45_389_570)
    command = one("linear_factors.py", "--steps").replace(
        "google-bert/bert-base-uncased", str(bert)
    )
    for name in ("./sst2-train.tsv", "./sst2-dev.tsv"):
        command = command.replace(name, str(bert / "sst2.tsv"))
    command = command.replace("--rank 1 128 --steps 1000", "--rank 1 8 --steps 60 --rate 0.003")
    rows = json.loads(run(f"{command} --json", capsys))
    assert [row["rank"] for row in rows] == [1, 8]
    small = 4 * (4 * 2 * 32 + 2 * (32 + 48)) + 2 * 32  # what rank 1 keeps of 25 matrices
    large = 4 * (4 * 32 * 32 + 2 * 32 * 48) + 32 * 32
    assert rows[0]["dense"] - rows[0]["factored"] == large - small
    assert rows[1]["after"] > 0.9 > rows[1]["before"], "with enough rank it learns"


def test_the_scanners_table_of_a_model(build, tokenizers, tmp_path, capsys):
    model, tokenizer = build("causal", "llama")
    model.save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    command = one("./llama").replace("./llama", str(tmp_path / "llama"))
    run(command.replace("./spectra", str(tmp_path / "s")), capsys)
    found = json.loads((tmp_path / "s" / "snr.json").read_text())
    assert len(found) == 2 * 7
    assert set(next(iter(found.values()))) == {"snr", "type"}


def test_every_command_of_the_page_is_run_here():
    own = Path(__file__).read_text(encoding="utf-8")
    asked = re.findall(r"\bone\((.*?)\)", own)
    parts = [re.findall(r'"([^"]+)"', text) for text in asked]
    held = {line for line in commands() for own in parts if own and all(p in line for p in own)}
    assert held == set(commands())
    assert not PAGE.is_file() or len(held) == 8
