import math

import pytest

from braingpt.utils.formatting import readable


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (572.1453, "572"),
        (57.21453, "57.2"),
        (5.721453, "5.721"),
        (0.5721453, "0.5721"),
        (0.0012, "0.0012"),
        (3.4e-7, "3.4e-07"),
        (1e-12, "1e-12"),
        (-0.0012, "-0.0012"),
        (0.0, "0"),
        (12_345, "12,345"),
        (12_345.6, "12,346"),
        (1e12, "1e12"),
        (10**12, "1,000,000,000,000"),
        (None, "-"),
        (math.nan, "-"),
        (math.inf, "-"),
    ],
)
def test_a_number_has_the_digits_that_a_reader_uses(value, written) -> None:
    assert readable(value) == written
