"""The words for PostgreSQL: migrations and named queries."""

from sql.loader import load

__all__ = ["load"]
