"""The worker process: it reads one cell a line (JSON) from its standard input and answers on its standard output.

A plugin may print what it likes, it goes to the log; one that reads finds nothing. The process ends when its input
does, so a killed runner leaves no worker behind; nor does it stay when its work ends in any other way, whatever threads
and exit hooks plugins have left in it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import sys
import threading
import time
import traceback
from functools import partial

from rankbench.answers import LONGEST_TEXT, Answers, moved
from rankbench.claims import WAITS
from rankbench.files import NOTICES
from rankbench.offspring import adopt, leave
from rankbench.plan import FAILED, word_for
from rankbench.worker import Workshop, execute

GRACE = 2.0  # seconds a worker that has nothing to do is given to end by itself


def main(folder: str = ".") -> None:
    """Serve cells until standard input ends, standing in this folder. However that comes, the process ends at once."""
    code = 1
    try:
        os.chdir(folder)
        serve()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        leave(code)


def serve() -> None:
    """Cells from standard input, answers to standard output; both are out of the plugins' way."""
    faulthandler.enable()
    adopt()
    tasks, answers = os.fdopen(moved(0)), Answers(moved(1))
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    lines: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        try:
            for line in tasks:
                lines.put(line)
        finally:  # the runner is gone, or has no more
            if lines.unfinished_tasks:
                leave(1, amid=True)
            lines.put("")
            time.sleep(GRACE)
            leave(1, amid=True)

    threading.Thread(target=listen, daemon=True).start()
    shop: Workshop | None = None
    while line := lines.get():
        task = json.loads(line)
        tell = partial(answers.tell, task["key"])
        WAITS.tell = lambda on, tell=tell: tell({"event": "wait" if on else "go"})  # type: ignore[misc]
        NOTICES.through(tell)
        tell({"event": "taken"})
        shop = shop or Workshop.open(task["place"])
        record = execute(shop, task, tell, task.get("wait", False))
        lines.task_done()
        message = record.get("error", {}).get("message", "")[:LONGEST_TEXT]
        replace = record["status"] == FAILED or bool(record.get("left_changed"))
        tell({"event": "end", "status": word_for(record), "message": message, "replace": replace})
        shop.last = None
        tell({"event": "ready"})


if __name__ == "__main__":
    main(*sys.argv[1:2])
