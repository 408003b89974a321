"""Whether a command's output has the shape that a page promises: the same words, whatever the numbers.

Both are brought to a form in which every number is `#`, together with its unit of size or time, and so is a
dash that stands for a number. Then each promised line must be found in the output, in the promised order;
between two promised lines no other line may stand, nor behind the last one. A line `...` lets lines stand
there, and `...` within a line stands for any words. A page need not promise what a command prints to
standard error, nor what it prints only on a slow or busy machine.
"""

import re
import shlex

DURATION = re.compile(r"(?<![\w.])(?:\d+h\d\dm|\d+m\d\ds|\d+s)\b")
UNIT = r"(?: ?(?:[kMGT]?B|%|[kMGTx]|[mu]?s|min|h|days?)(?![A-Za-z/]))?"
NUMBER = re.compile(rf"(?<![A-Za-z_])[-+]?\d+(?:,\d{{3}})*(?:\.\d+)?(?:e[-+]?\d+)?{UNIT}")
RULE = re.compile(r"[-=─━]{3,}")
# Words that depend on the length of a run, and on where a model ends its text.
NOW_AND_THEN = re.compile(r" \(# of measured matmul speed\)|, stopped at end of text")
DASH = re.compile(r"(?<!\S)-(?!\S)")
LEFT_OUT = "..."

# Lines that the clock brings, as `form` makes them: progress of what takes long, words about a busy machine.
BY_THE_CLOCK = re.compile(r"step #/# .*|\S+: # of # documents kept.*|# programs share # processors.*")
WRITTEN_BY_A_MODEL = ("generate", "chat", "data sample")


def form(line: str) -> str:
    """`ko  5,538  4.39 MB  -` becomes `ko # # #`."""
    line = NOW_AND_THEN.sub("", NUMBER.sub("#", DURATION.sub("#", line)))
    return " ".join(DASH.sub("#", RULE.sub("---", line)).split())


def difference(
    command: str, promised: list[str], printed: str, errors: frozenset[str] = frozenset()
) -> str | None:
    """None where the output has the promised shape; else what was promised, and what was printed there.

    `errors`: the lines that came from standard error.

    Of text that a model wrote only two things are asked: the text begins with the prompt, and a line of
    figures behind it has its shape.
    """
    lines = [line.rstrip() for line in printed.splitlines() if line.strip()]
    if command.split("braingpt ", 1)[-1].startswith(WRITTEN_BY_A_MODEL):
        return _of_a_model(command, promised, lines)
    forms = [form(line) for line in lines]
    free = [
        line in errors or bool(BY_THE_CLOCK.fullmatch(shape))
        for line, shape in zip(lines, forms, strict=True)
    ]
    # Where a reader can be after a promised line: all printed lines that may come next.
    places, gap = {0}, False
    for line in promised:
        if line.strip() == LEFT_OUT:
            gap = True
            continue
        pattern, reached = _pattern(line), set()
        for place in places:
            while place < len(forms):
                if pattern.fullmatch(forms[place]):
                    reached.add(place + 1)
                if not (gap or free[place]):
                    break
                place += 1
        if not reached:
            return _both(form(line), forms[min(places) :])
        places, gap = reached, False
    if promised and not gap and not any(all(free[place:]) for place in places):
        return _both("(the end; a last line `...` would allow more)", forms[max(places) :])
    return None


def _of_a_model(command: str, promised: list[str], lines: list[str]) -> str | None:
    words = shlex.split(command)
    prompt = words[words.index("--prompt") + 1] if "--prompt" in words else ""
    text = "\n".join(lines)
    if promised and prompt and not (promised[0].startswith(prompt) and prompt in text):
        return _both(prompt, lines)
    figures = [line for line in promised if re.match(r"\d+ tokens", line)]
    # The line is broken where it is longer than the screen is wide.
    missing = [line for line in figures if not _pattern(line).search(" ".join(map(form, lines)))]
    return _both(form(missing[0]), lines) if missing else None


def _pattern(line: str) -> re.Pattern[str]:
    return re.compile(
        ".*".join(re.escape(form(part)) for part in line.split(LEFT_OUT)).replace(".*", r"\s*.*\s*")
    )


def _both(promised: str, printed: list[str]) -> str:
    return f"promised: {promised}\nprinted:  " + "\n          ".join(printed[:12] or ["(nothing more)"])
