"""The module ``sqlite3`` of the host's Python, or ``None``: some systems split Python into packages."""

try:
    import sqlite3 as sqlite3
except ImportError:
    sqlite3 = None  # type: ignore[assignment]
