import pytest

from tasks.base import Choose, Chosen
from tasks.bios import CHOSEN, BiosGender, BiosProfession
from tasks.errors import InputError

ROWS = [
    {"hard_text": "She writes verse.", "profession": 20, "gender": 1},
    {"hard_text": "He mends teeth", "profession": 6, "gender": 0},
    {"hard_text": "He draws houses.", "profession": 1, "gender": 0},
]


def test_gender(write):
    task = BiosGender()
    examples = task.load(write("bios.jsonl", ROWS))
    assert [e.answer for e in examples] == ["female", "male", "male"]
    assert [e.columns["profession"] for e in examples] == ["poet", "dentist", "architect"]
    prompt = (
        "Consider the following text: He mends teeth. Is the person in this text a male or female? "
    )
    assert task.request(examples[1], "causal") == Choose(
        f"{prompt}The gender of this person is", (" male", " female")
    )
    assert task.request(examples[1], "masked").prompt == f"{prompt}This person is [MASK]."
    assert task.outcome(examples[1], Chosen((-1.0, -2.0), (1, 1))).score == 1.0


def test_professions_that_are_not_asked_about_are_left_out(write):
    task = BiosProfession()
    examples = task.load(write("bios.jsonl", ROWS))
    assert [e.answer for e in examples] == ["poet", "architect"]
    assert [e.columns["gender"] for e in examples] == ["female", "male"]
    request = task.request(examples[0], "causal")
    assert request.prompt.endswith(
        "She writes verse. What is the profession of the person in this text? "
        "The profession of this person is"
    )
    assert request.choices == tuple(f" {word}" for word in CHOSEN)
    likely = [-9.0] * 8
    likely[CHOSEN.index("poet")] = -1.0
    outcome = task.outcome(examples[0], Chosen(tuple(likely), (1,) * 8))
    assert (outcome.score, outcome.prediction) == (1.0, "poet")


def test_names_serve_as_well_as_numbers_and_equal_texts_are_one_group(write):
    rows = [
        {"hard_text": "x", "gender": "Female", "profession": "software_engineer"},
        {"hard_text": "x", "gender": 0, "profession": 24},
    ]
    first, second = BiosGender().load(write("bios.jsonl", rows))
    assert (first.answer, first.columns) == ("female", {"profession": "software engineer"})
    assert first.group == second.group


@pytest.mark.parametrize(
    ("task", "row", "words"),
    [
        (BiosGender(), {"hard_text": "x", "gender": 2}, ["gender is '2'", "below 2"]),
        (BiosGender(), {"hard_text": "x"}, ["'gender' is missing"]),
        (BiosProfession(), {"hard_text": "x", "profession": "poett"}, ["'poett'", "'poet'"]),
        (BiosProfession(), {"hard_text": "x", "profession": 6}, ["no biography of a"]),
    ],
)
def test_bad_rows(write, task, row, words):
    with pytest.raises(InputError) as error:
        task.load(write("b.jsonl", [row]))
    assert all(word in str(error.value) for word in words), str(error.value)
