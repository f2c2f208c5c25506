"""The composition root: settings in, a running gateway out. `root.py` is where to begin reading."""

from gateway.app.checks import check, login_code
from gateway.app.root import opened
from gateway.app.running import Gateway

__all__ = ["Gateway", "check", "login_code", "opened"]
