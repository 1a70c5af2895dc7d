"""Shared by all recipes: the loop, the optimizers, augmentation, and the export to ONNX."""
