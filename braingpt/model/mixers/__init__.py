"""Mixers, which mix the tokens of a block: attention, selective attention, dendritic attention, Mamba-2."""
