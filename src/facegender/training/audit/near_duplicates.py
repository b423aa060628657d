"""Duplicate images: the same bytes, the same pixels, or the same photo in another version.

The embeddings of a face network propose pairs, because they hardly change when a photo is resized,
recompressed, cropped, mirrored or converted to grayscale. Registering one image to the other
confirms a pair, so that two photos of one person are not taken for duplicates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from facegender.training.audit.embeddings import IDENTITY_SIZE
from facegender.training.audit.registration import register
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.image_rows import read_rows

MIN_CORRELATION = 0.95
"""Correlation of registered detail from which two images are one photo.

See docs/experiments/audit.md.
"""

_MIN_COSINE = 0.55  # of whitened embeddings; 2 % of synthetic duplicates lie below
_DIRECTIONS = 200
_MIN_VARIANCE = 1e-3  # of the largest variance: what is smaller is noise and is not amplified
_ALL_PAIRS = 64  # images up to which every pair is registered
_MAX_NEIGHBORS = 64
_PAIRS_PER_IMAGE, _EXTRA_PAIRS = 3, 20_000
_COSINE_ROWS, _BLOCK_PAIRS, _READ_ROWS = 1024, 256, 8192
_MIN_OVERLAP = 0.05


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two images of one photo.

    Attributes:
        row: the first image.
        other: the second image; of the other set where two sets are compared.
        kind: ``bytes`` (the same file), ``pixels`` (the same decoded pixels) or ``near``.
        correlation: of the registered detail; 1 for exact duplicates.
        mirrored: whether the second is the mirror image of the first.
    """

    row: int
    other: int
    kind: str
    correlation: float = 1.0
    mirrored: bool = False


@dataclass(frozen=True, slots=True)
class ComparedImages:
    """Images and what is needed to find duplicates among them.

    Attributes:
        cache: ``N`` decoded images.
        digests: of the decoded pixels, "" where unreadable.
        embeddings: what :func:`facegender.training.audit.embeddings.read_embeddings` returned.
        usable: which images can be compared, ``bool [N]``.
    """

    cache: ImageCache
    digests: Sequence[str]
    embeddings: NDArray[np.float16]
    usable: NDArray[np.bool_]


def find_near_duplicates(
    images: ComparedImages,
    against: ComparedImages | None = None,
    *,
    on_pair: Callable[[int], None] | None = None,
) -> list[DuplicatePair]:
    """Find the pairs of duplicates within one set, or between two sets.

    ``K`` exact duplicates give ``K - 1`` pairs, each with the first of them.

    Args:
        images: the set.
        against: the other set, or None.
        on_pair: called with the number of pairs registered.

    Returns:
        Pairs, sorted by row.
    """
    other = against or images
    exact = [
        *_exact_pairs(_file_digests(images.cache), _file_digests(other.cache), "bytes", against),
        *_exact_pairs(images.digests, other.digests, "pixels", against),
    ]
    known = {(pair.row, pair.other) for pair in exact}
    first, second = _propose(images, against)
    unknown = [n for n in range(len(first)) if (int(first[n]), int(second[n])) not in known]
    first, second = first[unknown], second[unknown]
    pairs = list({(pair.row, pair.other): pair for pair in reversed(exact)}.values())
    blocks = [slice(start, start + _BLOCK_PAIRS) for start in range(0, len(first), _BLOCK_PAIRS)]
    with _single_threaded_pool() as pool:
        done = 0
        for block, found in zip(
            blocks,
            pool.map(lambda b: register(images.cache, first[b], other.cache, second[b]), blocks),
            strict=True,
        ):
            same = (found.correlation >= MIN_CORRELATION) & (found.overlap >= _MIN_OVERLAP)
            pairs += [
                DuplicatePair(
                    int(first[block][n]),
                    int(second[block][n]),
                    "near",
                    round(float(found.correlation[n]), 4),
                    bool(found.mirrored[n]),
                )
                for n in np.flatnonzero(same)
            ]
            done += len(found.correlation)
            if on_pair:
                on_pair(done)
    return sorted(pairs, key=lambda pair: (pair.row, pair.other))


