"""Text on a terminal: what a terminal would obey instead of showing becomes visible, and JSON keeps what the
terminal's encoding lacks.

A text, a file name or an error of another library may hold escape sequences that clear the screen, rename the
window or write to the clipboard, and marks that reverse the order of the characters after them.
"""

import codecs
import json
import re

from braingpt.utils.paths import printable

# C0 and C1 controls without tab and line feed, the line ends that only some programs know, and the marks
# that override or isolate a direction of writing. U+009B begins a sequence as ESC [ does. The surrogates are
# bytes of a file name that are not UTF-8, which no stream takes.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """The text with every character that a terminal would obey as its escape, such as `\\x1b`.

    Tabs and ends of lines stay; the end of a line of Windows becomes a plain one.
    """
    return _UNSAFE.sub(_shown, text.replace("\r\n", "\n"))


def _shown(match: re.Match[str]) -> str:
    """An unsafe character as its escape."""
    return printable(match[0]) if match[0] >= "\ud800" else repr(match[0])[1:-1]


def visible_json(text: str, encoding: str = "utf-8") -> str:
    """JSON with the same characters escaped, which any reader of JSON takes for what they were; so are those
    that `encoding` lacks.
    """
    text = _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return text.encode(encoding, _ESCAPED).decode(encoding)


def _escape(error: UnicodeError) -> tuple[str, int]:
    """What stands in JSON for characters that cannot be encoded."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end


_ESCAPED = "braingpt-json"
codecs.register_error(_ESCAPED, _escape)
