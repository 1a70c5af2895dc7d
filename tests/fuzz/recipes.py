"""The recipes of nodes, by operator. A recipe chooses shapes, operands and those attributes that depend on them; a table
has values for the others.
"""

from fuzz.schema import CLASSICAL, MICROSOFT, STANDARD

RECIPES = {}

# Operators whose results jump where operands hardly differ: they only read values without rounding.
SHARP = set()

# Operators that move or select elements without rounding.
MOVES = set()


def recipe(*names: str, domain: str = STANDARD, sharp: bool = False, moves: bool = False):
    """Registers a recipe for these operators."""

    def register(function):
        for name in names:
            RECIPES[domain, name] = function
            if sharp:
                SHARP.add((domain, name))
            if moves:
                MOVES.add((domain, name))
        return function

    return register


def classical(*names: str):
    """Registers a recipe for operators of ai.onnx.ml."""
    return recipe(*names, domain=CLASSICAL, sharp=True)


def microsoft(*names: str, **options):
    """Registers a recipe for operators of com.microsoft."""
    return recipe(*names, domain=MICROSOFT, **options)
