"""What bitnet.cpp can load: architectures, tensor types and their sizes, and the tokens that are not text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from govrun.backends import gguf
from govrun.backends.files import readable_file, refusal
from govrun.backends.gguf import ArraySpan, Header, Tensor
from govrun.backends.interface import Check
from govrun.errors import GovrunError
from govrun.frozen import frozen

ARCHITECTURES: Final = ("bitnet", "bitnet-25", "bitnet-b1.58", "falcon", "llama")

I2_S, TL1, TL2 = 36, 38, 39

# Elements and bytes of one block by type number, as in the engine's own copy of ggml.
_BLOCKS: Final[dict[int, tuple[int, int]]] = dict(
    (
        *((0, (1, 4)), (1, (1, 2)), (2, (32, 18)), (3, (32, 20)), (6, (32, 22)), (7, (32, 24)), (8, (32, 34))),
        *((9, (32, 36)), (10, (256, 84)), (11, (256, 110)), (12, (256, 144)), (13, (256, 176)), (14, (256, 210))),
        *((15, (256, 292)), (16, (256, 66)), (17, (256, 74)), (18, (256, 98)), (19, (256, 50)), (20, (32, 18))),
        *((21, (256, 110)), (22, (256, 82)), (23, (256, 136)), (24, (1, 1)), (25, (1, 2)), (26, (1, 4))),
        *((27, (1, 8)), (28, (1, 8)), (29, (256, 56)), (30, (1, 2)), (31, (32, 18)), (32, (32, 18)), (33, (32, 18))),
        *((34, (256, 54)), (35, (256, 66)), (37, (1, 1))),
    )
)

# Token types of a vocabulary (LLAMA_TOKEN_TYPE_*): the engine looks for these anywhere in a prompt, before all else.
_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4

# The engine makes these control tokens wherever a vocabulary has them, whatever their type says.
_ALWAYS_CONTROL: Final = frozenset(
    token.encode()
    for token in (
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<EOT>", "<|eom_id|>"),
        # Full-width bars and lower blocks, as one family of models has them.
        *("<\uff5cend\u2581of\u2581sentence\uff5c>", "<\uff5cfim\u2581begin\uff5c>"),
        *("<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),
        *("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>", "<|fim_repo|>", "<|file_sep|>"),
        *("<fim-prefix>", "<fim-suffix>", "<fim-middle>", "<fim-pad>", "<fim-repo>", "<|repo_name|>"),
        *("<PRE>", "<SUF>", "<MID>", "<PAD>", "<REPO>"),
    )
)
MAX_SPECIAL_TOKENS: Final = 8192


@frozen
class SpecialToken:
    """A vocabulary entry that is not read as text. id: its place in the vocabulary."""

    id: int
    text: bytes


def tensor_bytes(tensor: Tensor) -> int | None:
    """The bytes of a tensor's data as the engine counts them (`ggml_nbytes`); None for a type it does not know."""
    elements = 1
    for size in tensor.dimensions:
        elements *= size
    if tensor.type in (I2_S, TL1):
        return elements // 4 + 32
    if tensor.type == TL2:
        columns = tensor.dimensions[0]
        rows = tensor.dimensions[1] if len(tensor.dimensions) > 1 else 1
        packed = max(columns - 256, 0) * rows // 3 * 5 // 8 + 256 * rows // 2 * 4 // 8
        return -(-packed // 32) * 32 + 32
    if tensor.type not in _BLOCKS:
        return None
    per_block, size = _BLOCKS[tensor.type]
    return -(-elements // per_block) * size


def data_end(header: Header) -> int:
    """The file offset at which the last tensor's data ends. All types must be known."""
    ends = (header.data_offset + t.offset + (tensor_bytes(t) or 0) for t in header.tensors)
    return max(ends, default=header.data_offset)


def context_length(header: Header) -> int | None:
    """The context, in tokens, that the model was trained on; None when the file does not say."""
    value = header.value(f"{header.value('general.architecture')}.context_length")
    return value if type(value) is int and value > 0 else None


def special_tokens(path: Path, header: Header) -> tuple[SpecialToken, ...]:
    """Every vocabulary entry that the engine would not read as text if a prompt contained it, by id.

    User-defined entries that are only white space are left out: they are text to the model. Raises GovrunError
    (preflight-refused) when the model has no readable vocabulary.
    """
    tokens = header.value("tokenizer.ggml.tokens")
    if not isinstance(tokens, ArraySpan) or tokens.count == 0:
        raise _refused("the model has no vocabulary", "no tokenizer.ggml.tokens", "an array of strings")
    types = header.value("tokenizer.ggml.token_type")
    kinds = gguf.read_int32s(path, types) if isinstance(types, ArraySpan) else ()
    if kinds and len(kinds) != tokens.count:
        raise _refused("the vocabulary has two lengths", f"{len(kinds)} types", f"{tokens.count} types")
    found = tuple(
        SpecialToken(number, text)
        for number, text in enumerate(gguf.read_texts(path, tokens))
        if text and _is_special(kinds[number] if kinds else 1, text)
    )
    if len(found) > MAX_SPECIAL_TOKENS:
        raise _refused("the vocabulary has too many special tokens", str(len(found)), f"at most {MAX_SPECIAL_TOKENS}")
    return found


def _is_special(kind: int, text: bytes) -> bool:
    if kind == _USER_DEFINED:
        return not text.isspace()
    return kind in (_UNKNOWN, _CONTROL) or text in _ALWAYS_CONTROL


def _refused(what: str, found: str, expected: str) -> GovrunError:
    return refusal("bitnet.model.vocabulary", what, found, expected, "convert the model again")


def load_header(model: Path) -> Header:
    """The model's header. Raises GovrunError (preflight-refused, `bitnet.model.header`)."""
    try:
        return gguf.read_header(model)
    except GovrunError as error:
        raise _as_refusal("bitnet.model.header", error, "download the model again") from error


def model_checks(model: Path, header: Callable[[], Header]) -> Iterable[Check]:
    """Whether the model is one whole file that the engine loads. header: reads its header, once."""

    def present() -> bool:
        readable_file("bitnet.model.present", "the model", model, "set BITNET_MODEL_GGUF to a GGUF file")
        return True

    yield Check("bitnet.model.present", "the model is there", present, ("bitnet.model.local",))
    for rule, what, run, need in (
        ("magic", "the model is a GGUF file", functools.partial(_magic, model), "present"),
        ("version", "the model's GGUF version is supported", functools.partial(_version, model), "magic"),
        ("header", "the model's header is whole and sane", lambda: bool(header()), "version"),
        ("architecture", "the engine knows the model's architecture", lambda: _architecture(header()), "header"),
        ("whole", "the model is one file", lambda: _whole(header()), "header"),
        ("tensors", "the engine knows the types of the model's tensors", lambda: _tensors(header()), "header"),
        ("complete", "the model's data is all there", lambda: _complete(header()), "tensors"),
    ):
        yield Check(f"bitnet.model.{rule}", what, run, (f"bitnet.model.{need}",))


def _magic(model: Path) -> bool:
    try:
        gguf.read_version(model)
    except GovrunError as error:
        raise _as_refusal("bitnet.model.magic", error, "set BITNET_MODEL_GGUF to a GGUF file") from error
    return True


def _version(model: Path) -> bool:
    version = gguf.read_version(model)
    if version not in gguf.VERSIONS:
        # The engine loads other numbers without a word.
        expected = " or ".join(map(str, gguf.VERSIONS))
        what, fix = "the model's GGUF version is not supported", "convert the model again"
        raise refusal("bitnet.model.version", what, str(version), expected, fix)
    return True


def _architecture(header: Header) -> bool:
    found = header.value("general.architecture")
    if found not in ARCHITECTURES:
        what, fix = "this is not a model of bitnet.cpp", "use a model that bitnet.cpp lists"
        raise refusal("bitnet.model.architecture", what, ascii(found)[:64], ", ".join(ARCHITECTURES), fix)
    return True


def _whole(header: Header) -> bool:
    parts = header.value("split.count")
    if parts not in (None, 0, 1):
        # The engine would load the other parts by itself, and nothing would have hashed them.
        what = "the model is one part of several"
        raise refusal("bitnet.model.whole", what, ascii(parts)[:64], "one file", "merge the parts")
    return True


def _tensors(header: Header) -> bool:
    if not header.tensors:
        raise refusal(
            "bitnet.model.tensors", "the model has no weights", "no tensors", "at least one", "download it again"
        )
    unknown = sorted({tensor.type for tensor in header.tensors if tensor_bytes(tensor) is None})
    if unknown:
        found, fix = ", ".join(map(str, unknown[:8])), "convert the model with the tools of bitnet.cpp"
        raise refusal(
            "bitnet.model.tensors", "the model has tensors of unknown types", found, "types of bitnet.cpp", fix
        )
    return True


def _complete(header: Header) -> bool:
    end = data_end(header)
    if end > header.file_size:
        found, expected = f"{header.file_size} bytes", f"at least {end} bytes"
        raise refusal("bitnet.model.complete", "the model is cut short", found, expected, "download the model again")
    return True


def _as_refusal(rule: str, error: GovrunError, fix: str) -> GovrunError:
    return refusal(rule, error.what, error.found or "nothing", error.expected or "something else", fix)
