"""The language-model shell (`lm.py`) and the three architectures: `dense`, `v1`, `v2`.

Pure modules: no files, no printing.
"""
