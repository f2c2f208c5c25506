"""What needs the settings and no running gateway: refusing them early, and a code to log in with."""

from events import redis
from gateway.services.sessions import make_code
from gateway.services.tasks import Tasks
from gateway.settings import BadSetting, Settings
from gateway.store import db, vault
from gateway.store.sessions import SessionStore


def check(settings: Settings) -> None:
    """Refuse, before anything is changed, what could not be opened anyway; raises BadSetting or vault.BadKey."""
    for name, url, read in (
        ("GATEWAY_DATABASE_URL", settings.database_url, db.check_url),
        ("GATEWAY_REDIS_URL", settings.redis_url, redis.check_url),
    ):
        try:
            read(url or "")
        except ValueError as error:
            raise BadSetting(f"{name} cannot be used: {error}") from None
    if settings.secrets_key_file is not None:
        vault.from_file(settings.secrets_key_file)


async def login_code(settings: Settings) -> str:
    """Return the code of a fresh one-time link for the operator; raises StoreError, ValueError for a malformed URL."""
    if settings.database_url is None or settings.admin_token is None:
        raise ValueError("login needs GATEWAY_DATABASE_URL and ADMIN_TOKEN")
    async with Tasks() as tasks:
        reached = db.opened(
            settings.database_url, pool_size=1, statement_timeout_s=settings.statement_timeout_s, spawn=tasks.spawn
        )
        async with reached as database:
            return await make_code(SessionStore(database), settings.admin_token)
