from __future__ import annotations

import re
import ssl
import sys
import tempfile
from pathlib import Path

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hr_prometheus.access.files import read_file
from hr_prometheus.access.rate_limit import RateLimit
from hr_prometheus.access.tls import CIPHERS, make_context
from hr_prometheus.access.web_config import read_web_config
from hr_prometheus.errors import ConfigurationError, ServingError

HASHED = bcrypt.hashpw(b"secret", b"$2b$04$abcdefghijklmnopqrstuu").decode()  # the same in all processes of pytest
TLS = """
tls_server_config:
  cert_file: server.pem
  key_file: server-key.pem
"""


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Read a web configuration with a text, and what it names."""
    monkeypatch.chdir(tmp_path)

    def read_text(text):
        (tmp_path / "web.yml").write_text(text)
        config = read_web_config("web.yml", read_file)
        if config.tls is not None:
            make_context(config.tls, read_file)
        return config

    return read_text


def error_of(read, text):
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "", "# nothing\n", "tls_server_config:\n", "tls_server_config: {}", "basic_auth_users: {}", "http_server_config:\n  headers:\n",
        "rate_limit: {interval: 0, burst: 0}", "http_server_config: {http2: false}", "http_server_config: {headers: {X-XSS-Protection: ''}}",
    ],
)  # fmt: skip
def test_a_configuration_of_nothing(read, text):
    """Everyone may come, by HTTP."""
    config = read(text)
    assert config.tls is config.rate_limit is None
    assert (dict(config.users), dict(config.headers)) == ({}, {})


def test_all_but_tls(read):
    """Texts may be quoted or not, and durations have Go's units."""
    config = read(f"""
basic_auth_users:
  alice: {HASHED}
  'bob': "{HASHED.replace("$2b$", "$2y$")}"
http_server_config:
  headers:
    X-Frame-Options: deny
    X-XSS-Protection: 1
    Strict-Transport-Security: max-age=31536000; includeSubDomains
rate_limit:
  interval: 1m1.5s20ms
  burst: 7
""")
    assert set(config.users) == {b"alice", b"bob"}
    assert config.headers == {
        "X-Frame-Options": "deny",
        "X-XSS-Protection": "1",
        "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    }
    assert config.rate_limit == RateLimit(61.52, 7)
    assert HASHED not in repr(config)


@pytest.mark.parametrize(
    "more",
    [
        "", "client_auth_type: NoClientCert", "client_auth_type: RequestClientCert", "client_auth_type: VerifyClientCertIfGiven",
        "client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.pem\n  client_allowed_sans: [one, two]",
        "min_version: TLS13", "min_version: TLS12\n  max_version: TLS12", f"cipher_suites: [{', '.join(CIPHERS)}]",
        "cipher_suites: [TLS_AES_128_GCM_SHA256]", "client_auth_type: ''", "prefer_server_cipher_suites: no",
    ],
)  # fmt: skip
def test_tls(read, authority, more):
    """Each setting is followed or refused."""
    authority.issue("server")
    assert read(f"{TLS}  {more}").tls is not None


def test_inline_certificates(read, authority):
    """A certificate, its key and the authority of clients may stand in the file itself, and the key is in no error and no repr."""
    certificate, key = (Path(path).read_text() for path in authority.issue("server"))
    texts = {"cert": certificate, "key": key, "client_ca": authority.path.read_text()}
    text = "tls_server_config:\n  client_auth_type: RequireAndVerifyClientCert\n"
    for name, pem in texts.items():
        text += f"  {name}: |\n" + "".join(f"    {line}\n" for line in pem.splitlines())
    config = read(text)
    assert make_context(config.tls, read_file).verify_mode == ssl.CERT_REQUIRED
    assert key not in repr(config)
    assert "PRIVATE" not in error_of(read, text.replace("  key: |", "  kay: |"))


def test_inline_certificates_without_a_temporary_directory(read, authority, monkeypatch):
    """They need none on Linux; elsewhere the sentence says what to set."""
    text = "tls_server_config:\n"
    for name, path in zip(("cert", "key"), authority.issue("server"), strict=True):
        text += f"  {name}: |\n" + "".join(f"    {line}\n" for line in Path(path).read_text().splitlines())
    monkeypatch.setattr(tempfile, "tempdir", "/none")
    if sys.platform == "linux":
        assert read(text).tls is not None
    monkeypatch.setattr(sys, "platform", "other")
    with pytest.raises(
        ServingError, match=r"tls_server_config.cert on line 2 of web.yml cannot be written .* Give TMPDIR"
    ):
        read(text)


def test_old_versions(read, authority):
    """TLS 1.0 and 1.1 are to be had by name."""
    authority.issue("server")
    with pytest.warns(DeprecationWarning, match="TLSv1_1 is deprecated"):  # by Python
        read(f"{TLS}  min_version: TLS11")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nonsense", "line 1 of web.yml is not a mapping. Expected lines of KEY: VALUE."),
        ("a: b: c", "line 1 of web.yml is not YAML: mapping values are not allowed here. Expected lines of KEY: VALUE, indented"),
        ('\na: "b\n', "line 3 of web.yml is not YAML: found unexpected end of stream."),
        ("basic_auth_users: {a: *secret}", "line 1 of web.yml is not YAML: found undefined alias."),
        ("basic_auth_users:\n  <<: {a: b}", "line 2 of web.yml has a merge key (<<). Write its lines out."),
        ("\n\0", "line 2 of web.yml has a character that YAML does not allow. Remove it."),
        ("[\n" * 5000, " of web.yml is nested too deeply. Expected a web configuration."),
        ("#" * 2**17 + "\n", '"web.yml" is larger than 128 KiB. Expected a web configuration.'),
        ('\nbasic_auth_users: {hunter2: "\\UFFFFFFFF"}', "line 2 of web.yml is not YAML. Expected lines"),
        ('\nbasic_auth_users: {hunter2: "\\U00110000"}', "line 2 of web.yml is not YAML. Expected lines"),
        (f"%YAML 1.{'9' * 5000}\n---\n", "line 1 of web.yml is not YAML. Expected lines"),
        ("http_server_config: {http2: !!bool hunter2}", "http_server_config.http2 on line 1 of web.yml is neither true nor false."),
        ("'': x", "An entry on line 1 of web.yml is not a setting."),
        ("hunter2-secret: x", "An entry on line 1 of web.yml is not a setting."),
        ("basic_auth_users:hunter2: x", "An entry on line 1 of web.yml is not a setting."),
        (f"basic_auth_users:\n{HASHED}: alice", "An entry on line 2 of web.yml is not a setting."),
        ("http_server_config: {headers: {Bearer hunter2: x}}", "An entry of http_server_config.headers on line 1 of web.yml is not a setting."),
        ('tls_server_config: {cert_file: "\\0", key: k}', "on line 1 of web.yml cannot be read. Expected a certificate chain"),
        ('tls_server_config: {cert: "\\ud800", key: k}', "cert on line 1 of web.yml cannot be read. Expected a certificate chain"),
        ("[a]: b", "line 1 of web.yml has a key that is not text."),
        ("tls_server_confg: {}", 'tls_server_confg on line 1 of web.yml is not a setting. Did you mean "tls_server_config"? Expected'),
        ("tls_server_config:\n  cert_filse: x", 'tls_server_config.cert_filse on line 2 of web.yml is not a setting. Did you mean "cert_file"?'),
        ("tls_server_config: 7", "tls_server_config on line 1 of web.yml is not a mapping."),
        ("rate_limit: {}\nrate_limit: {}", "rate_limit on line 2 of web.yml is there for the second time, after line 1."),
        ("tls_server_config: {cert_file: '', key_file: k}", "tls_server_config on line 1 of web.yml has neither cert nor cert_file."),
        ("tls_server_config: {min_version: TLS13}", "tls_server_config on line 1 of web.yml has neither cert nor cert_file."),
        ("tls_server_config: {cert_file: c, key: ''}", "tls_server_config on line 1 of web.yml has neither key nor key_file."),
        ("tls_server_config: {cert_file: c, cert: x, key: k}", "tls_server_config.cert on line 1 of web.yml was given with cert_file."),
        ("tls_server_config: {cert_file: [], key: k}", "tls_server_config.cert_file on line 1 of web.yml is not a text."),
        (f"{TLS}  min_version: TLS111", 'tls_server_config.min_version "TLS111" on line 5 of web.yml is unknown. Did you mean "TLS11"?'),
        (f"{TLS}  min_version: ''", 'tls_server_config.min_version "" on line 5 of web.yml is unknown. Expected one of TLS10, TLS11,'),
        (f"{TLS}  max_version: TLS12\n  cipher_suites: [TLS_AES_128_GCM_SHA256]", "cipher_suites on line 6 of web.yml has only suites of TLS 1.3"),
        (f"{TLS}  max_version: TLS11", "tls_server_config.max_version on line 5 of web.yml: min_version is above max_version."),
        (f"{TLS}  cipher_suites: TLS_AES", "tls_server_config.cipher_suites on line 5 of web.yml is not a list. Expected lines of - VALUE."),
        (f"{TLS}  cipher_suites: [TLS_AES_128]", 'tls_server_config.cipher_suites "TLS_AES_128" on line 5 of web.yml is not a cipher suite of Go'),
        (f"{TLS}  curve_preferences: [X25519]", "tls_server_config.curve_preferences on line 5 of web.yml cannot be followed: Python"),
        (f"{TLS}  prefer_server_cipher_suites: 1", 'tls_server_config.prefer_server_cipher_suites "1" on line 5 of web.yml is neither'),
        (f"{TLS}  client_auth_type: NoClient", 'tls_server_config.client_auth_type "NoClient" on line 5 of web.yml is unknown.'),
        (f"{TLS}  client_auth_type: RequireAnyClientCert", "on line 5 of web.yml cannot be followed: Python takes no certificate"),
        (f"{TLS}  client_allowed_sans: [a]", "client_allowed_sans on line 5 of web.yml was given without a client_auth_type that"),
        (f"{TLS}  client_auth_type: VerifyClientCertIfGiven\n  client_allowed_sans: []", "client_allowed_sans on line 6 of web.yml is an empty"),
        (f"{TLS}  client_ca_file: server.pem", 'client_ca_file "server.pem" on line 5 of web.yml was given without a client_auth_type'),
        (f"{TLS}  client_ca_file: /dev/null", 'client_ca_file "/dev/null" on line 5 of web.yml was given without a client_auth_type'),
        (f"{TLS}  client_ca: text", "client_ca on line 5 of web.yml was given without a client_auth_type"),
        (f"{TLS}  client_auth_type: VerifyClientCertIfGiven\n  client_ca_file: server-key.pem", "has no certificate. Expected one or more"),
        (TLS.replace("server-key", "ca-key"), 'ca-key.pem" on line 4 of web.yml: the private key does not belong to the certificate'),
        (TLS.replace("server-key", "server"), 'server.pem" on line 4 of web.yml has no private key.'),
        (TLS.replace("server.pem", "web.yml"), 'cert_file "web.yml" on line 3 of web.yml is not a certificate.'),
        ("basic_auth_users:\n  john: hunter2", "An entry of basic_auth_users on line 2 of web.yml is not a hash of bcrypt. Expected NAME: HASH"),
        (f"basic_auth_users: {{a: {HASHED}x}}", "An entry of basic_auth_users on line 1 of web.yml is not a hash of bcrypt."),
        (f"basic_auth_users: {{a: {HASHED[:28]}v{HASHED[29:]}}}", "An entry of basic_auth_users on line 1 of web.yml is not a hash of bcrypt."),
        ("basic_auth_users: {a: [b]}", "An entry of basic_auth_users on line 1 of web.yml is not a text."),
        ("http_server_config: {http2: true}", "http_server_config.http2 on line 1 of web.yml cannot be true: the metrics are served by"),
        ("http_server_config: {headers: {Content-Type: a}}", "http_server_config.headers.Content-Type on line 1 of web.yml is not a setting."),
        ("http_server_config: {headers: {X-Frame-Options: ''}}", 'X-Frame-Options "" on line 1 of web.yml is not a value of this header.'),
        ("http_server_config: {headers: {X-Frame-Options: DENY}}", 'X-Frame-Options "DENY" on line 1 of web.yml is not a value of this header.'),
        ('http_server_config: {headers: {X-XSS-Protection: "a\\nb"}}', "X-XSS-Protection on line 1 of web.yml has characters that no"),
        ("rate_limit: {interval: 1}", 'rate_limit.interval "1" on line 1 of web.yml is not a duration. Expected numbers with units'),
        ("rate_limit: {interval: 99999999999h}", "rate_limit.interval on line 1 of web.yml is longer than Go's longest duration."),
        ("rate_limit: {burst: 1k}", 'rate_limit.burst "1k" on line 1 of web.yml is not a whole number from 0 on.'),
        (f"rate_limit: {{burst: {'9' * 5000}}}", "rate_limit.burst on line 1 of web.yml has more than 18 digits."),
        ("rate_limit: {burst: -1}", 'rate_limit.burst "-1" on line 1 of web.yml is not a whole number from 0 on.'),
    ],
)  # fmt: skip
def test_what_is_wrong(read, authority, text, sentence):
    """One sentence says what and where, and shows no secret."""
    authority.issue("server")
    error = error_of(read, text)
    assert sentence in error
    assert error.count("\n") == 0
    assert "hunter2" not in error
    assert HASHED not in error


