"""Subsets: which images are for training, validation and test, with no person in two of them.

Images of one person, exact copies and near copies form a group, across archives and labels, and a
group is never divided: tested on faces that it was trained on, a network looks better than it is.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from facegender.errors import InputError
from facegender.training.data.samples import Sample
from facegender.training.data.split import Assignment

_EXACT_GROUPS = 64


@dataclass(frozen=True, slots=True)
class _Group:
    """Images that stay together: ``members`` are their indices in the list of samples."""

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
    duplicate_groups: Sequence[str] = (),
) -> list[Assignment]:
    """Assign each sample to training, validation or test.

    Test: a group's keys are its persons and, for images without a person, their digests. Each
    key hashes to a fixed number in [0, 1), and a group is in test if any of its keys is below
    ``test``. Neither the seed nor other data matters, and a group's keys only ever grow, so
    adding data, or raising ``test``, never moves an image out of test; but a near copy that is in
    test for its group alone leaves it when an audit of more data no longer finds the pair. The
    resulting fraction is near ``test``, a little above it if persons and copies chain keys.

    Validation: the fraction ``validation`` of the images that are not in test, drawn by ``seed`` in
    whole groups, within each stratum (a group's most frequent label and source) as near to the
    fraction as whole groups allow. So a stratum of one group is all training or all validation.

    Args:
        samples: their order changes nothing but the order of the result.
        digests: SHA-256 of each sample's bytes.
        seed: of the validation subset.
        validation: fraction of the images that are not in test.
        test: fraction of all images.
        errors: why each sample cannot be read, or "".
        duplicate_groups: the group of near copies that each sample is in, or "".

    Raises:
        InputError: a fraction is outside of [0, 1).
        ValueError: the lists have different lengths.
    """
    for name, fraction in (("validation", validation), ("test", test)):
        if not 0 <= fraction < 1:
            raise InputError(f"The {name} fraction is {fraction}; give a number from 0 to below 1.")
    if any(len(given) not in (len(samples), 0) for given in (errors, duplicate_groups)) or (
        len(digests) != len(samples)
    ):
        raise ValueError("samples, digests, errors and groups must be of the same length")
    reasons = errors or [""] * len(samples)
    ids = [""] * len(samples)
    subsets = ["" if reason else "train" for reason in reasons]
    strata: dict[tuple[str, str], list[_Group]] = defaultdict(list)
    for group in _groups(samples, digests, reasons, duplicate_groups or [""] * len(samples)):
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


def _hash(text: str, size_bytes: int) -> bytes:
    """Hash any text, also a name that is not UTF-8; never changes and is the same everywhere."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=size_bytes).digest()


def _fraction(key: str) -> float:
    """Map a key to a number in [0, 1), uniformly; the mapping never changes."""
    return (int.from_bytes(_hash(key, 8)) >> 11) / 2**53


def _key(sample: Sample, digest: str) -> str:
    """Return what identifies an image's group: its person, or else its content."""
    return f"person:{sample.person}" if sample.person else f"sha256:{digest}"


def _groups(
    samples: Sequence[Sample],
    digests: Sequence[str],
    errors: Sequence[str],
    duplicate_groups: Sequence[str],
) -> list[_Group]:
    """Join the readable images that share a person, their bytes or a group (union-find)."""
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
        if duplicate_groups[index]:
            links.add(f"together:{duplicate_groups[index]}")
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
    """Return a group's most frequent (label, source); of ties the first in the alphabet."""
    counts = Counter((sample.label, sample.source) for sample in samples)
    return min(counts, key=lambda stratum: (-counts[stratum], stratum))


def _draw(groups: Sequence[_Group], fraction: float, seed: int) -> list[_Group]:
    """Draw whole groups at random that have ``fraction`` of the images, as nearly as possible.

    Groups are taken in an order fixed by the seed while they fit; of the last _EXACT_GROUPS the
    choice that fills the rest best is taken (subset sum), so a stratum of no more groups than
    that is exact.
    """
    order = sorted(groups, key=lambda group: (_hash(f"{seed}:{group.id}", 16), group.id))
    pool, rest = order[:_EXACT_GROUPS], order[_EXACT_GROUPS:]
    room = fraction * sum(len(group.members) for group in rest)
    drawn = []
    for group in rest:
        if len(group.members) <= room:
            drawn.append(group)
            room -= len(group.members)
    # the room that is left is filled from the pool, in addition to the pool's own fraction
    target = room + fraction * sum(len(group.members) for group in pool)
    # bit n of sums[i] is set if some of the pool's groups from i on have n images together
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
    """Return the position of the set bit that is nearest to ``target``, the lower of a tie."""
    low = int(target)
    while not bits >> low & 1:  # bit 0 is always set
        low -= 1
    high = int(target) + 1
    if not bits >> high:
        return low
    while not bits >> high & 1:
        high += 1
    return low if target - low <= high - target else high
