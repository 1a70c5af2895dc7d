"""Networks from the literature that Skipstone must run, small and with random weights; one file each.

Each file defines its network after the paper it names, and `example()`, which returns a small one as (network, inputs
by name, names of the outputs). `python -m zoo.definitions OUT_DIR` writes all of them.
"""
