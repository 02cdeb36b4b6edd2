"""Object stores for the integration tests, started once per session and only when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.object_stores import ObjectStore


@pytest.fixture(scope="session")
def s3() -> Iterator[ObjectStore]:
    """S3 by moto, with one bucket. It is shared: write under a folder of your own."""
    from tests.support.object_stores import s3_store

    with s3_store() as store:
        yield store


@pytest.fixture(scope="session")
def gs() -> Iterator[ObjectStore]:
    """Google Cloud Storage by an emulator, with one bucket. It is shared: write under a folder of your own."""
    from tests.support.object_stores import gs_store

    with gs_store() as store:
        yield store
