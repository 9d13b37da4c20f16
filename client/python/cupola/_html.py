"""Notebook HTML: self-contained, without scripts, on light and dark pages.

Colours are translucent over the page's own, and text inherits the page's, so
that no theme has to be known. All text from outside goes through `text`.
"""

from __future__ import annotations

import dataclasses
import html
from typing import Any, Sequence

# Everything a page of ours may use; under .cupola, so that it touches no other.
STYLE = """
.cupola{font:13px/1.5 system-ui,sans-serif;max-width:62rem;text-align:left;
 margin:.2rem 0 .8rem}
.cupola *{box-sizing:border-box}
.cupola .head{display:flex;flex-wrap:wrap;gap:.2rem 1rem;align-items:baseline;
 margin:0 0 .5rem}
.cupola .head b{font-size:14px}
.cupola .dim{opacity:.65}
.cupola .badge{border-radius:1rem;padding:0 .6rem;
 background:rgb(128 128 128/.18)}
.cupola .badge.hit{background:rgb(16 160 110/.25)}
.cupola .bad{color:#e0423a}
.cupola .text{font:14px/2.05 ui-monospace,Menlo,Consolas,monospace;
 white-space:pre-wrap;overflow-wrap:anywhere;margin:0 0 .6rem;
 padding:.3rem .6rem;border:1px solid rgb(128 128 128/.3);border-radius:6px}
.cupola .n{opacity:.5;font-size:11px;margin-right:.6rem;user-select:none}
.cupola .t{--a:var(--m,0);position:relative;padding:.16em 0;
 border-radius:3px;outline:1px solid rgb(128 128 128/.16);
 outline-offset:-1px;background:rgb(234 88 12/calc(var(--a)*.62));
 cursor:default}
.cupola .t:hover,.cupola .t:focus{outline:2px solid rgb(234 88 12/.9);
 z-index:2}
.cupola .s{opacity:.6}
.cupola .off{opacity:.45}
.cupola .tip{display:none;position:absolute;left:0;top:100%;z-index:3;
 width:max-content;max-width:20rem;white-space:normal;padding:.45rem .7rem;
 border:1px solid rgb(128 128 128/.5);border-radius:6px;
 box-shadow:0 3px 14px rgb(0 0 0/.25);font:12px/1.5 system-ui,sans-serif;
 background:var(--jp-layout-color1,var(--vscode-editor-background,Canvas));
 color:var(--jp-content-font-color1,
  var(--vscode-editor-foreground,CanvasText))}
.cupola .t:hover>.tip,.cupola .t:focus>.tip{display:block}
.cupola .tip i{display:grid;grid-template-columns:4.2em 6em 3.6em;gap:.5rem;
 align-items:center;font-style:normal}
.cupola .bar{display:block;height:.55em;border-radius:2px;
 background:rgb(234 88 12/.75);min-width:2px}
.cupola .num{font-variant-numeric:tabular-nums;text-align:right}
.cupola table{border-collapse:collapse;margin:0;font-size:12.5px;
 color:inherit;background:none}
.cupola tr,.cupola td,.cupola th{background:none!important;color:inherit}
.cupola th,.cupola td{padding:.16rem .7rem .16rem .2rem;text-align:left;
 border:0;border-bottom:1px solid rgb(128 128 128/.22);vertical-align:middle;
 max-width:28rem;overflow-wrap:anywhere}
.cupola th{font-weight:600;opacity:.7;white-space:nowrap}
.cupola td.num,.cupola th.num{text-align:right}
.cupola .ctx{font:12.5px ui-monospace,Menlo,Consolas,monospace;
 white-space:pre-wrap}
.cupola mark{background:rgb(234 88 12/.4);color:inherit;border-radius:2px}
.cupola label{display:inline-flex;align-items:center;gap:.4rem;
 cursor:pointer;font-variant-numeric:tabular-nums;white-space:nowrap}
.cupola label::before{content:"";width:.62em;height:.62em;border-radius:50%;
 border:1px solid rgb(128 128 128/.9)}
.cupola>input{position:absolute;opacity:0;pointer-events:none}
.cupola .scale{display:inline-block;width:7rem;height:.6em;border-radius:3px;
 background:linear-gradient(90deg,rgb(234 88 12/0),rgb(234 88 12/.62));
 outline:1px solid rgb(128 128 128/.3);margin:0 .4rem}
.cupola .foot{margin:.4rem 0;font-size:12px}
.cupola .dot::before{content:"";display:inline-block;width:.6em;height:.6em;
 border-radius:50%;margin-right:.45em;background:rgb(128 128 128)}
.cupola .dot.resident::before{background:#10a06e}
.cupola .dot.loading::before{background:#e0a010}
.cupola .dot.failed::before{background:#e0423a}
"""


