"""The language-model shell (`lm.py`) and the three architectures: `dense`, `v1`, `v2`.

No module here reads or writes a file, or prints.
"""
