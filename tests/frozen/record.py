"""Record again what the tests of this folder compare with: after a change that was meant, and read as a diff
before it is committed.

python -m tests.frozen.record commands keys       # or tensors, losses, written; `keys` takes some minutes
"""

import os
import subprocess
import sys

from tests.frozen.calls import DATA, RECORD

TESTS = {
    "tensors": ["tests/frozen/test_tensors.py"],
    "commands": ["tests/frozen/test_commands.py"],
    "keys": [
        "tests/frozen/test_keys.py",
        "tests/cli/test_quickstart.py",
        "tests/cli/test_train.py::test_recipes_are_listed_and_shown",
        "tests/bench/test_runner.py::test_every_figure_is_measured",
        "tests/bench/test_kernels.py::test_every_operation_is_measured",
    ],
    "losses": ["tests/train/test_golden.py"],
    "written": ["tests/frozen/test_written.py"],
}


def main() -> int:
    """Run the tests named on the command line in the mode that writes."""
    names = sys.argv[1:]
    if not names or set(names) - set(TESTS):
        print(f"usage: python -m tests.frozen.record NAME..., of: {', '.join(TESTS)}", file=sys.stderr)
        return 2
    for name in names:
        # of which only some may be recorded again
        if name != "written":
            (DATA / f"{name}.json").unlink(missing_ok=True)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:xdist",
        *(test for name in names for test in TESTS[name]),
    ]
    return subprocess.run(
        command, env=os.environ | {RECORD: "1"}, cwd=DATA.parents[2], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
