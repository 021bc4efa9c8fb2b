"""Published Ed25519 vectors: RFC 8032, Wycheproof, and every combination of points of small order.

The second and third are read from Go's module cache (`make modules` brings them); nothing of them is kept here. The
collection that C2SP keeps of the third (CCTV) is larger and is no module that can be had everywhere: where
GOVRUN_CCTV_ED25519 names its ed25519vectors.json, it is judged too.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from govrun.errors import ExitCode, GovrunError
from govrun.signing.keys import signer_from_seed, verifier_for
from tests.interop.golang import go


def is_accepted(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the key is a key, and the signature its own."""
    try:
        verifier_for("example.com/key", public).verify(message, signature)
    except GovrunError as error:
        if error.code in (ExitCode.COULD_NOT_CHECK, ExitCode.SIGNATURE_UNTRUSTED):
            return False
        raise
    return True


# RFC 8032, 7.1: secret key, public key, message, signature.
RFC_8032 = {
    "test 1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        b"",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    "test 2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        b"\x72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "test 3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        b"\xaf\x82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
    "test SHA(abc)": (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").digest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e030"
        "3dca179c138ac17ad9bef1177331a704",
    ),
}


@pytest.mark.parametrize("name", RFC_8032)
def test_rfc_8032(name: str) -> None:
    seed, public, message, signature = RFC_8032[name]
    signer = signer_from_seed("example.com/key", bytes.fromhex(seed))
    assert (public, signature) == (signer.verifier.public.hex(), signer.sign(message).hex())
    assert is_accepted(bytes.fromhex(public), message, bytes.fromhex(signature))
    assert not is_accepted(bytes.fromhex(public), message + b"\0", bytes.fromhex(signature))


def module(path: str) -> Path:
    """The directory of a module in Go's cache."""
    lost = f"the vectors of {path} were not judged"
    found = Path(go("published", "list", "-m", "-f", "{{.Dir}}", path, lost=lost).strip() or "/nowhere")
    if not found.is_dir():
        pytest.skip(f"run `make modules`: {lost}")
    return found


def test_wycheproof() -> None:
    place = module("github.com/c2sp/wycheproof") / "testvectors_v1" / "ed25519_test.json"
    groups = json.loads(place.read_bytes())["testGroups"]
    judged: Counter[str] = Counter()
    for group in groups:
        public = bytes.fromhex(group["publicKey"]["pk"])
        for one in group["tests"]:
            answer = is_accepted(public, bytes.fromhex(one["msg"]), bytes.fromhex(one["sig"]))
            assert (one["result"], one["tcId"]) == ("valid" if answer else "invalid", one["tcId"]), one
            judged[one["result"]] += 1
    assert {"valid": 88, "invalid": 63} == dict(judged)


# What makes SPEC's rule refuse a vector, by the names of the two collections. All else is accepted: an R of small
# order, and parts of small order that cancel each other.
REFUSED = {
    "LowOrderA": "a key of small order",
    "NonCanonicalA": "a key that is not reduced",
    "NonCanonicalR": "an R that is not reduced",
    "LowOrderResidue": "an equation that holds only when multiplied by the cofactor",
    "low_order_A": "a key of small order",
    "non_canonical_A": "a key that is not reduced",
    "non_canonical_R": "an R that is not reduced",
    "low_order_residue": "an equation that holds only when multiplied by the cofactor",
    "reencoded_k": "a challenge over other bytes than the ones that stand there",
}


def judged(vectors: list[dict[str, Any]]) -> Counter[bool]:
    """How many were accepted and refused, each as SPEC's rule says."""
    found: Counter[bool] = Counter()
    for one in vectors:
        flags = set(one["flags"] or ())
        message = one["msg"].encode()
        answer = is_accepted(bytes.fromhex(one["key"]), message, bytes.fromhex(one["sig"]))
        assert answer == flags.isdisjoint(REFUSED), one
        found[answer] += 1
    return found


def test_points_of_small_order_in_every_combination() -> None:
    place = module("filippo.io/mostly-harmless/ed25519vectors") / "ed25519vectors.json"
    vectors = [
        {"key": one["A"], "sig": one["R"] + one["S"], "msg": one["M"], "flags": one["Flags"]}
        for one in json.loads(place.read_bytes())
    ]
    assert 768 == judged(vectors).total()
    assert {True, False} == set(judged(vectors))


def test_cctv() -> None:
    place = os.environ.get("GOVRUN_CCTV_ED25519")
    if place is None:
        pytest.skip("GOVRUN_CCTV_ED25519 names no ed25519vectors.json: the vectors of C2SP/CCTV were not judged")
    found = judged(json.loads(Path(place).read_bytes()))
    assert {True, False} == set(found)
