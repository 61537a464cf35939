"""What a process shares with every cell it serves, as far as it can be read cheaply: one trait a line.

Libraries are looked at only where they have been imported; nothing here imports one.
"""

from __future__ import annotations

import gc
import locale
import os
import re
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

UNREADABLE = "unreadable"
SHOWN = 60  # characters of a value
NAMED = 5  # entries of a mapping that are named where many changed
Say = Callable[[Any, Any], list[str]]


@dataclass(frozen=True)
class Trait:
    """One thing that outlives a cell.

    Attributes:
        words: what a reader calls it. read: its value, comparable by ==. put: sets it back to a value, where that can
            be done; gets the value wanted and the present one. module: must have been imported. say: words for a
            change. by_imports: a library may change it by being imported; then it is no plugin's doing.
    """

    words: str
    read: Callable[[], Any]
    put: Callable[[Any, Any], object] | None = None
    module: str = ""
    say: Say | None = None
    by_imports: bool = False

    def there(self) -> bool:
        """Whether it can be read now."""
        return not self.module or self.module in sys.modules

    def value(self) -> Any:
        """Its value now; what cannot be read is equal each time."""
        try:
            return self.read()
        except Exception:
            return UNREADABLE

    def change(self, before: Any, now: Any) -> list[str]:
        """What changed, in words."""
        if self.say is not None:
            return self.say(before, now)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            names = changed_names(before, now)
            texts = [f"{self.words} {name} is {shown(now, name)}, was {shown(before, name)}" for name in names[:NAMED]]
            return texts + ([f"{self.words}: {len(names) - NAMED} more changed"] if len(names) > NAMED else [])
        return [f"{self.words} is {brief(now)}, was {brief(before)}"]


def changed_names(before: Mapping[Any, Any], now: Mapping[Any, Any]) -> list[Any]:
    """Keys with another value, or that only one of the two has."""
    lacking = object()
    return [key for key in {**before, **now} if not same(before.get(key, lacking), now.get(key, lacking))]


def same(one: Any, other: Any) -> bool:
    """Equal, or one object; comparing never raises."""
    try:
        return one is other or bool(one == other)
    except Exception:
        return False


def shown(values: Mapping[Any, Any], name: Any) -> str:
    return brief(values[name]) if name in values else "not set"


