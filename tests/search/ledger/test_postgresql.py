"""A search's study in PostgreSQL, on a real server that the test starts where one is installed."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import math
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from nnunetv2_slicemamba.search import LedgerError, StudyRefusedError, open_ledger, read_ledger, run_search
from nnunetv2_slicemamba.search.ledger import study, study_export
from nnunetv2_slicemamba.search.ledger.study import read_study
from nnunetv2_slicemamba.search.ledger.study_export import StudyExport
from tests.search.distributed_search import free_port
from tests.search.killable_search import SETTINGS, evaluate, fingerprint

PASSWORD = "a secret"
DRIVER = next((name for name in ("psycopg", "psycopg2") if importlib.util.find_spec(name)), None)


def program(name: str) -> str | None:
    """Debian keeps the server's programs out of PATH."""
    folders = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))
    return shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *folders]))


def start_server(folder: Path) -> tuple[subprocess.Popen, int]:
    """A server with one user and its password, on a port of this machine; not started as root, which it refuses."""
    initdb, postgres = program("initdb"), program("postgres")
    if initdb is None or postgres is None:
        pytest.skip("there is no PostgreSQL server here (initdb and postgres are not installed)")
    owner: dict[str, str] = {}
    if os.getuid() == 0:
        names = {user.pw_name for user in pwd.getpwall()}
        owner["user"] = "postgres" if "postgres" in names else "nobody"
        shutil.chown(folder, owner["user"])
    secret = folder / "password"
    secret.write_text(PASSWORD)
    secret.chmod(0o644)
    new = [initdb, "-D", f"{folder}/data", "-U", "searcher", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
    made = subprocess.run(new, capture_output=True, text=True, cwd=folder, **owner)
    assert made.returncode == 0, made.stderr
    port = free_port()
    options = ["-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-c", "fsync=off"]
    with open(folder / "log", "w") as log:
        server = subprocess.Popen([postgres, "-D", f"{folder}/data", *options], stderr=log, cwd=folder, **owner)
    end = time.monotonic() + 30
    while time.monotonic() < end and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server, port
        time.sleep(0.05)
    server.kill()
    raise AssertionError((folder / "log").read_text())


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    if DRIVER is None:
        pytest.skip("there is no driver for PostgreSQL here (pip install psycopg[binary])")
    # not in pytest's folders, which are its user's alone
    with tempfile.TemporaryDirectory(prefix="slicemamba_postgresql_", ignore_cleanup_errors=True) as folder:
        server, port = start_server(Path(folder))
        try:
            yield f"postgresql+{DRIVER}://searcher:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # its fast shutdown: SIGTERM waits for every client to leave
            server.wait(60)


def test_a_search_in_postgresql_continues_and_ends_as_one_in_a_file(url, tmp_path):
    with open_ledger(tmp_path / "study.db", fingerprint()) as ledger:
        expected = run_search(evaluate, SETTINGS, ledger, progress=False)
    assert any(math.isnan(r.fitness) for r in expected.records), "the test should include an undefined fitness"
    calls = 0

    def stop(architecture):
        nonlocal calls
        calls += 1
        if calls > 9:
            raise KeyboardInterrupt
        return evaluate(architecture)

    first, second = tmp_path / "first", tmp_path / "second"
    with open_ledger(url, fingerprint(), folder=first) as ledger, pytest.raises(KeyboardInterrupt):
        run_search(stop, SETTINGS, ledger, progress=False)
    assert ledger.export() == 9
    assert len(read_ledger(url, fingerprint().study_name)[1]) == 9
    # as an older version left it: all that there is, is in the database
    with open_ledger(url, fingerprint(), folder=second) as ledger:
        assert len(ledger.records()) == 9
        result = run_search(evaluate, SETTINGS, ledger, progress=False)
        assert ledger.export() == SETTINGS.evaluations - 9
    assert result.evaluated_now == SETTINGS.evaluations - 9
    assert [(r.architecture, str(r.fitness), r.details) for r in result.records] == [
        (r.architecture, str(r.fitness), r.details) for r in expected.records
    ]
    assert result.best.architecture == expected.best.architecture
    # what Optuna's dashboard reads
    in_optuna = optuna.load_study(study_name=fingerprint().study_name, storage=url)
    assert [t.number for t in in_optuna.trials] == list(range(SETTINGS.evaluations))
    assert in_optuna.best_value == expected.best.fitness


def test_the_study_of_another_search_is_refused_and_can_be_discarded(url, tmp_path):
    with open_ledger(url, fingerprint(), "other", folder=tmp_path / "first") as ledger:
        run_search(evaluate, SETTINGS, ledger, progress=False)
        ledger.export()
    changed, folder = fingerprint(supernet_checkpoint_sha256="c" * 64), tmp_path / "second"
    with pytest.raises(StudyRefusedError, match=f"supernet checkpoint.*deletes the {SETTINGS.evaluations}"):
        open_ledger(url, changed, "other", folder=folder)
    with open_ledger(url, changed, "other", discard=True, folder=folder) as ledger:
        assert ledger.records() == []
        assert read_study(url, "other") is None


def test_a_server_that_does_not_answer_is_named_without_its_password(url, tmp_path, monkeypatch):
    monkeypatch.setattr(study, "PATIENCE_AT_START", 0.5)
    down = url.replace(url.rpartition(":")[2], f"{free_port()}/postgres")
    with pytest.raises(LedgerError, match=r"cannot open postgresql.*its server must answer") as refusal:
        open_ledger(down, fingerprint(), folder=tmp_path)
    assert "secret" not in str(refusal.value)


def test_a_server_that_stops_answering_ends_no_search(url, tmp_path, monkeypatch):
    """Nothing is asked of it where the evaluations are kept already; what it lacks is told without its password."""
    monkeypatch.setattr(study_export, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(study_export, "WAIT_SECONDS", 120.0)
    monkeypatch.setattr(study_export, "NICENESS", 0)
    down = url.replace(url.rpartition(":")[2], f"{free_port()}/postgres")
    open_ledger(url, fingerprint(), "third", folder=tmp_path).close()
    shown = io.StringIO()
    with (
        open_ledger(down, fingerprint(), "third", folder=tmp_path) as ledger,
        StudyExport(ledger, Console(file=shown, width=2000)),
    ):
        result = run_search(evaluate, SETTINGS, ledger, progress=False)
    assert result.evaluated_now == SETTINGS.evaluations
    assert "was not completed: cannot open postgresql" in shown.getvalue()
    assert "secret" not in shown.getvalue()
    with open_ledger(url, fingerprint(), "third", folder=tmp_path) as ledger:
        assert ledger.export() == SETTINGS.evaluations


class Way:
    """A way to the server through a port of its own, which can be cut."""

    def __init__(self, server: int) -> None:
        self._server, self.port = server, free_port()
        self._sockets: list[socket.socket] = []
        self.open()

    def open(self) -> None:
        self._door = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._let_in, args=(self._door,), daemon=True).start()

    def cut(self) -> None:
        for one in [self._door, *self._sockets]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._sockets.clear()

    def _let_in(self, door: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, server = door.accept()[0], socket.create_connection(("127.0.0.1", self._server))
                self._sockets += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 16):
                target.sendall(content)


def test_a_server_that_is_away_for_a_while_has_everything_in_the_end(url, tmp_path, monkeypatch):
    monkeypatch.setattr(study_export, "WAIT_SECONDS", 120.0)
    monkeypatch.setattr(study_export, "NICENESS", 0)
    port = url.rpartition(":")[2].partition("/")[0]
    way = Way(int(port))
    through, name = url.replace(port, str(way.port)), "away"
    calls = 0

    def evaluate_and_cut(architecture):
        nonlocal calls
        calls += 1
        if calls == 4:
            patience = time.monotonic() + 60
            while not (found := read_study(url, name)) or not found.records:  # until the copier is at it
                assert time.monotonic() < patience
                time.sleep(0.1)
            way.cut()
        if calls == SETTINGS.evaluations:
            threading.Timer(1.5, way.open).start()
        return evaluate(architecture)

    shown = io.StringIO()
    with (
        open_ledger(through, fingerprint(), name, folder=tmp_path) as ledger,
        StudyExport(ledger, Console(file=shown, width=2000)),
    ):
        result = run_search(evaluate_and_cut, SETTINGS, ledger, progress=False)
    way.cut()
    assert result.evaluated_now == SETTINGS.evaluations
    assert shown.getvalue() == ""
    found = read_study(url, name)
    assert len(found.records) == SETTINGS.evaluations
    assert found.fingerprint == fingerprint().as_dict()


def test_a_wrong_password_is_refused_at_once(url, tmp_path):
    started = time.monotonic()
    with pytest.raises(LedgerError, match="cannot open postgresql") as refusal:
        open_ledger(url.replace("a%20secret", "wrong%20secret"), fingerprint(), folder=tmp_path)
    assert time.monotonic() - started < study.PATIENCE_AT_START
    assert "secret" not in str(refusal.value)
