"""Operations and their backends: the definition in plain torch, the path of CPUs, the path of GPUs.

One file or folder an operation.
In a folder the file of the operation's own name chooses, `reference.py` is the definition, `triton_ops.py`
launches our Triton kernels and `triton_kernels.py` has them.
`dispatch` holds the rule that chooses and `registry` the list of all operations.
The package imports nothing of ours outside itself.
"""
