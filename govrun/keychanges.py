"""Change which keys count in a ledger: add, rotate and revoke, each signed by a root key.

A rotation has four steps, and a home is whole after each: the new key lies staged beside the old one; the ledger names
it (`keyAdded`); it takes the old one's place, in one rename; the old one is revoked, if that was asked for. So the key
in its place is always one that the ledger names, and the one that is revoked is never in its place. A rotation that was
cut off is finished by the next one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final, Literal

from govrun.api import before_launch, open_own_store
from govrun.canonical import JsonObject
from govrun.errors import ExitCode, GovrunError
from govrun.frozen import evolve, frozen
from govrun.home import load_trust, rewrite_trust, trust_path
from govrun.keystate import LedgerKey, find_key, key_name, read_keys
from govrun.keyuse import ending, remember
from govrun.ledger import lock
from govrun.ledger.append import Appended, Writer
from govrun.ledger.guard import Guard, heads_directory
from govrun.ledger.read import open_ledger
from govrun.receipt import Draft
from govrun.settings import AGENT_PREFIX, Settings
from govrun.signers import KEYS_DIRECTORY, key_path, log_signer
from govrun.signing.keyfile import format_key, look_at_key, open_key
from govrun.signing.keys import Signer, Verifier, generate_signer, replace_key_file, write_key_file
from govrun.signing.passphrase import Passphrases
from govrun.signing.ssh_wire import fingerprint
from govrun.world import World

Reason = Literal["compromised", "lost", "retired", "superseded"]
ChangedRole = Literal["root", "receipt"]

MAX_TRUSTED: Final = 64
_CHANGE_LOCK: Final = "change.lock"
_TORN: Final = ("key.empty", "key.form", "key.hash")


@frozen
class Rotated:
    """A rotation: the entry that names the new key, and where the old key's file is kept (None if there was none).

    index is None when the ledger had named the key before, in a rotation that was cut off then.
    """

    verifier: Verifier
    index: int | None
    old: Verifier | None
    kept: Path | None


class Changes:
    """A ledger that is open for key changes, and who may sign them; `open_changes` makes one."""

    def __init__(
        self, world: World, settings: Settings, writer: Writer, root: Signer, passphrases: Passphrases
    ) -> None:
        self.settings = settings
        self.origin = writer.store.origin
        self._world = world
        self._writer = writer
        self._root = root
        self._passphrases = passphrases
        self._directory = settings.home / KEYS_DIRECTORY

    def keys(self) -> tuple[LedgerKey, ...]:
        """Every key that the ledger names by now."""
        return keys_of(self.settings)

    def add(self, role: ChangedRole, signer: Signer) -> int:
        """Let a key count, which proves that somebody holds it by signing first; the index of the entry.

        GovrunError (ledger-unavailable): it counts already (`keys.known`), or was revoked (`key.revoked`).
        """
        known = find_key(self.keys(), role, signer.verifier.public)
        if known is not None and known.counts:
            raise _refused("keys.known", f"this {role} key counts already", _named(known.verifier), "a new key")
        if known is not None and role == "receipt":
            raise _refused("key.revoked", "this receipt key was revoked", _named(known.verifier), "a new key")
        draft = Draft("keyAdded", {"role": role, "key": _shown(signer.verifier), "addedOn": self._world.now()})
        (appended,) = self._append(draft, (signer, self._root))
        if role == "receipt":
            remember(self._directory, signer.verifier, appended.index + 1)
        return appended.index

    def rotate(self, role: ChangedRole) -> Rotated:
        """Put a new key in the place of the home's key file of a role; the old one is kept beside and still counts.

        A rotation that was cut off is finished instead of begun anew. GovrunError: as `add`, and when the settings
        say that the key is in an ssh-agent (`keys.agent`).
        """
        path = key_path(self.settings.home, role)
        staged = path.with_name(f"{path.name}.new")
        old, secret = self._in_place(role, path)
        new = self._staged(role, staged)
        index = None
        if new is None:
            signer = generate_signer(key_name(self.origin, role), self._world)
            write_key_file(staged, format_key(signer, secret))
            index = self.add(role, signer)
            new = signer.verifier
        elif role == "receipt":
            remember(self._directory, new, self._writer.store.size())
        kept = None if old is None else path.with_name(f"{role}-{old.key_id.hex()}.key")
        replace_key_file(staged, path, kept)
        return Rotated(new, index, old, kept)

    def _in_place(self, role: ChangedRole, path: Path) -> tuple[Verifier | None, bytes | None]:
        """The key that would be replaced, None if there is none, and the passphrase of its file, None for a plain one.

        The passphrase is tried on the old file, so that a misspelt one is not what the new file is encrypted with.
        """
        if role == "receipt" and self.settings.signer != "file":
            raise _refused(
                "keys.agent",
                "the receipt key is in an ssh-agent, where nothing can be put in its place",
                self.settings.signer,
                "a key file in the home",
                "add another key: `govrun keys add --role receipt --signer ssh-agent:...`, then name it in config.toml",
            )
        try:
            name = key_name(self.origin, role)
            verifier, form = look_at_key(path, name)
            if form == "plain":
                return verifier, None
            open_key(path, role, name, self._passphrases)
        except GovrunError as error:
            # A key that was lost, or a root key that is kept elsewhere.
            if error.rule != "key.missing":
                raise
            return None, None
        return verifier, self._passphrases.get(role, "")

    def _staged(self, role: ChangedRole, staged: Path) -> Verifier | None:
        """The key of a rotation that was cut off behind its entry; one that the ledger does not name is thrown away."""
        if not staged.exists():
            return None
        try:
            verifier, _ = look_at_key(staged, key_name(self.origin, role))
        except GovrunError as error:
            # Only a whole file was ever named by the ledger: this one was cut off while it was written.
            if error.rule not in _TORN:
                raise
        else:
            known = find_key(self.keys(), role, verifier.public)
            if known is not None and known.counts:
                return verifier
        staged.unlink()
        return None

    def revoke(self, key: LedgerKey, reason: Reason, suspect_from: int | None) -> int:
        """Take a key out of those that count; the index of the entry.

        suspect_from: the first index from which its receipts are not to be believed, None for none. GovrunError:
        the last root key (`keys.lastRoot`), the receipt key that this home signs with (`keys.inUse`), one that others
        on this machine sign with until the deadline (`key.busy`), one that was revoked before (`keys.revoked`).
        """
        self._check_revocable(key, suspect_from)
        draft = Draft(
            "keyRevoked",
            {
                "role": key.role,
                "key": _shown(key.verifier),
                "reason": reason,
                "suspectFromIndex": suspect_from,
                "revokedOn": self._world.now(),
            },
        )
        if key.role == "root":
            return self._append(draft, (self._root,))[0].index
        with ending(self._directory, key.verifier, self._world, self.settings.ledger_timeout_ms):
            return self._append(draft, (self._root,))[0].index

    def _check_revocable(self, key: LedgerKey, suspect_from: int | None) -> None:
        size = self._writer.store.size()
        if suspect_from is not None and suspect_from > size:
            raise GovrunError(
                ExitCode.USAGE,
                "keys.suspectFrom",
                "no entry stands there yet",
                found=str(suspect_from),
                expected=f"0 to {size}",
            )
        if not key.counts:
            raise _refused("keys.revoked", "the key was revoked before", _named(key.verifier), "a key that counts")
        if key.role == "log":
            raise log_key_stays()
        if key.role == "root" and sum(k.role == "root" and k.counts for k in self.keys()) == 1:
            raise _refused(
                "keys.lastRoot",
                "this is the last root key, and without one no key can be changed any more",
                _named(key.verifier),
                "another root key that counts",
                "add one first: `govrun keys add --role root`",
            )
        if key.role == "receipt" and self._is_used(key.verifier):
            raise _refused(
                "keys.inUse",
                "this is the receipt key that this home signs with",
                _named(key.verifier),
                "a key that is not in use",
                "`govrun keys rotate receipt --revoke` puts a new key in its place first",
            )

    def _is_used(self, verifier: Verifier) -> bool:
        """Whether the next run from this home would sign with a receipt key."""
        if self.settings.signer.startswith(AGENT_PREFIX):
            # An agent that is down must not stand in the way of a revocation.
            return fingerprint(verifier.public) == self.settings.signer.removeprefix(AGENT_PREFIX)
        try:
            path = key_path(self.settings.home, "receipt")
            return look_at_key(path, key_name(self.origin, "receipt"))[0].public == verifier.public
        except GovrunError as error:
            if error.rule != "key.missing":
                raise
            return False

    def _append(self, draft: Draft, signers: tuple[Signer, ...]) -> tuple[Appended, ...]:
        # Nothing runs here: whatever refuses is told with a code that says so.
        with before_launch():
            return self._writer.append([draft], signers=signers)


@contextmanager
def open_changes(world: World, settings: Settings, root_key: str | None, passphrases: Passphrases) -> Iterator[Changes]:
    """Open a ledger for key changes; root_key is a file, `ssh-agent:SHA256:...`, or None for the home's.

    Raises GovrunError (10, 15, 16); its rule is `keys.root` when the ledger does not count on the root key.
    """
    with before_launch(), _alone(world, settings) as entered:
        store = entered.enter_context(closing(open_own_store(world, settings)))
        root = _root(world, settings, store.origin, root_key, passphrases)
        log = log_signer(world, settings, store.origin, passphrases)
        guard = Guard(heads_directory(world.environ), log.verifier, world)
        # Every entry here names its signers, so the writer's own receipt key signs nothing.
        writer = Writer(store, root, log, guard)
        held = entered.pop_all()
    with held:
        yield Changes(world, settings, writer, root, passphrases)


@contextmanager
def _alone(world: World, settings: Settings) -> Iterator[ExitStack]:
    """While this lasts no other process changes keys of the home; what is entered into it is left first."""
    keys = settings.home / KEYS_DIRECTORY
    with ExitStack() as held:
        try:
            keys.mkdir(mode=0o700, exist_ok=True)
            descriptor = lock.open_lock_file(keys / _CHANGE_LOCK)
        except OSError as error:
            raise _refused(
                "keys.directory", "the home's keys cannot be changed", error.strerror, "a directory of your own"
            ) from error
        held.callback(os.close, descriptor)
        if not lock.lock_within(descriptor, world, settings.ledger_timeout_ms):
            raise _refused("keys.locked", "another process is changing keys", None, "one change at a time")
        yield held


def _root(world: World, settings: Settings, origin: str, root_key: str | None, passphrases: Passphrases) -> Signer:
    name = key_name(origin, "root")
    if root_key is not None and root_key.startswith(AGENT_PREFIX):
        from govrun.signing.ssh_agent import agent_signer

        root: Signer = agent_signer(world.environ, root_key.removeprefix(AGENT_PREFIX), name, world)
    else:
        path = key_path(settings.home, "root") if root_key is None else Path(root_key)
        try:
            root = open_key(path, "root", name, passphrases)
        except GovrunError as error:
            if error.rule == "key.missing":
                error.fix = "bring the root key: --root-key FILE, or --root-key ssh-agent:SHA256:..."
            raise
    known = find_key(keys_of(settings), "root", root.verifier.public)
    if known is None or not known.counts or root.verifier.name != name:
        raise _refused(
            "keys.root",
            "the ledger does not count on this root key, and only a root key changes which keys count",
            _named(root.verifier),
            " or ".join(_named(k.verifier) for k in keys_of(settings) if k.role == "root" and k.counts),
            "bring the ledger's own root key",
        )
    return root


def keys_of(settings: Settings) -> tuple[LedgerKey, ...]:
    """Every key that the ledger of the settings names; read, not verified."""
    reader = open_ledger(settings.ledger)
    try:
        return read_keys(reader)
    finally:
        reader.close()


def choose_key(keys: tuple[LedgerKey, ...], text: str) -> LedgerKey:
    """The key that a person names: by fingerprint, vkey, or the beginning (8 digits or more) of its hash or keyid.

    GovrunError (usage): none, or more than one.
    """
    from govrun.signing.keys import format_vkey

    def is_named(key: LedgerKey) -> bool:
        verifier = key.verifier
        if text in (fingerprint(verifier.public), format_vkey(verifier)):
            return True
        return len(text) >= 8 and (text == verifier.key_id.hex() or verifier.keyid.startswith(text))

    found = [key for key in keys if is_named(key)]
    if len(found) != 1:
        raise GovrunError(
            ExitCode.USAGE,
            "keys.which",
            "this names no key of the ledger" if not found else "this names several keys of the ledger",
            found=ascii(text[:100])[1:-1],
            expected="a fingerprint, a vkey, or 8 digits or more of a keyid, as `govrun keys list` shows them",
        )
    return found[0]


def log_key_stays() -> GovrunError:
    """Why there is no change of the log key, and what there is instead."""
    return GovrunError(
        ExitCode.USAGE,
        "keys.log",
        "the log key cannot be changed: checkpoints under two keys would be two logs under one name",
        expected="root or receipt",
        fix=(
            "end this ledger and begin another that continues it: `govrun ledger checkpoint >last.note`, put the"
            " .govrun aside, then `govrun init --continues last.note`"
        ),
    )


def trust_also(world: World, origin: str, verifier: Verifier) -> Path | None:
    """Name a receipt key in the operator's trust file, so that a proof of one entry under it can be checked too.

    A verification of the whole ledger needs it not: there the root key vouches. The file that was rewritten, or None
    where there is none or it is full. GovrunError (could-not-check) for one that is malformed.
    """
    path = trust_path(world.environ, origin)
    if not path.exists():
        return None
    trust = load_trust(path)
    if any(known.public == verifier.public for known in trust.receipt) or len(trust.receipt) >= MAX_TRUSTED:
        return None
    try:
        rewrite_trust(path, evolve(trust, receipt=(*trust.receipt, verifier)))
    except OSError as error:
        raise _refused(
            "trust.write", "the trust file cannot be rewritten", error.strerror, "a file that its owner can write"
        ) from error
    return path


def _shown(verifier: Verifier) -> JsonObject:
    return {"algorithm": "ed25519", "publicKey": verifier.public.hex()}


def _named(verifier: Verifier) -> str:
    return f"{verifier.name}+{verifier.key_id.hex()}"


def _refused(
    rule: str, what: str, found: str | None, expected: str | None = None, fix: str | None = None
) -> GovrunError:
    return GovrunError(ExitCode.LEDGER_UNAVAILABLE, rule, what, found=found, expected=expected, fix=fix)
