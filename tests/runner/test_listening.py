"""The runner's socket: it is there before the rest is imported."""

import socket

from corral_server.runner.process import listen_early, listener


def test_who_asks_before_the_rest_is_imported_is_not_refused() -> None:
    environ = {"CORRAL_HOST": "127.0.0.1", "CORRAL_PORT": "0"}
    listen_early(environ)
    with listener("", 0, int(environ["CORRAL_LISTEN_FD"])) as sock:
        socket.create_connection(sock.getsockname(), timeout=5).close()


def test_an_inherited_socket_is_kept() -> None:
    environ = {"CORRAL_HOST": "127.0.0.1", "CORRAL_PORT": "0", "CORRAL_LISTEN_FD": "7"}
    listen_early(environ)
    assert environ["CORRAL_LISTEN_FD"] == "7"


def test_what_is_wrong_with_an_address_is_left_for_the_settings_to_say() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port in ("nonsense", "70000", str(taken.getsockname()[1])):
            environ = {"CORRAL_HOST": "127.0.0.1", "CORRAL_PORT": port}
            listen_early(environ)
            assert "CORRAL_LISTEN_FD" not in environ
