"""transparency-dev/merkle and govrun agree about inclusion and consistency, right and wrong.

The module's published tree, and proofs in it with the module's own verdict, come out of the program in
tests/interop/tessera. The files with vectors in the module's repository are in no version that the module proxy has:
where GOVRUN_MERKLE_VECTORS names its directory testdata, they are judged too.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from govrun.errors import ExitCode, GovrunError
from govrun.ledger.merkle import (
    ConsistencyProof,
    Frontier,
    InclusionProof,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)


def decoded(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def refusal_of(vector: dict[str, Any]) -> ExitCode | None:
    """How govrun refuses a vector, None when it does not."""
    hashes = tuple(map(decoded, vector["proof"] or ()))
    try:
        if "leafIdx" in vector:
            proof = InclusionProof(vector["leafIdx"], vector["treeSize"], hashes)
            verify_inclusion(proof, decoded(vector["leafHash"]), decoded(vector["root"]))
        else:
            extension = ConsistencyProof(vector["size1"], vector["size2"], hashes)
            verify_consistency(extension, decoded(vector["root1"]), decoded(vector["root2"]))
    except GovrunError as error:
        return error.code
    return None


def agreed(vectors: list[dict[str, Any]]) -> Counter[bool]:
    """How many are refused and not, by both.

    Left alone: what leads on from an empty tree, see below. Roots that are no hashes are refused here and passed over
    by the module where two sizes are equal, since nothing is hashed then.
    """
    found: Counter[bool] = Counter()
    for one in vectors:
        if one.get("size1") == 0:
            continue
        roots = [decoded(one[name]) for name in ("root", "root1", "root2", "leafHash") if name in one]
        expected = one["wantErr"] or any(len(root) != 32 for root in roots)
        assert expected == (refusal_of(one) is not None), one
        found[one["wantErr"]] += 1
    return found


@pytest.fixture(scope="module")
def lines(tessera: Path) -> list[dict[str, Any]]:
    done = subprocess.run([tessera, "-merkle"], capture_output=True, text=True, timeout=60)
    assert (0, "") == (done.returncode, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_published_tree_has_the_published_roots(lines: list[dict[str, Any]]) -> None:
    frontier = Frontier()
    roots = [frontier.root()]
    for leaf in map(decoded, lines[0]["leaves"]):
        frontier.append(leaf_hash(leaf))
        roots.append(frontier.root())
    assert list(map(decoded, lines[0]["roots"])) == roots
    assert 9 == len(roots)


def test_the_module_and_govrun_agree_about_every_proof(lines: list[dict[str, Any]]) -> None:
    found = agreed(lines[1:])
    # 210 pairs of index and size up to 20, and as many of two sizes, are right.
    assert found[False] >= 420
    assert found[True] > 6_000


def test_only_an_empty_proof_leads_on_from_no_entries(lines: list[dict[str, Any]]) -> None:
    """The module does not look at the root of no entries; SPEC demands the one there is, and no hashes."""
    of_nothing = [one for one in lines[1:] if one.get("size1") == 0]
    assert of_nothing
    assert all(refusal_of(one) is ExitCode.HISTORY_DIVERGED for one in of_nothing)


def test_the_vectors_in_the_module_s_repository() -> None:
    place = os.environ.get("GOVRUN_MERKLE_VECTORS")
    if place is None:
        pytest.skip("GOVRUN_MERKLE_VECTORS names no testdata: the files of transparency-dev/merkle were not judged")
    files = [*Path(place).glob("inclusion/**/*.json"), *Path(place).glob("consistency/**/*.json")]
    found = agreed([json.loads(file.read_bytes()) for file in files])
    assert found[False] > 10
    assert found[True] > 100
