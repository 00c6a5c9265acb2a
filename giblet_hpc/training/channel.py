"""A connection on which only holders of a key are heard.

Each message carries a code (HMAC, RFC 2104) that only such a holder can make, for this connection,
in this direction and at this place in the order. Messages are JSON.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import socket
import struct
from typing import Any

CODE_BYTES = 32
LONGEST = 2**24


class StrangerError(ConnectionError):
    """What came was not made with the key."""


class Channel:
    """A connection whose messages are made with the key, in this order, for this connection.

    Parameters
    ----------
    connection : socket
    key : bytes
    server : bool
        Whether this is rank 0's end.
    """

    def __init__(self, connection: socket.socket, key: bytes, *, server: bool) -> None:
        self._socket = connection
        mine = secrets.token_bytes(CODE_BYTES)
        connection.sendall(mine)
        other = self._read(CODE_BYTES)
        salts = mine + other if server else other + mine
        self._key = hmac.digest(key, salts, hashlib.sha256)
        self._names = (b"server", b"client") if server else (b"client", b"server")
        self._counts = [0, 0]

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def send(self, message: Any, longest: int = LONGEST) -> None:
        """Send a message."""
        content = json.dumps(message).encode()
        assert len(content) <= longest
        self._socket.sendall(struct.pack(">I", len(content)) + self._code(0, content) + content)

    def receive(self, longest: int = LONGEST) -> Any:
        """Return the next message.

        Raises
        ------
        StrangerError
            When it was not made with the key.
        ConnectionError
            When the other end is gone.
        """
        (size,) = struct.unpack(">I", self._read(4))
        if size > longest:
            raise StrangerError(f"a message of {size} bytes")
        code = self._read(CODE_BYTES)
        content = self._read(size)
        if not hmac.compare_digest(code, self._code(1, content)):
            raise StrangerError("a message that was not made with the key")
        return json.loads(content)

    def _code(self, direction: int, content: bytes) -> bytes:
        count = struct.pack(">Q", self._counts[direction])
        self._counts[direction] += 1
        return hmac.digest(self._key, self._names[direction] + count + content, hashlib.sha256)

    def _read(self, size: int) -> bytes:
        parts = []
        while size:
            part = self._socket.recv(min(size, 2**16))
            if not part:
                raise ConnectionError("connection closed by peer")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
