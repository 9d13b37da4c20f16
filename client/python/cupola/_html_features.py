"""Notebook HTML of feature activations: tokens coloured by how strongly their
latents fire, and the strongest latents, without scripts."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from ._html import STYLE, seconds_text, text
from .errors import CupolaError

if TYPE_CHECKING:
    from .features import Features

# Tokens shown at most; a page of more helps nobody and grows by megabytes.
_MAX_TOKENS = 600
_TIP_LATENTS = 6


def features(answer: Features, latent: Optional[int], top: int) -> str:
    """See Features.to_html."""
    uid = "cupola-" + secrets.token_hex(5)
    csr = answer.csr
    # The first token is an attention sink whose activations are often orders
    # of magnitude above all others: it must not set the scale or the ranking.
    ranked = answer.position > 0
    if not answer.prompt_token_ids or not ranked.any():
        ranked = np.ones(len(answer), bool)
    latents, rows, values, counts = answer.strongest(top, ranked)
    if latent is not None and latent not in latents:
        column = csr[:, [latent]].toarray()[:, 0] * ranked
        best = int(column.argmax()) if len(column) else 0
        latents = np.append(latents, latent)
        rows = np.append(rows, best)
        values = np.append(values, column[best] if len(column) else 0)
        counts = np.append(counts, np.count_nonzero(column))

    texts = _texts(answer)
    shades = _shades(answer, ranked, latents, values)
    parts = [f'<div class="cupola" id="{uid}">', f"<style>{STYLE}"]
    for i in range(len(latents)):
        picked = f"#{uid}>#{uid}-{i}:checked"
        parts.append(
            f"{picked}~.text .t{{--a:var(--l{i},0)}}"
            f"{picked}~table label[for={uid}-{i}]::before"
            "{background:rgb(234 88 12);border-color:rgb(234 88 12)}"
        )
    all_ = f"#{uid}>#{uid}-all:checked"
    parts.append(
        f"{all_}~table label[for={uid}-all]::before"
        "{background:rgb(234 88 12);border-color:rgb(234 88 12)}</style>"
    )
    parts.append(_head(answer))
    chosen = None if latent is None else list(latents).index(latent)
    for i in ("all", *range(len(latents))):
        checked = (
            " checked" if i == ("all" if chosen is None else chosen) else ""
        )
        parts.append(
            f'<input type="radio" name="{uid}" id="{uid}-{i}"{checked}>'
        )
    parts.extend(_token_blocks(answer, texts, shades))
    peak = float(values.max()) if len(values) else 0.0
    parts.append(_table(uid, answer, texts, latents, rows, values, counts))
    parts.append(
        '<div class="foot"><span class="dim">0</span>'
        '<span class="scale"></span><span class="dim">'
        f"{peak:.3g} (of one latent: its own largest)"
    )
    if not ranked.all():
        parts.append(" · position 0 sets neither the scale nor the ranking")
    parts.append("</span></div></div>")
    return "".join(parts)


def _head(answer: Features) -> str:
    seconds = answer.seconds
    badge = (
        f'<span class="badge hit">from cache · {seconds_text(seconds)}</span>'
        if answer.from_cache
        else f'<span class="badge">computed · {seconds_text(seconds)}</span>'
    )
    rows, columns = answer.csr.shape
    l0 = answer.csr.nnz / rows if rows else 0.0
    return (
        f'<div class="head"><b>{text(answer.dictionary)}</b>'
        f'<span class="dim">{rows} tokens × {columns} latents</span>'
        f'<span class="dim">{l0:.1f} active per token</span>{badge}</div>'
    )


def _texts(answer: Features) -> List[List[str]]:
    """Each prompt's tokens as text; their ids if the server is gone."""
    prompts = answer.prompt_token_ids
    if not prompts:
        return []
    try:
        return answer._token_strings(prompts)
    except CupolaError:
        return [[f"[{index}]" for index in ids] for ids in prompts]


def _shades(
    answer: Features, ranked: Any, latents: Any, values: Any
) -> List[str]:
    """Each row's custom properties: --m for its strongest latent, --l0, ...
    for those of the table, from 0 to 1."""
    csr = answer.csr
    if not csr.shape[0]:
        return []
    strongest = np.asarray(csr.max(axis=1).todense()).ravel()
    peak = strongest[ranked].max() if ranked.any() else 0
    shades = []
    columns = csr[:, latents].toarray() if len(latents) else None
    for row, value in enumerate(strongest):
        style = [f"--m:{_share(value, peak)}"]
        if columns is not None:
            style += [
                f"--l{i}:{_share(columns[row, i], values[i])}"
                for i in np.flatnonzero(columns[row])
            ]
        shades.append(";".join(style))
    return shades


