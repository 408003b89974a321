"""Which backend of each operation runs, and what BRAINGPT_KERNELS may ask for."""

import pytest
import torch

from braingpt.kernels import registry

OPERATIONS = {
    "columns",
    "competition",
    "cross_entropy",
    "delta rule",
    "int8_linear",
    "magnitude_attention",
    "pointwise",
    "scan",
    "step",
    "two_four",
    "word_softmax",
}


def test_every_operation_names_its_backend_and_the_reference_on_demand(monkeypatch):
    rows = {row["operation"]: row for row in registry.report()}
    assert set(rows) == OPERATIONS
    assert rows["scan"]["runs"] == ("triton" if torch.cuda.is_available() else "chunked")
    assert all(reason for row in rows.values() for reason in row["others"].values())
    monkeypatch.setenv("BRAINGPT_KERNELS", "torch")
    assert all(row["runs"] == "torch" for row in registry.report())


@pytest.mark.parametrize("asked", ["scan=flash", "scna=fla", "fla", "torch,scan=fla"])
def test_a_wrong_choice_of_kernels_is_reported(monkeypatch, asked):
    monkeypatch.setenv("BRAINGPT_KERNELS", asked)
    assert registry.wrong_choice().startswith("BRAINGPT_KERNELS asks for ")


@pytest.mark.parametrize("asked", ["torch", "scan=chunked", "scan=chunked,columns=per column"])
def test_a_right_choice_of_kernels_passes(monkeypatch, asked):
    monkeypatch.setenv("BRAINGPT_KERNELS", asked)
    assert registry.wrong_choice() is None
