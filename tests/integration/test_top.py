"""`cupola top` beside a server that has answered."""

import subprocess
import sys


def test_top_shows_what_the_server_did(server, client, zoo):
    name = next(iter(zoo.dictionaries))
    client.dictionary(name).features([[3, 1, 4, 1, 5]])
    shown = subprocess.run(
        [sys.executable, "-m", "cupola", "top", "--once", "--http", server.http],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = [x for x in shown.splitlines() if x.startswith("GetFeatures")]
    assert float(line.split()[1].replace(",", "")) > 0
    assert line.split()[2].endswith("%") and line.split()[-1] in ("ms", "s")
    assert any(each in shown for each in zoo.dictionaries)
    assert "in flight" in shown and "cache hits" in shown
