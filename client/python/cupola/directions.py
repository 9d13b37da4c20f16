"""Moving an input latent of a pair along its decoder direction, and reading an
output latent: ablations and sweeps."""

from __future__ import annotations

import abc
import html
from typing import (
    TYPE_CHECKING,
    Any,
    Dict,
    List,
    Optional,
    Sequence,
    Tuple,
    Union,
)

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _answers, _figures, _protos, _requests
from ._requests import Positions, Prompts
from .errors import InvalidArgument
from .jacobian import add_rows, name_pair
from .results import Answer, Provenance

if TYPE_CHECKING:
    import pandas

    from .dictionary import Inputs
    from .pair import Pair

ABLATION_KINDS = ("on line", "cluster", "outlier")
CURVE_KINDS = ("linear", "JumpReLU", "other")

# (row, input latent, output latent) each; rows count the selected tokens.
Samples = Union[Sequence[Tuple[int, int, int]], ArrayLike]


class _Samples(Answer, abc.ABC):
    """A row per sample: `row` (of the selected tokens), its `prompt` and
    `position`, `in_latent` and `out_latent`."""

    _columns: Tuple[str, ...] = ()
    _kinds: Tuple[str, ...] = ()

    def __init__(
        self,
        arrays: Dict[str, NDArray[Any]],
        prompt: NDArray[np.int32],
        position: NDArray[np.int32],
        provenance: Provenance,
        skipped_share: float,
    ) -> None:
        self.row = arrays["row"]
        self.in_latent = arrays["in_latent"]
        self.out_latent = arrays["out_latent"]
        self.kind = arrays["kind"]  # an index of the names that counts() has
        self.prompt = prompt[self.row]
        self.position = position[self.row]
        self.provenance = provenance
        # Of the output latents' pre-activations at the moved points, the share
        # that the server proved needless instead of computing it.
        self.skipped_share = skipped_share

    def __len__(self) -> int:
        return len(self.row)

    def counts(self) -> Dict[str, int]:
        """How many samples are of each class."""
        found = np.bincount(self.kind, minlength=len(self._kinds))
        return dict(zip(self._kinds, found.tolist()))

    def to_dataframe(self) -> pandas.DataFrame:
        """A line per sample, with its class by name."""
        import pandas

        columns: Dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                "prompt",
                "position",
                "in_latent",
                "out_latent",
                *self._columns,
            )
        }
        columns["class"] = np.array(self._kinds, object)[self.kind]
        frame: pandas.DataFrame = pandas.DataFrame(columns)
        return frame

    @abc.abstractmethod
    def figure(self) -> Any:
        """As plotly draws it."""

    def _repr_html_(self) -> str:
        parts = [f"<p>{html.escape(repr(self))}</p>"]
        try:
            parts.append(_figures.to_html(self.figure()))
        except (ImportError, InvalidArgument) as error:
            parts.append(f"<p>{html.escape(str(error))}</p>")
        parts.append(self.to_dataframe().head(20).to_html(index=False))
        return "".join(parts)

    def _summary(self) -> str:
        parts = [f"{count} {kind}" for kind, count in self.counts().items()]
        return f"{len(self)} samples: {', '.join(parts)}, {self._origin()}"


class DirectionAblation(_Samples):
    """What an output latent does when `delta` times an input latent's decoder
    direction is subtracted from the MLP's input."""

    _columns = ("delta", "before", "after", "difference", "jacobian")
    _kinds = ABLATION_KINDS

    def __init__(self, arrays: Dict[str, NDArray[Any]], **more: Any) -> None:
        super().__init__(arrays, **more)
        self.delta = arrays["delta"]  # float32 [samples], as the next ones
        self.before = arrays["before"]  # the output latent's activation
        self.after = arrays["after"]
        self.jacobian = arrays["jacobian"]  # d out / d in

    @property
    def difference(self) -> NDArray[np.float32]:
        """after - before; -delta * jacobian to first order."""
        difference: NDArray[np.float32] = self.after - self.before
        return difference

    def figure(self) -> Any:
        """A plotly scatter of `difference` over what the Jacobian foretells,
        coloured by class."""
        return _figures.of_ablation(self)

    def __repr__(self) -> str:
        return f"DirectionAblation of {self._summary()}"


