"""Tasks of which only one with the same arguments is sent for a while: ``unique_for=``."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import msgspec

from queue_core.worker.signature import Signature, plain

PREFIX: Final = "qc-unique-"

_encoder = msgspec.json.Encoder(enc_hook=repr, order="deterministic")


def unique_key(signature: Signature[Any]) -> str:
    """Return the key that calls of the same task with equal arguments share, and no others."""
    what = [signature.task, plain(signature.args), plain(signature.kwargs)]
    return PREFIX + hashlib.sha256(_encoder.encode(what)).hexdigest()
