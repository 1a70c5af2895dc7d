"""What every recipe shares: the loop, the optimizers, augmentation, and the export to ONNX."""
