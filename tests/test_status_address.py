"""Where metrics are, as it is typed."""

import pytest

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.status.address import Address, hide_passwords, read_address


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("9100", "http://127.0.0.1:9100/metrics"),
        (":9100", "http://127.0.0.1:9100/metrics"),
        ("9100/-/metrics", "http://127.0.0.1:9100/-/metrics"),
        ("host", "http://host/metrics"),
        ("host:9100", "http://host:9100/metrics"),
        ("http://host:9100", "http://host:9100/metrics"),
        ("http://host:9100/", "http://host:9100/metrics"),
        ("https://host/m?a=b", "https://host/m?a=b"),
        ("[::1]:9100", "http://[::1]:9100/metrics"),
        ("HTTP://host", "http://host/metrics"),
        ("http://bücher.example/ü", "http://xn--bcher-kva.example/%C3%BC"),
    ],
)
def test_a_url_may_be_short(text, expected):
    """What is left out is the scheme, this machine and the usual path."""
    assert read_address(text) == Address(expected)


@pytest.mark.parametrize(
    ("text", "url", "authorization"),
    [
        ("http://me:s3cret@host", "http://host/metrics", "Basic bWU6czNjcmV0"),
        ("me:s3cret@host:9100", "http://host:9100/metrics", "Basic bWU6czNjcmV0"),
        ("https://me:s3c%40ret%2F@[::1]/m", "https://[::1]/m", "Basic bWU6czNjQHJldC8="),
        ("http://ü:s3c@ret@bücher.example", "http://xn--bcher-kva.example/metrics", "Basic w7w6czNjQHJldA=="),
        ("http://me@host", "http://host/metrics", "Basic bWU6"),
    ],
)
def test_a_user_and_a_password(text, url, authorization):
    """They become a header, and are no part of the URL that is shown."""
    address = read_address(text)
    assert (address.url, address.authorization) == (url, authorization)
    assert authorization not in repr(address)


@pytest.mark.parametrize(
    "text", ["", "99999", "host:port", "ftp://host", "file:///etc/passwd", "http://", "[::1", "a b", "http://host/@"]
)
def test_what_is_no_url(text):
    """It is quoted as it was typed."""
    with pytest.raises(ConfigurationError, match="is not a URL of metrics. Expected") as error:
        read_address(text)
    assert str(error.value).startswith(f'"{text.replace("host/@", "***@")}" ')


@pytest.mark.parametrize(
    "text",
    [
        "ftp://me:s3cret@host",
        "http://me:s3/cret@host",
        "http://me:12/s3cret@host",
        "http://me:12?s3cret@host",
        "http://me:12#s3cret@host",
        "http://me:s3\ncret@host",
        "me:s3 cret@host:port",
    ],
)
def test_a_password_is_not_repeated(text):
    """However wrong the URL is, and whatever would be taken for its host."""
    with pytest.raises(ConfigurationError, match=r"\*\*\*@host") as error:
        read_address(text)
    assert "s3" not in str(error.value)
    assert "cret" not in str(error.value)
    assert "12" not in str(error.value)


def test_a_password_in_a_text():
    """It is hidden, and nothing else is."""
    text = 'No such command "http://me:s3cret@host". Got an extra argument (me:s3cret@host:9100) at a@b.c, 12:30.'
    assert hide_passwords(text) == text.replace("me:s3cret", "***")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("url=http://me:s3cret@host", "***@host"),
        ("(http://me:s3cret@host)", "(http://***@host)"),
        ("http://me@host", "***@host"),
        ("a@b:c@d e:f@g 'h:i@j'", "a@***@d ***@g '***@j'"),
        ("me:s3@cret@host", "***@host"),
        ("me:s3/cret:more@host", "***@host"),
    ],
)
def test_what_is_taken_for_a_password(text, expected):
    """In each word all before the last "@", from the user on, if there is a colon."""
    assert hide_passwords(text) == expected


@pytest.mark.parametrize("text", ["a", "a:", "a://", ":", "(", "@", "a@", "'a:"])
def test_a_password_in_a_long_text(text):
    """Each character costs as much as in a short one: what begins anew at each would take minutes."""
    hide_passwords(text * 500_000)
    assert hide_passwords(text * 500_000 + " me:s3cret@host").endswith(" ***@host")
