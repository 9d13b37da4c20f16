"""Tokens and certificates on the client's side."""

import hashlib

import cupola
import pytest
from cupola.cli import app
from typer.testing import CliRunner


def test_the_command_makes_a_token_and_its_line():
    made = [CliRunner().invoke(app, ["token", "ada", *more]) for more in (
        [], ["--role", "admin", "--expires", "2027-01-31"])]
    for result, fields in zip(made, (["read"], ["admin", "expires=2027-01-31"])):
        assert result.exit_code == 0
        token = result.stderr.strip()
        assert token.startswith("cupola_") and len(token) > 40
        name, role, digest, *options = result.stdout.split()
        assert name == "ada" and [role, *options] == fields
        assert digest == hashlib.sha256(token.encode()).hexdigest()
    assert made[0].stderr != made[1].stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["a b"], "NAME"),
        (["x" * 65], "NAME"),
        (["ada", "--role", "root"], "--role root"),
        (["ada", "--expires", "tomorrow"], "--expires tomorrow"),
    ],
)
def test_bad_lines(arguments, says):
    result = CliRunner().invoke(app, ["token", *arguments])
    assert result.exit_code == 2 and says in result.stderr
    assert not result.stdout


def test_a_certificate_needs_its_key(tmp_path):
    result = CliRunner().invoke(app, ["--tls-cert", str(tmp_path), "models"])
    assert result.exit_code == 2 and "--tls-key" in result.stderr


def test_what_connect_refuses(tmp_path):
    for token in ("a\nb", "caf\u00e9", "\x00"):
        with pytest.raises(ValueError, match="printable") as refused:
            cupola.connect("localhost:1", token=token)
        assert token not in str(refused.value)
    with pytest.raises(ValueError, match="got 2 items"):
        cupola.connect("localhost:1", tls=("a", "b"))
    with pytest.raises(FileNotFoundError):
        cupola.connect("localhost:1", tls=tmp_path / "none.pem")
