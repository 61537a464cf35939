"""What stored JSON files must hold: their fields are checked where they are read, so that an odd file is named there.

Fields that nobody knows are let through, as records grow. What was stored with checksums is held against them; what was
stored before there were any is read as it is.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import xxhash
from msgspec import Meta, Struct

from rankbench.cell import key_of
from rankbench.errors import DamagedFile, StoreError
from rankbench.files import CHECKSUMS, LARGEST_JSON, canonical_json, listed_checksums, read_file

Record = dict[str, Any]
Sums = Mapping[str, tuple[int, str]]
Finite = Annotated[float, Meta(ge=-1e300, le=1e300)]  # no NaN either
Share = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
LARGEST_SCORES = 2**32  # bytes, where a record does not tell
ROOM = 2**16  # bytes an archive may take besides its numbers, for each of its arrays
WITH_CHECKSUMS = "checksums"  # what a record says that was stored with them


class Phase(Struct):
    """What a cell spent on one phase."""

    wall_seconds: Finite


class Told(Struct):
    """An error as a record keeps it."""

    message: str
    type: str = ""


class Judged(Struct):
    """One test of a cell."""

    digest: Digest
    tied: Share
    kind: Literal["scores", "margins"]
    pairs: Count


class Common(Struct):
    """What every record may say."""

    row: str = ""
    started: str = ""
    key_parts: dict[str, Any] = {}
    ranker: dict[str, Any] = {}
    facets: dict[str, Any] = {}
    sources: dict[str, str] = {}
    inputs: list[str] = []
    model: dict[str, Any] = {}
    versions: dict[str, str] = {}
    device_name: str | None = None
    memory_bytes_before: int | None = None
    peak_memory_bytes: int | None = None
    peak_memory_of: str | None = None


class Done(Common, tag_field="status", tag="done", kw_only=True):
    """A cell that succeeded."""

    tests: dict[str, Judged]
    phases: dict[str, Phase]
    device: str
    images: Count | None = None
    lost: list[str] = []
    remarks: list[str] = []
    not_applicable: dict[str, str] = {}
    feature_seconds: dict[str, Finite] | None = None


class NotApplicable(Common, tag_field="status", tag="not applicable", kw_only=True):
    """A cell whose ranker cannot treat its problem."""

    error: Told


class Failed(Common, tag_field="status", tag="failed", kw_only=True):
    """One failed attempt."""

    error: Told
    ended: Finite


class AboutTest(Struct):
    """What a test set's test.json says."""

    names: list[str] | None
    sided: dict[str, Literal["negate", "swap"]]
    images: Count
    pairs: Count


class PlannedCell(Struct):
    """One cell of a plan."""

    row: str
    description: dict[str, Any]
    key: Digest | None
    error: str
    missing: str
    tests: dict[str, Digest]
    notes: list[str]
    overlap: str | None
    inputs: list[str] = []


class Plan(Struct):
    """A stored plan."""

    number: int
    toml: str
    facets: dict[str, list[dict[str, Any]] | None]
    cells: list[PlannedCell]


Curves = list[dict[str, float]]


class Stored(NamedTuple):
    """A stored cell: its record, and a digest of record and scores as they lie there, for memos."""

    record: Record
    content: str


def stored_cell(folder: Path) -> tuple[Stored, Sums | None] | None:
    """A cell's record and the checksums it was stored with; None where no cell is stored.

    Its scores have been held against the checksums. Raises: DamagedFile naming the first file that is not what it was.
    """
    found = marked(folder, "record.json", Done | NotApplicable)
    if found is None:
        return None
    record, digest, sums = found
    if "key_parts" in record and foreign(record, folder.name):
        raise DamagedFile(f"{folder / 'record.json'}: is the record of another cell.", folder / "record.json")
    if record.get("tests"):
        digest += checked_file(folder, "scores.npz", sums, largest_scores(record))
    return Stored(record, digest), sums


def foreign(record: Record, key: str) -> bool:
    """Whether a record is of another cell than that of its folder, whatever its place says."""
    try:
        return len(key) == 64 and key_of(record["key_parts"]) != key
    except (ValueError, RecursionError):  # NaN, say
        return True


def largest_scores(record: Record) -> int:
    """Bytes that the scores of a cell can have at most."""
    if "images" not in record:
        return LARGEST_SCORES
    return sum(ROOM + 4 * test["pairs"] + 8 * record["images"] for test in record["tests"].values())


