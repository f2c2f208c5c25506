"""PostgreSQL: rows in, core values out; `db.py` alone knows aiopg."""
