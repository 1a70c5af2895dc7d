"""Definitions of networks, written from their papers; one file per family."""
