"""Which names are those of credentials, and what credentials look like.

Layer: motools.cache. Imports nothing.
Invariant: a mistake costs a readable argument, never a secret: what is in doubt is judged by its value.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from functools import lru_cache
from typing import Final

NAME_SIZE_MAX: Final = 200
"""Characters of a name that are looked at, from its end."""
SECRET_SIZE_MIN: Final = 12


class Verdict(Enum):
    """What a name says of its value."""

    ORDINARY = auto()
    DOUBTFUL = auto()
    """It is one if it looks like one."""
    CREDENTIAL = auto()


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PARTS: Final = _words(
    "password passwd passphrase passcode secret credential bearer authoriz cookie sessionid apikey accesskey privatekey"
    " authkey signingkey encryptionkey accountkey masterkey sshkey licensekey servicekey sharedkey apitoken accesstoken"
    " authtoken refreshtoken sessiontoken bottoken"
)
"""Wherever they stand, whatever lies between their words: `OPENAI_API_KEY`, `apiKey`, `PGPASSWORD`."""
_CREDENTIALS: Final = _words("pwd pass passwort auth oauth jwt cred creds otp totp pat")
_DESCRIPTIVE: Final = _words(
    "file path dir directory column columns col field name names env var variable type mode method format url uri host"
    " endpoint port provider enabled required timeout length len size count limit prefix policy manager store version"
    " rate ttl expiry seconds scope scopes regex pattern strategy algorithm parallelism budget"
)
"""At the end of a name: it tells something about a credential, as in `--api-key-env NAME`."""
_TOKEN_OF_TEXT: Final = _words(
    "max min num n pad eos bos unk mask cls sep special image audio video stop start end new per type types level"
    " classification prompt completion input output total embedding embeddings vocab merge first last next context"
    " window batch weight loss dropout drop merging pruning price cost reasoning thinking assistant user system chat"
    " turn generated target source trigger"
)
"""Beside `token`: a piece of text."""
_KEY_OF_DATA: Final = _words(
    "column sort cache primary partition group text label input output image prompt field json foreign public join"
    " index map dict object routing row metric target source feature features response answer question score dedupe"
    " order unique lookup"
)
"""Before `key`: a place in data."""
_KEY_OWNERS: Final = _words(
    "api access secret private encryption signing account master ssh license service admin auth app client session"
    " deploy storage shared subscription openai anthropic hf huggingface wandb aws azure gcp google gemini cohere"
    " mistral together groq openrouter deepseek replicate comet neptune mlflow langsmith langchain xai nvidia pinecone"
    " weave modal tinker github gitlab ssl tls pgp gpg hmac aes rsa"
)
_LAST_WORD_DOUBTFUL: Final = _words("key keys tokens sig signature hash login")

_BOUNDARY: Final = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@lru_cache(maxsize=1024)
def judge_name(name: str) -> Verdict:
    """What a name says of its value: of an option, a variable, a header or a field, in any way of writing.

    Args:
        name: with or without dashes in front. Only its last `NAME_SIZE_MAX` characters count.
    """
    words = [word.lower().rstrip("0123456789") for word in _BOUNDARY.split(name[-NAME_SIZE_MAX:])]
    words = [word for word in words if word]
    if not words or words[-1] in _DESCRIPTIVE:
        return Verdict.ORDINARY
    joined = "".join(words)
    if any(part in joined for part in _PARTS) or not _CREDENTIALS.isdisjoint(words):
        return Verdict.CREDENTIAL
    if "token" in words or words[-1].endswith("token"):
        return Verdict.CREDENTIAL if _TOKEN_OF_TEXT.isdisjoint(words) else Verdict.ORDINARY
    if words[-1] == "tokens" and not _TOKEN_OF_TEXT.isdisjoint(words):
        return Verdict.ORDINARY
    return _judge_last_word(words)


def _judge_last_word(words: list[str]) -> Verdict:
    *before, last = words
    if last == "id" and before and before[-1] == "key":
        *before, last = before
    if last not in _LAST_WORD_DOUBTFUL:
        return Verdict.ORDINARY
    if last in {"key", "keys"} and before:
        if before[-1] in _KEY_OF_DATA:
            return Verdict.ORDINARY
        if not _KEY_OWNERS.isdisjoint(before):
            return Verdict.CREDENTIAL
    return Verdict.DOUBTFUL


_HARMLESS: Final = frozenset({"", "true", "false", "none", "null"})
_WORDLESS: Final = re.compile(r"[\w+=~!@#$%^&*:.-]+")


def is_secret(value: str, verdict: Verdict) -> bool:
    """Whether a value is to be masked that stands under a name of this verdict."""
    if verdict is Verdict.ORDINARY or value.lower() in _HARMLESS:
        return False
    return verdict is Verdict.CREDENTIAL or looks_random(value)


def looks_random(value: str) -> bool:
    """Whether a text could be a credential by its look: long, in one piece, of letters and digits."""
    if len(value) < SECRET_SIZE_MIN or _WORDLESS.fullmatch(value) is None:
        return False
    return any(one.isdigit() for one in value) and any(one.isalpha() for one in value)


SHAPES: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----(?:(?!-----END).)*+(?:-----END[A-Z ]*-----)?"
    r"|\beyJ[\w-]{8,}+(?:\.[\w-]*+){1,4}"  # a JSON Web Token
    r"|\bsk-(?=[\w-]{0,40}[\dA-Z])[\w-]{8,}"
    r"|\b[spr]k_(?:live|test)_\w{8,}|\bwhsec_\w{8,}"
    r"|\bhf_(?=[A-Za-z]{0,40}[A-Z\d])[A-Za-z\d]{8,}|\bhf_[a-z]{20,}"
    r"|\bgh[a-z]_\w{8,}|\bgithub_pat_\w{8,}|\bgl[a-z]{2,5}-[\w-]{12,}"
    r"|\b(?:AKIA|ASIA|AROA|AIDA)[0-9A-Z]{12,}|\bAIza[\w-]{20,}|\bya29\.[\w-]{8,}"
    r"|\bx(?:ox[a-z]|app)-[\w-]{8,}|hooks\.slack\.com/[\w/-]+|discord(?:app)?\.com/api/webhooks/[\w/-]+"
    r"|\b(?:npm|gsk|lsv2_pt|lsv2_sk|dckr_pat|dop_v1|r8|tgp_v1|wandb_v1|esecret|nvapi|pplx|xai|hvs|tml|SG|pypi|fw)"
    r"[_.-](?=[\w.-]{0,60}\d)[\w.-]{16,}"
    r"|\bdapi[0-9a-f]{16,}|\ba[ks]-(?=[A-Za-z]{0,40}\d)[A-Za-z\d]{16,}",
    re.DOTALL | re.ASCII,
)
"""Credentials that say by their form what they are, with or without a name."""

SCHEMES: Final = frozenset({"bearer", "basic", "token", "digest", "apikey", "negotiate", "aws4-hmac-sha256"})
"""Words that stand between `Authorization:` and the credential."""
SCHEME_VALUE: Final = re.compile(r"(?i)\b(bearer\s+|basic\s+(?=[A-Za-z0-9+/=]{0,99}[A-Z0-9=]))([\w.~+/=-]{8,})")
