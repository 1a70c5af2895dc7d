"""One command a training: `python -m zoo.recipes.NAME --help`."""
