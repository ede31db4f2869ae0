"""The processes of a search believe one another alone, and meet where others do not reach them."""

from __future__ import annotations

import os
import stat
import sys
import threading
from pathlib import Path

import pytest
from torch.distributed import HashStore, TCPStore

from nnunetv2_slicemamba.common.folders import InputError
from nnunetv2_slicemamba.search.workers.meeting import (
    ForeignMessageError,
    SignedStore,
    is_on_one_machine,
    meet,
    shared_secret,
)
from nnunetv2_slicemamba.search.workers.processes import Process
from tests.search.distributed_search import free_port

WRITER, HELPER = Process(0, 2, 0, 2), Process(1, 2, 1, 2)


def both(folder: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[SignedStore, SignedStore]:
    """The stores of a writer and its helper, which start at the same time."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)  # torch's rendezvous reads them there
    helpers: list[SignedStore] = []
    thread = threading.Thread(target=lambda: helpers.append(meet(HELPER, folder, environ)), daemon=True)
    thread.start()
    writer = meet(WRITER, folder, environ)
    thread.join(30)
    return writer, helpers[0]


def launched(**changes: str) -> dict[str, str]:
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "RANK": "0"}
    return place | changes


def addresses_of(port: int) -> set[str]:
    """Addresses on which somebody listens at a port, as the kernel writes them."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return {at.rpartition(":")[0] for _, at, _, state, *_ in lines if at.endswith(f":{port:04X}") and state == "0A"}


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
@pytest.mark.parametrize("agent", [False, True])
def test_on_one_machine_the_store_listens_there_only(agent: bool, tmp_path: Path, monkeypatch) -> None:
    environ = launched(LOCAL_WORLD_SIZE="2")
    if agent:  # as torchrun does
        started = TCPStore("127.0.0.1", int(environ["MASTER_PORT"]), is_master=True, wait_for_workers=False)
        environ |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "0"}
        assert started.port == int(environ["MASTER_PORT"])
    writer, helper = both(tmp_path, environ, monkeypatch)
    helper.set("key", "text")
    assert writer.get("key") == b"text"
    assert addresses_of(writer.store.port) == {"0100007F"}
    if agent:
        assert not started.check(["key", "slicing_search/key"]), "a message went through the launcher's store"


def test_processes_of_several_machines_meet_in_the_launchers_store(tmp_path: Path, monkeypatch) -> None:
    environ = launched(LOCAL_WORLD_SIZE="1", MASTER_ADDR="0.0.0.0")
    assert not is_on_one_machine(WRITER, environ)
    writer, helper = both(tmp_path, environ, monkeypatch)
    helper.set("key", "text")
    assert writer.get("key") == b"text"


def test_a_port_that_is_in_use_is_named(tmp_path: Path) -> None:
    taken = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with pytest.raises(InputError, match=f"MASTER_PORT is {taken.port}, which is in use"):
        meet(WRITER, tmp_path, launched(MASTER_PORT=str(taken.port)))


def test_what_a_stranger_writes_is_refused(tmp_path: Path, monkeypatch) -> None:
    environ = launched()
    writer, helper = both(tmp_path, environ, monkeypatch)
    stranger = TCPStore("127.0.0.1", int(environ["MASTER_PORT"]), is_master=False, wait_for_workers=False)
    stranger.set("1/message/0", '{"fitness": 1.0}')
    with pytest.raises(ForeignMessageError, match="'1/message/0' in the store .* not written by one of its processes"):
        writer.get("1/message/0")
    helper.set("1/message/1", "text")
    assert writer.get("1/message/1") == b"text"
    stranger.set("1/message/2", stranger.get("1/message/1"))  # what one of them said about another key
    with pytest.raises(ForeignMessageError):
        writer.get("1/message/2")
    SignedStore(stranger, b"guessed").set("1/message/3", "text")
    with pytest.raises(ForeignMessageError):
        writer.get("1/message/3")


def test_a_message_of_an_earlier_job_is_refused(tmp_path: Path, monkeypatch) -> None:
    first, _ = both(tmp_path, launched(), monkeypatch)
    first.set("1/message/0", "text")
    second, helper = both(tmp_path, launched(), monkeypatch)
    helper.store.set("1/message/0", first.store.get("1/message/0"))
    with pytest.raises(ForeignMessageError):
        second.get("1/message/0")


def test_the_secret_of_the_environment_takes_the_place_of_the_file(tmp_path: Path, monkeypatch) -> None:
    writer, _ = both(tmp_path, launched(SLICEMAMBA_SECRET="s"), monkeypatch)
    assert not (tmp_path / ".secret").exists()
    with pytest.raises(ForeignMessageError, match="SLICEMAMBA_SECRET differs between them"):
        SignedStore(writer.store, b"t").get("job")


def test_a_folder_has_one_secret_that_its_user_alone_can_read(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "study.evaluations"
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(shared_secret(folder))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert len(found[0]) == 64
    assert shared_secret(folder) == found[0]
    assert stat.S_IMODE((folder / ".secret").stat().st_mode) == 0o600


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="permissions of POSIX")
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path) -> None:
    shared_secret(tmp_path)
    (tmp_path / ".secret").chmod(0o644)
    with pytest.raises(InputError, match=r"other users can read or write .*\.secret.*set SLICEMAMBA_SECRET"):
        shared_secret(tmp_path)


def test_values_of_any_store_are_signed() -> None:
    store = SignedStore(HashStore(), b"secret")
    store.set("a", "text")
    assert store.get("a") == b"text"
    assert store.add("n", 2) == 2
    assert store.check(["a"])
    assert store.delete_key("a")
    assert not store.check(["a"])
