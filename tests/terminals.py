"""Programs on a real pseudo-terminal, for the tests of what is shown there."""

import os
import pty
import select
import subprocess
import sys
import termios


def shown_on_a_terminal(command, columns=100, out=False, **options):
    """What a program writes to a terminal that is so wide, and its exit code. Args: out, standard output goes there."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    environment = {key: value for key, value in {**os.environ, "TERM": "xterm"}.items() if key != "COLUMNS"}
    environment |= options.pop("env", {})
    command = [sys.executable, *command] if command[0] == "-c" else command
    where = theirs if out else subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=where, stderr=theirs, env=environment, **options)
    os.close(theirs)
    shown = b""
    while select.select([ours], [], [], 60)[0]:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        shown += part
        if not part:
            break
    os.close(ours)
    return shown.decode(), process.wait(timeout=30)
