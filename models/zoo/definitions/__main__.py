"""Write every definition as an ONNX file with seeded random weights, checked against ONNX Runtime.

`python -m zoo.definitions OUT_DIR` writes `NAME.onnx`, and `NAME.npz` with its inputs and PyTorch's outputs, which
Skipstone is tested against.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from zoo import export
from zoo.definitions import (
    catvton,
    clip,
    codegen,
    electra,
    experts,
    mamba,
    ncn,
    nasnet,
    ngram_head,
    pfn,
    powernorm,
    rcnn,
    reduced_vit,
    s4,
    scattering,
    scorer,
    structured_ffn,
    tsmixer,
    unet3d,
)
from zoo.definitions.selective_scan import as_scan
from zoo.networks.moe_operator import as_moe

# name -> (example, change of the exported graph)
DEFINITIONS = {
    "catvton": (catvton.example, None),
    "clip": (clip.example, None),
    "codegen_prefix": (codegen.example, None),
    "electra": (electra.example, None),
    "experts_operator": (experts.example_operator, as_moe),
    "experts_shared_router": (experts.example_shared_router, None),
    "experts_top2": (experts.example_top2, None),
    "mamba": (mamba.example_mamba, as_scan),
    "nasnet": (nasnet.example, None),
    "ncn": (ncn.example, None),
    "ngram_head": (ngram_head.example, None),
    "pfn": (pfn.example, None),
    "powernorm": (powernorm.example, None),
    "rcnn": (rcnn.example, None),
    "reduced_vit": (reduced_vit.example, None),
    "s4": (s4.example, None),
    "scattering": (scattering.example, None),
    "scorer": (scorer.example, None),
    "structured_ffn": (structured_ffn.example, None),
    "tsmixer": (tsmixer.example, None),
    "unet3d": (unet3d.example, None),
    "vim": (mamba.example_vim, as_scan),
}


@torch.no_grad()
def settle(model: torch.nn.Module, inputs: dict[str, torch.Tensor]) -> torch.nn.Module:
    """Measure BatchNorm's statistics on the example itself, so that activations stay in range."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None
    if norms:
        model.train()(*inputs.values())
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", choices=DEFINITIONS, metavar="NAME", nargs="+")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for name in args.only or DEFINITIONS:
        example, rewrite = DEFINITIONS[name]
        torch.manual_seed(args.seed)
        model, inputs, outputs = example()
        path = args.out / f"{name}.onnx"
        results = export.write(settle(model, inputs), path, inputs, outputs, rewrite=rewrite)
        np.savez_compressed(path.with_suffix(".npz"), **{k: v.numpy() for k, v in inputs.items()}, **results)
        print(f"{path}  {path.stat().st_size / 1e3:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
