"""Data sets from package registries and folders, as uint8 arrays. PyTorch is not needed here."""