def _share(value: float, peak: float) -> str:
    return f"{min(1.0, value / peak):.2g}" if peak > 0 else "0"


def _token_blocks(
    answer: Features, texts: List[List[str]], shades: List[str]
) -> List[str]:
    """One block per prompt, of all its tokens; those not asked for are dim."""
    latents = answer.top_per_token(_TIP_LATENTS)
    parts: List[str] = []
    if not texts:
        parts.append('<div class="text">')
        for row in range(min(len(answer), _MAX_TOKENS)):
            parts.append(
                _token(f"{row}", f"row {row}", latents[row], shades[row]) + " "
            )
        parts.append("</div>")
        left = len(answer) - _MAX_TOKENS
    else:
        where: Dict[Tuple[int, int], int] = {
            key: row
            for row, key in enumerate(
                zip(answer.prompt.tolist(), answer.position.tolist())
            )
        }
        budget = _MAX_TOKENS
        for i, (ids, words) in enumerate(zip(answer.prompt_token_ids, texts)):
            if budget <= 0:
                break
            parts.append('<div class="text">')
            if len(texts) > 1:
                parts.append(f'<span class="n">{i}</span>')
            for j, word in enumerate(words[:budget]):
                row_ = where.get((i, j))
                if row_ is None:
                    parts.append(
                        f'<span class="off">{_token_text(word)}</span>'
                    )
                    continue
                title = f"position {j} · id {ids[j]}"
                parts.append(_token(word, title, latents[row_], shades[row_]))
            parts.append("</div>")
            budget -= len(words)
        left = sum(map(len, texts)) - _MAX_TOKENS
    if left > 0:
        parts.append(f'<div class="foot dim">… {left} more tokens</div>')
    return parts


def _token(
    word: str, title: str, latents: Sequence[Tuple[int, float]], shade: str
) -> str:
    peak = latents[0][1] if latents else 0.0
    lines = "".join(
        f'<i><span class="num">{index}</span>'
        f'<span class="bar" style="width:{_percent(value, peak)}"></span>'
        f'<span class="num">{value:.3g}</span></i>'
        for index, value in latents
    )
    return (
        f'<span class="t" tabindex="0" style="{shade}">{_token_text(word)}'
        f'<span class="tip"><span class="dim">{text(title)}</span>'
        f"{lines or '<br>no active latent'}</span></span>"
    )


def _token_text(word: str) -> str:
    shown = text(word).replace("\t", '<span class="s">⇥</span>\t')
    return shown.replace("\n", '<span class="s">↵</span>\n')


def _table(
    uid: str,
    answer: Features,
    texts: List[List[str]],
    latents: Any,
    rows: Any,
    values: Any,
    counts: Any,
) -> str:
    peak = float(values.max()) if len(values) else 0.0
    lines = [
        f'<table><tr><th><label for="{uid}-all">latent</label></th>'
        '<th class="num">max</th><th></th><th class="num">tokens</th>'
        f"<th>{'strongest at' if texts else 'strongest in row'}</th></tr>"
    ]
    for i, (latent, row, value, count) in enumerate(
        zip(latents, rows, values, counts)
    ):
        lines.append(
            f'<tr><td><label for="{uid}-{i}">{latent}</label></td>'
            f'<td class="num">{value:.3g}</td><td style="width:7rem">'
            f'<span class="bar" style="width:{_percent(value, peak)}"></span>'
            f'</td><td class="num">{count}</td>'
            f'<td class="ctx">{_context(answer, texts, int(row))}</td></tr>'
        )
    if not len(latents):
        lines.append('<tr><td colspan="5">no active latent</td></tr>')
    return "".join(lines) + "</table>"


def _context(answer: Features, texts: List[List[str]], row: int) -> str:
    if not texts:
        return str(row)
    words, at = texts[answer.prompt[row]], int(answer.position[row])
    before = "".join(words[max(0, at - 5) : at])
    after = "".join(words[at + 1 : at + 4])
    return (
        ("…" if at > 5 else "")
        + f"{_line(before)}<mark>{_line(words[at])}</mark>{_line(after)}"
        + ("…" if at + 4 < len(words) else "")
    )


def _line(words: str) -> str:
    return text(words.replace("\n", "↵"))


def _percent(value: float, peak: float) -> str:
    return f"{100 * value / peak:.0f}%" if peak > 0 else "0"
