"""What runs beside an agent: a server that speaks A2A, a registration, a heartbeat."""
