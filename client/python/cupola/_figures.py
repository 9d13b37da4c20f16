"""Plotly figures of answers about a pair. Plotly is imported when the first one
is made; without it ImportError says how to get it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence

import numpy as np

from .errors import InvalidArgument

if TYPE_CHECKING:
    from .directions import DirectionAblation, Sweep
    from .jacobian import Jacobian

# A page with more tokens than these is slow to draw; nobody drags so far.
_MOST_TOKENS = 100
# Tokens of the prompt that a title shows before its own.
_CONTEXT = 8
# Of the classes of samples, in their order: right, special, left over.
_COLORS = ("#2a7de1", "#e08a10", "#d0342c")


def _graph() -> Any:
    try:
        import plotly.graph_objects as graph
    except ImportError:
        raise ImportError(
            "figures need plotly, which is not installed: pip install plotly"
        ) from None
    return graph


def to_html(figure: Any) -> str:
    """A part of a page; plotly's own script comes from the net."""
    part: str = figure.to_html(full_html=False, include_plotlyjs="cdn")
    return part


def to_page(figure: Any) -> str:
    """A page of its own, with plotly's script in it."""
    page: str = figure.to_html(include_plotlyjs=True)
    return page


def of_jacobian(jacobian: Jacobian, token: Optional[int]) -> Any:
    """The heat map of one row's block, or with a slider over all of them."""
    if jacobian.values is None:
        raise InvalidArgument('figure: ask for block="active" to see blocks')
    rows = len(jacobian)
    if not rows:
        raise InvalidArgument("figure: the answer has no tokens")
    if token is not None and not -rows <= token < rows:
        raise InvalidArgument(
            f"figure: token is {token}; the answer has {rows} rows"
        )
    shown = range(min(rows, _MOST_TOKENS)) if token is None else [token % rows]
    titles = _titles(jacobian, shown)
    maps = [_block(jacobian, row) for row in shown]
    graph = _graph()
    figure = graph.Figure(
        graph.Heatmap(
            **maps[0],
            colorscale="RdBu",
            reversescale=True,
            colorbar={"title": "d out / d in"},
            hovertemplate="input latent %{x}<br>output latent %{y}<br>"
            "d out / d in = %{z:.4g}<extra></extra>",
        )
    )
    axis = {"type": "category", "tickfont": {"size": 9}, "dtick": 1}
    figure.update_layout(
        title={"text": titles[0]["title"], "font": {"size": 14}},
        xaxis={
            "title": "input latent · its activation",
            "tickangle": -90,
            **axis,
        },
        yaxis={
            "title": "output latent · its activation",
            "autorange": "reversed",
            **axis,
        },
        width=820,
        height=780,
    )
    if len(maps) > 1:
        steps = [
            {
                "label": title["label"],
                "method": "update",
                "args": [
                    {name: [value] for name, value in block.items()},
                    {"title.text": title["title"]},
                ],
            }
            for block, title in zip(maps, titles)
        ]
        figure.update_layout(
            sliders=[
                {
                    "steps": steps,
                    "currentvalue": {"prefix": "token: "},
                    "pad": {"t": 90},
                }
            ],
            height=900,
        )
    return figure


def _block(jacobian: Jacobian, row: int) -> Dict[str, Any]:
    """What the heat map of a row has of its own."""
    assert jacobian.values is not None
    inputs, outputs = jacobian.in_latents[row], jacobian.out_latents[row]
    block = jacobian.values[row][outputs >= 0][:, inputs >= 0]
    limit = float(np.abs(block).max()) if block.size else 0.0
    return {
        "z": [[float(f"{value:.4g}") for value in line] for line in block],
        "x": _labels(inputs, jacobian.in_acts[row]),
        "y": _labels(outputs, jacobian.out_acts[row]),
        "zmin": -limit or -1.0,
        "zmax": limit or 1.0,
    }


def _labels(latents: Any, acts: Any) -> List[str]:
    return [
        f"{latent} · {act:.3g}"
        for latent, act in zip(latents, acts)
        if latent >= 0
    ]


