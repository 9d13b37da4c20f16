"""Reads a server's /metrics page: samples, rates and quantiles."""

from __future__ import annotations

import dataclasses
import math
import re
import urllib.error
import urllib.request
from typing import Dict, List, Optional, Tuple

from .errors import CupolaError, Unavailable

_TIMEOUT = 10.0
# A line of the text exposition format, version 0.0.4, without its time stamp.
_SAMPLE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")

Labels = Dict[str, str]


@dataclasses.dataclass(frozen=True)
class Page:
    """What the server had counted at one moment."""

    samples: Dict[str, List[Tuple[Labels, float]]]

    def sum(self, name: str, **labels: str) -> float:
        """Of all samples of `name` that have these labels."""
        return sum(
            value
            for found, value in self.samples.get(name, ())
            if labels.items() <= found.items()
        )

    def values(self, name: str, label: str) -> List[str]:
        """The values of a label that samples of `name` have, sorted."""
        found = self.samples.get(name, ())
        return sorted({labels[label] for labels, _ in found if label in labels})

    def buckets(self, name: str, **labels: str) -> Dict[float, float]:
        """A histogram's cumulative counts by upper bound, over all its series
        that have these labels."""
        counts: Dict[float, float] = {}
        for found, value in self.samples.get(f"{name}_bucket", ()):
            if labels.items() <= found.items():
                bound = float(found["le"])
                counts[bound] = counts.get(bound, 0.0) + value
        return counts


def parse(text: str) -> Page:
    """Lines that are no samples are left out."""
    samples: Dict[str, List[Tuple[Labels, float]]] = {}
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is None:
            continue
        name, inside, number = match.groups()
        try:
            value = float(number)
        except ValueError:
            continue
        labels = {
            key: _ESCAPED.sub(_unescape, quoted)
            for key, quoted in _LABEL.findall(inside or "")
        }
        samples.setdefault(name, []).append((labels, value))
    return Page(samples)


def _unescape(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


def fetch(address: str, token: Optional[str] = None) -> Page:
    """The page of the server's HTTP port, HOST:PORT or a URL."""
    url = address if "://" in address else f"http://{address}"
    request = urllib.request.Request(url.rstrip("/") + "/metrics")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        # A proxy of the environment is for the world, not for this server.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=_TIMEOUT) as page:
            return parse(page.read().decode("utf-8", "replace"))
    except urllib.error.HTTPError as error:
        codes = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}
        raise CupolaError(
            f"{url}: {error.code} {error.reason}",
            codes.get(error.code, "UNKNOWN"),
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(f"{url}: {reason}", "UNAVAILABLE") from None


def quantile(
    share: float,
    now: Dict[float, float],
    before: Optional[Dict[float, float]] = None,
) -> Optional[float]:
    """As Prometheus' histogram_quantile: linear inside the bucket, the highest
    finite bound above it. Of what came after `before`. None without a count."""
    before = before or {}
    bounds = sorted(now)
    counts = [now[bound] - before.get(bound, 0.0) for bound in bounds]
    if not counts or not counts[-1] > 0:
        return None
    rank = share * counts[-1]
    below, lower = 0.0, 0.0
    for bound, count in zip(bounds, counts):
        if count >= rank:
            if math.isinf(bound):
                return lower
            inside = count - below
            part = (rank - below) / inside if inside > 0 else 1.0
            return lower + (bound - lower) * part
        below, lower = count, bound
    return lower