def number_groups(count: int, links: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Number the connected components that links make of ``count`` items: ``int64 [count]``."""
    ends = np.array(list(links), np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def link_equal(keys: Iterable[Hashable]) -> Iterator[tuple[int, int]]:
    """Link every item to the first with the same key; an empty key ("", None) links nothing."""
    first: dict[Hashable, int] = {}
    for number, key in enumerate(keys):
        if key and first.setdefault(key, number) != number:
            yield first[key], number


def list_groups(numbers: NDArray[np.int64]) -> list[tuple[int, ...]]:
    """List the groups of two or more rows, in the order of their first rows."""
    members: dict[int, list[int]] = defaultdict(list)
    for row, number in enumerate(numbers.tolist()):
        members[number].append(row)
    return [tuple(rows) for rows in members.values() if len(rows) > 1]


def _file_digests(cache: ImageCache) -> list[str]:
    """Give the digests of readable files; two empty files are no duplicates."""
    return ["" if error else own for own, error in zip(cache.digests, cache.errors, strict=True)]


def _exact_pairs(
    digests: Sequence[str], others: Sequence[str], kind: str, against: ComparedImages | None
) -> Iterator[DuplicatePair]:
    """Pair equal digests."""
    if against is None:
        yield from (DuplicatePair(row, other, kind) for row, other in link_equal(digests))
        return
    first: dict[str, int] = {}
    for row, digest in enumerate(digests):
        if digest:
            first.setdefault(digest, row)
    for other, digest in enumerate(others):
        if digest in first:
            yield DuplicatePair(first[digest], other, kind)


def _propose(
    images: ComparedImages, against: ComparedImages | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Propose pairs that may be duplicates; the most similar where there are too many."""
    rows = np.flatnonzero(images.usable)
    others = rows if against is None else np.flatnonzero(against.usable)
    nothing = np.zeros(0, np.int64)
    if len(rows) < 1 + (against is None) or not len(others):
        return nothing, nothing
    if max(len(rows), len(others)) <= _ALL_PAIRS:
        if against is None:
            first, second = np.triu_indices(len(rows), 1)
        else:
            first, second = (x.ravel() for x in np.indices((len(rows), len(others))))
        return rows[first], others[second]
    values = _identity_features(images, rows)
    other_values = values if against is None else _identity_features(against, others)
    whiten = _whitening(values if against is None else np.concatenate([values, other_values]))
    unit, other_unit = whiten(values), whiten(other_values)
    first, second, cosines = _similar_pairs(unit, other_unit, is_within=against is None)
    limit = _PAIRS_PER_IMAGE * (len(rows) + len(others)) // 2 + _EXTRA_PAIRS
    best = np.sort(np.argsort(-cosines, kind="stable")[:limit])
    return rows[first[best]], others[second[best]]


def _similar_pairs(
    unit: torch.Tensor, other_unit: torch.Tensor, *, is_within: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Find pairs of unit vectors with a large cosine; within one set, each pair once."""
    firsts, seconds, cosines = [], [], []
    for start in range(0, len(unit), _COSINE_ROWS):
        skip = start + 1 if is_within else 0
        cosine = unit[start : start + _COSINE_ROWS] @ other_unit[skip:].T
        if is_within:  # the square at the left holds rows of the block itself
            square = cosine[:, : len(cosine)]
            square.copy_(square.triu())
        is_near = cosine > _MIN_COSINE
        if int(is_near.sum()) > _MAX_NEIGHBORS * len(cosine):
            count = min(_MAX_NEIGHBORS, cosine.shape[1])
            is_near &= cosine >= cosine.topk(count, dim=1).values[:, -1:]
        near = torch.nonzero(is_near, as_tuple=True)
        firsts.append(near[0].numpy() + start)
        seconds.append(near[1].numpy() + skip)
        cosines.append(cosine[near].numpy())
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(cosines)


def _identity_features(images: ComparedImages, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Read the features that identify persons, ``[len(rows), IDENTITY_SIZE]``."""
    values = np.empty((len(rows), IDENTITY_SIZE), np.float32)
    for start in range(0, len(rows), _READ_ROWS):
        block = rows[start : start + _READ_ROWS]
        values[start : start + len(block)] = read_rows(images.embeddings, block)[:, :IDENTITY_SIZE]
    return values


def _whitening(values: NDArray[np.float32]) -> Callable[[NDArray[np.float32]], torch.Tensor]:
    """Fit a whitening transform to unit vectors, so that what all faces share has no weight."""
    mean = values.mean(0)
    centered = values - mean
    covariance = (centered.T @ centered / len(centered)).astype(np.float64)
    variances, directions = np.linalg.eigh(covariance)
    count = min(_DIRECTIONS, max(8, len(values) // 4), len(variances))
    variances, directions = variances[::-1][:count], directions[:, ::-1][:, :count]
    scale = np.sqrt(variances + _MIN_VARIANCE * variances[0])
    matrix = (directions / scale).astype(np.float32)

    def whiten(x: NDArray[np.float32]) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.from_numpy((x - mean) @ matrix), dim=1)

    return whiten


@contextmanager
def _single_threaded_pool() -> Iterator[ThreadPoolExecutor]:
    """Give a thread pool in which torch uses one thread per task: the tasks are small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)
