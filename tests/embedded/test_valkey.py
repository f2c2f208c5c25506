import socket
import threading

import pytest

from gateway.embedded import valkey


def described(tmp_path, *, durable=True):
    return valkey.server(data=tmp_path, run_dir=tmp_path, log=tmp_path / "log", program=tmp_path / "v", durable=durable)


@pytest.mark.parametrize(("durable", "synced"), [(True, "everysec"), (False, "no")])
def test_durable_says_how_often_the_file_is_synced(tmp_path, durable, synced):
    argv = described(tmp_path, durable=durable).argv
    assert argv[argv.index("--appendfsync") + 1] == synced
    assert argv[argv.index("--appendonly") + 1] == "yes"


@pytest.mark.parametrize(
    ("answer", "ready"),
    [(b"+PONG\r\n", True), (b"-LOADING Valkey is loading the dataset in memory\r\n", False), (b"", False)],
)
def test_it_is_ready_when_it_answers_a_ping_and_not_while_it_loads(open_tmp, answer, ready):
    def serve() -> None:
        connection, _ = door.accept()
        with connection:
            assert connection.recv(64) == b"PING\r\n"
            connection.sendall(answer)

    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(open_tmp / valkey.SOCKET))
        door.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        assert described(open_tmp).is_ready(1) is ready
        thread.join()
    assert not described(open_tmp).is_ready(1), "nobody listens"
