"""Copies of pictures: the same bytes, the same pixels, or the same photo made over.

A face network's features propose pairs (they hardly change when a photo is resized, recompressed,
cropped otherwise, mirrored or made grey), and laying one picture over the other confirms them, so
that two photos of one person are not taken for copies.
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

from facegender.training.audit.embeddings import PERSON
from facegender.training.audit.registration import register
from facegender.training.data.image_cache import ImageCache
from facegender.training.data.image_rows import read_rows

SAME_DETAIL = 0.95
"""Correlation of overlaid detail from which two pictures are one photo; see docs/audit.md."""

_PROPOSED = 0.55  # cosine of whitened features; 2 % of made copies lie below
_DIRECTIONS = 200
_FLOOR = 1e-3  # of the largest variance: what is smaller is noise and is not blown up
_ALL_PAIRS = 64  # pictures of which every pair is laid over
_NEIGHBOURS = 64
_PAIRS_EACH, _PAIRS_MORE = 3, 20_000
_ROWS, _BLOCK, _READ = 1024, 256, 8192
_LEAST_SHARED = 0.05


@dataclass(frozen=True, slots=True)
class Pair:
    """Two pictures that are one: rows, ``bytes``, ``pixels`` or ``photo``, and how well they agree.

    For a pair between two sets, ``row`` is of the first and ``other`` of the second.
    """

    row: int
    other: int
    kind: str
    agreement: float = 1.0
    mirrored: bool = False


@dataclass(frozen=True, slots=True)
class ComparedImages:
    """A store with what is needed to find copies in it.

    ``digests`` are of the decoded pixels ("" where unreadable), ``features`` those of
    :func:`facegender.training.audit.embeddings.read_embeddings`, ``use`` the pictures that can be
    compared.
    """

    cache: ImageCache
    digests: Sequence[str]
    features: NDArray[np.float16]
    use: NDArray[np.bool_]


def find_near_duplicates(
    images: ComparedImages,
    against: ComparedImages | None = None,
    *,
    on_pair: Callable[[int], None] | None = None,
) -> list[Pair]:
    """Find all pairs of copies within one set, or between two.

    Exact copies come as a chain of pairs, not as every pair of them.
    """
    other = against or images
    exact = [
        *_exact(_of_files(images.cache), _of_files(other.cache), "bytes", against is None),
        *_exact(images.digests, other.digests, "pixels", against is None),
    ]
    known = {(pair.row, pair.other) for pair in exact}
    first, second = _propose(images, against)
    at = [n for n in range(len(first)) if (int(first[n]), int(second[n])) not in known]
    first, second = first[at], second[at]
    pairs = list({(pair.row, pair.other): pair for pair in reversed(exact)}.values())
    blocks = [slice(start, start + _BLOCK) for start in range(0, len(first), _BLOCK)]
    with _one_thread_each() as pool:
        done = 0
        for block, likeness in zip(
            blocks,
            pool.map(lambda b: register(images.cache, first[b], other.cache, second[b]), blocks),
            strict=True,
        ):
            same = (likeness.detail >= SAME_DETAIL) & (likeness.shared >= _LEAST_SHARED)
            pairs += [
                Pair(
                    int(first[block][n]),
                    int(second[block][n]),
                    "photo",
                    round(float(likeness.detail[n]), 4),
                    bool(likeness.mirrored[n]),
                )
                for n in np.flatnonzero(same)
            ]
            done += len(likeness.detail)
            if on_pair:
                on_pair(done)
    return sorted(pairs, key=lambda pair: (pair.row, pair.other))


def join(count: int, links: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Number the groups that links make of ``count`` things: ``int64 [count]``."""
    ends = np.array(list(links), np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends), bool), (ends[:, 0], ends[:, 1])), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.int64)


def chain(keys: Iterable[Hashable]) -> Iterator[tuple[int, int]]:
    """Link every thing with the first of the same key; a false key ("", None) links nothing."""
    first: dict[Hashable, int] = {}
    for number, key in enumerate(keys):
        if key and first.setdefault(key, number) != number:
            yield first[key], number


