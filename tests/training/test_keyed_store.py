"""A store that ranks of several nodes share, and that no stranger gets anything out of or into."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import socket
import struct
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from giblet_hpc.errors import NodeError
from giblet_hpc.training import keyed_store
from giblet_hpc.training.channel import Channel, StrangerError
from giblet_hpc.training.keyed_store import KeyedStore, join_store, open_store

PATIENCE = timedelta(seconds=20)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[list[KeyedStore]]:
    """Rank 0's, and those of two others."""
    file = tmp_path / "rendezvous.json"
    main = open_store(file, 2, timeout=PATIENCE)
    others = [join_store(file, rank, patience=PATIENCE, timeout=PATIENCE) for rank in (1, 2)]
    yield [main, *others]
    for store in (*others, main):
        store.close()


def test_ranks_see_what_others_store(stores: list[KeyedStore]) -> None:
    main, first, second = stores
    main.set("a", b"\x00\xff")
    first.set("b", "text")
    assert second.get("a") == b"\x00\xff"
    assert main.get("b") == b"text"
    assert [store.add("n", 2) for store in stores] == [2, 4, 6]
    assert first.check(["a", "b", "n"]) and not first.check(["a", "c"])
    assert second.compare_set("c", "", "new") == b"new"
    assert first.compare_set("c", "other", "newer") == b"new"
    assert main.compare_set("c", "new", "newer") == b"newer"
    assert second.num_keys() == 4
    assert first.delete_key("c") and not first.delete_key("c")


def test_a_key_is_waited_for_and_not_for_ever(stores: list[KeyedStore]) -> None:
    main, first, _ = stores
    threading.Timer(0.2, lambda: main.set("late", "here")).start()
    assert first.get("late") == b"here"
    with pytest.raises(dist.DistStoreError, match="timed out after 0 s waiting for never"):
        first.wait(["never"], timedelta(seconds=0.1))


def test_torch_takes_it_for_a_store(stores: list[KeyedStore]) -> None:
    """By its own prefixes, and from its C++ code."""
    one, other = (dist.PrefixStore("group", store) for store in stores[:2])
    one.set("k", "v")
    assert other.get("k") == b"v"
    assert stores[2].get("group/k") == b"v"


def address(file: Path) -> tuple[str, int]:
    facts = json.loads(file.read_text())
    return "127.0.0.1", facts["port"]


class Payload:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.mkdir, (self.mark,)


def attempts(mark: Path) -> list[bytes]:
    """What a stranger sends after his 32 bytes."""
    order = json.dumps(["set", "default_pg/0//0", "eHh4", ""]).encode()
    loaded = pickle.dumps(Payload(str(mark)))
    return [
        b"",
        os.urandom(4096),
        struct.pack(">I", len(order)) + bytes(32) + order,
        struct.pack(">I", len(loaded)) + os.urandom(32) + loaded,
        struct.pack(">I", 2**32 - 1) + bytes(100),
        loaded,
    ]


def test_strangers_are_not_heard_and_ranks_still_join(tmp_path: Path) -> None:
    file, mark = tmp_path / "rendezvous.json", tmp_path / "mark"
    main = open_store(file, 2, timeout=PATIENCE)
    main.set("kept", "as it is")
    first = join_store(file, 1, patience=PATIENCE, timeout=PATIENCE)
    said = []
    for content in attempts(mark):
        with socket.create_connection(address(file), timeout=5) as stranger:
            greeting = stranger.recv(32)
            # He may be shut out before he has said all.
            with contextlib.suppress(OSError):
                stranger.sendall(bytes(32) + content)
                stranger.shutdown(socket.SHUT_WR)
                while part := stranger.recv(4096):
                    said.append(part)
            assert len(greeting) == 32
    silent = socket.create_connection(address(file))
    second = join_store(file, 2, patience=PATIENCE, timeout=PATIENCE)
    silent.close()
    assert said == [], "nothing is answered"
    assert not mark.exists()
    assert main.num_keys() == 1
    assert first.get("kept") == second.get("kept") == b"as it is"
    for store in (first, second, main):
        store.close()


def test_once_all_are_there_nobody_is_let_in(tmp_path: Path) -> None:
    file = tmp_path / "rendezvous.json"
    main = open_store(file, 1, timeout=PATIENCE)
    first = join_store(file, 1, patience=PATIENCE, timeout=PATIENCE)
    first.set("a", "b")
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            socket.create_connection(address(file), timeout=1).close()
        except ConnectionRefusedError:
            break
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address(file), timeout=1)
    assert main.get("a") == b"b"
    for store in (first, main):
        store.close()


def test_the_key_is_this_users_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        open_store(tmp_path / "rendezvous.json", 1, timeout=PATIENCE).close()
    finally:
        os.umask(old)
    assert (tmp_path / "rendezvous.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["link", "pipe", "of somebody else"])
def test_a_file_that_somebody_else_has_put_there_is_refused(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "rendezvous.json"
    planted = tmp_path / "planted"
    planted.write_text('{"places": ["127.0.0.1"], "port": 1, "key": "00"}')
    if kind == "link":
        file.symlink_to(planted)
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        if os.geteuid() != 0:
            pytest.skip("only root can give files away")
        planted.rename(file)
        os.chown(file, 12345, 12345)
    with pytest.raises(NodeError, match="not yours: user"):
        join_store(file, 1, patience=PATIENCE, timeout=PATIENCE)


def test_a_rank_0_that_never_comes_is_said(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="did not find each other within 0 s: rank 0 has not said"):
        join_store(tmp_path / "none", 1, patience=timedelta(seconds=0.2), timeout=PATIENCE)


def test_a_rank_0_that_has_ended_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyed_store, "ASK_SECONDS", 0.1)
    begin = time.monotonic()
    with pytest.raises(ConnectionError, match="Connection closed by peer"):
        join_store(tmp_path / "none", 1, patience=PATIENCE, timeout=PATIENCE, gone=lambda: True)
    assert time.monotonic() - begin < 5


@contextlib.contextmanager
def ends(key: bytes, other: bytes) -> Iterator[tuple[Channel, Channel, socket.socket]]:
    """A client, a server, and the client's bare connection."""
    left, right = socket.socketpair()
    with left, right:
        made: list[Channel] = []
        thread = threading.Thread(target=lambda: made.append(Channel(right, other, server=True)))
        thread.start()
        client = Channel(left, key, server=False)
        thread.join()
        yield client, made[0], left


def test_messages_are_made_with_the_key_and_in_order() -> None:
    with ends(b"k" * 32, b"k" * 32) as (client, server, _):
        client.send([1, "ä"])
        client.send("next")
        assert (server.receive(), server.receive()) == ([1, "ä"], "next")
    with ends(b"k" * 32, b"x" * 32) as (client, server, _):
        client.send(1)
        with pytest.raises(StrangerError):
            server.receive()


def test_a_message_that_is_sent_again_is_refused() -> None:
    """As one who listens on the network could."""
    with ends(b"k" * 32, b"k" * 32) as (client, server, raw):
        content = json.dumps("order").encode()
        frame = struct.pack(">I", len(content)) + client._code(0, content) + content
        raw.sendall(frame + frame)
        assert server.receive() == "order"
        with pytest.raises(StrangerError):
            server.receive()


@settings(deadline=None, max_examples=50)
@given(st.binary(min_size=40, max_size=300))
def test_no_other_bytes_are_taken_for_a_message(content: bytes) -> None:
    with ends(b"k" * 32, b"k" * 32) as (_, server, raw):
        raw.sendall(content)
        raw.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionError):
            server.receive(keyed_store.GREETING_LONGEST)
