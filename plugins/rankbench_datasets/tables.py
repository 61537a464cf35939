"""Whether a table on disk is the one that was parsed before."""

import time

CLOCK_STEP = 2_000_000_000  # nanoseconds within which a file may change and show the same time


def state(file):
    """What tells one version of a file from another; None where there is none."""
    try:
        stat = file.stat()
    except OSError:
        return None
    return str(file), stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino


def just_written(known):
    """Whether a file of this state may change without showing."""
    return known is not None and known[1] > time.time_ns() - CLOCK_STEP
