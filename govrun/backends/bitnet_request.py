"""What a request may ask of bitnet.cpp: parameters that fit, and a prompt that arrives as it was written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from govrun.backends.bitnet_model import context_length, special_tokens
from govrun.backends.bitnet_site import Site
from govrun.backends.files import refusal
from govrun.backends.gguf import Header
from govrun.backends.interface import Check, Inquiry
from govrun.template import MAX_WORD_BYTES

PROMPT_FLAG: Final = "--prompt="

# The engine keeps four places of the context free and wants at least one token of prompt.
_RESERVED_TOKENS: Final = 5


def escape(prompt: str) -> str:
    r"""Double every backslash: llama-cli rewrites `\n`, `\x41` and their like in a prompt, and `\\` to one of them."""
    return prompt.replace("\\", "\\\\")


def unescape(prompt: str) -> str:
    r"""The inverse of `escape`, and what llama-cli makes of an escaped prompt."""
    return prompt.replace("\\\\", "\\")


def parameter_checks(inquiry: Inquiry, header: Callable[[], Header]) -> Iterable[Check]:
    """Whether the parameters, each in its own range already, fit the machine, the model and each other."""
    yield Check("bitnet.threads.available", "there is a processor for every thread", lambda: _threads(inquiry))
    yield Check("bitnet.context.room", "the answer fits into the context", lambda: _room(inquiry))
    what = "the model was trained on so long a context"
    needs = ("bitnet.model.header",)
    yield Check("bitnet.context.trained", what, lambda: _trained(inquiry, header()), needs)


def _threads(inquiry: Inquiry) -> bool:
    asked, available = _number(inquiry, "threads"), len(os.sched_getaffinity(0))
    if asked > available:
        # The engine's threads spin while they wait for each other: with more of them than processors it can hang.
        expected = f"at most {available}, the processors of this process"
        raise refusal("bitnet.threads.available", "too many threads", str(asked), expected, "lower BITNET_THREADS")
    return True


def _room(inquiry: Inquiry) -> bool:
    context, wanted = _number(inquiry, "context"), _number(inquiry, "maxTokens")
    most = context - _RESERVED_TOKENS
    if wanted > most:
        what, fix = "the answer does not fit into the context", "lower BITNET_N_PREDICT or raise BITNET_CTX"
        raise refusal("bitnet.context.room", what, f"{wanted} tokens", f"at most {most} of {context} tokens", fix)
    return True


def _trained(inquiry: Inquiry, header: Header) -> bool:
    context, length = _number(inquiry, "context"), context_length(header)
    if length is not None and context > length:
        what = "the model was not trained on so long a context"
        raise refusal("bitnet.context.trained", what, f"{context} tokens", f"at most {length}", "lower BITNET_CTX")
    return length is not None


def _number(inquiry: Inquiry, name: str) -> int:
    value = inquiry.parameter(name)
    if value is None:
        raise ValueError(f"{name} has no value")
    return int(value)


def prompt_checks(site: Site, inquiry: Inquiry, header: Callable[[], Header]) -> Iterable[Check]:
    """Whether the prompt can reach the model as the text it is."""
    prompt = inquiry.request.prompt or b""
    yield Check("bitnet.request.plain", "the request brings no arguments of its own", lambda: _plain(inquiry))
    yield Check("bitnet.prompt.set", "there is a prompt", lambda: _set(prompt))
    yield Check("bitnet.prompt.text", "the prompt is UTF-8 without NUL", lambda: _text(prompt), ("bitnet.prompt.set",))
    what = "the prompt fits into one argument"
    yield Check("bitnet.prompt.size", what, lambda: site.wrapped and _size(prompt), ("bitnet.prompt.text",))
    what = "no part of the prompt is a control token of the model"
    needs = ("bitnet.prompt.set", "bitnet.model.header")
    yield Check("bitnet.prompt.tokens", what, lambda: _tokens(prompt, Path(site.model), header()), needs)


def _plain(inquiry: Inquiry) -> bool:
    if inquiry.request.argv:
        found, what = f"{len(inquiry.request.argv)} arguments", "this backend takes no arguments"
        raise refusal("bitnet.request.plain", what, found, "none after --", "use --prompt")
    return True


def _set(prompt: bytes) -> bool:
    if not prompt:
        # The engine would answer to nothing, and report counts that cannot be told apart.
        raise refusal("bitnet.prompt.set", "there is no prompt", "nothing", "at least one byte", "pass --prompt")
    return True


def _text(prompt: bytes) -> bool:
    if b"\0" in prompt:
        raise refusal("bitnet.prompt.text", "the prompt contains NUL", "NUL", "text", "remove it")
    try:
        prompt.decode("utf-8")
    except UnicodeDecodeError as error:
        # The engine's tokenizer aborts on it.
        found = f"byte {error.start} is not"
        raise refusal("bitnet.prompt.text", "the prompt is not UTF-8", found, "UTF-8", "convert it") from error
    return True


def _size(prompt: bytes) -> bool:
    size = len(PROMPT_FLAG) + len(prompt) + prompt.count(b"\\")
    if size > MAX_WORD_BYTES:
        what, found = "the prompt does not fit into one argument", f"{size} bytes with its flag and escapes"
        fix = "shorten it, or set BITNET_LAUNCHER=llama-cli, which takes prompts of any size"
        raise refusal("bitnet.prompt.size", what, found, f"at most {MAX_WORD_BYTES} bytes", fix)
    return True


def _tokens(prompt: bytes, model: Path, header: Header) -> bool:
    for token in special_tokens(model, header):
        if token.text in prompt:
            # With `-b 1` an end token in a prompt ends the run at once, with exit code 0 and no answer.
            what = "a part of the prompt would be read as a control token of the model"
            fix = "break the marker up, such as with a space; the engine has no way to quote it"
            raise refusal("bitnet.prompt.tokens", what, f"token {token.id}", "text alone", fix)
    return True
