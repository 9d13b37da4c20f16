"""The commands of `cupola` that change the server's catalog."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any, List, Optional

import typer

from . import _terminal
from ._cli_session import ProcessingOption, Shown, command
from .client import Client
from .info import DictionaryInfo, ModelInfo

app = typer.Typer()

NameArgument = Annotated[str, typer.Argument(help="The entry's name.")]
DtypeOption = Annotated[
    Optional[str], typer.Option(help="float32 (default) or bfloat16.")
]


def _shown(info: Any) -> Shown:
    def show() -> None:
        if isinstance(info, ModelInfo):
            models: List[ModelInfo] = [info]
            _terminal.show_models(models)
        else:
            dictionaries: List[DictionaryInfo] = [info]
            _terminal.show_dictionaries(dictionaries)

    return Shown(show, lambda: dataclasses.asdict(info))


@command(app)
def register(
    client: Client,
    name: NameArgument,
    path: Annotated[
        str, typer.Argument(help="A folder below the server's model root.")
    ],
    model: Annotated[
        Optional[str], typer.Option(help="Of a dictionary: its model.")
    ] = None,
    processing: ProcessingOption = None,
    dtype: DtypeOption = None,
) -> Shown:
    """Add a model, or with --model a dictionary, to the server's catalog."""
    if model is None:
        return _shown(client.register_model(name, path, dtype=dtype))
    return _shown(
        client.register_dictionary(
            name, model, path, processing=processing, dtype=dtype
        )
    )


@command(app)
def unregister(client: Client, name: NameArgument) -> Shown:
    """Remove an entry that was registered or uploaded."""
    client.unregister(name)
    return Shown(
        lambda: print(f"removed {name}"), lambda: {"unregistered": name}
    )


@command(app)
def upload(
    client: Client,
    name: NameArgument,
    model: Annotated[str, typer.Argument(help="The dictionary's model.")],
    folder: Annotated[
        Path, typer.Argument(help="cfg.json and sae_weights.safetensors.")
    ],
    processing: ProcessingOption = None,
    dtype: DtypeOption = None,
) -> Shown:
    """Send a dictionary to the server, which keeps it."""
    return _shown(
        client.upload_dictionary(
            name, model, folder, processing=processing, dtype=dtype
        )
    )
