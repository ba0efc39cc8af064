"""Functions that `make bench-serving` deploys."""

import time


def echo(x: float) -> float:
    return x


def slow(x: float) -> float:
    """Twenty milliseconds that cost no processor, so that an overload measures the server and not the machine."""
    time.sleep(0.02)
    return x
