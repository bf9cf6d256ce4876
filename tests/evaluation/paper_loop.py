"""LASER's evaluation as a plain loop, one question at a time, and small models to run it on.

Written from what its scripts do, without any of our tasks, requests or predictors: raw rows in,
prompts, token ids, verdicts and log-probabilities out.
"""

from dataclasses import dataclass

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

PROFESSIONS = ["journalist", "poet", "composer", "model", "teacher", "architect", "painter",
               "professor"]  # fmt: skip
WORDS = [
    *PROFESSIONS,
    "true",
    "false",
    "male",
    "female",
    "Yes",
    "No",
    "entailment",
    "non-entailment",
    "Paris",
]
TEXT = [
    f"Consider the following text: the person is a {word} The gender of this person is {word}."
    f" Is this claim {word} {word} or {word}? {word} {word}"
    for word in WORDS
] * 6 + ["She writes verse. He mends teeth. Paris is in France - so they say!"] * 4
LONG = "She " + "writes verse and mends teeth and " * 14 + "draws"

ROWS = {
    "fever": [
        {"claim": "Paris is in France.", "label": "SUPPORTS"},
        {"claim": "Mend teeth!", "label": "REFUTES"},
        {"claim": "he draws houses", "label": "REFUTES"},
        {"claim": "is it so?", "label": "SUPPORTS"},
    ],
    "bios-gender": [
        {"hard_text": "She writes verse.", "gender": 1},
        {"hard_text": "He mends teeth!", "gender": 0},
        {"hard_text": LONG, "gender": 0},
    ],
    "bios-profession": [
        {"hard_text": "She writes verse.", "profession": "poet"},
        {"hard_text": "He draws houses!", "profession": "architect"},
        {"hard_text": LONG, "profession": "model"},
    ],
    "truthfulqa": [
        {
            "question": "Where is Paris?",
            "mc2_targets": {
                "choices": ["In France", "in verse!", "In France", "houses."],
                "labels": [1, 0, 1, 0],
            },
        }
    ],
    "hotpotqa": [
        {"question": "Is it Paris or verse", "answer": "Paris"},
        {"question": "Who writes?", "answer": "the poet, so they say"},
        {"question": "Who mends.", "answer": "a tooth - she mends teeth and draws"},
    ],
    "counterfact": [
        {"prompt": "The teacher is", "ground_truth": "Paris", "subject": "x"},
        {"prompt": "He writes", "ground_truth": "true", "subject": "y"},
    ],
    "bigbench:causal-judgment": [
        {"inputs": "He mends teeth. Did he?", "targets": ["Yes"]},
        {"inputs": "She draws. Did she", "targets": ["No"]},
    ],
    "bigbench:epistemic-reasoning": [
        {"inputs": "He says so. Relation:", "targets": ["entailment"]},
        {"inputs": "She says: draws. Relation:", "targets": ["non-entailment"]},
    ],
    "bigbench:qa-wikidata": [
        {"inputs": "Paris is in", "targets": ["France"]},
        {"inputs": "The person is a Paris", "targets": ["Paris"]},
    ],
}  # fmt: skip


@dataclass
class Verdict:
    """One question: what was asked, the tokens read for each answer, and what came of it."""

    prompt: str
    tokens: list
    right: bool
    log_probability: float
    f1: float | None = None


def build(family):
    """A small random model and a tokenizer in which the words asked for are one token each."""
    tokenizer = _llama_tokenizer() if family == "llama" else _byte_level(family == "roberta")
    size = {"vocab_size": len(tokenizer)}
    if family == "gptj":
        config = transformers.GPTJConfig(
            **size, n_embd=32, n_layer=2, n_head=2, n_positions=256, rotary_dim=8,
            bos_token_id=0, eos_token_id=0)  # fmt: skip
        kind = transformers.GPTJForCausalLM
    else:
        sizes = {**size, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                 "intermediate_size": 48, "max_position_embeddings": 258}  # fmt: skip
        if family == "llama":
            config, kind = transformers.LlamaConfig(**sizes), transformers.LlamaForCausalLM
        else:
            config = transformers.RobertaConfig(
                **sizes, pad_token_id=1, bos_token_id=0, eos_token_id=2)  # fmt: skip
            kind = transformers.RobertaForMaskedLM
    torch.manual_seed(1)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model, tokenizer


def _train(tokenizer, specials, alphabet):
    trainer = trainers.BpeTrainer(
        vocab_size=900, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def _byte_level(masked):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = ["<s>", "<pad>", "</s>", "<mask>"] if masked else ["<|endoftext|>"]
    _train(tokenizer, names, pre_tokenizers.ByteLevel.alphabet())
    if not masked:
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=names[0])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    found = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    found.add_special_tokens({"mask_token": AddedToken("<mask>", lstrip=True)})
    return found


def _llama_tokenizer():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    letters = sorted({letter for text in [*TEXT, str(ROWS)] for letter in text if letter != " "})
    _train(tokenizer, ["<unk>", "<s>", "</s>"], letters)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def ended(text, ends):
    """The text with a full stop, unless it ends in one of `ends`."""
    return text if any(text.endswith(end) for end in ends) else text + "."


