#!/usr/bin/env bash
# torch.nn.functional.grouped_mm on a CPU.
#
# Guess: a grouped product of float32 is refused on a CPU, where its documentation speaks of bfloat16 on GPUs; or
# else it shares the groups among the threads, which small groups need.
# Seen with torch 2.13.0: it is taken, and it is a loop of torch.mm over the groups, bit for bit with one thread
# and with two. So each small product is split among the threads, its last bits depend on their number, and two
# threads bring little. The MKL inside the same library exports cblas_sgemm_batch, whose results do not depend on
# the number of threads.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --quiet torch==2.13.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import ctypes
import sys

import numpy as np
import torch
import torch.nn.functional as F

torch.manual_seed(0)
groups, inputs, outputs = 40, 512, 64
sizes = torch.randint(1, 280, (groups,))
ends = sizes.cumsum(0).int()
x, weight = torch.randn(int(ends[-1]), inputs), torch.randn(groups, inputs, outputs)


def loop():
    return torch.cat([rows @ one for rows, one in zip(x.split(sizes.tolist()), weight, strict=True)])


def batched():
    """The same by MKL: every group is a batch of one product."""
    function = getattr(ctypes.CDLL(torch._C.__file__), "cblas_sgemm_batch")
    function.restype = None
    y = torch.empty(len(x), outputs)
    first = (ends - sizes).numpy().astype(np.int64)

    def every(value, dtype=np.int32):
        return np.full(groups, value, dtype)

    def at(tensor, index):
        return tensor.data_ptr() + index * tensor.stride(0) * 4

    arrays = [
        every(111), every(111), sizes.numpy().astype(np.int32), every(outputs), every(inputs),
        every(1, np.float32), at(x, first), every(inputs),
        at(weight, np.arange(groups, dtype=np.int64)), every(outputs),
        every(0, np.float32), at(y, first), every(outputs),
    ]
    ones = every(1)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]
    function(101, *pointers, ctypes.c_int(groups), ctypes.c_void_p(ones.ctypes.data))
    return y


found = {}
for threads in (1, 2):
    torch.set_num_threads(threads)
    found[threads] = F.grouped_mm(x, weight, offs=ends), loop(), batched()
one, two = found[1], found[2]
checks = {
    "grouped_mm takes float32 on a CPU": one[0].dtype == torch.float32,
    "one thread: grouped_mm equals the loop of mm, bit for bit": torch.equal(one[0], one[1]),
    "two threads: the same": torch.equal(two[0], two[1]),
    "grouped_mm differs between one thread and two": not torch.equal(one[0], two[0]),
    "cblas_sgemm_batch does not": torch.equal(one[2], two[2]),
    "all agree to 1e-3": all(torch.allclose(y, one[1], atol=1e-3) for y in (*one, *two)),
}
print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {groups} groups of 1 to 279 rows")
for what, holds in checks.items():
    print(f"{what}: {holds}")
sys.exit(0 if all(checks.values()) else 1)
PY
