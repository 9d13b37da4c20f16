"""Turns models kept in other formats into folders that a server can load."""
