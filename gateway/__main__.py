"""`python -m gateway` is `a2a-gateway`."""

from gateway.cli import main

main()
