"""Other projects' names of places in a model, as TransformerLens' names."""

from __future__ import annotations

import re
from typing import Optional, Tuple

from ._failure import ImportFailed, short

_BLOCK = r"(?:model\.|transformer\.|gpt_neox\.)?(?:layers|h|blocks)[._](\d+)"
_PARTS = {
    "": ("hook_resid_pre", "hook_resid_post"),
    "mlp": ("mlp.hook_in", "hook_mlp_out"),
    "attn": ("ln1.hook_out", "hook_attn_out"),
    "self_attn": ("ln1.hook_out", "hook_attn_out"),
    "attention": ("ln1.hook_out", "hook_attn_out"),
}
_EMBEDDINGS = ("embed_tokens", "embed_in", "wte")
# A number that is the generation's and not the size: gemma-2-2b, not gemma-2b.
_GENERATION = r"(?![\d.]*b)"
# Their blocks norm what attention and MLP write before they add it, and
# TransformerLens' hook points lie behind that norm: a module's own output has
# no hook point.
_POST_NORMED = re.compile(
    rf"gemma-?[23]{_GENERATION}|olmo-?[23]{_GENERATION}|glm-?4-\w+-0414",
    re.IGNORECASE,
)
# Gemma 1 and 2 multiply the embedding's rows by sqrt(d) behind the module,
# later ones within it.
_SCALED_ROWS = re.compile(rf"gemma(?!-?[3-9]{_GENERATION})", re.IGNORECASE)


def module_hooks(module: str, model: Optional[str]) -> Tuple[str, str]:
    """Where a module of a Hugging Face model ("layers.5.mlp") gets its input
    and where its output is found."""
    if module.split(".")[-1] in _EMBEDDINGS:
        return "hook_embed", "hook_embed"
    found = re.fullmatch(_BLOCK + r"(?:\.(\w+))?", module)
    part = _PARTS.get(found[2] or "") if found else None
    if found is None or part is None:
        raise ImportFailed(
            f"the module {short(module)} is none with a hook point (a block, "
            "its mlp or its attention); give --hook (and, for a transcoder, "
            "--hook-out)"
        )
    if found[2]:
        refuse_before_norm(module, model)
    return tuple(f"blocks.{found[1]}.{name}" for name in part)  # type: ignore


def refuse_before_norm(module: str, model: Optional[str]) -> None:
    """Refuses an attention's or MLP's own output, in a model that norms it
    before the hook point."""
    if model and _POST_NORMED.search(model):
        raise ImportFailed(
            f"the output of {short(module)} of {short(model)} is taken before "
            "a norm that hook points lie behind: it cannot be represented"
        )


def rows_are_scaled(model: Optional[str]) -> bool:
    """Whether hook_embed holds the embedding module's output times sqrt(d)."""
    return bool(model and _SCALED_ROWS.search(model))


def in_block(layer: int, name: str, model: Optional[str]) -> str:
    """A hook point of a block by a name that may already say which."""
    found = re.fullmatch(r"blocks\.(\d{1,9})\.(.+)", name)
    if found:
        layer, name = int(found[1]), found[2]
    if name == "mlp.hook_out":
        refuse_before_norm(name, model)
    return f"blocks.{layer}." + {
        "mlp.hook_out": "hook_mlp_out",
        "ln2.hook_out": "mlp.hook_in",
    }.get(name, name)


def layer_in(text: str, pattern: str = r"layers?[._-]?(\d+)") -> Optional[int]:
    """The last number that `pattern` finds in a path or a name."""
    found = re.findall(pattern, text)
    if found and len(found[-1]) > 9:
        raise ImportFailed(f"a layer of {len(found[-1])} digits")
    return int(found[-1]) if found else None


def required(value: Optional[str], what: str, option: str) -> str:
    if not value:
        raise ImportFailed(f"the source does not say {what}; give {option}")
    return value