class Sweep(_Samples):
    """An output latent as a function of an input latent's strength: its class,
    the least-squares line outside its zero region, and that region (NaN: none).
    """

    _columns = (
        "strength",
        "slope",
        "intercept",
        "zero_first",
        "zero_last",
    )
    _kinds = CURVE_KINDS

    def __init__(
        self,
        arrays: Dict[str, NDArray[Any]],
        grid: Optional[NDArray[np.float32]],
        points: int,
        **more: Any,
    ) -> None:
        super().__init__(arrays, **more)
        for name in self._columns:
            setattr(self, name, arrays[name])
        curves = arrays["curves"]
        # float32 [samples, points], where they were asked for.
        self.curves = None if curves.ndim < 2 else curves
        # The strengths: float32 [samples, points].
        if grid is not None:
            self.grid = np.broadcast_to(grid, (len(self), len(grid)))
        else:
            unit = np.linspace(0, 1, points, dtype=np.float32)
            self.grid = arrays["last"][:, None] * unit

    def figure(self, count: int = 20) -> Any:
        """The first `count` curves as plotly draws them, coloured by class,
        with the fitted lines dotted. Needs curves=True."""
        return _figures.of_sweep(self, count)

    def __repr__(self) -> str:
        return f"Sweep of {self._summary()}"


def _set_samples(
    request: Any,
    samples: Optional[Samples],
    deltas: Optional[ArrayLike],
    draws: int,
    seed: int,
) -> None:
    if samples is None:
        if deltas is not None:
            raise InvalidArgument("deltas: goes with samples")
        (count,) = _requests.unsigned([draws], "draws")
        request.draw.per_token = count
        request.draw.seed = seed
        return
    table = np.asarray(samples)
    if table.ndim != 2 or table.shape[1] != 3 or table.dtype.kind not in "iu":
        raise InvalidArgument(
            "samples: expected (row, input latent, output latent) each, got "
            f"shape {list(table.shape)} of {table.dtype}"
        )
    names = ("rows", "in_latents", "out_latents")
    for name, column in zip(names, table.T.tolist()):
        getattr(request.samples, name).extend(
            _requests.unsigned(column, f"samples: {name}")
        )
    if deltas is not None:
        request.samples.deltas.extend(
            np.asarray(deltas, np.float32).reshape(-1).tolist()
        )


def _ask(
    pair: Pair,
    operation: str,
    request: Any,
    names: List[str],
    prompts: Optional[Prompts],
    positions: Positions,
    inputs: Optional[Inputs],
    prepend_bos: Optional[bool],
) -> Tuple[Dict[str, NDArray[Any]], Dict[str, Any]]:
    name_pair(pair, request)
    add_rows(pair.input, request, prompts, positions, inputs, prepend_bos)
    header, arrays, rows = _answers.ask_rows(
        pair.input._client, operation, request, pair.input.info.model, names
    )
    found = dict(zip(names, arrays))
    more = {name: rows[name] for name in ("prompt", "position", "provenance")}
    more["skipped_share"] = header.skipped_share
    if request.HasField("samples"):
        # The server answers by prompt: back to the order they were given in.
        given = np.asarray(request.samples.rows, np.int64)
        order = np.argsort(more["prompt"][given], kind="stable")
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        found = {
            name: array[back] if len(array) == len(back) else array
            for name, array in found.items()
        }
    return found, more


def ablate(
    pair: Pair,
    samples: Optional[Samples],
    deltas: Optional[ArrayLike],
    draws: int,
    seed: int,
    step: str,
    tolerances: Dict[str, Optional[float]],
    **source: Any,
) -> DirectionAblation:
    """See Pair.ablate."""
    if step not in ("unit", "strength"):
        raise InvalidArgument(
            f"step: expected 'unit' or 'strength', got {step!r}"
        )
    request = _protos.directions.DirectionAblationRequest(
        strength=step == "strength", **tolerances
    )
    _set_samples(request, samples, deltas, draws, seed)
    names = [
        "row",
        "in_latent",
        "out_latent",
        "delta",
        "before",
        "after",
        "jacobian",
        "kind",
    ]
    arrays, more = _ask(pair, "AblateDirections", request, names, **source)
    return DirectionAblation(arrays, **more)


def sweep(
    pair: Pair,
    samples: Optional[Samples],
    draws: int,
    seed: int,
    grid: Optional[ArrayLike],
    points: int,
    tolerance: float,
    published_classes: bool,
    curves: bool,
    **source: Any,
) -> Sweep:
    """See Pair.sweep."""
    request = _protos.directions.SweepRequest(
        tolerance=tolerance,
        published_classes=published_classes,
        curves=curves,
    )
    strengths = None
    if grid is not None:
        strengths = np.asarray(grid, np.float32).reshape(-1)
        if not len(strengths):
            raise InvalidArgument("grid: expected at least one strength")
        request.grid.extend(strengths.tolist())
    else:
        (request.points,) = _requests.unsigned([points], "points")
        if not request.points:
            raise InvalidArgument("points: expected at least 1")
    _set_samples(request, samples, None, draws, seed)
    names = [
        "row",
        "in_latent",
        "out_latent",
        "strength",
        "last",
        "kind",
        "slope",
        "intercept",
        "zero_first",
        "zero_last",
        "curves",
    ]
    arrays, more = _ask(pair, "Sweep", request, names, **source)
    return Sweep(arrays, strengths, points, **more)
