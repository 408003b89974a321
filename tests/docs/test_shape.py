"""The rule that compares outputs sees a changed word and a lost line, and does not see numbers."""

import pytest

from tests.docs.pages import parse
from tests.docs.shape import difference, form

TABLE = """\
nano-v2, step 1200: data/sample, windows of 128 tokens
language   tokens   loss  perplexity  bits per byte  95 % interval
ko         20,608  1.820        6.17          0.678  0.650 - 0.706
all        65,024  1.993        7.34          1.009  0.99 - 1.02
"""
COMMAND = "braingpt eval"


def test_numbers_and_spaces_may_differ() -> None:
    printed = (
        TABLE.replace("20,608", "   128").replace("0.650 - 0.706", "12.5 - 13").replace("step 1200", "step 4")
    )
    assert difference(COMMAND, TABLE.splitlines(), printed) is None
    assert (
        difference(
            COMMAND, ["training 35m05s, 933.7 MB, 12 %, 1.2M, -"], "training 3s, 1.1 GB, 7 %, 9.9k, 4.1e-05\n"
        )
        is None
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("bits per byte", "bits/byte"),
        ("perplexity  ", ""),
        ("ko   ", "kr   "),
        ("all        65,024", "all        65,024 1"),
        ("windows of 128 tokens", "windows of 128"),
        ("ko         20,608  1.820        6.17          0.678  0.650 - 0.706\n", ""),
        ("language", "ko  1  1  1  1  1 - 1\nlanguage"),
        ("0.99 - 1.02\n", "0.99 - 1.02\nnothing else\n"),
    ],
)
def test_a_changed_word_column_or_line_is_seen(old: str, new: str) -> None:
    assert old in TABLE
    assert difference(COMMAND, TABLE.splitlines(), TABLE.replace(old, new)) is not None


def test_dots_leave_lines_and_words_out() -> None:
    first, head, _, last = TABLE.splitlines()
    assert difference(COMMAND, [first, "...", last], TABLE) is None
    assert difference(COMMAND, [first, head, "..."], TABLE) is None
    assert difference(COMMAND, ["nano-v2, ..., windows of 9 tokens", "..."], TABLE) is None
    assert difference(COMMAND, [first, "...", head, last], TABLE) is not None
    assert difference(COMMAND, [last, "...", first], TABLE) is not None


def test_errors_and_what_the_clock_brings_need_no_promise() -> None:
    progress = "step 29/1200  loss 6.807  lr 4.35e-03  2,018 tokens/s  0.6 GB  7m06s left"
    printed = f"using runs/a\n{progress}\n{TABLE}{progress}\n"
    assert difference(COMMAND, TABLE.splitlines(), printed, frozenset({"using runs/a"})) is None
    assert difference(COMMAND, TABLE.splitlines(), printed) is not None
    assert (
        difference(
            COMMAND,
            [progress.replace("lr", "rate"), *TABLE.splitlines()],
            printed,
            frozenset({"using runs/a"}),
        )
        is not None
    )


def test_of_a_models_text_only_prompt_and_figures_count() -> None:
    command = 'braingpt generate --prompt "Once upon"'
    promised = [
        "Once upon a time",
        "there was a bear",
        "40 tokens, 210.5 tokens/s, first token after 0.01 s...",
    ]
    printed = "Once upon\na mine\n4 tokens, 9.1 tokens/s, first token after 1.01 s, stopped at end of text\n"
    assert difference(command, promised, printed) is None
    assert difference(command, promised, printed.replace("Once", "Twice")) is not None
    assert difference(command, promised, printed.replace("tokens/s", "words/s")) is not None


def test_a_page_is_read_as_a_reader_reads_it() -> None:
    text = """# A page
```console
$ braingpt data prepare \\
    sample
data/sample
$ OMP_NUM_THREADS=1 braingpt train  # slow
```
<!-- not run: needs two GPUs -->
```console
$ braingpt train --device cuda
```
```
braingpt doctor
```
```python
import braingpt
```
"""
    page = parse("page", text)
    assert page.commands == ("braingpt data prepare sample", "OMP_NUM_THREADS=1 braingpt train")
    assert page.steps[0].promised == ["data/sample"]
    assert page.programs == ["import braingpt\n"] and page.left_out == ["braingpt doctor"]
    assert form("step 5/1200  loss 1.2e-3  4 tokens/s  1h02m left") == "step #/# loss # # tokens/s # left"
