"""Little stories for the small models of the examples: made, not found, so that
there are as many as wanted and all are free. The same seed makes the same ones.
"""

import random

PEOPLE = "Anna Tom Mia Ben Lucy Max Ella Sam Nora Jack".split()
ANIMALS = "dog cat horse rabbit bear duck mouse owl".split()
COLOURS = "red blue green yellow white black brown".split()
THINGS = "ball book cup hat box stone lamp kite boat key".split()
PLACES = ["garden", "forest", "kitchen", "school", "river", "market", "old house"]
NUMBERS = "two three four five six seven".split()
WEATHER = ["It was raining", "The sun was warm", "It was a cold night", "Snow fell"]
FEELINGS = ["happy", "sad", "tired", "angry", "afraid", "very proud"]
SAYINGS = [
    "Where is my {thing}?",
    "I can see a {colour} {thing}.",
    "Please come with me to the {place}.",
    "I have {number} {thing}s and you have none!",
    "Do not be {feeling}.",
    "The {animal} is in the {place}.",
]
SENTENCES = [
    "{weather} in the {place}.",
    "{who} and {other} went to the {place}.",
    "There they met a {colour} {animal}.",
    "The {animal} was {feeling}, because it had lost a {thing}.",
    '{who} said, "{saying}"',
    '"{saying}" asked {other}.',
    "{who} gave the {colour} {thing} to {other}.",
    "In the box were {number} {colour} {thing}s.",
    "{other} looked at the {animal} and was {feeling}.",
    "Then {who} ran home, and the {animal} ran after.",
]


def _filled(draw, text, names):
    words = {
        "animal": draw.choice(ANIMALS),
        "colour": draw.choice(COLOURS),
        "thing": draw.choice(THINGS),
        "place": draw.choice(PLACES),
        "number": draw.choice(NUMBERS),
        "weather": draw.choice(WEATHER),
        "feeling": draw.choice(FEELINGS),
        **names,
    }
    saying = draw.choice(SAYINGS).format(**words)
    return text.format(saying=saying, **words)


def stories(count, seed=0):
    """So many texts of three to five sentences."""
    draw = random.Random(seed)
    made = []
    for _ in range(count):
        who, other = draw.sample(PEOPLE, 2)
        # A story keeps its people and its animal.
        names = {"who": who, "other": other, "animal": draw.choice(ANIMALS)}
        sentences = [
            _filled(draw, draw.choice(SENTENCES), names)
            for _ in range(draw.randint(3, 5))
        ]
        made.append(" ".join(sentences))
    return made
