"""How ranks of several nodes find each other where strangers reach every port.

torch's own store takes orders from whoever connects. Here rank 0 listens until all ranks are
there, then no more; each message shows that its sender knows a key, which is in a file that this
user alone can read.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from giblet_hpc.errors import NodeError
from giblet_hpc.files import write_private_json
from giblet_hpc.runs.environment import host
from giblet_hpc.training.channel import Channel, StrangerError
from giblet_hpc.training.interfaces import address_of

KEY_BYTES = 32
GREETING_LONGEST = 1024
GREETING_SECONDS = 10.0
ACQUAINTANCES = 256
"""Connections that may be open before they have shown that they know the key."""
WELCOME = "welcome"
ASK_SECONDS = 2.0
LEAST_WAIT, MOST_WAIT, MOST_LOOK_WAIT = 0.001, 0.05, 0.5
UNREACHABLE = "can the nodes reach each other by name? `giblet-hpc doctor` tries it"


@dataclass
class Entries:
    """What the ranks have stored, in rank 0's memory."""

    values: dict[str, bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, kind: str, key: str, first: bytes = b"", second: bytes = b"") -> bytes | None:
        """Carry out an order; None where there is no such key."""
        with self.lock:
            values = self.values
            if kind == "set":
                values[key] = first
            elif kind == "get":
                return values.get(key)
            elif kind == "add":
                values[key] = str(int(values.get(key, b"0")) + int(first)).encode()
                return values[key]
            elif kind == "compare_set":
                if values.get(key, b"") == first:
                    values[key] = second
                return values.get(key, first)
            elif kind == "delete":
                return b"1" if values.pop(key, None) is not None else None
            elif kind == "count":
                return str(len(values)).encode()
            return b""


class KeyedStore(dist.Store):  # type: ignore[name-defined, misc]
    """torch's store, kept by rank 0 and reached with a key.

    Parameters
    ----------
    timeout : timedelta
        How long a key is waited for.
    channel : Channel, optional
        To rank 0; None on rank 0.
    """

    def __init__(self, timeout: timedelta, channel: Channel | None = None) -> None:
        super().__init__()
        self.set_timeout(timeout)
        self._patience = timeout
        self._channel, self._entries = channel, Entries()
        self._lock = threading.Lock()
        self.server: Server | None = None

    @property
    def entries(self) -> Entries:
        """What is stored; on rank 0."""
        return self._entries

    def close(self) -> None:
        """Leave; on rank 0, end all connections."""
        if self._channel is not None:
            self._channel.close()
        if self.server is not None:
            self.server.close()

    def _ask(self, kind: str, key: str, first: bytes = b"", second: bytes = b"") -> bytes | None:
        if self._channel is None:
            return self._entries.answer(kind, key, first, second)
        with self._lock:
            self._channel.send([kind, key, _text(first), _text(second)])
            answer = self._channel.receive()
        return None if answer is None else base64.b64decode(answer)

    def set(self, key: str, value: str | bytes) -> None:
        """Store a value."""
        self._ask("set", key, _encoded(value))

    def get(self, key: str) -> bytes:
        """Return a value, once it is there."""
        self.wait([key])
        value = self._ask("get", key)
        assert value is not None
        return value

    def add(self, key: str, amount: int) -> int:
        """Add to a number; return the sum."""
        return int(self._ask("add", key, str(amount).encode()) or b"0")

    def compare_set(self, key: str, expected: str | bytes, desired: str | bytes) -> bytes:
        """Store a value where another is stored, or none where none is expected."""
        return self._ask("compare_set", key, _encoded(expected), _encoded(desired)) or b""

    def delete_key(self, key: str) -> bool:
        """Remove a value; return whether there was one."""
        return self._ask("delete", key) is not None

    def num_keys(self) -> int:
        """Return how many keys there are."""
        return int(self._ask("count", "") or b"0")

    def check(self, keys: Sequence[str]) -> bool:
        """Return whether all keys are there."""
        return all(self._ask("get", key) is not None for key in keys)

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Wait until all keys are there.

        Raises
        ------
        DistStoreError
            When they are not there in time.
        """
        patience = timeout or self._patience
        end, pause = time.monotonic() + patience.total_seconds(), LEAST_WAIT
        while not self.check(keys):
            if time.monotonic() > end:
                waited = f"{patience.total_seconds():.0f} s"
                raise dist.DistStoreError(f"timed out after {waited} waiting for {', '.join(keys)}")
            time.sleep(pause)
            pause = min(2 * pause, MOST_WAIT)

    def clone(self) -> KeyedStore:
        """Return this store: one connection serves all threads."""
        return self

    def has_extended_api(self) -> bool:
        """Return whether several keys can be read at once: they cannot."""
        return False


def _encoded(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


class Server:
    """Rank 0's end: lets each other rank in once, then stops to listen.

    Parameters
    ----------
    store : KeyedStore
    others : int
        How many ranks will connect.
    address : str
        To listen on; empty for all.
    """

    def __init__(self, store: KeyedStore, others: int, address: str) -> None:
        self._entries, self._others = store.entries, others
        self._there: set[int] = set()
        self.key = secrets.token_bytes(KEY_BYTES)
        self._room = threading.Semaphore(ACQUAINTANCES)
        self._open: set[socket.socket] = set()
        self._counting = threading.Lock()
        self._socket = socket.create_server((address, 0), backlog=ACQUAINTANCES)
        threading.Thread(target=self._listen, daemon=True).start()

    @property
    def port(self) -> int:
        """The port that this listens on."""
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        """Stop to listen, and end all connections."""
        with self._counting:
            for connection in [self._socket, *self._open]:
                _end(connection)

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            if not self._room.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, ValueError):
            try:
                connection.settimeout(GREETING_SECONDS)
                channel = Channel(connection, self.key, server=True)
                rank = int(channel.receive(GREETING_LONGEST))
                connection.settimeout(None)
                channel.send(WELCOME)
            finally:
                self._room.release()
            with self._counting:
                self._there.add(rank)
                self._open.add(connection)
                if len(self._there) == self._others:
                    _end(self._socket)
            while True:
                kind, key, *values = channel.receive()
                answer = self._entries.answer(kind, key, *(base64.b64decode(v) for v in values))
                channel.send(None if answer is None else _text(answer))


def _end(connection: socket.socket) -> None:
    """Close a socket, and wake what waits on it in another thread: closing alone does not."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


