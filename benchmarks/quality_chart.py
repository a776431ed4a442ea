"""Accuracy against sparsity as SVG: one panel a network, one line a method, bars for the spread over seeds."""

import io
from collections.abc import Sequence

from benchmarks.results_file import Row

PANEL = (4.2, 3.4)  # inches
FLOOR = 60.0  # per cent: what lies far below only flattens the rest


def render_accuracy(rows: Sequence[Row]) -> str:
    """Return the chart's SVG text; the same rows give the same text. Rows of other parts are passed over."""
    import matplotlib as mpl  # noqa: PLC0415  # heavy

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "nettrim"
    from matplotlib import pyplot as plt  # noqa: PLC0415  # after the backend is chosen

    rows = [row for row in rows if "method" in row]
    networks = list(dict.fromkeys(str(row["network"]) for row in rows))
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    figure, panels = plt.subplots(1, len(networks), figsize=(PANEL[0] * len(networks), PANEL[1]), squeeze=False)
    for panel, network in zip(panels[0], networks, strict=True):
        for method in methods:
            points = [row for row in rows if (row["network"], row["method"]) == (network, method)]
            x, y, spread = ([float(row[key] or 0) for row in points] for key in ("sparsity", "accuracy", "spread"))
            width = 2.0 if method == "nettrim" else 1.0
            panel.errorbar(x, y, yerr=[half / 2 for half in spread], label=method, linewidth=width)
        lowest = min(float(row["accuracy"] or 0) for row in rows if row["network"] == network)
        panel.set(title=network, xlabel="sparsity", ylabel="accuracy, %", ylim=(max(FLOOR, lowest), None))
        panel.grid(alpha=0.3)
    panels[0][0].legend(fontsize=7)
    figure.tight_layout()
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    plt.close(figure)
    return text.getvalue()
