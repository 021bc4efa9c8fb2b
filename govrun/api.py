"""The Python API: `govrun.run(backend="bitnet", prompt=...)` does what the command line does."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NoReturn

import orjson

from govrun import schemas
from govrun.backends import registry
from govrun.errors import ExitCode, GovrunError
from govrun.execute.process import Interrupt
from govrun.filecache import DigestCache
from govrun.frozen import evolve
from govrun.home import find_home, load_trust, trust_path
from govrun.invoke import Ground, Result, unlaunched
from govrun.invoke import run as run_request
from govrun.ledger.append import Writer
from govrun.ledger.guard import Guard, heads_directory
from govrun.ledger.store import Store
from govrun.permit import Asked, Site, ask, read_policy
from govrun.request import MAX_PROMPT_BYTES, Request, check_request
from govrun.settings import Settings, load_settings, read_private
from govrun.signers import open_receipt_signer, open_signers
from govrun.signing.passphrase import Passphrases, Prompt
from govrun.world import World, real_world

MAX_REQUEST_BYTES = 2 * MAX_PROMPT_BYTES


def run(
    *,
    backend: str | None = None,
    prompt: str | bytes | None = None,
    task: str | None = None,
    agent: str | None = None,
    parameters: Mapping[str, str | int] | None = None,
    argv: tuple[str, ...] = (),
    inputs: tuple[str, ...] = (),
    outputs: tuple[str, ...] = (),
    ok_exit: tuple[int, ...] = (0,),
    request_id: str | None = None,
    wall_ms: int | None = None,
    cwd: str | None = None,
    home: str | None = None,
    world: World | None = None,
    ground: Ground | None = None,
) -> Result:
    """One governed invocation; returns its Result once the outcome is durable, also when the command failed.

    prompt: text (UTF-8) or exact bytes. parameters: the backend's, as text or integers. inputs, outputs: paths of
    declared files, relative to cwd (default: the working directory). home: the `.govrun` (default: GOVRUN_HOME, then
    upward from cwd). ground: one of `open_shared`, in the place of home and world, for many runs at once. Raises
    GovrunError when nothing ran (10-16), or when it ran but the outcome could only be kept in `pending/` (30-33).
    """
    if ground is not None and (home is not None or world is not None):
        raise TypeError("a ground has its own home and world")
    world = world or real_world()
    with before_launch():
        place = Path(os.path.abspath(cwd)) if cwd is not None else working_directory()
        options = {} if backend is None else {"backend": backend}
        settings = (
            load_settings(find_home(world, place, home), world.environ, options)
            if ground is None
            else ground.site.settings
        )
        chosen = backend or settings.backend
        if chosen is None:
            raise GovrunError(
                ExitCode.REQUEST_INVALID, "request.backend", "no backend was chosen", expected="backend=NAME"
            )
    wanted = Request(
        backend=chosen,
        task=task,
        agent=agent,
        prompt=prompt.encode("utf-8", "surrogatepass") if isinstance(prompt, str) else prompt,
        parameters=tuple(sorted((name, str(value)) for name, value in (parameters or {}).items())),
        argv=tuple(argv),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        ok_exit=tuple(sorted(set(ok_exit))),
        request_id=request_id,
        wall_ms=wall_ms,
        cwd=str(place),
    )
    if ground is not None:
        return run_request(_as_it_is_now(ground), wanted)
    with open_ground(world, settings) as own:
        return run_request(own, wanted)


@contextmanager
def open_shared(*, home: str | None = None, cwd: str | None = None, world: World | None = None) -> Iterator[Ground]:
    """A ground that the threads of this process share: `run(..., ground=ground)` from as many as there are.

    What they append is committed together, each run acknowledged once its own receipts are durable. home, cwd: as in
    `run`. The policy is read anew for each run. Leaving it waits for what is being appended; end the runs before.
    Raises GovrunError (10, 15, 16).
    """
    world = world or real_world()
    with before_launch():
        place = Path(os.path.abspath(cwd)) if cwd is not None else working_directory()
        settings = load_settings(find_home(world, place, home), world.environ, {})
    with open_shared_ground(world, settings) as ground:
        yield ground


def _as_it_is_now(ground: Ground) -> Ground:
    """A ground that may have been open for long, with the policy that is there now."""
    policy, problem = _present_policy(ground.site.settings)
    return evolve(ground, site=evolve(ground.site, policy_bytes=policy, policy_problem=problem))


@contextmanager
def before_launch() -> Iterator[None]:
    """While nothing can have run: whatever refuses says so, under one of the codes 10-16."""
    try:
        yield
    except GovrunError as error:
        raise unlaunched(error) from error


def working_directory() -> Path:
    """The working directory; GovrunError (request-invalid) when it was removed."""
    try:
        return Path(os.getcwd())
    except OSError as error:
        raise GovrunError(
            ExitCode.REQUEST_INVALID,
            "request.cwd",
            "the working directory cannot be told",
            found=error.strerror,
            expected="a directory that exists",
            fix="change to one",
        ) from error


def open_site(world: World, settings: Settings, hashing: Callable[[str, int, int], None] | None = None) -> Site:
    """What requests are judged by; hashing, when given, is told (name, total, done) while a large file is hashed."""
    cache = DigestCache(settings.home / "cache" / "digests.json", lambda: world.now_ms() * 1_000_000, hashing)
    policy, problem = _present_policy(settings)
    return Site(
        world=world,
        settings=settings,
        policy_bytes=policy,
        search_path=tuple(sys.path),
        digests=cache,
        policy_problem=problem,
    )


def _present_policy(settings: Settings) -> tuple[bytes | None, GovrunError | None]:
    """The policy's bytes, None when there is none or it cannot be read, which the error then tells."""
    try:
        return read_private(settings.policy, "policy"), None
    except GovrunError as unreadable:
        # A refusal like any other of a policy, and recorded like it.
        return None, unreadable


