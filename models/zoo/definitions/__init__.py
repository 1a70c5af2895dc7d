"""Networks of the literature that Skipstone has to run, small and with random weights; one file each.

Each file defines its network after the paper it names, and `example()`, which gives a small one in the order
(network, inputs by name, names of the outputs). `python -m zoo.definitions OUT_DIR` writes all of them.
"""
