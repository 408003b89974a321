"""Whether the pattern of a tokenizer folder can be used: one that was written by somebody else may be no
regular expression, match nothing between two characters, leave characters out, or take for ever.

tiktoken ends the process with a panic for some of these and drops text for others.
"""

import regex

# What every pattern must cut without loss: each ASCII character, letters of several scripts, numbers, spaces,
# and runs that make a pattern with nested repetitions backtrack.
PROBES = (
    "".join(map(chr, range(128))),
    "하나 둘 셋, 2026년 11월.  다음\n\n\tÄpfel 'll don't Ａ１ 漢字",
    "\U0001f600\U0001f468\u200d\U0001f469 \u0301\x85\u3000",
    *(char * 64 + tail for char in ("a", "1", " ", "가", "!", "\n") for tail in ("", "!", "b", "x")),
)
# Seconds for all probes; a usual pattern takes a thousandth.
SECONDS = 2.0


def why_not_usable(pattern: str) -> str | None:
    """Why text cannot be cut by the pattern, in words; None where it can."""
    try:
        words = regex.compile(pattern, regex.V1)
        for probe in PROBES:
            pieces = [match[0] for match in words.finditer(probe, timeout=SECONDS)]
            if not all(pieces):
                return "its pattern matches without a character"
            if "".join(pieces) != probe:
                return "its pattern leaves characters out"
    except TimeoutError:
        return "its pattern takes too long"
    except (regex.error, RecursionError, OverflowError, MemoryError):
        return "its pattern is no regular expression"
    return None