@contextmanager
def open_ground(
    world: World,
    settings: Settings,
    pass_stderr: Callable[[bytes], None] | None = None,
    signals: Callable[[], AbstractContextManager[Interrupt | None]] = nullcontext,
    hashing: Callable[[str, int, int], None] | None = None,
    prompt: Prompt | None = None,
) -> Iterator[Ground]:
    """Open keys and ledger for invocations; raises GovrunError (10, 15, 16) when no evidence could be left.

    prompt asks a person for the passphrase of an encrypted key file; without one it must come from the environment.
    """
    with before_launch():
        site = open_site(world, settings, hashing)
    with ExitStack() as held:
        with before_launch():
            writer, store = _open_writer(world, settings, held, prompt)
        with closing(store):
            yield Ground(site, writer, pass_stderr, signals)


@contextmanager
def open_shared_ground(
    world: World, settings: Settings, pass_stderr: Callable[[bytes], None] | None = None
) -> Iterator[Ground]:
    """`open_ground` for many threads at once; pass_stderr may be called from several of them at the same time."""
    from govrun.ledger.group import GroupWriter

    with ExitStack() as held:
        with before_launch():
            site = open_site(world, settings)
            writer = GroupWriter(
                lambda: _open_writer(world, settings, held)[0], world, wait_ms=settings.ledger_timeout_ms
            )
        with writer:
            yield Ground(site, writer, pass_stderr)


def _open_writer(
    world: World, settings: Settings, held: ExitStack, prompt: Prompt | None = None
) -> tuple[Writer, Store]:
    """A writer and its store; held then keeps the receipt key from being revoked until it is closed."""
    store = open_own_store(world, settings)
    try:
        passphrases = Passphrases(world.environ, prompt)
        if not store.may_sign:
            return _open_awaiting(world, settings, held, passphrases, store), store
        signers = held.enter_context(
            open_signers(world, settings, store, passphrases, lambda key: counts(settings, key))
        )
        guard = Guard(heads_directory(world.environ), signers.log.verifier, world)
        writer = Writer(store, signers.receipt, signers.log, guard)
    except BaseException:
        store.close()
        raise
    return writer, store


