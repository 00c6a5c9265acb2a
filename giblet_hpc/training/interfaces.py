"""Addresses of a node's network interfaces."""

from __future__ import annotations

import fcntl
import socket
import struct

SIOCGIFADDR = 0x8915


def address_of(interface: str) -> str:
    """Return the IPv4 address of a network interface; empty when it has none.

    Parameters
    ----------
    interface : str
        A name, such as ``eth0``; of several, separated by commas, the first counts.
    """
    name = interface.partition(",")[0].encode()[:15]
    if not name:
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name))
        except OSError:
            return ""
    return socket.inet_ntoa(answer[20:24])
