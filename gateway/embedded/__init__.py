"""PostgreSQL and Valkey as they come in two wheels, for one machine and for tests."""
