"""Data sets out of package registries and folders, as uint8 arrays. PyTorch is not needed here."""