def group_pairs(numbers: NDArray[np.int64]) -> list[tuple[int, ...]]:
    """List the groups of two or more, in the order of their first members."""
    members: dict[int, list[int]] = defaultdict(list)
    for row, number in enumerate(numbers.tolist()):
        members[number].append(row)
    return [tuple(rows) for rows in members.values() if len(rows) > 1]


def _of_files(cache: ImageCache) -> list[str]:
    """The digests of the files that are pictures: two empty files are not one photo."""
    return ["" if error else own for own, error in zip(cache.digests, cache.errors, strict=True)]


def _exact(
    digests: Sequence[str], others: Sequence[str], kind: str, is_within: bool
) -> Iterator[Pair]:
    """Pair equal digests."""
    if is_within:
        yield from (Pair(row, other, kind) for row, other in chain(digests))
        return
    first: dict[str, int] = {}
    for row, digest in enumerate(digests):
        if digest:
            first.setdefault(digest, row)
    for other, digest in enumerate(others):
        if digest in first:
            yield Pair(first[digest], other, kind)


def _propose(
    images: ComparedImages, against: ComparedImages | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Propose pairs of pictures that may be copies, the likeliest where there are too many."""
    rows = np.flatnonzero(images.use)
    others = rows if against is None else np.flatnonzero(against.use)
    nothing = np.zeros(0, np.int64)
    if len(rows) < 1 + (against is None) or not len(others):
        return nothing, nothing
    if max(len(rows), len(others)) <= _ALL_PAIRS:
        if against is None:
            at, to = np.triu_indices(len(rows), 1)
        else:
            at, to = (x.ravel() for x in np.indices((len(rows), len(others))))
        return rows[at], others[to]
    values = _persons(images, rows)
    other_values = values if against is None else _persons(against, others)
    whiten = _whitening(values if against is None else np.concatenate([values, other_values]))
    unit, other_unit = whiten(values), whiten(other_values)
    firsts, seconds, cosines = [], [], []
    for start in range(0, len(unit), _ROWS):
        skip = start + 1 if against is None else 0
        cosine = unit[start : start + _ROWS] @ other_unit[skip:].T
        if against is None:  # each pair once: the square at the left holds rows of the block
            square = cosine[:, : len(cosine)]
            square.copy_(square.triu())
        is_near = cosine > _PROPOSED
        if int(is_near.sum()) > _NEIGHBOURS * len(cosine):
            count = min(_NEIGHBOURS, cosine.shape[1])
            is_near &= cosine >= cosine.topk(count, dim=1).values[:, -1:]
        near = torch.nonzero(is_near, as_tuple=True)
        firsts.append(near[0].numpy() + start)
        seconds.append(near[1].numpy() + skip)
        cosines.append(cosine[near].numpy())
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    most = _PAIRS_EACH * (len(rows) + len(others)) // 2 + _PAIRS_MORE
    best = np.sort(np.argsort(-np.concatenate(cosines), kind="stable")[:most])
    return rows[first[best]], others[second[best]]


def _persons(images: ComparedImages, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Give the features that say who a picture shows, ``[len(rows), PERSON]``."""
    values = np.empty((len(rows), PERSON), np.float32)
    for start in range(0, len(rows), _READ):
        some = rows[start : start + _READ]
        values[start : start + len(some)] = read_rows(images.features, some)[:, :PERSON]
    return values


def _whitening(values: NDArray[np.float32]) -> Callable[[NDArray[np.float32]], torch.Tensor]:
    """Learn how features vary, so that what all faces share counts for nothing."""
    mean = values.mean(0)
    aside = values - mean
    variances, directions = np.linalg.eigh((aside.T @ aside / len(aside)).astype(np.float64))
    count = min(_DIRECTIONS, max(8, len(values) // 4), len(variances))
    variances, directions = variances[::-1][:count], directions[:, ::-1][:, :count]
    matrix = (directions / np.sqrt(variances + _FLOOR * variances[0])).astype(np.float32)

    def whiten(x: NDArray[np.float32]) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.from_numpy((x - mean) @ matrix), dim=1)

    return whiten


@contextmanager
def _one_thread_each() -> Iterator[ThreadPoolExecutor]:
    """Give a pool of threads in which torch uses one thread each: its work here is small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            yield pool
    finally:
        torch.set_num_threads(threads)
