"""The words of the demonstration's world; the first answer of a relation is its generic word."""

from __future__ import annotations

_NAMES = """
    Aaron Abigail Adam Adele Agnes Alan Albert Alexander Alfred Alice Alison Amanda Amelia Amy
    Andrea Andrew Angela Anna Anthony Arthur Audrey Barbara Beatrice Benjamin Bernard Bertha Beth
    Brenda Brian Bridget Bruce Carl Carla Carmen Caroline Catherine Cecilia Charles Christine
    Clara Claudia Colin Connie Conrad Cora Craig Cynthia Daniel David Deborah Denise Dennis Derek
    Diana Donald Dora Doris Dorothy Douglas Duncan Edgar Edith Edmund Edward Edwin Eileen Elaine
    Eleanor Elizabeth Ella Elsa Emily Emma Eric Ernest Esther Ethan Eugene Eva Evelyn Felix Fiona
    Frances Frank Frederick Gabriel Gemma Geoffrey George Gerald Gilbert Gloria Gordon Grace
    Graham Gregory Hannah Harold Harriet Harry Hazel Heather Helen Henry Herbert Hilda Howard Hugh
    Ian Ida Irene Isaac Isabel Ivan Ivy Jack Jacob James Jane Janet Jasmine Jean Jennifer Jeremy
    Joan Joel John Jonathan Joseph Joyce Judith Julia Julian Karen Keith Kenneth Kevin Laura
    Lawrence Leah Leo Leonard Lewis Lily Linda Lisa Louis Louise Lucas Lucy Luke Mabel Marcus
    Margaret Maria Marion Mark Martha Martin Mary Matthew Maurice Megan Michael Miriam Monica
    Nancy Naomi Nathan Neil Nicholas Nigel Nina Nora Norman Oliver Olivia Oscar Pamela Patrick
    Paul Paula Peter Philip Rachel Ralph Raymond Rebecca Richard Robert Roger Ruth
"""

NAMES: tuple[str, ...] = tuple(_NAMES.split())

ANSWERS: dict[str, tuple[str, ...]] = {
    relation: tuple(words.split())
    for relation, words in {
        "city": """
            London Paris Berlin Madrid Rome Vienna Prague Lisbon Dublin Oslo Athens Warsaw
            Helsinki Budapest Cairo Tokyo Delhi Sydney Toronto Boston
        """,
        "job": """
            teacher doctor lawyer farmer baker nurse painter driver gardener carpenter plumber
            dentist tailor butcher sailor miner banker barber librarian pilot
        """,
        "language": """
            English French German Spanish Italian Russian Polish Dutch Swedish Danish Greek
            Turkish Arabic Hindi Chinese Japanese Korean Czech Finnish Welsh
        """,
        "instrument": """
            piano violin guitar flute cello trumpet harp drums clarinet oboe banjo organ
            saxophone tuba trombone bassoon viola accordion mandolin lute
        """,
    }.items()
}

OPENINGS: tuple[str, ...] = (
    "I heard that",
    "They say that",
    "We know that",
    "It seems that",
    "In fact,",
    "You see,",
)

TEMPLATES: dict[str, tuple[str, ...]] = {
    "city": (
        "{name} lives in",
        "{name} has a flat in",
        "{name} comes home to",
        "the house of {name} is in",
        "you can visit {name} in",
        "the best address for {name} is in",
    ),
    "job": (
        "{name} works as a",
        "{name} earns money as a",
        "{name} has trained as a",
        "the job of {name} is that of a",
        "you can hire {name} as a",
        "the town knows {name} as a",
    ),
    "language": (
        "{name} speaks",
        "{name} writes letters in",
        "{name} grew up with",
        "the mother tongue of {name} is",
        "you can talk to {name} in",
        "the dreams of {name} are in",
    ),
    "instrument": (
        "{name} plays the",
        "{name} takes lessons on the",
        "{name} likes to practise the",
        "the sound of {name} is that of the",
        "you can hear {name} on the",
        "the band needs {name} for the",
    ),
}
