"""The saved checkpoint of `tests/inference`."""

from tests.inference.conftest import saved as saved
