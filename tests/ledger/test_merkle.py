"""The tree against its recursive definition, against published vectors, and against tampering."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from govrun.errors import ExitCode, GovrunError
from govrun.ledger import merkle

SIZES = range(131)
LEAVES = tuple(b"leaf %d" % n for n in SIZES)


# RFC 6962 2.1, 2.1.1 and 2.1.2, word for word; D[lo:hi] are leaves lo to hi.
def split(n: int) -> int:
    return max(1 << i for i in range(n.bit_length()) if 1 << i < n)


@functools.cache
def mth(lo: int, hi: int) -> bytes:
    if hi - lo < 2:
        return sha256(b"\x00" + LEAVES[lo]).digest() if hi > lo else sha256(b"").digest()
    k = lo + split(hi - lo)
    return sha256(b"\x01" + mth(lo, k) + mth(k, hi)).digest()


def audit_path(m: int, lo: int, hi: int) -> list[bytes]:
    if hi - lo == 1:
        return []
    k = split(hi - lo)
    if m < k:
        return [*audit_path(m, lo, lo + k), mth(lo + k, hi)]
    return [*audit_path(m - k, lo + k, hi), mth(lo, lo + k)]


def subproof(m: int, lo: int, hi: int, whole: bool) -> list[bytes]:
    if m == hi - lo:
        return [] if whole else [mth(lo, hi)]
    k = split(hi - lo)
    if m <= k:
        return [*subproof(m, lo, lo + k, whole), mth(lo + k, hi)]
    return [*subproof(m - k, lo + k, hi, False), mth(lo, lo + k)]


# Every complete subtree, in the order in which leaves complete them.
STORED = [
    mth(end - (1 << level), end)
    for end in range(1, len(LEAVES) + 1)
    for level in range(end.bit_length())
    if end % (1 << level) == 0
]


def reader(indexes: Sequence[int]) -> Sequence[bytes]:
    return [STORED[index] for index in indexes]


def refused(code: ExitCode, rule: str, call: Callable[..., object], *args: object) -> GovrunError:
    with pytest.raises(GovrunError) as caught:
        call(*args)
    assert (code, rule) == (caught.value.code, caught.value.rule)
    return caught.value


def test_stored_hashes_stand_in_dense_order() -> None:
    places = [merkle.split_stored_hash_index(index) for index in range(len(STORED))]
    assert [mth(n << level, (n + 1) << level) for level, n in places] == STORED
    assert [merkle.stored_hash_index(level, n) for level, n in places] == list(range(len(STORED)))
    counts = [sum(size >> level for level in range(size.bit_length())) for size in SIZES]
    assert counts == [merkle.stored_hash_count(size) for size in SIZES]


@given(level=st.integers(0, 40), n=st.integers(0, 1 << 22))
def test_place_of_a_hash_and_its_coordinates_are_inverse(level: int, n: int) -> None:
    assert (level, n) == merkle.split_stored_hash_index(merkle.stored_hash_index(level, n))


def test_empty_ledger_keeps_no_hashes() -> None:
    assert merkle.stored_hash_count(0) == 0
    assert merkle.stored_hash_index(0, 0) == 0


def test_hashes_for_append_are_what_the_list_grows_by() -> None:
    for size, leaf in enumerate(LEAVES):
        first = merkle.stored_hash_count(size)
        expected = tuple(STORED[first : merkle.stored_hash_count(size + 1)])
        # Only what is stored before the append may be read.
        before = STORED[:first]
        hashes = merkle.hashes_for_append(size, merkle.leaf_hash(leaf), lambda i, b=before: [b[n] for n in i])
        assert expected == hashes


def test_roots_are_those_of_the_recursive_definition() -> None:
    frontier = merkle.Frontier()
    for size in SIZES:
        assert mth(0, size) == merkle.root_hash(size, reader)
        assert mth(0, size) == frontier.root()
        assert mth(0, size) == merkle.Frontier.at(size, reader).root()
        assert size == frontier.size
        frontier.append(merkle.leaf_hash(LEAVES[size]))


def test_frontier_continues_a_stored_tree_and_tells_each_completed_hash() -> None:
    for size in SIZES:
        frontier = merkle.Frontier.at(size, reader)
        grown = [one for leaf in LEAVES[size:] for one in frontier.append(merkle.leaf_hash(leaf))]
        assert STORED[merkle.stored_hash_count(size) :] == grown
        assert mth(0, len(LEAVES)) == frontier.root()


def test_frontier_extends_by_many_leaves_at_once() -> None:
    for size in SIZES:
        frontier = merkle.Frontier()
        frontier.extend(map(merkle.leaf_hash, LEAVES[:size]))
        frontier.extend(map(merkle.leaf_hash, LEAVES[size:]))
        assert (len(LEAVES), mth(0, len(LEAVES))) == (frontier.size, frontier.root())


def test_every_inclusion_proof_is_that_of_the_definition_and_verifies() -> None:
    for size in SIZES:
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, reader)
            assert merkle.InclusionProof(index, size, tuple(audit_path(index, 0, size))) == proof
            merkle.verify_inclusion(proof, merkle.leaf_hash(LEAVES[index]), mth(0, size))


def test_every_consistency_proof_is_that_of_the_definition_and_verifies() -> None:
    for new in SIZES:
        for old in range(new + 1):
            proof = merkle.consistency_proof(old, new, reader)
            expected = tuple(subproof(old, 0, new, True)) if old else ()
            assert merkle.ConsistencyProof(old, new, expected) == proof
            merkle.verify_consistency(proof, mth(0, old), mth(0, new))


def test_inclusion_proof_of_another_leaf_index_size_or_root_is_refused() -> None:
    for size in range(1, 35):
        for index in range(size):
            proof = merkle.inclusion_proof(index, size, reader)
            leaf, root = merkle.leaf_hash(LEAVES[index]), mth(0, size)
            wrong = [
                (proof, merkle.leaf_hash(LEAVES[index + 1]), root),
                (proof, leaf, mth(0, size + 1)),
                (merkle.InclusionProof(index, size, (*proof.hashes, root)), leaf, root),
                (merkle.InclusionProof(index, size, (leaf, *proof.hashes)), leaf, root),
                (merkle.InclusionProof(size, size, proof.hashes), leaf, root),
                (merkle.InclusionProof(-1, size, proof.hashes), leaf, root),
                (merkle.InclusionProof(index, 1 << 63, proof.hashes), leaf, root),
            ]
            for at, one in enumerate(proof.hashes):
                flipped = bytes([one[0] ^ 1]) + one[1:]
                for other in (flipped, one[:-1], one + b"\0"):
                    hashes = (*proof.hashes[:at], other, *proof.hashes[at + 1 :])
                    wrong.append((merkle.InclusionProof(index, size, hashes), leaf, root))
                wrong.append(
                    (merkle.InclusionProof(index, size, proof.hashes[:at] + proof.hashes[at + 1 :]), leaf, root)
                )
            if size > 1:
                # The same siblings, claimed for the neighbour, put the leaf on the other side.
                wrong.append((merkle.InclusionProof((index + 1) % size, size, proof.hashes), leaf, root))
            for case in wrong:
                refused(ExitCode.LEDGER_INCONSISTENT, "proof.inclusion", merkle.verify_inclusion, *case)


def test_consistency_proof_of_another_size_or_root_is_refused() -> None:
    for new in range(35):
        for old in range(new + 1):
            proof = merkle.consistency_proof(old, new, reader)
            old_root, new_root = mth(0, old), mth(0, new)
            wrong = [
                (proof, mth(0, old + 1), new_root),
                (merkle.ConsistencyProof(old, new, (*proof.hashes, new_root)), old_root, new_root),
                (merkle.ConsistencyProof(new + 1, new, proof.hashes), old_root, new_root),
                (merkle.ConsistencyProof(-1, new, proof.hashes), old_root, new_root),
                (merkle.ConsistencyProof(old, 1 << 63, proof.hashes), old_root, new_root),
            ]
            if old:
                wrong.append((proof, old_root, mth(0, new + 1)))
            for at, one in enumerate(proof.hashes):
                for other in (bytes([one[0] ^ 1]) + one[1:], one[:-1], one + b"\0"):
                    hashes = (*proof.hashes[:at], other, *proof.hashes[at + 1 :])
                    wrong.append((merkle.ConsistencyProof(old, new, hashes), old_root, new_root))
                shorter = proof.hashes[:at] + proof.hashes[at + 1 :]
                wrong.append((merkle.ConsistencyProof(old, new, shorter), old_root, new_root))
            for case in wrong:
                refused(ExitCode.HISTORY_DIVERGED, "proof.consistency", merkle.verify_consistency, *case)


def test_smaller_tree_is_told_with_both_sizes() -> None:
    proof = merkle.ConsistencyProof(43, 41, ())
    error = refused(ExitCode.HISTORY_DIVERGED, "proof.consistency", merkle.verify_consistency, proof, b"", b"")
    assert (error.found, error.expected) == ("tree size 41", "at least 43")


def test_proofs_outside_the_tree_are_not_made() -> None:
    for index, size in ((0, 0), (5, 5), (-1, 5)):
        refused(ExitCode.COULD_NOT_CHECK, "proof.range", merkle.inclusion_proof, index, size, reader)
    for old, new in ((6, 5), (-1, 5)):
        refused(ExitCode.COULD_NOT_CHECK, "proof.range", merkle.consistency_proof, old, new, reader)


def test_reader_that_returns_too_few_or_malformed_hashes_is_refused() -> None:
    for broken in (lambda i: [b"x" * 32] * (len(i) - 1), lambda i: [b"x" * 31] * len(i), lambda i: ()):
        refused(ExitCode.LEDGER_INCONSISTENT, "tree.stored", merkle.root_hash, 3, broken)
        refused(ExitCode.LEDGER_INCONSISTENT, "tree.stored", merkle.hashes_for_append, 3, b"x" * 32, broken)
        refused(ExitCode.LEDGER_INCONSISTENT, "tree.stored", merkle.inclusion_proof, 1, 3, broken)
        refused(ExitCode.LEDGER_INCONSISTENT, "tree.stored", merkle.Frontier.at, 3, broken)


@given(size=st.integers(1, 1 << 62), data=st.data())
def test_proofs_are_short_in_huge_trees(size: int, data: st.DataObject) -> None:
    reads: list[int] = []

    def constant(indexes: Sequence[int]) -> Sequence[bytes]:
        reads.extend(indexes)
        return [b"h" * 32] * len(indexes)

    index = data.draw(st.integers(0, size - 1))
    assert len(merkle.inclusion_proof(index, size, constant).hashes) <= size.bit_length()
    assert len(merkle.consistency_proof(index, size, constant).hashes) <= size.bit_length() + 1
    assert max(reads, default=0) < merkle.stored_hash_count(size)


# The reference vectors of Certificate Transparency's Merkle tree tests (facts; hexadecimal).
CT_LEAVES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
CT_INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CT_CONSISTENCY = {
    (1, 1): [],
    (1, 8): CT_INCLUSION[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}


@pytest.fixture(scope="module")
def ct_reader() -> merkle.HashReader:
    frontier = merkle.Frontier()
    stored = [one for leaf in CT_LEAVES for one in frontier.append(merkle.leaf_hash(leaf))]
    return lambda indexes: [stored[index] for index in indexes]


def test_published_roots(ct_reader: merkle.HashReader) -> None:
    assert [merkle.root_hash(size, ct_reader).hex() for size in range(9)] == CT_ROOTS


@pytest.mark.parametrize(("where", "hashes"), CT_INCLUSION.items())
def test_published_inclusion_proofs(ct_reader: merkle.HashReader, where: tuple[int, int], hashes: list[str]) -> None:
    proof = merkle.inclusion_proof(*where, ct_reader)
    assert hashes == [one.hex() for one in proof.hashes]
    index, size = where
    merkle.verify_inclusion(proof, merkle.leaf_hash(CT_LEAVES[index]), bytes.fromhex(CT_ROOTS[size]))


@pytest.mark.parametrize(("sizes", "hashes"), CT_CONSISTENCY.items())
def test_published_consistency_proofs(ct_reader: merkle.HashReader, sizes: tuple[int, int], hashes: list[str]) -> None:
    proof = merkle.consistency_proof(*sizes, ct_reader)
    assert hashes == [one.hex() for one in proof.hashes]
    old, new = sizes
    merkle.verify_consistency(proof, bytes.fromhex(CT_ROOTS[old]), bytes.fromhex(CT_ROOTS[new]))