def _titles(jacobian: Jacobian, rows: Sequence[int]) -> List[Dict[str, str]]:
    """Each row's token: alone, and in bold behind the tokens before it."""
    if not len(jacobian.token_ids):
        return [{"label": f"row {row}", "title": f"row {row}"} for row in rows]
    texts = {}
    for prompt in sorted({int(jacobian.prompt[row]) for row in rows}):
        ids = np.asarray(jacobian.provenance.token_ids[prompt])
        texts[prompt] = [str(text) for text in jacobian._strings(ids)]
    titles = []
    for row in rows:
        tokens = texts[int(jacobian.prompt[row])]
        place = int(jacobian.position[row])
        before = "".join(tokens[max(0, place - _CONTEXT) : place])
        label = f"{place} {tokens[place]!r}"
        titles.append(
            {
                "label": _escaped(label),
                "title": f"prompt {jacobian.prompt[row]}, token {place}: "
                f"{'… ' if place > _CONTEXT else ''}{_escaped(before)}"
                f"<b>{_escaped(tokens[place])}</b>",
            }
        )
    return titles


def _escaped(text: str) -> str:
    """Plotly takes texts for a little HTML, and breaks no lines in them."""
    return html.escape(text, quote=False).replace("\n", "⏎")


def of_sweep(sweep: Sweep, count: int) -> Any:
    """The first `count` curves, with the line that was fitted to each."""
    if sweep.curves is None:
        raise InvalidArgument("figure: ask for curves=True to see curves")
    graph = _graph()
    figure = graph.Figure()
    named = set()
    count = min(count, len(sweep))
    width = 2 if count <= 20 else 1
    for i in range(count):
        kind = int(sweep.kind[i])
        name = sweep._kinds[kind]
        strengths, curve = sweep.grid[i], sweep.curves[i]
        line = sweep.slope[i] * strengths + sweep.intercept[i]
        inside = (strengths >= sweep.zero_first[i]) & (
            strengths <= sweep.zero_last[i]
        )
        shared = {"legendgroup": name, "mode": "lines"}
        label = f"{sweep.in_latent[i]} → {sweep.out_latent[i]}"
        figure.add_trace(
            graph.Scatter(
                x=strengths,
                y=curve,
                name=name,
                showlegend=name not in named,
                line={"color": _COLORS[kind], "width": width},
                hovertemplate=f"{label}, row {sweep.row[i]}<br>strength "
                "%{x:.3g}, activation %{y:.4g}<extra></extra>",
                **shared,
            )
        )
        figure.add_trace(
            graph.Scatter(
                x=strengths,
                y=np.where(inside, np.nan, line),
                showlegend=False,
                hoverinfo="skip",
                line={"color": "#888", "width": 1, "dash": "dot"},
                **shared,
            )
        )
        named.add(name)
    figure.update_layout(
        title="Output latents as an input latent's strength changes",
        xaxis_title="strength of the input latent",
        yaxis_title="activation of the output latent",
        width=820,
        height=520,
    )
    return figure


def of_ablation(ablation: DirectionAblation) -> Any:
    """What happened over what the Jacobian foretold, a dot per sample."""
    graph = _graph()
    foretold = -ablation.delta * ablation.jacobian
    difference = ablation.difference
    figure = graph.Figure()
    for kind, name in enumerate(ablation._kinds):
        of_kind = ablation.kind == kind
        if not of_kind.any():
            continue
        figure.add_trace(
            graph.Scatter(
                x=foretold[of_kind],
                y=difference[of_kind],
                mode="markers",
                name=f"{name} ({int(of_kind.sum())})",
                marker={"color": _COLORS[kind], "size": 4, "opacity": 0.6},
                text=[
                    f"{a} → {b}"
                    for a, b in zip(
                        ablation.in_latent[of_kind],
                        ablation.out_latent[of_kind],
                    )
                ],
            )
        )
    ends = [float(foretold.min(initial=0)), float(foretold.max(initial=0))]
    figure.add_trace(
        graph.Scatter(
            x=ends,
            y=ends,
            mode="lines",
            name="as foretold",
            line={"color": "#888", "width": 1, "dash": "dot"},
        )
    )
    figure.update_layout(
        title="What taking a direction away does to an output latent",
        xaxis_title="foretold: - delta d out / d in",
        yaxis_title="measured: activation after - before",
        width=820,
        height=560,
    )
    return figure
