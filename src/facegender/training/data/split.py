"""The split: which pictures are for training, validation and test, with no person on two sides.

Pictures of one person and exact copies of a file form a group, across archives and labels, and a
group is never divided: a network tested on faces it has learned by heart looks better than it is.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

from facegender.errors import InputError
from facegender.files import atomic_write
from facegender.model.model_file import LABELS
from facegender.training.data.samples import Sample

SUBSETS = ("train", "validation", "test")
SPLIT_NAME = "split.csv"
"""What the split is called in a run folder."""

_SAMPLE_COLUMNS = ("archive", "file", "label", "person", "source", "age", "race")
_COLUMNS = (*_SAMPLE_COLUMNS[:3], "subset", "group", *_SAMPLE_COLUMNS[3:], "sha256", "error")
_EXACT_GROUPS = 64


@dataclass(frozen=True, slots=True)
class Assignment:
    """Where one sample went: `part` is one of PARTS, or empty with an `error` if it is unreadable.

    `sha256` is the digest of the file's bytes in hexadecimal; `group` the id that all pictures of
    one person and all copies share, empty for an unreadable picture.
    """

    sample: Sample
    sha256: str
    group: str
    subset: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class _Group:
    """Pictures that stay together: `members` are their places in the list of samples."""

    id: str
    keys: tuple[str, ...]
    members: tuple[int, ...]


def assign_subsets(
    samples: Sequence[Sample],
    digests: Sequence[str],
    *,
    seed: int,
    validation: float = 0.2,
    test: float = 0.0,
    errors: Sequence[str] = (),
    together: Sequence[str] = (),
) -> list[Assignment]:
    """Give each sample a part, so that nothing learned from can be met again when measuring.

    `digests` holds the SHA-256 of each sample's bytes, `errors` (if given) why a sample cannot be
    read, or "", and `together` (if given) the group of near copies that it is in, or "". The order
    of the samples changes nothing but the order of the answer.

    Test: a group's keys are its persons and, for pictures without a person, their digests. Each
    key hashes to a fixed number in [0, 1), and a group is in test if any of its keys lies below
    `test`. Neither the seed nor other data plays a part and a group's keys only ever grow, so
    adding data, or raising `test`, never moves a picture out of test; but a near copy that is in
    test for its group alone leaves it when an audit of more data no longer finds the pair. The
    realised share is near `test`, a little above it where persons and copies chain keys together.

    Validation: the share `validation` of the pictures that are not in test, drawn by `seed` in
    whole groups, within each stratum (a group's commonest label and source) as near to the share
    as whole groups allow. So a stratum of one group is all in training, or all in validation.

    Raises InputError for a share outside [0, 1), ValueError for lists of different lengths.
    """
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1:
            raise InputError(f"The {name} share is {share}; give a number from 0 to below 1.")
    if any(len(given) not in (len(samples), 0) for given in (errors, together)) or (
        len(digests) != len(samples)
    ):
        raise ValueError("samples, digests, errors and together must be of the same length")
    reasons = errors or [""] * len(samples)
    ids = [""] * len(samples)
    subsets = ["" if reason else "train" for reason in reasons]
    strata: dict[tuple[str, str], list[_Group]] = defaultdict(list)
    for group in _groups(samples, digests, reasons, together or [""] * len(samples)):
        for index in group.members:
            ids[index] = group.id
        if any(_fraction(key) < test for key in group.keys):
            for index in group.members:
                subsets[index] = "test"
        else:
            strata[_stratum(samples[index] for index in group.members)].append(group)
    for groups in strata.values():
        for group in _draw(groups, validation, seed):
            for index in group.members:
                subsets[index] = "validation"
    return [
        Assignment(*values) for values in zip(samples, digests, ids, subsets, reasons, strict=True)
    ]


def write_split(path: Path, assignments: Sequence[Assignment]) -> None:
    """Write split.csv, whole or not at all: under a temporary name that is then renamed.

    Raises OutputError if the file cannot be written.
    """
    # Names from an archive need not be UTF-8; surrogateescape carries their bytes through.
    with atomic_write(path, "surrogateescape") as stream:
        plain = csv.writer(stream, lineterminator="\n")
        quoting = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow(_COLUMNS)
        for item in assignments:
            sample = item.sample
            row = [sample.archive, sample.file, sample.label, item.subset, item.group]
            row += [sample.person, sample.source, sample.age, sample.race]
            row += [item.sha256, item.error]
            # The csv module leaves a lone carriage return bare, and then reads two lines.
            (quoting if any("\r" in cell for cell in row) else plain).writerow(row)


def read_split(path: Path) -> list[Assignment]:
    """Read split.csv, trusting nothing: it may have been edited by hand.

    Raises InputError, with the line, for an unknown part or label, a missing column, a sample on
    two lines, or a group on two sides.
    """
    assignments: list[Assignment] = []
    line_of_key: dict[tuple[str, str], int] = {}
    side_of_group: dict[str, tuple[str, int]] = {}
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            columns = next(reader, [])
            if missing := [column for column in _COLUMNS if column not in columns]:
                raise InputError(
                    f"{path}, line 1: no column {', '.join(missing)}. Make the split again."
                )
            for values in reader:
                where = f"{path}, line {reader.line_num}"
                item = _parse_row(where, columns, values)
                key = (item.sample.archive, item.sample.file)
                first = line_of_key.setdefault(key, reader.line_num)
                if first != reader.line_num:
                    raise InputError(
                        f"{where}: {'/'.join(key)} was already on line {first}. Remove one."
                    )
                subset, first = side_of_group.setdefault(item.group, (item.subset, reader.line_num))
                if item.subset and subset != item.subset:
                    raise InputError(
                        f"{where}: group {item.group} is in {item.subset} here and in {subset} on "
                        f"line {first}. Give the whole group one part."
                    )
                assignments.append(item)
    except (OSError, csv.Error) as error:
        raise InputError(f"The split {path} cannot be read ({error}). Make it again.") from error
    return assignments


def match_split(
    rows: Sequence[Assignment],
    samples: Sequence[Sample],
    digests: Sequence[str],
    errors: Sequence[str],
    path: Path,
) -> list[Assignment]:
    """Bring the rows of a split that was read from ``path`` into the order of samples.

    Labels and facts are the samples' own, parts and groups the split's. Rows for pictures that
    are not among the samples are left out; what cannot be read has no part, whatever it had.

    Raises:
        InputError: a readable picture is not in the split, or its content differs.
    """
    known = {(row.sample.archive, row.sample.file): row for row in rows}
    matched = []
    for sample, digest, error in zip(samples, digests, errors, strict=True):
        row = known.get((sample.archive, sample.file))
        if row is None and not error:
            raise InputError(
                f"{sample.archive}: {sample.file} is not in the split {path}; make a new split "
                "by leaving --split out"
            )
        if row is not None and row.sha256 != digest:
            raise InputError(
                f"{sample.archive}: {sample.file} is not the picture that the split {path} knows"
            )
        matched.append(
            Assignment(sample, digest, "", "", error)
            if row is None or error
            else replace(row, sample=sample)
        )
    return matched


def _parse_row(where: str, columns: list[str], values: list[str]) -> Assignment:
    """Check one line of split.csv by itself."""
    if len(values) != len(columns):
        raise InputError(f"{where}: {len(values)} values for {len(columns)} columns.")
    cells = dict(zip(columns, values, strict=True))
    subset, group, error = cells["subset"], cells["group"], cells["error"]
    if cells["label"] not in LABELS:
        raise InputError(f"{where}: label {cells['label']!r} is none of {', '.join(LABELS)}.")
    if subset not in (*SUBSETS, ""):
        raise InputError(f"{where}: part {subset!r} is none of {', '.join(SUBSETS)}.")
    if bool(subset) == bool(error) or bool(subset) != bool(group):
        raise InputError(f"{where}: give a part and a group, or neither of them and an error.")
    sample = Sample(*(cells[name] for name in _SAMPLE_COLUMNS))
    return Assignment(sample, cells["sha256"], group, subset, error)


def _hash(text: str, size_bytes: int) -> bytes:
    """Hash any text, also a name that is not UTF-8; the same on every machine and for ever."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size_bytes).digest()


def _fraction(key: str) -> float:
    """Place a key in [0, 1), evenly and for ever."""
    return (int.from_bytes(_hash(key, 8)) >> 11) / 2**53


def _key(sample: Sample, digest: str) -> str:
    """Name what a picture is held together by: its person, or else its content."""
    return f"person:{sample.person}" if sample.person else f"sha256:{digest}"


def _groups(
    samples: Sequence[Sample],
    digests: Sequence[str],
    errors: Sequence[str],
    together: Sequence[str],
) -> list[_Group]:
    """Join the readable pictures that share a person, their bytes or a group (union-find)."""
    parent = list(range(len(samples)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    readable = [index for index, error in enumerate(errors) if not error]
    first: dict[str, int] = {}
    for index in readable:
        links = {_key(samples[index], digests[index]), f"sha256:{digests[index]}"}
        if together[index]:
            links.add(f"together:{together[index]}")
        for key in links:
            parent[root(index)] = root(first.setdefault(key, index))
    members: dict[int, list[int]] = defaultdict(list)
    for index in readable:
        members[root(index)].append(index)
    groups = []
    for indices in members.values():
        keys = tuple(sorted({_key(samples[index], digests[index]) for index in indices}))
        groups.append(_Group(_hash(keys[0], 8).hex(), keys, tuple(indices)))
    return groups


def _stratum(samples: Iterable[Sample]) -> tuple[str, str]:
    """Find a group's commonest (label, source); the first in the alphabet where two are even."""
    counts = Counter((sample.label, sample.source) for sample in samples)
    return min(counts, key=lambda stratum: (-counts[stratum], stratum))


def _draw(groups: Sequence[_Group], share: float, seed: int) -> list[_Group]:
    """Draw whole groups at random that hold `share` of the pictures as nearly as they can.

    Groups are taken in an order fixed by the seed while they fit; the last _EXACT_GROUPS then
    fill what is left as well as any choice among them can (subset sum), so a stratum of no more
    groups than that is exact.
    """
    order = sorted(groups, key=lambda group: (_hash(f"{seed}:{group.id}", 16), group.id))
    pool, rest = order[:_EXACT_GROUPS], order[_EXACT_GROUPS:]
    room = share * sum(len(group.members) for group in rest)
    drawn = []
    for group in rest:
        if len(group.members) <= room:
            drawn.append(group)
            room -= len(group.members)
    # `room` that is left over is filled from the pool, besides the pool's own share.
    target = room + share * sum(len(group.members) for group in pool)
    # Bit n of sums[i] says whether some of the pool's groups from i on hold n pictures together.
    sums = [1]
    for group in reversed(pool):
        sums.append(sums[-1] | sums[-1] << len(group.members))
    sums.reverse()
    nearest = _nearest_bit(sums[0], target)
    for group, after in zip(pool, sums[1:], strict=True):
        size = len(group.members)
        if size <= nearest and after >> (nearest - size) & 1:
            drawn.append(group)
            nearest -= size
    return drawn


def _nearest_bit(bits: int, target: float) -> int:
    """Find the set bit whose place is nearest to `target`, the lower of two that are even."""
    low = int(target)
    while not bits >> low & 1:  # bit 0 is always set
        low -= 1
    high = int(target) + 1
    if not bits >> high:
        return low
    while not bits >> high & 1:
        high += 1
    return low if target - low <= high - target else high