PEM = ["-----BEGIN PRIVATE KEY-----", "hunter2", "-----END PRIVATE KEY-----"]


@pytest.mark.parametrize("key", ["cert", "key", "client_ca"])
@pytest.mark.parametrize(
    "value", ["|\n" + "".join(f"    {line}\n" for line in PEM), " ".join(PEM), "'hunter2\n\n  hunter2'"]
)
def test_pem_text_in_the_place_of_a_path(read, key, value):
    """The sentence says where it belongs, and does not show it."""
    lines = [f"{name}_file: {value if name == key else 'x'}" for name in ("cert", "key", "client_ca")]
    text = "".join(f"  {line}\n" for line in ["client_auth_type: VerifyClientCertIfGiven", *lines])
    error = error_of(read, f"tls_server_config:\n{text}")
    assert f"tls_server_config.{key}_file on line" in error
    assert error.endswith(f"of web.yml is PEM text, and no path. Put it under {key}.")


@pytest.mark.parametrize("value", ["hunter2" * 10, "hunter2-" * 40, "hunter2/+" * 4 + "=="])
def test_a_path_that_may_be_a_key(read, authority, value):
    """It is not shown."""
    authority.issue("server")
    sentence = rf"key_file \({len(value)} characters, which may be a secret\) on line 4 of web.yml: "
    with pytest.raises(ServingError, match=sentence) as caught:
        read(TLS.replace("server-key.pem", value))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        f"basic_auth_users: {{'{HASHED}': hunter2}}", "basic_auth_users: {hunter2: john}", "basic_auth_users: {hunter2: []}",
        f"basic_auth_users: {{hunter2: '{HASHED}', hunter2: '{HASHED}'}}", f"'{' '.join(PEM)}': key",
        f"tls_server_config: {{'{' '.join(PEM)}': key}}",
    ],
)  # fmt: skip
def test_a_secret_in_the_place_of_a_key(read, text):
    """A sentence names its line, and does not show it."""
    error = error_of(read, text)
    assert error.startswith("An entry")
    assert "on line 1 of web.yml" in error
    assert "hunter2" not in error
    assert HASHED not in error


