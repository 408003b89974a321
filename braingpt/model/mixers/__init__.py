"""What mixes tokens: attention, selective attention, dendritic attention, Mamba-2."""
