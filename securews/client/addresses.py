"""From a host name and a port to a connected socket, within one deadline.

`socket.getaddrinfo` has no timeout and cannot be interrupted. So a name is resolved by a daemon
thread, and the caller waits for it as long as there is time; a thread that is not waited for any
more ends by itself. An IP address needs no look-up, and no thread.
"""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Sequence
from typing import TypeAlias

from securews.common.deadlines import Deadline
from securews.common.errors import ConfigurationError, printable

__all__ = ["connect_tcp", "resolve"]

AddressInfo: TypeAlias = tuple[
    socket.AddressFamily,
    socket.SocketKind,
    int,
    str,
    tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes],
]
"""Family, kind, protocol, canonical name, address: what `socket.getaddrinfo` returns."""
Answers: TypeAlias = "queue.SimpleQueue[Sequence[AddressInfo] | BaseException]"


def connect_tcp(host: str, port: int, deadline: Deadline) -> socket.socket:
    """Connect to the first address of `host` that answers. Any thread; it waits.

    Addresses are tried one after another. Each attempt has an even share of the time that is
    left, so that an address which answers nothing leaves some to those behind it.

    Args:
        host: a name or an IP address.
        port: 1 to 65535.
        deadline: of the resolution and of all attempts together.

    Raises:
        TimeoutError: there was no answer in time.
        OSError: no address could be connected to; the reason is that of the last one.
        ConfigurationError: `host` cannot be a host name.
    """
    addresses = resolve(host, port, deadline)
    reason = OSError("it has no address")
    for tried, address in enumerate(addresses):
        left = deadline.remaining()
        share = None if left is None else left / (len(addresses) - tried)
        result = _attempt(address, share)
        if isinstance(result, socket.socket):
            return result
        reason = result
    text = f"{printable(host)} port {port} cannot be reached: {reason.strerror or reason}"
    if reason.errno is None:
        raise type(reason)(text) from reason
    raise OSError(reason.errno, text) from reason


def resolve(host: str, port: int, deadline: Deadline) -> Sequence[AddressInfo]:
    """The addresses of a host, in the system's order of preference. Any thread; it waits.

    Raises:
        TimeoutError: the resolver did not answer in time.
        OSError: the name is not known (`socket.gaierror`), or no thread could be started.
        ConfigurationError: `host` cannot be a host name.
    """
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        pass  # it is a name
    except UnicodeError as error:
        raise ConfigurationError(f"{printable(host)} is no host name: {error}") from None
    answers: Answers = queue.SimpleQueue()
    thread = threading.Thread(
        target=_look_up, args=(host, port, answers), name="securews-resolver", daemon=True
    )
    try:
        thread.start()
    except RuntimeError as error:
        raise OSError(
            f"{printable(host)} cannot be resolved, for no thread can be started: {error}"
        ) from error
    try:
        answer = answers.get(timeout=deadline.remaining())
    except queue.Empty:
        raise TimeoutError(f"{printable(host)} was not resolved in time") from None
    if isinstance(answer, socket.gaierror):
        raise socket.gaierror(
            answer.errno, f"{printable(host)} cannot be resolved: {answer.strerror}"
        ) from answer
    if isinstance(answer, BaseException):
        raise answer
    return answer


def _look_up(host: str, port: int, answers: Answers) -> None:
    try:
        answers.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except BaseException as error:
        answers.put(error)  # raised where the answer is waited for


def _attempt(info: AddressInfo, seconds: float | None) -> socket.socket | OSError:
    """A connected socket, or why there is none."""
    family, kind, protocol, _, address = info
    if seconds == 0:
        return TimeoutError("there was no time left")
    try:
        sock = socket.socket(family, kind, protocol)
    except OSError as error:
        return error
    try:
        sock.settimeout(seconds)
        sock.connect(address)
    except OSError as error:
        sock.close()
        return error
    except BaseException:
        sock.close()
        raise
    return sock
