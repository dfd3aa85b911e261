"""Signups as bar charts: how many a second, and how long one takes."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

_COLOURS = {
    "doorbell": "#0b6e4f",
    "doorbell-mail": "#6fb98f",
    "nothing": "#9c9c9c",
    "commit": "#4878a8",
    "library": "#8fb0d0",
}


def plot(found: dict[str, Any], file: Path) -> None:
    """Writes a PNG with a panel for each figure; each row is a server."""
    panels = [
        (scenario, name, title)
        for scenario, name, title in (
            ("signup", "rate", "signups a second"),
            ("signup", "p99", "p99, ms"),
            ("lone", "p50", "a lone signup: p50, ms"),
        )
        if found["scenarios"].get(scenario, {}).get("servers")
    ]
    if not panels:
        return
    figure, places = pyplot.subplots(1, len(panels), figsize=(4.4 * len(panels) + 1, 3.4), dpi=110, sharey=True)
    for axes, (scenario, name, title) in zip([places] if len(panels) == 1 else places, panels, strict=True):
        _panel(axes, found["scenarios"][scenario]["servers"], name, title, found["servers"])
    settings = found["settings"]
    figure.suptitle(
        f"Signups on one core, {found['date'][:10]} (median of {settings['rounds']} × {settings['seconds']} s,"
        f" {settings['connections']} connections)",
        fontsize=11,
    )
    figure.tight_layout()
    figure.savefig(file)
    pyplot.close(figure)


def _panel(axes: Any, servers: dict[str, Any], name: str, title: str, titles: dict[str, str]) -> None:
    keys = [key for key in reversed(_COLOURS) if key in servers]
    values = [servers[key][name] for key in keys]
    bars = axes.barh([titles[key] for key in keys], values, color=[_COLOURS[key] for key in keys])
    labels = [f" {value:,.0f}" if value >= 100 else f" {value:.2f}" for value in values]
    axes.bar_label(bars, labels, fontsize=8, color="#333333")
    axes.set_title(title, fontsize=10)
    axes.set_xlim(0, max(values) * 1.2)
    axes.tick_params(axis="both", length=0, labelsize=8)
    axes.set_xticks([])
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
