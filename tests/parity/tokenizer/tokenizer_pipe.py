"""The C++ tokenizer of one folder, driven through build/tokenize_tool."""

import os
import pathlib
import struct
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[3]
TOOL = ROOT / os.environ.get("CUPOLA_BUILD", "build") / "tokenize_tool"


class TokenizerError(Exception):
    """The tool's answer was an error; its text is the status."""


class TokenizerPipe:
    """A context manager: the process ends with it."""

    def __init__(self, folder):
        self._process = subprocess.Popen(
            [str(TOOL), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def _ask(self, what, payload):
        stdin, stdout = self._process.stdin, self._process.stdout
        stdin.write(what + struct.pack("<I", len(payload)) + payload)
        stdin.flush()
        header = stdout.read(5)
        if len(header) != 5:
            raise RuntimeError("tokenize_tool died")
        answer = stdout.read(struct.unpack("<I", header[1:])[0])
        if header[:1] != b"+":
            raise TokenizerError(answer.decode("utf-8", "replace"))
        return answer

    def encode(self, text):
        payload = text if isinstance(text, bytes) else text.encode("utf-8")
        answer = self._ask(b"E", payload)
        return list(struct.unpack(f"<{len(answer) // 4}i", answer))

    def seconds(self, text):
        """How long one Encode takes, without the pipe."""
        return struct.unpack("<d", self._ask(b"T", text.encode("utf-8")))[0]

    def decode(self, ids):
        payload = struct.pack(f"<{len(ids)}i", *ids)
        return self._ask(b"D", payload).decode("utf-8")

    def piece(self, token_id):
        return self._ask(b"P", struct.pack("<i", token_id))

    def ids(self):
        """bos_id, declared_bos_id (-1: none) and vocabulary_size."""
        return struct.unpack("<3i", self._ask(b"B", b""))