def open_store(file: Path, others: int, *, timeout: timedelta) -> KeyedStore:
    """Return rank 0's store, and tell the other ranks, by a file, where it is.

    Parameters
    ----------
    file : Path
        On a file system that all nodes share.
    others : int
        How many ranks will connect.
    timeout : timedelta
        How long a key is waited for.
    """
    store = KeyedStore(timeout)
    address = address_of(os.environ.get("GLOO_SOCKET_IFNAME", ""))
    store.server = server = Server(store, others, address)
    places = [address] if address else [host(), socket.gethostname()]
    write_private_json(file, {"places": places, "port": server.port, "key": server.key.hex()})
    return store


def join_store(
    file: Path,
    rank: int,
    *,
    patience: timedelta,
    timeout: timedelta,
    gone: Callable[[], bool] = lambda: False,
) -> KeyedStore:
    """Return the store that rank 0 has opened.

    Parameters
    ----------
    file : Path
        That rank 0 writes.
    rank : int
        This rank.
    patience : timedelta
        How long rank 0 is waited for.
    timeout : timedelta
        How long a key is waited for.
    gone : callable
        Whether rank 0 will not come any more; asked now and then.

    Raises
    ------
    ConnectionError
        When it will not.
    NodeError
        When rank 0 cannot be found or reached in time, or the file is not this user's.
    """
    end = time.monotonic() + patience.total_seconds()
    last = "rank 0 has not said where it is"
    asked, pause = time.monotonic(), MOST_WAIT
    while time.monotonic() < end:
        if time.monotonic() - asked > ASK_SECONDS:
            asked = time.monotonic()
            if gone():
                raise ConnectionError("Connection closed by peer: node 0 has ended")
        facts = _read_private(file)
        for place in facts["places"] if facts else ():
            try:
                return KeyedStore(timeout, _connect(place, facts["port"], facts["key"], rank))
            except OSError as error:
                last = f"{place} port {facts['port']}: {error}"
        # Many ranks look into one folder, which a whole cluster may share.
        time.sleep(pause)
        pause = min(2 * pause, MOST_LOOK_WAIT)
    raise NodeError(
        f"the nodes did not find each other within {patience.total_seconds():.0f} s: {last}",
        hint=UNREACHABLE,
    )


def _connect(place: str, port: int, key: str, rank: int) -> Channel:
    connection = socket.create_connection((place, port), timeout=GREETING_SECONDS)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel = Channel(connection, bytes.fromhex(key), server=False)
        channel.send(rank, GREETING_LONGEST)
        if channel.receive(GREETING_LONGEST) != WELCOME:
            raise StrangerError("what answers is not rank 0")
        connection.settimeout(None)
    except BaseException:
        connection.close()
        raise
    return channel


def _read_private(file: Path) -> dict[str, Any]:
    """Return what a file of this user's says; empty when there is none yet."""
    # Reading the folder anew is what makes a network file system look.
    if not any(entry.name == file.name for entry in _entries_of(file.parent)):
        return {}
    status = file.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
        raise NodeError(
            f"{file} is not yours: user {status.st_uid} has put it there",
            hint="give the run a folder that only you can write to",
        )
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor) as handle:
        facts: dict[str, Any] = json.load(handle)
        return facts


def _entries_of(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from entries