def marked(folder: Path, name: str, kind: Any) -> tuple[Any, str, Sums | None] | None:
    """A folder's main JSON file: its value, its checksum, and the folder's checksums; None where no folder is.

    The file says itself whether it was stored with checksums, so that it is noticed when they have gone. One that does
    not, and is of another size than they say, was copied over from an older store: they are not its own.
    """
    path = f"{folder}/{name}"  # text: a Path costs as much as reading the file
    try:
        text = stored_bytes(path, LARGEST_JSON)
    except DamagedFile:
        if not os.path.lexists(folder):
            return None
        raise
    sums = stored_checksums(folder)
    listed = None if sums is None else sums.get(name)
    if listed is not None and listed[0] != len(text):
        text = text.replace(b"\r\n", b"\n")  # a version control system may have written other ends of lines
    digest = xxhash.xxh3_128_hexdigest(text)
    if listed is not None and listed[0] == len(text) and listed[1] != digest:
        raise disagreeing(path)
    value, agreed = decoded(path, text, kind), listed == (len(text), digest)
    if WITH_CHECKSUMS not in value:
        return value, digest, sums if agreed else None
    if sums is None:
        raise DamagedFile(f"{folder / CHECKSUMS}: has gone.", folder / CHECKSUMS)
    if not agreed:
        raise disagreeing(path)
    return value, digest, sums


def checked_file(folder: Path, name: str, sums: Sums | None, largest: int = LARGEST_JSON) -> str:
    """Checksum of a file of a folder, the one it was stored with where there are any. DamagedFile if it is not."""
    path = f"{folder}/{name}"
    if sums is None:
        return xxhash.xxh3_128_hexdigest(stored_bytes(path, largest))
    if name not in sums:
        raise DamagedFile(f"{path}: has no checksum in {CHECKSUMS}.", path)
    size, digest = sums[name]
    if xxhash.xxh3_128_hexdigest(stored_bytes(path, size)) != digest:
        raise disagreeing(path)
    return str(digest)


def disagreeing(path: Path | str) -> DamagedFile:
    return DamagedFile(f"{path}: is damaged: its checksum is not the one in {CHECKSUMS}.", path)


def stored_checksums(folder: Path) -> Sums | None:
    """Checksums of a folder, None where there are none. DamagedFile where they cannot be read, for whatever reason."""
    path = f"{folder}/{CHECKSUMS}"
    if not os.path.lexists(path):
        return None
    return listed_checksums(path, stored_bytes(path, LARGEST_JSON))


def stored_bytes(path: Path | str, largest: int) -> bytes:
    """Bytes of a stored file. DamagedFile where it cannot be read, for whatever reason."""
    try:
        return read_file(path, largest)
    except DamagedFile:
        raise
    except StoreError as error:
        raise DamagedFile(str(error), path) from error


def read_stored(path: Path, kind: Any) -> Any:
    """A stored JSON file. DamagedFile where it cannot be read or its fields are not those of its kind."""
    return decoded(path, stored_bytes(path, LARGEST_JSON), kind)


def decoded(path: Path | str, text: bytes, kind: Any) -> Any:
    """JSON as plain values, whose fields are those of the kind. DamagedFile where they are not."""
    try:
        try:
            decoder(kind).decode(text)
            return msgspec.json.decode(text)
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:  # what json alone reads: NaN in a curve, half a character in a path
            value = json.loads(text)
            msgspec.convert(value, kind)
            return value
    except RecursionError as error:
        raise DamagedFile(f"{path}: is damaged (nested too deeply).", path) from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise DamagedFile(f"{path}: is damaged ({error}).", path) from error


decoder = functools.cache(msgspec.json.Decoder)


# ---------------------------------------------------------------------------------------------------- a plan's own seal

SEAL = re.compile(rb'"seal": "([0-9a-f]{32})"')
OPEN = "0" * 32


def sealed(plan: Mapping[str, Any]) -> bytes:
    """A plan as JSON that holds the checksum of its own text, in which 32 zeros stand for it."""
    text = json.dumps({**plan, "seal": OPEN}, indent=1, sort_keys=True).encode()
    return text.replace(b'"seal": "' + OPEN.encode(), b'"seal": "' + xxhash.xxh3_128_hexdigest(text).encode(), 1)


def unsealed(path: Path) -> dict[str, Any]:
    """A stored plan. DamagedFile where it is not what was stored, as far as it says: older ones have no seal."""
    text = stored_bytes(path, LARGEST_JSON).replace(b"\r\n", b"\n")  # of a version control system
    seal = SEAL.search(text)
    if seal is not None:
        opened = text[: seal.start(1)] + OPEN.encode() + text[seal.end(1) :]
        if xxhash.xxh3_128_hexdigest(opened).encode() != seal[1]:
            raise DamagedFile(f"{path}: is damaged: its seal is not that of its text.", path)
    return dict(decoded(path, text, Plan))


def same_plan(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two plans differ in nothing but number and seal."""
    bare = ({k: v for k, v in plan.items() if k not in ("number", "seal")} for plan in (one, other))
    return canonical_json(next(bare)) == canonical_json(next(bare))
