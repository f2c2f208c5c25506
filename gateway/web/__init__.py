"""HTTP in: parse, call one service, render; the routes are one table."""
