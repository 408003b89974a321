"""Colours of pages and plots, by day and by night.

Every text colour has a contrast of at least 4.5 to its paper, and every line's colour of at least 3.
Plots are drawn in the colours of the day; on a page each becomes a variable, which the night redefines.
"""

# Steps of the colour scale, from the lowest value to the highest (ColorBrewer's Blues, colorbrewer2.org).
SCALE_STEPS = 9


def _scale(*colours: str) -> dict[str, str]:
    return {f"scale{step}": colour for step, colour in enumerate(colours)}


DAY = {
    "paper": "#ffffff",
    "ink": "#1c2128",
    "quiet": "#57606a",
    "grid": "#d8dee4",
    "frame": "#848d97",
    "soft": "#f4f6f8",
    "mark": "#b3121d",
    "line0": "#0b62a8",
    "line1": "#b8461f",
    "line2": "#23733f",
    "line3": "#7a4fa3",
    "line4": "#8a6300",
    "line5": "#0f7480",
    **_scale(
        "#f7fbff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b"
    ),
}
NIGHT = {
    "paper": "#14181d",
    "ink": "#e6e9ed",
    "quiet": "#a8b1bb",
    "grid": "#2e353d",
    "frame": "#768390",
    "soft": "#1c2229",
    "mark": "#ff7b72",
    "line0": "#6cb0f0",
    "line1": "#f08a5d",
    "line2": "#63c186",
    "line3": "#c39bea",
    "line4": "#e0b34c",
    "line5": "#5fc7d1",
    **_scale(
        "#1a2430", "#1c3450", "#1b4872", "#1d5d96", "#2f77b8", "#4f93d0", "#7db2e3", "#b0d2f1", "#e3f0fc"
    ),
}
# The colour of words on each step: dark on light steps, light on dark steps.
DARK_WORDS, LIGHT_WORDS = "#0b0f14", "#ffffff"
DAY |= {f"on{step}": DARK_WORDS if step < 6 else LIGHT_WORDS for step in range(SCALE_STEPS)}
NIGHT |= {f"on{step}": LIGHT_WORDS if step < 5 else DARK_WORDS for step in range(SCALE_STEPS)}
# Colours of single lines in a plot, in order.
LINES = tuple(DAY[f"line{number}"] for number in range(6))
SCALE = tuple(DAY[f"scale{step}"] for step in range(SCALE_STEPS))


def scale_step(value: float, highest: float) -> int:
    """The step of the colour scale for a value between 0 and `highest`; larger values have the last step."""
    return min(SCALE_STEPS - 1, int(SCALE_STEPS * max(0.0, value / highest)))


def variables() -> str:
    """The rules of a style sheet that define the colours."""
    day, night = (
        "; ".join(f"--{name}: {colour}" for name, colour in colours.items()) for colours in (DAY, NIGHT)
    )
    return (
        f":root {{ color-scheme: light dark; {day} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {night} }} }}\n"
    )