class Loop:
    """The loop for one model."""

    def __init__(self, family, model, tokenizer):
        self.masked = family == "roberta"
        self.spaced = family != "llama"
        self.model, self.tokenizer = model, tokenizer

    def run(self, task, rows):
        """Verdicts of all questions that the rows hold."""
        kind = task.partition(":")[0].replace("-", "_")
        if task == "bigbench:qa-wikidata":
            kind = "open"
        return [v for row in rows for v in getattr(self, kind)(row)]

    def fever(self, row):
        claim = ended(row["claim"].strip(), ".?")
        prompt = f"Consider the following claim: {claim} Is this claim true or false. The claim is"
        label = int(row["label"] == "SUPPORTS")
        yield self.strictly(prompt + self.mask(" <mask>"), ["false", "true"], label)

    def truthfulqa(self, row):
        targets = row["mc2_targets"]
        for answer, label in zip(targets["choices"], targets["labels"], strict=True):
            prompt = row["question"] + " " + answer
            prompt = ended(prompt, ".") + "Is this statement true or false? This statement is"
            yield self.strictly(prompt + self.mask(" <mask>"), ["false", "true"], label)

    def bios_gender(self, row):
        text = ended(self.tail(row["hard_text"]).strip(), ".?")
        who = "This person is <mask>." if self.masked else "The gender of this person is"
        prompt = f"Consider the following text: {text} Is the person in this text a male or female?"
        yield self.strictly(f"{prompt} {who}", ["male", "female"], row["gender"])

    def bios_profession(self, row):
        text = ended(self.tail(row["hard_text"]).strip(), ".?")
        question = "What is the profession of the person in this text?"
        question += " The profession of this person is"
        if self.masked:
            question = "The profession of the person in the text is called <mask>."
        prompt = f"Consider the following text: {text} {question}"
        label = PROFESSIONS.index(row["profession"])
        values, read = self.single(prompt, PROFESSIONS)
        right = max(range(len(values)), key=lambda n: (values[n], -n)) == label
        yield Verdict(prompt, [read], right, values[label])

    def counterfact(self, row):
        prompt = row["prompt"] + self.mask(" <mask>.")
        if not self.spaced:
            yield from self.generated(prompt, row["ground_truth"], 10)
            return
        (value,), read = self.single(prompt, [row["ground_truth"]])
        top = self.tokenizer.decode([int(self.last.argmax())]).lower().strip()
        yield Verdict(prompt, [read], top == row["ground_truth"].lower().strip(), value)

    def hotpotqa(self, row):
        if len(self.tokenizer(row["answer"])["input_ids"]) > 15:
            return
        question = row["question"]
        prompt = question + ("" if question[-1] in "?." else "?") + " The answer is"
        yield from self.generated(prompt, row["answer"], 15)

    def open(self, row):
        yield from self.generated(row["inputs"].strip(), row["targets"][0].strip(), 10)

    def bigbench(self, row):
        (right,) = row["targets"]
        choices = ["Yes", "No"] if right in ("Yes", "No") else ["entailment", "non-entailment"]
        found = [self.taught(row["inputs"], choice) for choice in choices]
        values = [value for value, _, _ in found]
        said = 0 if values[0] >= values[1] else 1
        place = choices.index(right)
        per_token = values[place] / found[place][1]
        yield Verdict(row["inputs"], [f[2] for f in found], said == place, per_token)

    def generated(self, prompt, answer, length):
        value, count, read = self.taught(prompt, answer)
        if self.masked:
            ids = self.tokenizer(prompt + " <mask>" * 5)["input_ids"]
            said = self.logits(ids).argmax(-1).tolist()
            places = [n for n, token in enumerate(ids) if token == self.tokenizer.mask_token_id]
            assert len(places) == 5
            text = self.tokenizer.decode([said[n] for n in places])
            tokens = [read, ids]
        else:
            ids = self.tokenizer(prompt)["input_ids"]
            tokens = [read, list(ids)]
            for _ in range(length):
                ids = [*ids, int(self.logits(ids)[-1].argmax())]
                if ids[-1] == self.tokenizer.eos_token_id:
                    break
            text = self.tokenizer.decode(ids, skip_special_tokens=True)
        right = answer.lower() in text.lower()
        from tasks.paper_words import words  # against NLTK's own in another test

        a, b = set(words(text.strip().lower())), set(words(answer.strip().lower()))
        p, r = len(a & b) / max(1, len(a)), len(a & b) / max(1, len(b))
        yield Verdict(prompt, tokens, right, value / max(1, count), 2 * p * r / max(1, p + r))

    def taught(self, prompt, answer):
        """Log-probability of an answer, its length as it is counted there, the tokens read."""
        text = f"{prompt} {answer}"
        ids = self.tokenizer(text, add_special_tokens=not self.masked)["input_ids"]
        length = 1
        while self.tokenizer.decode(ids[-length:]).strip() != answer:
            length += 1
        read = list(ids)
        if self.masked:
            read[-length:] = [self.tokenizer.mask_token_id] * length
            found = self.logits(read).log_softmax(-1)[-length:]
            value = sum(float(found[n, token]) for n, token in enumerate(ids[-length:]))
            return value, length + 1, read  # its counter begins at one
        found = self.logits(ids).log_softmax(-1)[-length - 1 : -1]
        return sum(float(found[n, t]) for n, t in enumerate(ids[-length:])), length, read[:-1]

    def strictly(self, prompt, choices, label):
        values, read = self.single(prompt, choices)
        return Verdict(prompt, [read], values[label] > values[1 - label], values[label])

    def single(self, prompt, choices):
        """Log-probabilities of answers of one token each."""
        ids = self.tokenizer(prompt)["input_ids"]
        place = ids.index(self.tokenizer.mask_token_id) if self.masked else -1
        self.last = self.logits(ids)[place].log_softmax(-1)
        tokens = []
        for choice in choices:
            spelt = f" {choice}" if self.spaced else choice
            (token,) = self.tokenizer(spelt, add_special_tokens=False)["input_ids"]
            tokens.append(token)
        return [float(self.last[token]) for token in tokens], list(ids)

    def tail(self, text):
        if not self.masked:
            return text
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"][-50:]
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def mask(self, text):
        return text if self.masked else ""

    def logits(self, ids):
        with torch.inference_mode():
            return self.model(input_ids=torch.tensor([ids])).logits[0].double()
