"""Errors in the words of the command: the package's messages speak to Python programs."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["NAMES", "PHRASES", "worded"]

PHRASES: Final = {
    "; .values holds the values that were read.": ".",
    " See .written, .unwritten, .unknown and .errors.": "",
    "Repeating the call is safe.": "Repeating the command is safe.",
    "(token=, or ASTRA_DB_APPLICATION_TOKEN)": "(--token @FILE, or ASTRA_DB_APPLICATION_TOKEN of the environment)",
    "give the token as token=": "give the token by --token @FILE",
    "raise request_timeout_s and deadline_s, or try later": "try later",
    "or say to replace it": "or give --replace",
    "Opening the store with SetupMode.SYNC creates it.": "lckv set creates it.",
    "create it first (a store does unless its set-up mode is OFF)": "lckv set creates it",
    "make it with setup_mode=SetupMode.SYNC, or create_schema() of SQLStore.": "lckv set makes it, or check the name.",
    "store None or text": "store null or text",
}
"""What stands in a message, and what stands in its place."""

NAMES: Final = {"deadline_s": "--timeout"}
"""Arguments of Python, and the options that are the same."""


def worded(text: str) -> str:
    """Return a message of the package as the command says it, in one line."""
    from langchain_kv.places.forms import FORMS, FORMS_IN_A_LINE

    text = text.replace(f"one of:\n{FORMS}", FORMS_IN_A_LINE)
    for phrase, ours in PHRASES.items():
        text = text.replace(phrase, ours)
    for name, option in NAMES.items():
        text = re.sub(rf"\b{name}\b", option, text)
    return " ".join(text.split())
