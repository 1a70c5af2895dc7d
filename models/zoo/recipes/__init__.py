"""One command per training: `python -m zoo.recipes.NAME --help`."""
