"""What can be read on a colour (WCAG 2.2, relative luminance and contrast ratio)."""

from functools import lru_cache

BLACK, WHITE = "#000000", "#ffffff"


def luminance(color: str) -> float:
    """How light a colour (`#rrggbb`) is, from 0 to 1."""
    shares = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """From 1, the same, to 21, black and white. Text needs 4.5."""
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@lru_cache
def ink(background: str) -> str:
    """Black or white, whichever reads better on this colour. One of them always has 4.5."""
    return max(WHITE, BLACK, key=lambda color: contrast(color, background))
