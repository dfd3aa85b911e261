"""The ratios to nginx as a bar chart."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

_SERVERS = {
    "lane": "#0b6e4f",
    "asgi": "#6fb98f",
    "caddy": "#4878a8",
    "servestatic": "#b07aa1",
    "whitenoise-granian": "#e0a030",
    "whitenoise": "#f0cf85",
    "staticfiles": "#9c9c9c",
}
_SCENARIOS = ("page", "negotiated", "304", "image", "film", "range")


def plot(found: dict[str, Any], file: Path) -> None:
    """Writes a PNG. Bars begin at nginx: up is faster, down is slower, each grid line is a factor."""
    scenarios = [found["scenarios"][key] for key in _SCENARIOS if key in found["scenarios"]]
    servers = [key for key in _SERVERS if any(_ratio(scenario, key) for scenario in scenarios)]
    if not servers:
        return
    figure, axes = pyplot.subplots(figsize=(12, 6), dpi=110)
    width = 0.86 / len(servers)
    for place, key in enumerate(servers):
        for group, scenario in enumerate(scenarios):
            if ratio := _ratio(scenario, key):
                left = group + (place - (len(servers) - 1) / 2) * width
                axes.bar(
                    left,
                    ratio - 1,
                    width * 0.92,
                    bottom=1,
                    color=_SERVERS[key],
                    label=found["servers"][key] if scenario is _first(scenarios, key) else None,
                )
                above = ratio >= 1
                axes.annotate(
                    f"{ratio:.2f}",
                    (left, ratio),
                    (0, 2 if above else -2),
                    textcoords="offset points",
                    ha="center",
                    va="bottom" if above else "top",
                    fontsize=7,
                    color="#333333",
                )
    _axes(axes, found, scenarios)
    figure.tight_layout()
    figure.savefig(file)
    pyplot.close(figure)


def _axes(axes: Any, found: dict[str, Any], scenarios: list[dict[str, Any]]) -> None:
    axes.set_yscale("log")
    axes.set_ylim(0.01, 3)
    axes.yaxis.set_major_locator(FixedLocator([0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axes.grid(axis="y", color="#e4e4e4")
    axes.set_axisbelow(True)
    axes.axhline(1, color="black", linewidth=1.2)
    axes.set_xticks(range(len(scenarios)), [scenario["title"].replace(", ", ",\n") for scenario in scenarios])
    axes.set_ylabel("requests a second, nginx = 1 (logarithmic)")
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis="x", length=0)
    settings = found["settings"]
    axes.set_title(
        f"Static files on one core against nginx, {found['date'][:10]} "
        f"(median of {settings['rounds']} × {settings['seconds']} s, {settings['connections']} connections)",
        fontsize=11,
    )
    axes.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.1), frameon=False, fontsize=9)


def _ratio(scenario: dict[str, Any], server: str) -> float | None:
    one = scenario["servers"].get(server)
    return one["ratio"] if one else None


def _first(scenarios: list[dict[str, Any]], server: str) -> dict[str, Any] | None:
    return next((scenario for scenario in scenarios if _ratio(scenario, server)), None)
