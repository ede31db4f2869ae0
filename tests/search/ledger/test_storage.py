"""Storage URLs: what cannot be opened is told without its password and with the remedy."""

from __future__ import annotations

import pytest

from nnunetv2_slicemamba.search.ledger.storage import LedgerError, location_of, opened, sqlite_file


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql+psycopg://lab:s3cret@localhost:port/optuna", "postgresql+psycopg://...@localhost:port/optuna"),
        ("postgresql+psycopg://lab:s3@cr:et@localhost/optuna", "postgresql+psycopg://...@localhost/optuna"),
        ("://", "://"),
    ],
)
def test_what_is_no_url_is_shown_without_its_password(url: str, shown: str) -> None:
    for use in (location_of, sqlite_file):
        with pytest.raises(LedgerError) as refused:
            use(url)
        assert str(refused.value).startswith(f"{shown} is no URL of a storage; give sqlite:////FOLDER/study.db or")
        assert "s3" not in str(refused.value)
        assert "cr" not in str(refused.value).partition(";")[0]
        assert refused.value.__cause__ is None


@pytest.mark.parametrize("password", ["p{w}d", "{0}", "{", "}", "{{w}}"])
def test_a_password_may_have_braces(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def connect(*arguments: object, **settings: object) -> None:
        asked.append(str(settings.get("password")))
        raise OSError("no server")

    psycopg = pytest.importorskip("psycopg")
    monkeypatch.setattr(psycopg, "connect", connect)
    with (
        pytest.raises(LedgerError, match=r"cannot open postgresql\+psycopg://lab:\*\*\*@localhost:1/optuna as a study"),
        opened(f"postgresql+psycopg://lab:{password}@localhost:1/optuna"),
    ):
        pass
    assert asked[0] == password
