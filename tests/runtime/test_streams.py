"""Standard streams may be closed, and may not hold every character."""

import io
import sys

import pytest

from fromnoise.runtime.streams import forgive_characters, is_terminal, printable


def test_nobody_is_at_a_closed_stream():
    closed = io.StringIO()
    closed.close()
    assert not is_terminal(None)
    assert not is_terminal(closed)
    assert not is_terminal(io.StringIO())


def test_what_would_steer_the_terminal():
    assert printable("a\x1b[31mb\x07\x9bc\td\ne 狼") == "a\ufffd[31mb\ufffd\ufffdc\td\ne 狼"


@pytest.mark.parametrize(
    ("encoding", "text", "bytes_"), [("ascii", "狼", b"\\u72fc"), ("utf-8", "a\udcff狼", b"a\xff\xe7\x8b\xbc")]
)
def test_every_character_is_written(monkeypatch: pytest.MonkeyPatch, encoding: str, text: str, bytes_: bytes):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    monkeypatch.setattr(sys, "stderr", None)
    forgive_characters()
    print(text, end="", flush=True)
    assert raw.getvalue() == bytes_
