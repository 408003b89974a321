import io

from rich.console import Console

from braingpt.train.run.progress import LiveReporter, PlainReporter, reporter_for
from braingpt.utils.formatting import duration

STEP = {
    "kind": "train",
    "step": 1,
    "loss": 9.7,
    "lr": 1e-3,
    "tokens_per_second": 1234.5,
    "memory_bytes": 1.5e9,
    "share_of_peak": 0.4,
    "inside": {"columns": 0.18, "imbalance": 1.2, "depth": 1.0},
}
SCORE = {"bits_per_byte": 1.5, "loss": 4.0, "tokens": 1, "bytes": 1, "perplexity": 54.6}
VALIDATION = {
    "kind": "validation",
    "step": 2,
    "loss": 4.0,
    "bits_per_byte": 1.5,
    "inside": {"columns": 0.176, "imbalance": 1.31, "depth": 1.0},
    "by_language": {"ko": SCORE, "en": SCORE | {"bits_per_byte": None}},
}


def tell(reporter):
    reporter.begin("nano: 2.7M parameters", 0, 3)
    for step in (1, 2, 3):
        reporter.step(STEP | {"step": step, "loss": None if step == 3 else 9.7})
    reporter.validation(VALIDATION)
    reporter.note("a note [with brackets]")
    reporter.end()


def test_plain_lines_first_and_last_step_and_what_matters():
    out = io.StringIO()
    tell(PlainReporter(Console(file=out, width=60)))
    lines = out.getvalue().splitlines()
    assert lines[0] == "nano: 2.7M parameters"
    assert [line.split()[1] for line in lines if line.startswith("step") and "tokens/s" in line] == [
        "1/3",
        "3/3",
    ]
    assert (
        "step 2  validation loss 4.000, 1.500 bits/byte (ko 1.500, en -); columns 18 %, imbalance 1.3"
        in lines
    )
    assert "1,234 tokens/s (40 % of measured matmul speed)  1.5 GB" in out.getvalue()
    assert lines[-1] == "a note [with brackets]"
    assert "\x1b" not in out.getvalue()


def test_live_on_a_terminal_only():
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=110)
    assert (
        isinstance(reporter_for(console), LiveReporter)
        and type(reporter_for(Console(file=io.StringIO()))) is PlainReporter
    )
    tell(reporter_for(console))
    assert "3/3" in out.getvalue() and "1.500 bits/byte" in out.getvalue() and "tokens/s" in out.getvalue()
    assert (
        "1,234 tokens/s (40 % of measured matmul speed), 1.5 GB, columns 18 %, imbalance 1.2\n"
        in out.getvalue().replace("\r", "")
    )
    # a run that fails before it begins
    LiveReporter(console).end()


def test_durations():
    assert [duration(s) for s in (0.4, 59.6, 61, 3600 * 26 + 125)] == ["0s", "1m00s", "1m01s", "26h02m"]
