"""What an importer raises."""

from __future__ import annotations


class ImportFailed(Exception):
    """The source cannot be turned into a folder for a server; says why."""
