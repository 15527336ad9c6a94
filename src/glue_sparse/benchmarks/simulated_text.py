"""A text of no people, for pre-training where there is none at hand."""

import random

SIMULATED = "simulated text"


def simulated_text(documents: int = 1500, words: int = 100) -> str:
    """Documents of words of which each has three that may follow: what comes next can be learned, but says nothing."""
    chance = random.Random(0)
    known = ["".join(chance.choices("abcdefghiklmnoprstuvw", k=chance.randint(2, 7))) for _ in range(words)]
    follows = [chance.choices(range(words), k=3) for _ in known]
    found = []
    for _ in range(documents):
        word, lines = chance.randrange(words), []
        for _ in range(8):
            line = []
            for _ in range(9):
                line.append(known[word])
                word = chance.choice(follows[word])
            lines.append(" ".join(line))
        found.append("\n".join(lines))
    return "\n\n".join(found) + "\n"
