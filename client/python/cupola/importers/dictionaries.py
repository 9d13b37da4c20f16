"""Imports of dictionaries: one function over all the formats."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Callable, Dict, List, Optional, Union

from . import (
    dictionary_learning,
    dunefsky,
    gemma_scope,
    gemma_scope_2,
    heindrich,
    jsae,
    llama_scope,
    mwhanna,
    saelens,
    sparsify,
)
from ._failure import ImportFailed, guarded
from ._layout import CONFIG, WEIGHTS, Dictionary, Options, Progress, write

FORMATS: Dict[str, Callable[[Path, Options], Dictionary]] = {
    "saelens": saelens.read,
    "gemma-scope": gemma_scope.read,
    "gemma-scope-2": gemma_scope_2.read,
    "llama-scope": llama_scope.read,
    "dictionary-learning": dictionary_learning.read,
    "sparsify": sparsify.read,
    "mwhanna": mwhanna.read,
    "dunefsky": dunefsky.read,
    "heindrich": heindrich.read,
    "jsae": jsae.read,
}


@dataclasses.dataclass(frozen=True)
class Imported:
    """A folder that a server can load, and what it holds."""

    folder: Path
    architecture: str
    model: Optional[str]  # as the source names it
    hook: str
    hook_out: Optional[str]
    # What was folded and what was assumed, in sentences.
    notes: List[str]


def import_dictionary(
    format: str,
    source: Union[str, Path],
    destination: Union[str, Path],
    *,
    model: Optional[str] = None,
    hook: Optional[str] = None,
    hook_out: Optional[str] = None,
    prepend_bos: Optional[bool] = None,
    norm_scaling_factor: Optional[float] = None,
    overwrite: bool = False,
    progress: Optional[Progress] = None,
) -> Imported:
    """Writes the dictionary of `source` into the folder `destination`.

    `format` is one of FORMATS. `model`, `hook`, `hook_out` and `prepend_bos`
    say what the source does not, or otherwise. Pickled files are read without
    running anything of theirs. No torch is needed; one tensor is held at a
    time. `progress(done, total)` is called after each.

    Raises ImportFailed where the source is damaged, cannot be represented, or
    `destination` already holds a dictionary and `overwrite` is not set.
    """
    format = format.replace("_", "-")
    if format not in FORMATS:
        raise ImportFailed(
            f"no format {format!r}: there are {', '.join(FORMATS)}"
        )
    source, destination = Path(source), Path(destination)
    if not source.exists() and format != "heindrich":
        raise ImportFailed(f"no such file or folder: {source}")
    if destination.exists() and source.exists():
        folder = source if source.is_dir() else source.parent
        if destination.resolve() == folder.resolve():
            raise ImportFailed("the destination is the source's own folder")
    if not overwrite and any(
        (destination / name).exists() for name in (CONFIG, WEIGHTS)
    ):
        raise ImportFailed(
            f"{destination} already holds a dictionary; --overwrite replaces it"
        )
    options = Options(model, hook, hook_out, prepend_bos, norm_scaling_factor)
    if norm_scaling_factor is not None and format != "saelens":
        raise ImportFailed("--norm-scaling-factor is of the format saelens")
    with guarded():
        dictionary = FORMATS[format](source, options)
    if prepend_bos is not None:
        dictionary.prepend_bos = prepend_bos
    origin = {"format": format, "source": source.resolve().name}
    write(dictionary, destination, origin, progress)
    return Imported(
        destination,
        dictionary.architecture,
        dictionary.model,
        dictionary.hook,
        dictionary.hook_out,
        list(dictionary.notes),
    )