def _open_awaiting(world: World, settings: Settings, held: ExitStack, passphrases: Passphrases, store: Store) -> Writer:
    """A writer for a store that takes checkpoints from its sequencer only; this user's trust file names the log key."""
    from govrun.ledger.awaited import AwaitingWriter

    log = load_trust(trust_path(world.environ, store.origin)).log
    receipt = held.enter_context(
        open_receipt_signer(world, settings, store, passphrases, lambda key: counts(settings, key))
    )
    guard = Guard(heads_directory(world.environ), log, world)
    return AwaitingWriter(store, receipt, log, guard, settings.ledger_timeout_ms)


def open_own_store(world: World, settings: Settings) -> Store:
    """The store of the ledger that the settings name, open for appending."""
    if isinstance(settings.ledger, Path):
        from govrun.ledger import sqlite

        return sqlite.open_store(settings.ledger, world, settings.ledger_timeout_ms)
    from govrun.ledger import postgres

    return postgres.open_store(settings.ledger, settings.home, world, settings.ledger_timeout_ms)


def counts(settings: Settings, public: bytes) -> bool:
    """Whether the ledger names a receipt key (32 bytes) that still counts; reads all of its key entries."""
    from govrun.keystate import find_key, read_keys
    from govrun.ledger.read import open_ledger

    reader = open_ledger(settings.ledger)
    try:
        found = find_key(read_keys(reader), "receipt", public)
    finally:
        reader.close()
    return found is not None and found.counts


def inquire(world: World, settings: Settings, wanted: Request) -> Asked:
    """Load a backend and resolve what it would be asked, for a preflight; raises GovrunError (10-12)."""
    site = open_site(world, settings)
    check_request(wanted)
    return ask(site, wanted, read_policy(site), registry.find(wanted.backend, site.search_path))


def parse_request(data: bytes, cwd: str | None = None) -> Request:
    """A request from JSON bytes (schemas/request.v1.json); raises GovrunError (request-invalid)."""
    if len(data) > MAX_REQUEST_BYTES:
        raise _invalid("request.size", "the request is too large", f"more than {MAX_REQUEST_BYTES} bytes")
    if not data.strip():
        raise _invalid("request.empty", "the request is empty", "no bytes")
    document = _parse_json(data)
    schemas.check(document, "request.v1", None, ExitCode.REQUEST_INVALID, "the request")
    return Request(
        backend=document["backend"],
        task=document.get("task"),
        agent=document.get("agent"),
        prompt=None if "prompt" not in document else document["prompt"].encode(),
        parameters=tuple(sorted((n, str(v)) for n, v in document.get("parameters", {}).items())),
        argv=tuple(document.get("argv", ())),
        inputs=tuple(document.get("inputs", ())),
        outputs=tuple(document.get("outputs", ())),
        ok_exit=tuple(sorted(set(document.get("okExit", (0,))))),
        request_id=document.get("requestId"),
        wall_ms=document.get("wallMs"),
        cwd=cwd or os.getcwd(),
    )


def _parse_json(data: bytes) -> Any:
    import json

    try:
        # orjson refuses what is not UTF-8 or is nested too deeply; json tells duplicate members.
        orjson.loads(data)
        return json.loads(data, object_pairs_hook=_no_duplicates, parse_float=_no_fraction)
    except (ValueError, RecursionError) as error:
        raise _invalid("request.json", "the request is not JSON", str(error)[:200]) from error


def _no_fraction(text: str) -> NoReturn:
    raise _invalid("request.number", "a number of the request has a fraction or an exponent", text[:32])


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise _invalid("request.duplicate", "a member of the request is given twice", repr(twice[:64]))
    return dict(pairs)


def _invalid(rule: str, what: str, found: str) -> GovrunError:
    return GovrunError(
        ExitCode.REQUEST_INVALID, rule, what, found=found, expected="one JSON object, see schemas/request.v1.json"
    )
