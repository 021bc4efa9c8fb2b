"""How a ledger begins: a home with keys, config and policy, the genesis entry, and the operator's trust file.

Everything is made in a directory beside the final one and renamed into place, so that a `.govrun` is whole or absent.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from govrun import schemas
from govrun.canonical import JsonObject
from govrun.digest import sha256_hex
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import evolve, frozen
from govrun.home import Trust, format_policy, format_trust, load_trust, read_trust_files, rewrite_trust, trust_path
from govrun.keyuse import remember
from govrun.ledger.append import create_ledger
from govrun.ledger.checkpoint import check_origin
from govrun.ledger.guard import Guard, heads_directory
from govrun.receipt import Draft
from govrun.settings import AGENT_PREFIX, KEY_FILE, LedgerUrl, is_signer
from govrun.signing.keyfile import format_key
from govrun.signing.keys import Ed25519Signer, Signer, Verifier, generate_signer, write_key_file
from govrun.signing.passphrase import Passphrases
from govrun.succession import Predecessor, close, shown
from govrun.world import World

CONFIG: Final = b"""# The operator's settings; options and environment variables beat them. See `govrun config show`.
format = 1

# backend = "process"        # when no --backend is given
# signer = "ssh-agent:SHA256:..." # the receipt key, when it is not in a file here; logSigner for the log key
# digests = "plain"          # plain sha256 of prompts and outputs instead of salted commitments
# [settings]                 # what backends read, such as
# BITNET_CPP_DIR = "/opt/bitnet.cpp"
"""


@frozen
class Made:
    """What `make_home` made."""

    home: Path
    origin: str
    trust_file: Path


@frozen
class KeyPlan:
    """Where the keys of a new ledger are to be.

    signer, log_signer: `file`, or `ssh-agent:SHA256:...` for a key that is there already. passphrases: what the files
    that are made are encrypted with, None to write them plain. The root key is always made, in a file.
    """

    signer: str = KEY_FILE
    log_signer: str = KEY_FILE
    passphrases: Passphrases | None = None


def make_home(
    world: World,
    home: Path,
    origin: str | None,
    allowed: Sequence[tuple[str, str]],
    *,
    plan: KeyPlan | None = None,
    continues: Predecessor | None = None,
    ledger: LedgerUrl | None = None,
) -> Made:
    """Make a home at a path where there is none; allowed are (backend, distribution) pairs for the policy.

    ledger: the database of a shared ledger that begins here, in the place of a file in the home. continues: a ledger
    that ended, which is closed for good once this one is there. Raises GovrunError: usage for a bad
    origin or plan, ledger-unavailable when there is one already or it cannot be written. Nothing is left behind on
    failure, unless the ledger has begun in a database: then its keys stay, and the effect says where.
    """
    plan = plan or KeyPlan()
    name = _checked_origin(origin if origin is not None else f"govrun.local/{world.random_bytes(8).hex()}")
    if home.exists() or home.is_symlink():
        raise _refused("home.exists", "there already is something here", "an existing path", "a new path")
    if continues is not None and continues.origin == name:
        raise GovrunError(
            ExitCode.USAGE,
            "continues.origin",
            "a ledger that continues another one has an origin of its own",
            found=name,
            expected="another --origin",
        )
    trust_file = trust_path(world.environ, name)
    if trust_file.exists():
        raise _refused("trust.exists", "a trust file for this origin exists", trust_file.name, "another --origin")
    beside = home.with_name(f"{home.name}.new-{world.new_id()[:8]}")
    made: list[Path] = []
    effect = "nothing was made"
    has_begun = False
    try:
        beside.mkdir(mode=0o700)
        trust, guard = _fill(world, beside, name, allowed, plan, continues, ledger)
        if ledger is not None:
            # It cannot be taken back, and without its keys nobody could go on with it.
            has_begun = True
            effect = f"the ledger has begun in the database; its keys are in {beside.name}, to be renamed {home.name}"
        # A head that is remembered would refuse the next ledger of this origin.
        made.append(guard.path)
        _write_trust(trust_file, evolve(trust, home=Path(os.path.realpath(home.parent)) / home.name))
        made.append(trust_file)
        beside.rename(home)
        made.clear()
        _sync(home.parent)
        _release_place(world, name, trust_file)
    except OSError as error:
        what, expected = "the home cannot be made", "a home and a trust file that can be written"
        raise _refused("home.write", what, error.strerror or "?", expected, effect) from error
    finally:
        if not has_begun:
            shutil.rmtree(beside, ignore_errors=True)
            for path in made:
                path.unlink(missing_ok=True)
    if continues is not None:
        _close(world, continues, name)
    return Made(home, name, trust_file)


def _close(world: World, continues: Predecessor, successor: str) -> None:
    effect = f"the new ledger {successor} is there, but nothing keeps a writer from going on with {continues.origin}"
    try:
        close(world, continues, successor)
    except GovrunError as error:
        error.effect = effect
        raise
    except OSError as error:
        raise GovrunError(
            ExitCode.LEDGER_UNAVAILABLE,
            "continues.trust",
            "the trust file of the old ledger cannot be rewritten",
            found=error.strerror,
            expected="a file that its owner can write",
            effect=effect,
        ) from error


def _release_place(world: World, origin: str, trust_file: Path) -> None:
    """Let the trust files of ledgers that stood at this place before name it no more; their keys stay trusted."""
    place = load_trust(trust_file).home
    for earlier in read_trust_files(world):
        path = trust_path(world.environ, earlier.origin)
        if earlier.home == place and earlier.origin != origin and path.exists():
            rewrite_trust(path, evolve(earlier, home=None))


def _checked_origin(origin: str) -> str:
    # The names of the other keys are the origin's with `/receipt` and `/root` behind it.
    check_origin(f"{check_origin(origin)}/receipt")
    return origin


def _fill(
    world: World,
    home: Path,
    origin: str,
    allowed: Sequence[tuple[str, str]],
    plan: KeyPlan,
    continues: Predecessor | None,
    ledger: LedgerUrl | None,
) -> tuple[Trust, Guard]:
    policy = format_policy(allowed)
    _write(home / ".gitignore", b"*\n")
    _write(
        home / "config.toml",
        CONFIG.replace(b"format = 1\n", b"format = 1\n" + _ledger_line(ledger) + _signer_lines(plan)),
    )
    _write(home / "policy.toml", policy)
    (home / "keys").mkdir(mode=0o700)
    root = _key(world, home, "root", f"{origin}/root", KEY_FILE, plan.passphrases)
    log = _key(world, home, "log", origin, plan.log_signer, plan.passphrases)
    receipt = _key(world, home, "receipt", f"{origin}/receipt", plan.signer, plan.passphrases)
    if log.verifier.public == receipt.verifier.public:
        raise GovrunError(
            ExitCode.USAGE, "init.sameKey", "receipts and checkpoints need different keys", expected="two keys"
        )
    trust = Trust(origin, home, root.verifier, log.verifier, (receipt.verifier,))
    guard = Guard(heads_directory(world.environ), log.verifier, world)
    first = genesis(trust, sha256_hex(policy), world.now(), continues)
    if ledger is None:
        create_ledger(home / "ledger.sqlite", first, receipt, log, guard, world)
    else:
        from govrun.ledger.postgres_begin import begin_ledger

        begin_ledger(ledger, home, first, receipt, log, guard, world)
    remember(home / "keys", receipt.verifier, 1)
    return trust, guard


def _ledger_line(ledger: LedgerUrl | None) -> bytes:
    if ledger is None:
        return b""
    import json

    # What can be shown has no character that JSON and TOML would spell differently.
    return f"ledger = {json.dumps(ledger, ensure_ascii=False)}\n".encode()


def _signer_lines(plan: KeyPlan) -> bytes:
    lines = (("signer", plan.signer), ("logSigner", plan.log_signer))
    return "".join(f'{name} = "{value}"\n' for name, value in lines if value != KEY_FILE).encode()


def _key(world: World, home: Path, role: str, name: str, where: str, passphrases: Passphrases | None) -> Signer:
    """The signer of a role: the agent's key that was named, or a new one in a file of the home."""
    if not is_signer(where):
        raise GovrunError(
            ExitCode.USAGE,
            "init.signer",
            "this does not say where a key is",
            found=ascii(where[:100]),
            expected=f"{KEY_FILE}, or {AGENT_PREFIX}SHA256:... as `ssh-add -l` prints it",
        )
    if where.startswith(AGENT_PREFIX):
        from govrun.signing.ssh_agent import agent_signer

        return agent_signer(world.environ, where.removeprefix(AGENT_PREFIX), name, world)
    signer: Ed25519Signer = generate_signer(name, world)
    secret = None if passphrases is None else passphrases.get(role, _words(role))
    write_key_file(home / "keys" / f"{role}.key", format_key(signer, secret))
    return signer


def _words(role: str) -> str:
    return "New passphrase of the root key: " if role == "root" else "New passphrase of the log and receipt keys: "


def genesis(trust: Trust, policy: str, now: str, continues: Predecessor | None = None) -> Draft:
    """The first entry: origin's keys, the policy in force and the schemas, by digest, and the ledger it continues."""
    predicate: JsonObject = {
        "format": 1,
        "createdOn": now,
        "keys": {"root": _shown(trust.root), "log": _shown(trust.log), "receipt": _shown(trust.receipt[0])},
        "policy": {"sha256": policy},
        "schemas": [{"name": n, "sha256": d} for n, d in schemas.schema_digests()],
        "continues": None if continues is None else shown(continues),
    }
    return Draft("genesis", predicate)


def _shown(verifier: Verifier) -> JsonObject:
    return {"algorithm": "ed25519", "publicKey": verifier.public.hex()}


def _write_trust(path: Path, trust: Trust) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(path, format_trust(trust))
    _sync(path.parent)


def _write(path: Path, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refused(rule: str, what: str, found: str, expected: str, effect: str = "nothing was made") -> GovrunError:
    return GovrunError(ExitCode.LEDGER_UNAVAILABLE, rule, what, found=found, expected=expected, effect=effect)
