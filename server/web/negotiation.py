"""What a client would rather have: Accept (RFC 9110 section 12.5.1), for the two forms an answer can take."""


def prefers_json(accept: str) -> bool:
    """True where `accept` ranks JSON above HTML. A browser's form does not; nor does `*/*`."""
    return _rank(accept, "application/json") > _rank(accept, "text/html")


def prefers_html(accept: str) -> bool:
    """True where `accept` ranks HTML above JSON, as a browser does for a page; `*/*` does not."""
    return _rank(accept, "text/html") > _rank(accept, "application/json")


def _rank(accept: str, media_type: str) -> tuple[float, int]:
    """The weight of `media_type`, that of the most specific range that covers it, and how specific that is.

    The latter breaks a tie: scripts send `application/json, text/plain, */*`.
    """
    best = (-1, 0.0)
    for item in accept.lower().split(","):
        pattern, *parameters = (part.strip() for part in item.split(";"))
        ranges = ("*/*", media_type.partition("/")[0] + "/*", media_type)
        if pattern in ranges:
            best = max(best, (ranges.index(pattern), _weight(parameters)))
    specific, weight = best
    return (weight, specific) if weight else (0.0, -1)


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return min(max(float(parameter[2:]), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0