def brief(value: Any) -> str:
    """A value in few characters."""
    text = str(getattr(value, "__qualname__", None) or value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def only(words: str) -> Say:
    """Says that it changed: its value is no matter of words."""
    return lambda before, now: [f"{words} changed"]


def named_only(before: Mapping[Any, Any], now: Mapping[Any, Any], what: str) -> list[str]:
    """Names alone: values may be secret, or long."""
    said = []
    for name in (names := changed_names(before, now))[:NAMED]:
        how = "set" if name not in before else "removed" if name not in now else "changed"
        said.append(f"{what}{os.fsdecode(name)} was {how}")
    return said + ([f"{len(names) - NAMED} more like it"] if len(names) > NAMED else [])


# -------------------------------------------------------------------------------------------------------- the process


def umask() -> int | None:
    """Read without setting it; None where the system does not tell."""
    found = re.search(rb"^Umask:\s*(\d+)", process_status(), re.M)
    return int(found[1], 8) if found else None


def process_status() -> bytes:
    """What the system says of this process; empty where it says nothing."""
    try:
        with open("/proc/self/status", "rb") as file:
            return file.read()
    except OSError:
        return b""


def limits() -> dict[str, tuple[int, int]]:
    return {name: resource.getrlimit(number) for name, number in limit_numbers().items()}


@cache
def limit_numbers() -> dict[str, int]:
    names = sorted((name for name in dir(resource) if name.startswith("RLIMIT_")), reverse=True)
    by_number = {getattr(resource, name): name for name in names}  # two names may mean one limit
    return {name: number for number, name in by_number.items()}


def put_limits(wanted: Mapping[str, tuple[int, int]], now: Mapping[str, Any]) -> None:
    for name in changed_names(wanted, now):
        resource.setrlimit(limit_numbers()[name], wanted[name])


@cache
def signals() -> list[signal.Signals]:
    return [number for number in signal.Signals if number.name in SIGNALS]


SIGNALS = (
    "SIGHUP", "SIGINT", "SIGQUIT", "SIGILL", "SIGABRT", "SIGBUS", "SIGFPE", "SIGSEGV", "SIGUSR1", "SIGUSR2", "SIGPIPE",
    "SIGALRM", "SIGTERM", "SIGCHLD", "SIGPROF", "SIGXCPU",
)  # fmt: skip


def handlers() -> dict[str, Any]:
    return {number.name: signal.getsignal(number) for number in signals()}


def put_handlers(wanted: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in changed_names(wanted, now):
        if wanted[name] is not None:  # one that C set: it can be neither read nor put back
            signal.signal(signal.Signals[name], wanted[name])


def timers() -> dict[str, bool]:
    return {name: any(signal.getitimer(getattr(signal, name))) for name in TIMERS}


def put_timers(wanted: Mapping[str, bool], now: Mapping[str, bool]) -> None:
    for name in TIMERS:
        if not wanted[name]:
            signal.setitimer(getattr(signal, name), 0)


TIMERS = ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF")


def environment() -> dict[Any, Any]:
    """As it is kept, where that can be had: decoding it takes longer than all the rest."""
    return dict(getattr(os.environ, "_data", os.environ))


def put_environment(wanted: Mapping[Any, Any], now: Mapping[Any, Any]) -> None:
    for name in changed_names(wanted, now):
        if name in wanted:
            os.environ[os.fsdecode(name)] = os.fsdecode(wanted[name])
        else:
            os.environ.pop(os.fsdecode(name), None)


def put_filters(wanted: Any, now: Any) -> None:
    warnings.filters[:] = list(wanted[0])  # type: ignore[index]
    warnings.showwarning = wanted[1]
    getattr(warnings, "_filters_mutated", lambda: None)()  # a new version of the list, for what was decided by the old


def arithmetic() -> tuple[float, ...]:
    """Tells whether the smallest numbers are flushed to zero, and which way is rounded."""
    least, one = float.fromhex("0x0.0000000000001p-1022"), 1.0
    return (least * one, one + least, -one - least)


def put_streams(wanted: Any, now: Any) -> None:
    sys.stdin, sys.stdout, sys.stderr = wanted


def put_hooks(wanted: Mapping[str, Any], now: Any) -> None:
    sys.excepthook, threading.excepthook = wanted["sys.excepthook"], wanted["threading.excepthook"]
    sys.unraisablehook = wanted["sys.unraisablehook"]


def hooks() -> dict[str, Any]:
    return {
        "sys.excepthook": sys.excepthook,
        "threading.excepthook": threading.excepthook,
        "sys.unraisablehook": sys.unraisablehook,
    }


def put_collection(wanted: tuple[bool, tuple[int, int, int]], now: Any) -> None:
    (gc.enable if wanted[0] else gc.disable)()
    gc.set_threshold(*wanted[1])


def decimals() -> tuple[Any, ...]:
    context = sys.modules["decimal"].getcontext()
    return (context.prec, context.rounding, context.Emin, context.Emax)


def put_decimals(wanted: tuple[Any, ...], now: Any) -> None:
    context = sys.modules["decimal"].getcontext()
    context.prec, context.rounding, context.Emin, context.Emax = wanted


def start_method() -> str:
    """The default where none was chosen: that it was asked for is no change."""
    library = sys.modules["multiprocessing"]
    return str(library.get_start_method(allow_none=True) or library.get_all_start_methods()[0])


def module_globals() -> dict[str, dict[str, Any]]:
    """What names mean in the modules that every cell goes through."""
    return {name: vars(module).copy() for name, module in watched(len(sys.modules))}


@lru_cache(maxsize=1)
def watched(count: int) -> list[tuple[str, ModuleType]]:
    """Those modules, looked for again where there are more of all: looking takes longer than comparing."""
    found = [(name, module) for name, module in sys.modules.items() if name in COMMON or name.startswith(OURS)]
    return [(name, module) for name, module in found if module is not None]


COMMON = ("builtins", "os", "json", "math", "random", "numpy", "PIL.ImageOps", "torch.nn.functional")
OURS = ("rankbench.", "rankbench_datasets.", "rankbench_rankers.", "rankbench_features.", "rankbench_metrics.")


def replaced_globals(before: Mapping[str, dict[str, Any]], now: Mapping[str, dict[str, Any]]) -> list[str]:
    """A name that means something else or nothing; new ones are no matter."""
    said = []
    for name, old in before.items():
        if name in now:
            new, lacking = now[name], object()
            said += [f"{name}.{one} was replaced" for one in old if new.get(one, lacking) is not old[one]]
    return said[:NAMED]


def put_globals(wanted: Mapping[str, dict[str, Any]], now: Mapping[str, Any]) -> None:
    for name, values in wanted.items():
        if name in sys.modules:
            vars(sys.modules[name]).update(values)


PROCESS = [
    Trait(
        "the working directory",
        os.getcwd,
        lambda wanted, now: os.chdir(wanted),
        say=lambda before, now: [f"the working directory is {now}"],  # what it was has another name in each run
    ),
    Trait(
        "the environment",
        environment,
        put_environment,
        say=partial(named_only, what="environment variable "),
        by_imports=True,
    ),
    Trait("the umask", umask, lambda wanted, now: os.umask(wanted)),
    Trait("resource limit", limits, put_limits),
    Trait("the handler of", handlers, put_handlers, by_imports=True),
    Trait("running timer", timers, put_timers),
    Trait(
        "blocked signals", lambda: signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        lambda wanted, now: signal.pthread_sigmask(signal.SIG_SETMASK, wanted),
    ),
    Trait(
        "the set of CPUs to run on", lambda: getattr(os, "sched_getaffinity", lambda process: set())(0),
        lambda wanted, now: getattr(os, "sched_setaffinity")(0, wanted),  # noqa: B009  (not on every system)
    ),
    Trait("the process's niceness", lambda: os.getpriority(os.PRIO_PROCESS, 0)),
    Trait("the processor's arithmetic (flushed denormals, rounding)", arithmetic),
    Trait(
        "warnings filters", lambda: (tuple(warnings.filters), warnings.showwarning), put_filters,
        say=only("warnings filters"), by_imports=True,
    ),
    Trait(
        "sys.path", lambda: tuple(sys.path), lambda wanted, now: sys.path.__setitem__(slice(None), list(wanted)),
        say=only("sys.path"), by_imports=True,
    ),
    Trait(
        "standard input or output", lambda: (sys.stdin, sys.stdout, sys.stderr), put_streams,
        say=only("standard input or output"), by_imports=True,
    ),
    Trait("the hook", hooks, put_hooks, by_imports=True),
    Trait(
        "the recursion limit", sys.getrecursionlimit, lambda wanted, now: sys.setrecursionlimit(wanted),
        by_imports=True,
    ),
    Trait("the switch interval", sys.getswitchinterval, lambda wanted, now: sys.setswitchinterval(wanted)),
    Trait(
        "garbage collection (on, thresholds)", lambda: (gc.isenabled(), gc.get_threshold()), put_collection,
        by_imports=True,
    ),
    Trait(
        "the locale", lambda: locale.setlocale(locale.LC_ALL),
        lambda wanted, now: locale.setlocale(locale.LC_ALL, wanted),
    ),
    Trait("the time zone", lambda: (time.tzname, time.timezone), lambda wanted, now: time.tzset()),
    Trait("the decimal context", decimals, put_decimals, module="decimal"),
    Trait(
        "logging (root level, what is off)",
        lambda: (sys.modules["logging"].root.level, sys.modules["logging"].root.manager.disable),
        module="logging", by_imports=True,
    ),
    Trait(
        "the default time-out of sockets", lambda: sys.modules["socket"].getdefaulttimeout(),
        lambda wanted, now: sys.modules["socket"].setdefaulttimeout(wanted), module="socket",
    ),
    Trait(
        "the start method of multiprocessing",
        start_method,
        lambda wanted, now: sys.modules["multiprocessing"].set_start_method(wanted, force=True),
        module="multiprocessing", by_imports=True,
    ),
    Trait("module globals", module_globals, put_globals, say=replaced_globals),
]  # fmt: skip

# ------------------------------------------------------------------------------------------------------ NumPy, Pillow


def put_openers(wanted: dict[str, Any], now: Any) -> None:
    opened = sys.modules["PIL.Image"].OPEN
    opened.clear()
    opened.update(wanted)


def flag(module: str, path: str, words: str, **more: Any) -> Trait:
    """An attribute of a module, of a path below it."""
    *inner, last = path.split(".")

    def owner() -> Any:
        found: Any = sys.modules[module]
        for name in inner:
            found = getattr(found, name)
        return found

    return Trait(
        words,
        lambda: getattr(owner(), last),
        lambda wanted, now: setattr(owner(), last, wanted),
        module=module,
        **more,
    )


def blas_threads() -> dict[str, int]:
    return {name: count() for name, count in blas().items()}


@cache
def blas() -> dict[str, Callable[[], int]]:
    """How many threads NumPy's own OpenBLAS takes, where it brings one."""
    import ctypes

    found = {}
    for path in (Path(np.__file__).parents[1] / "numpy.libs").glob("*openblas*"):
        library = ctypes.CDLL(str(path))  # the one that is loaded already
        for symbol in ("scipy_openblas_get_num_threads64_", "openblas_get_num_threads64_", "openblas_get_num_threads"):
            if hasattr(library, symbol):
                found[path.name] = getattr(library, symbol)
                break
    return found


NUMPY = [
    Trait("numpy's treatment of floating-point errors", np.geterr, lambda wanted, now: np.seterr(**wanted)),
    Trait("numpy's handler of floating-point errors", np.geterrcall, lambda wanted, now: np.seterrcall(wanted)),
    Trait("numpy's buffer size", np.getbufsize, lambda wanted, now: np.setbufsize(wanted)),
    Trait("numpy's print option", np.get_printoptions, lambda wanted, now: np.set_printoptions(**wanted)),
    Trait("threads of", blas_threads),
]
PILLOW = [
    flag("PIL.ImageFile", "LOAD_TRUNCATED_IMAGES", "PIL.ImageFile.LOAD_TRUNCATED_IMAGES"),
    flag("PIL.ImageFile", "MAXBLOCK", "PIL.ImageFile.MAXBLOCK"),
    flag("PIL.Image", "MAX_IMAGE_PIXELS", "PIL.Image.MAX_IMAGE_PIXELS"),
    flag("PIL.Image", "open", "PIL.Image.open"),
    flag("PIL.ImageFile", "ImageFile.load", "PIL.ImageFile.ImageFile.load"),
    Trait("Pillow's reader of", lambda: dict(sys.modules["PIL.Image"].OPEN), put_openers, "PIL.Image", by_imports=True),
]

# -------------------------------------------------------------------------------------------------------------- torch


def torch(words: str, get: str, put: str = "") -> Trait:
    """A pair of torch's functions."""

    def called(path: str, *arguments: Any) -> Any:
        found: Any = sys.modules["torch"]
        for name in path.split("."):
            found = getattr(found, name)
        return found(*arguments)

    back = (lambda wanted, now: called(put, wanted)) if put else None
    return Trait(f"torch's {words}", lambda: called(get), back, module="torch")


def put_device(wanted: Any, now: Any) -> None:
    sys.modules["torch"].set_default_device(None if wanted.type == "cpu" else wanted)


def put_determinism(wanted: tuple[bool, bool], now: Any) -> None:
    sys.modules["torch"].use_deterministic_algorithms(wanted[0], warn_only=wanted[1])


def determinism() -> tuple[bool, bool]:
    library = sys.modules["torch"]
    return (
        library.are_deterministic_algorithms_enabled(),
        library.is_deterministic_algorithms_warn_only_enabled(),
    )


def autocast() -> dict[str, Any]:
    library = sys.modules["torch"]
    return {
        device: (library.is_autocast_enabled(device), library.get_autocast_dtype(device)) for device in ("cpu", "cuda")
    }


TORCH_THREADS = "torch's number of threads"
TORCH = [
    torch("default dtype", "get_default_dtype", "set_default_dtype"),
    Trait("torch's default device", lambda: sys.modules["torch"].get_default_device(), put_device, module="torch"),
    torch("recording of gradients", "is_grad_enabled", "set_grad_enabled"),
    torch("inference mode", "is_inference_mode_enabled"),
    torch("search for anomalies", "is_anomaly_enabled", "set_anomaly_enabled"),
    Trait("torch's deterministic algorithms (on, only warns)", determinism, put_determinism, module="torch"),
    flag("torch", "utils.deterministic.fill_uninitialized_memory", "torch's filling of uninitialized memory"),
    torch("precision of float32 products", "get_float32_matmul_precision", "set_float32_matmul_precision"),
    Trait("torch's autocast (on, dtype) for", autocast, module="torch"),
    torch("number of threads", "get_num_threads", "set_num_threads"),
    torch("number of threads between operations", "get_num_interop_threads"),
    torch("sharing of tensors", "multiprocessing.get_sharing_strategy", "multiprocessing.set_sharing_strategy"),
    torch("flash attention", "backends.cuda.flash_sdp_enabled", "backends.cuda.enable_flash_sdp"),
    torch("attention by sums", "backends.cuda.math_sdp_enabled", "backends.cuda.enable_math_sdp"),
    torch(
        "memory-efficient attention",
        "backends.cuda.mem_efficient_sdp_enabled",
        "backends.cuda.enable_mem_efficient_sdp",
    ),
    *(
        flag("torch", f"backends.{path}", f"torch.backends.{path}")
        for path in (
            "cudnn.enabled",
            "cudnn.benchmark",
            "cudnn.deterministic",
            "cudnn.allow_tf32",
            "cuda.matmul.allow_tf32",
            "cuda.matmul.allow_fp16_reduced_precision_reduction",
            "cuda.matmul.allow_bf16_reduced_precision_reduction",
            "mkldnn.enabled",
            "mkldnn.deterministic",
            "opt_einsum.enabled",
            "quantized.engine",
        )
    ),
]
OTHERS = [
    Trait(
        "scikit-learn's setting", lambda: sys.modules["sklearn"].get_config(),
        lambda wanted, now: sys.modules["sklearn"].set_config(**wanted), module="sklearn",
    ),
    Trait("OpenCV's number of threads", lambda: sys.modules["cv2"].getNumThreads(), module="cv2"),
    Trait("OpenCV's optimized code", lambda: sys.modules["cv2"].useOptimized(), module="cv2"),
]  # fmt: skip
TRAITS = [*PROCESS, *NUMPY, *PILLOW, *TORCH, *OTHERS]
