"""What a place shows as the URL for other programs is a URL, and says the same but for passwords."""

from __future__ import annotations

from pathlib import Path

import pytest

from langchain_kv.places.schemes import parse_url

SHOWN = {
    "sqlite:/data/a%25b%3Fc.db": "sqlite:/data/a%25b%3Fc.db",
    "http://127.0.0.1:8181": "http://127.0.0.1:8181",
    "https://db-eu.apps.astra.datastax.com/": "https://db-eu.apps.astra.datastax.com",
    "cassandra://u%3A:sEcret@h1,h2:9043/ks?ssl=true&in_chunk=7&local_dc=a+b": (
        "cassandra://u%3A:***@h1,h2:9043?local_dc=a+b&in_chunk=7&ssl=true"
    ),
    "cassandra://[::1]": "cassandra://[::1]:9042",
    "postgresql://u:sEcret@h:5/d?password=sEcret": "postgresql+psycopg://u:***@h:5/d",
    "mariadb://u:sEcret@h/d": "mariadb+pymysql://u:***@h/d",
    "sqlite+sqlalchemy:/data/sql.db": "sqlite+sqlalchemy:/data/sql.db",
    "sqlite+aiosqlite:/data/sql.db": "sqlite+aiosqlite:/data/sql.db",
    "redis://u:sEcret@h:6379/2": "redis://h:6379/2",
    "redis://h?cluster=true&password=sEcret": "redis://h?cluster=true",
    "mongodb://u:sEcret@h:1/d": "mongodb://h:1/d",
    "upstash+https://h": "upstash+https://h",
}


@pytest.mark.parametrize(("url", "shown"), SHOWN.items(), ids=lambda text: text.partition(":")[0])
def test_the_url_that_a_place_shows_is_one_without_a_password(url: str, shown: str) -> None:
    place = parse_url(url)

    assert place.url_shown == shown
    assert parse_url(shown).url_shown == shown
    assert type(parse_url(shown)) is type(place)


def test_the_url_of_a_bundle_is_its_path(tmp_path: Path) -> None:
    bundle = tmp_path / "a?b.zip"
    bundle.touch()
    url = f"cassandra+bundle:{tmp_path}/a%3Fb.zip?in_chunk=7"

    assert parse_url(url).url_shown == url
