"""Saves a plotly figure twice: as a page that can be zoomed and asked, and as a
picture.

Plotly draws no PNG without a browser, so the picture is drawn by matplotlib from
the figure's own traces (lines and markers, bars, heat maps):
`pip install plotly matplotlib`.
"""

import pathlib

import numpy as np

PIXELS_PER_INCH = 110
DASHES = {"dot": ":", "dash": "--", None: "-"}


def save(figure, folder, name):
    """Writes FOLDER/NAME.html and FOLDER/NAME.png."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    page, picture = folder / f"{name}.html", folder / f"{name}.png"
    figure.write_html(page)
    draw(figure, picture)
    print(f"saved {page} and {picture}")


def draw(figure, picture):
    """Draws the traces of a figure with matplotlib. Of one with a slider, what
    it shows first."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout = figure.layout
    size = [(layout[side] or 600) / PIXELS_PER_INCH for side in ("width", "height")]
    canvas = Figure(figsize=size, dpi=PIXELS_PER_INCH, layout="constrained")
    FigureCanvasAgg(canvas)
    axes = canvas.add_subplot()
    named = False
    for trace in figure.data:
        named |= _TRACES[trace.type](canvas, axes, trace)
    axes.set_title(_plain(layout.title.text), fontsize=10)
    axes.set_xlabel(_plain(layout.xaxis.title.text))
    axes.set_ylabel(_plain(layout.yaxis.title.text))
    for axis, scale in ((layout.xaxis, axes.set_xscale), (layout.yaxis, axes.set_yscale)):
        if axis.type == "log":
            scale("log")
    if named:
        axes.legend(fontsize=8)
    canvas.savefig(picture)


def _plain(text):
    """Plotly's little HTML as text."""
    for tag, plain in (("<b>", ""), ("</b>", ""), ("&lt;", "<"), ("&gt;", ">")):
        text = (text or "").replace(tag, plain)
    return text.replace("&amp;", "&").replace("$", r"\$")


def _scatter(_, axes, trace):
    mode = trace.mode or "lines"
    lines, markers = "lines" in mode, "markers" in mode
    label = trace.name if trace.showlegend is not False else None
    axes.plot(
        np.asarray(trace.x),
        np.asarray(trace.y, float),
        linestyle=DASHES[trace.line.dash] if lines else "none",
        linewidth=trace.line.width or 1.5,
        color=(trace.line.color if lines else trace.marker.color),
        marker="o" if markers else None,
        markersize=(trace.marker.size or 5) / 2,
        alpha=trace.marker.opacity if markers else None,
        markeredgewidth=0,
        label=label,
    )
    return label is not None


def _bar(_, axes, trace):
    axes.bar(
        np.asarray(trace.x),
        np.asarray(trace.y, float),
        width=0.8 if trace.width is None else np.asarray(trace.width, float),
        alpha=trace.opacity,
        color=trace.marker.color,
        label=trace.name,
    )
    return trace.name is not None


def _heat_map(canvas, axes, trace):
    image = axes.imshow(
        np.asarray(trace.z, float),
        # Two-sided values around white, or from white up.
        cmap="Blues" if trace.zmin == 0 else "RdBu_r",
        vmin=trace.zmin,
        vmax=trace.zmax,
        aspect="auto",
        interpolation="nearest",
    )
    for names, ticks, turn in (
        (trace.x, axes.set_xticks, 90),
        (trace.y, axes.set_yticks, 0),
    ):
        if names is not None:
            ticks(range(len(names)), names, fontsize=6, rotation=turn)
    canvas.colorbar(image, ax=axes, label=_plain(trace.colorbar.title.text))
    return False


_TRACES = {"scatter": _scatter, "bar": _bar, "heatmap": _heat_map}
