"""The bus: what happens in one process is heard in all of them, in order."""
