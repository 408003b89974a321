"""Text given to a command, cleaned as training texts are, and the one line that says what was changed."""

from typing import TYPE_CHECKING

from braingpt.cli.console import print_line

if TYPE_CHECKING:
    from rich.console import Console

    from braingpt.tokenizer.cleaning import Changes


def clean_input(text: str, what: str, messages: "Console") -> tuple[str, "Changes"]:
    """A text for a model to read.

    Args:
        text: The text as it was given.
        what: What the text is, for the line about the changes, such as "the prompt".
        messages: The console for people.

    Returns:
        The cleaned text and what was changed.

    Raises:
        UserError: The text is not valid Unicode.
    """
    cleaned, changes = clean_valid_counted(text)
    print_changes(changes, what, messages)
    return cleaned, changes


def clean_valid_counted(text: str) -> tuple[str, "Changes"]:
    """`clean_input` without the line. Raises UserError."""
    from braingpt.tokenizer.cleaning import check_valid, clean_counted

    check_valid(text)
    return clean_counted(text)


def print_changes(changes: "Changes", what: str, messages: "Console") -> None:
    """Say what cleaning changed, if anything."""
    if changes:
        print_line(messages, f"note: {what} cleaned as training texts are: {changes.describe()}")
