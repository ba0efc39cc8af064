"""What a worker may take, as far as it can be held from the inside. The server watches memory and time from the outside."""

import os
import random
import resource
import signal
import sys

try:
    import ctypes

    _prctl = ctypes.CDLL(None, use_errno=True).prctl
except (ImportError, OSError, AttributeError):
    _prctl = None

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent):
    """Ends this process when its fork server ends, however that happens."""
    if _prctl is not None:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def apply(config):
    """Resource limits, threads, environment."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    memory = config.get("memory_mib")
    if memory:
        # The resident size is what counts, and the server watches that; this only stops what would be too quick to be watched.
        # It counts what is mapped too, which numeric libraries do generously.
        ceiling = memory * 2 * 1024 * 1024 + (1 << 30)
        try:
            resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))
        except (ValueError, OSError):
            pass
    os.environ.update(config.get("environment") or {})
    random.seed()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        # Else every worker of a fork server would draw the same numbers.
        numpy.random.seed()
