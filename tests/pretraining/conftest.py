"""A small real ImageFolder, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pretraining.image_folder import write_image_folder


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_folder(tmp_path_factory.mktemp("images"))
