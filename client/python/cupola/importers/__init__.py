"""Turns models and dictionaries kept in other formats into folders that a
server can load."""

from ._failure import ImportFailed
from .dictionaries import FORMATS, Imported, import_dictionary

__all__ = ["FORMATS", "ImportFailed", "Imported", "import_dictionary"]