# Columns of the tables of entries: heading, attribute, whether it is a number.
_MODEL_COLUMNS = (
    ("family", "family", False),
    ("layers", "n_layers", True),
    ("d_model", "d_model", True),
    ("heads", "n_heads", True),
    ("d_mlp", "d_mlp", True),
    ("vocabulary", "d_vocab", True),
    ("context", "n_ctx", True),
    ("dtype", "dtype", False),
    ("device", "device", False),
    ("resident", "resident_bytes", True),
)
_DICTIONARY_COLUMNS = (
    ("kind", "kind", False),
    ("architecture", "architecture", False),
    ("hook point", "hook_in", False),
    ("d_in", "d_in", True),
    ("d_sae", "d_sae", True),
    ("k", "k", True),
    ("L0", "measured.l0", True),
    ("FVU", "measured.fvu", True),
    ("resident", "resident_bytes", True),
)


def info_table(entries: Sequence[Any]) -> str:
    """The catalog's models or dictionaries."""
    parts = [f'<div class="cupola"><style>{STYLE}</style>']
    if not entries:
        return parts[0] + '<span class="dim">none</span></div>'
    columns = (
        _MODEL_COLUMNS
        if hasattr(entries[0], "n_layers")
        else _DICTIONARY_COLUMNS
    )
    parts.append("<table><tr><th>name</th><th>state</th>")
    for heading, _, number in columns:
        parts.append(f"<th{_numeric(number)}>{heading}</th>")
    parts.append("<th></th></tr>")
    for entry in entries:
        parts.append(
            f"<tr><td><b>{text(entry.name)}</b></td>"
            f'<td><span class="dot {text(entry.state)}">'
            f"{text(entry.state)}</span></td>"
        )
        for _, attribute, number in columns:
            # Zero means "not known yet" in an entry that was never loaded.
            shown = cell(entry, attribute)
            shown = "–" if shown in ("0", "0 B") else shown
            parts.append(f"<td{_numeric(number)}>{text(shown)}</td>")
        notes = [entry.failure, *getattr(entry, "warnings", ())]
        note = "; ".join(filter(None, notes))
        parts.append(f'<td class="bad">{text(note)}</td></tr>')
    parts.append("</table></div>")
    return "".join(parts)


def info_card(info: Any) -> str:
    """All that is known of one entry, as two columns."""
    parts = [f'<div class="cupola"><style>{STYLE}</style><table>']
    for field in dataclasses.fields(info):
        value = getattr(info, field.name)
        if value is None or value == "" or value == ():
            continue
        if field.name == "hook_points":
            shown = str(len(value))
        elif field.name == "digest":
            shown = value[:16] + "…"
        elif dataclasses.is_dataclass(value):
            shown = ", ".join(
                f"{part.name} {cell(value, part.name)}"
                for part in dataclasses.fields(value)
            )
        else:
            shown = cell(info, field.name)
        parts.append(
            f"<tr><th>{text(field.name)}</th><td>{text(shown)}</td></tr>"
        )
    parts.append("</table></div>")
    return "".join(parts)


def _numeric(number: bool) -> str:
    return ' class="num"' if number else ""


def cell(entry: Any, attribute: str) -> str:
    """An attribute (or one of a nested entry) as people read it."""
    value = entry
    for name in attribute.split("."):
        value = getattr(value, name, None)
    if value is None or value == "":
        return ""
    if attribute.endswith("_bytes"):
        return size_text(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value)


def size_text(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def text(value: Any) -> str:
    """`value` for use between tags or in a quoted attribute."""
    return html.escape(str(value))


def seconds_text(seconds: float) -> str:
    return (
        f"{seconds * 1e3:.2f} ms"
        if seconds < 0.01
        else (f"{seconds * 1e3:.0f} ms" if seconds < 10 else f"{seconds:.1f} s")
    )
