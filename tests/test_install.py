"""tools/install.py: uv is handed what pip is told, and uv itself is pinned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools import install

LISTED = """\
:env:.find-links='/wheels /more'
:env:.disable-pip-version-check='1'
global.cert='/own.pem'
global.find-links='/elsewhere'
global.index-url='https://a.example/simple'
global.timeout='9'
install.index-url='https://b.example/simple'
install.extra-index-url='\\nhttps://c.example/simple\\nhttps://d.example/simple'
list.index-url='https://not.example/simple'
"""


def test_the_environment_overrides_install_and_install_all_commands() -> None:
    told = install.settings_of(LISTED)
    assert told["find-links"] == "/wheels /more"
    assert told["index-url"] == "https://b.example/simple"
    assert told["cert"] == "/own.pem"


def test_every_place_of_packages_is_handed_over() -> None:
    options = " ".join(install.options_of(install.settings_of(LISTED)))
    assert options == (
        "--index-strategy unsafe-best-match --index-url https://b.example/simple --find-links /wheels "
        "--find-links /more --extra-index-url https://c.example/simple --extra-index-url https://d.example/simple"
    )


def test_nothing_told_is_nothing_handed_over() -> None:
    assert install.settings_of("") == {}
    assert install.options_of({}) == ["--index-strategy", "unsafe-best-match"]


@pytest.mark.parametrize(("said", "is_asked"), [("1", True), ("true", True), ("0", False), ("false", False)])
def test_no_index_is_asked_of_uv_as_of_pip(said: str, is_asked: bool) -> None:
    assert ("--no-index" in install.options_of({"no-index": said})) == is_asked


def test_certificates_and_patience_of_pip_are_uv_s_unless_it_has_its_own() -> None:
    told = install.settings_of(LISTED)
    assert install.surroundings_of(told, {"HOME": "/"}) == {
        "HOME": "/",
        "SSL_CERT_FILE": "/own.pem",
        "UV_HTTP_TIMEOUT": "9",
    }
    assert install.surroundings_of(told, {"SSL_CERT_FILE": "/uv.pem"})["SSL_CERT_FILE"] == "/uv.pem"


def test_the_one_line_says_why_uv_failed() -> None:
    assert install.reason("warning: slow\n\nerror: no such option\n\nFor more information, try --help\n") == (
        "error: no such option"
    )
    assert install.reason("first\nlast\n\n") == "last"
    assert install.reason("") == "it does not say why"


def test_uv_is_pinned() -> None:
    pins = (Path(install.__file__).parent.parent / install.PINS).read_text()
    assert re.search(r"^uv==[\d.]+$", pins, re.MULTILINE)
