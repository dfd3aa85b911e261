"""The delivery as bar charts: on loopback, and over longer ways."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

_COLOURS = {
    "doorbell": "#0b6e4f",
    "doorbell-log": "#3f9070",
    "doorbell-pool": "#6fb98f",
    "nodemailer": "#4878a8",
    "nodemailer-100": "#8fb0d0",
    "fastapi-mail": "#b07aa1",
    "aiosmtplib": "#e0a030",
    "ready": "#f0cf85",
    "source": "#9c9c9c",
}


def plot(found: dict[str, Any], file: Path) -> None:
    """Writes a PNG. Each row is a mailer, each panel a way to the relay; the figures are mails a second."""
    panels = [one for key, one in found["scenarios"].items() if one["mailers"] and not key.endswith("-plain")]
    if not panels:
        return
    height = max(len(panel["mailers"]) for panel in panels)
    figure, places = pyplot.subplots(1, len(panels), figsize=(4.6 * len(panels) + 1, 0.42 * height + 1.6), dpi=110)
    for axes, panel in zip([places] if len(panels) == 1 else places, panels, strict=True):
        _panel(axes, panel, found["mailers"])
    figure.suptitle(
        f"Mails a second from one core, {found['date'][:10]} (median of {found['settings']['rounds']},"
        f" {found['settings']['connections']} connections)",
        fontsize=11,
    )
    figure.tight_layout()
    figure.savefig(file)
    pyplot.close(figure)


def _panel(axes: Any, panel: dict[str, Any], titles: dict[str, str]) -> None:
    keys = [key for key in reversed(_COLOURS) if key in panel["mailers"]]
    rates = [panel["mailers"][key]["rate"] for key in keys]
    bars = axes.barh([titles[key] for key in keys], rates, color=[_COLOURS[key] for key in keys])
    axes.bar_label(bars, [f" {rate:,.0f}" for rate in rates], fontsize=8, color="#333333")
    axes.set_title(panel["title"] if panel["round_trip_ms"] is None else f"{panel['title']} added", fontsize=10)
    axes.set_xlim(0, max(rates) * 1.2)
    axes.tick_params(axis="both", length=0, labelsize=8)
    axes.set_xticks([])
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
