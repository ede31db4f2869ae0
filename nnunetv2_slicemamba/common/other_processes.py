"""Processes as locks and temporary files name them: a host and a number."""

from __future__ import annotations

import hashlib
import os
import re
import socket


def host() -> str:
    """Name of this machine, of letters, digits, '_' and '-'."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", socket.gethostname()) or "localhost"


def host_mark() -> str:
    """Eight letters and digits that tell this machine from others and do not name it."""
    return hashlib.sha256(host().encode()).hexdigest()[:8]


def lives(process: int) -> bool:
    """Whether there is a process of this number on this machine; True where that cannot be told."""
    if os.name == "nt":  # os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