@pytest.mark.parametrize("value", ["|\n" + "".join(f"          {line}\n" for line in PEM), f'"{" ".join(PEM)}"'])
@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("tls_server_config", "min_version"), ("tls_server_config", "max_version"), ("tls_server_config", "client_auth_type"),
        ("tls_server_config", "prefer_server_cipher_suites"), ("tls_server_config", "cipher_suites"), ("rate_limit", "interval"),
        ("rate_limit", "burst"), ("http_server_config", "http2"), ("http_server_config", "headers: {X-Frame-Options"),
    ],
)  # fmt: skip
def test_a_private_key_in_the_place_of_a_value(read, section, key, value):
    """It is in no sentence, wherever it stands."""
    end = "}" * key.count("{")
    value = f'"{" ".join(PEM)}"' if end else value
    value = f"\n    - {value}" if key == "cipher_suites" else value
    error = error_of(read, f"{section}:\n  {key}: {value}{end}\n")
    assert "on line" in error
    assert "hunter2" not in error
    assert "-----" not in error


@settings(max_examples=150, deadline=None)
@given(
    key=st.sampled_from(["basic_auth_users", "rate_limit", "http_server_config", "tls_server_config", "%YAML", "&a", "? *a"]),
    value=st.lists(
        st.sampled_from(
            ["hunter2", ": ", "{", "}", "[", "]", '"', "'", "\n", "\n  ", "---", "!!", "!", "bool", "int", "null", "float", "binary",
             "timestamp", "merge", "<<", " ", ",", "&a", "*a", "|", ">", "\\U", "FFFFFFFF", "\\u", "d800", "\\x", "\0", "%", "9" * 5000, "#",
             "headers", "http2", "interval", "burst", "min_version", "\ud800", "\x85", "\ufeff", "é", "~", "1.2", "-", "?"]
        ),
        max_size=12,
    ),
)  # fmt: skip
def test_whatever_is_in_a_file(key, value):
    """It is a configuration, or an error of ours in one sentence with a line and without the value."""
    text = f"{key}: {''.join(value)}".encode(errors="surrogatepass")
    try:
        read_web_config("web.yml", lambda _path: text)
    except ConfigurationError as error:
        assert re.search(r"line [1-9]\d* of web\.yml", str(error))
        assert "hunter2" not in str(error)
        assert str(error).isprintable()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ('"\\ß"', "found unknown escape character"), ('"\\xß"', "expected escape sequence of 2 hexadecimal numbers"),
        ("@ß", "found character that cannot start any token"), ("`ß", "found character that cannot start any token"),
        ("*a", "found undefined alias"), ("*ß", "expected alphabetic or numeric character"), ("&ß x", "expected alphabetic or numeric character"),
        ("&aß x", "expected alphabetic or numeric character"), ("!<a ß", "expected '>'"), ("!ß x", "expected URI"), ("!a!ß x", "expected URI"),
        ("!%ß x", "expected URI escape sequence of 2 hexadecimal numbers"), ("!aß x", "expected ' '"), ("!a!b x", "found undefined tag handle"),
        ("|ß", "expected chomping or indentation indicators"), ("|1 ß", "expected a comment or a line break"),
        ("[x}", "expected ',' or ']'"), ("{a: x]", "expected ',' or '}'"), ('"x" ß', "expected <block end>"),
        ("x\n%YAML ß", "expected a digit"),
    ],
)  # fmt: skip
def test_a_secret_that_is_no_yaml(read, value, problem):
    """No character of it is shown."""
    error = error_of(read, f"basic_auth_users:\n  alice: {value}\n")
    assert re.fullmatch(rf"line [1-9] of web.yml is not YAML: {re.escape(problem)}\. Expected lines of .*", error)


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_bytes_that_are_no_text(encoding):
    """The sentence has their line. UTF-16 with its mark is read, as by YAML."""
    text = "# one\nbasic_auth_users: {é: x}\n".encode(encoding)
    sentence = "line 2 of web.yml is not text in UTF-8." if encoding == "latin-1" else "is not a hash of bcrypt"
    with pytest.raises(ConfigurationError, match=sentence):
        read_web_config("web.yml", lambda _path: text)
    assert read_web_config("web.yml", lambda _path: "{}".encode("utf-16")).tls is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (TLS, 'tls_server_config.cert_file "server.pem" on line 3 of web.yml: No such file or directory.'),
        (
            TLS.replace("server.pem", "web.yml").replace("key.pem", "k"),
            'tls_server_config.key_file "server-k" on line 4',
        ),
    ],
)
def test_files_that_cannot_be_read(read, text, sentence):
    """The sentence says which one."""
    with pytest.raises(ServingError, match=sentence):
        read(text)


def test_an_authority_that_is_not_there(read, authority):
    """That comes before what else is wrong, as in other exporters."""
    authority.issue("server")
    with pytest.raises(ServingError, match='client_ca_file "somefile" on line 5 of web.yml: No such file or directory'):
        read(f"{TLS}  client_ca_file: somefile")


def test_paths_are_those_of_the_file(authority, monkeypatch):
    """They are relative to its directory, wherever the program runs."""
    authority.issue("server")
    (authority.directory / "web.yml").write_text(TLS)
    monkeypatch.chdir("/")
    assert make_context(read_web_config(str(authority.directory / "web.yml"), read_file).tls, read_file)


@pytest.mark.parametrize(("module", "package"), [("yaml", "PyYAML"), ("bcrypt", "bcrypt")])
def test_without_the_extra(read, monkeypatch, module, package):
    """The sentence names it."""
    monkeypatch.setitem(sys.modules, module, None)
    assert error_of(read, f"basic_auth_users: {{a: {HASHED}}}") == (
        f'web configurations need {package}, which is not installed. Install hr-prometheus with the extra "auth".'
    )
