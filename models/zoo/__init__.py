"""Networks, data sets and training recipes of Skipstone's zoo; run from `models` as `python -m zoo...`."""
