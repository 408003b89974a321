import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from braingpt.bench import clock, limits
from braingpt.bench.kernels import runner
from braingpt.bench.kernels.operations import OPERATIONS
from braingpt.bench.kernels.runner import measured, resolve_kernel_settings, run_kernels
from braingpt.bench.kernels.shapes import Shapes
from braingpt.bench.report.formatting import kernel_failures, kernel_row
from braingpt.bench.report.page import kernels_page
from braingpt.errors import UserError
from braingpt.recipes import load_recipe
from tests.frozen.keys import assert_keys


@pytest.fixture
def small(monkeypatch):
    """Settings of seconds: little to write between two calls."""
    monkeypatch.setitem(clock.COLD_BYTES, "cpu", 1 << 20)
    monkeypatch.setitem(limits.BUFFER_BYTES, "cpu", 4 << 20)
    monkeypatch.setattr(clock, "MOST_CALLS", 2)
    return resolve_kernel_settings(size="nano", batch=1, context=16, device="cpu", threads=1, rounds=2)


def test_every_operation_is_measured(small):
    first, *rows = measured(small)
    assert first["limits"]["float32"]["bytes_per_second"] > 0 and [row["operation"] for row in rows] == list(
        OPERATIONS
    )
    for row in rows:
        assert not row.get("error") and not row["failed"], row
        assert 0 < row["seconds"]["min"] <= row["seconds"]["median"] and len(row["seconds"]["rounds"]) == 2
        assert row["limit_seconds"] > 0 and row["share_of_limit"] == pytest.approx(
            row["limit_seconds"] / row["seconds"]["median"]
        )
        for key in ("reference_over_it", "dense_over_it"):
            assert row[key] is None or len(row[key]["rounds"]) == 2
    assert all(
        row["reference_over_it"]
        for row in rows
        if row["operation"] not in ("scan, one token", "selective attention")
    )
    report = {"kind": "kernels", "settings": vars(small), **first, "rows": rows}
    assert_keys(
        "bench kernels",
        {
            key: value
            for key, value in json.loads(json.dumps(report)).items()
            if key not in ("machine", "limits")
        },
    )
    assert kernels_page(json.loads(json.dumps(report, allow_nan=False))).count("<figure>") == 3


def test_a_row_that_fails_is_told_and_the_others_go_on(small, monkeypatch):
    def broken(shapes):
        raise RuntimeError("no kernel\nimage")

    whole = OPERATIONS["norm"]
    monkeypatch.setitem(OPERATIONS, "scan", broken)
    monkeypatch.setitem(
        OPERATIONS, "norm", lambda shapes: replace(whole(shapes), reference=lambda: torch.empty(10**15))
    )
    settings = replace(small, operations=("scan", "norm", "convolution"))
    _, scan, norm, conv = measured(settings)
    assert scan == {"operation": "scan", "error": "RuntimeError: no kernel image"}
    assert (
        norm["failed"] == {"reference": "out of memory"}
        and norm["reference_over_it"] is None
        and norm["seconds"]["median"] > 0
    )
    assert conv["reference_over_it"]
    assert kernel_failures({"rows": [scan, norm, conv]}) == [
        "scan: RuntimeError: no kernel image",
        "norm, reference: out of memory",
    ]
    assert kernel_row(scan)["name"] == ("scan", "failed") and kernel_row(norm)["reference"] == ("-", "")


def test_a_row_that_takes_the_process_with_it_costs_that_row_alone(small, monkeypatch):
    """The second row kills the worker, the fourth breaks the GPU's context after it was told; fresh workers
    go on.
    """
    code = """if 1:
        import json, os, sys
        print("a library says hello")
        print(json.dumps({"machine": {}, "limits": {}}))
        for name in json.load(sys.stdin)["operations"]:
            if name == "columns":
                print("Killed by something", file=sys.stderr, flush=True)
                os._exit(9)
            print(json.dumps({"operation": name, "path": name}), flush=True)
            if name == "delta rule":
                sys.exit(3)
    """

    def process(settings, operations, complaints):
        made = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
        )
        made.stdin.write(json.dumps({"operations": operations}))
        made.stdin.close()
        return made

    monkeypatch.setattr(runner, "_process", process)
    names = ("scan", "columns", "norm", "delta rule", "convolution")
    rows = run_kernels(replace(small, operations=names))["rows"]
    assert [row["operation"] for row in rows] == list(names)
    assert rows[1]["error"] == "the process ended with 9: Killed by something" and not any(
        "error" in row for row in rows[2:]
    )


@pytest.mark.parametrize("name", ["cross-entropy", "columns, one token"])
def test_operations_are_counted_as_torch_counts_them(name):
    recipes = (load_recipe(f"nano-{architecture}").model for architecture in ("v1", "v2"))
    operation = OPERATIONS[name](Shapes(*recipes, 1, 16, torch.device("cpu"), torch.float32))
    with FlopCounterMode(display=False) as counted:
        # The fused path sums in place, which is not counted.
        (operation.reference if name == "cross-entropy" else operation.work)()
    assert counted.get_total_flops() == operation.flops


def test_ratios_are_of_neighbouring_rounds():
    ratio = clock.Series([1.0, 10.0, 3.0]).over(clock.Series([2.0, 5.0, 1.0]))
    assert ratio.rounds == [0.5, 2.0, 3.0] and ratio.median == 2.0 and ratio.as_dict()["max"] == 3.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"operations": ["scann"]}, "unknown operation 'scann'; did you mean 'scan'"),
        ({"size": "smal"}, "no recipe smal-v1; did you mean 'small'"),
        ({"dtype": "float8"}, "unknown dtype 'float8'"),
    ],
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        resolve_kernel_settings(**arguments, device="cpu")
