"""What the stress tests share. CUPOLA_STRESS scales their counts: 1 (the
default) is what the project promises, 0.1 a quick look."""

import os

MODEL, SAE = "tiny", "tiny/sae"


def scaled(count):
    return max(1, int(count * float(os.environ.get("CUPOLA_STRESS", "1"))))


def gauges(server):
    """What must be nothing when nobody asks for anything."""
    names = (
        "cupola_requests_in_flight",
        'cupola_queue_depth{priority="interactive"}',
        'cupola_queue_depth{priority="bulk"}',
        "cupola_inflight_bytes",
    )
    values = {}
    for line in server.get("/metrics").splitlines():
        name, _, value = line.rpartition(" ")
        if name in names:
            values[name] = float(value)
    assert set(values) == set(names), values
    return values
