"""What other libraries log while they are imported, which is nothing that the user of a command asked for."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_log_lines() -> Iterator[None]:
    """Leave out what is logged inside the `with`, warnings included.

    torchao, for one, logs which kernels of other machines it could not load, and names that torch renamed.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
