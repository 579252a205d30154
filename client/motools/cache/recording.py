"""What is stored with an entry beside its key and value: labels, version, metadata, how long it lasts, what it owns.

Layer: motools.cache. Imports arguments, errors, keys, and labels and masking when there is something for them.
Invariant: what comes out is within the wire's limits and holds no credentials.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypedDict, get_args

from msgspec import Struct

from motools.cache.arguments import check_seconds, json_bytes, text, ttl
from motools.cache.errors import CacheRequestError
from motoolsd.wire.fields import Outcome

OutcomeName = Literal["success", "failed", "refused", "partial"]
OnMismatch = Literal["miss", "warn", "ignore"]


class CachePolicy(Struct, frozen=True, kw_only=True):
    """What a lookup does with a value that was computed under another version than the client's.

    Versions are compared to the letter. A value without one goes with every client, and so does a development version
    (`1.2.dev3`, `1.2+dirty`, what `git describe` says behind a tag) on either side.

    Attributes:
        on_mismatch: `"miss"`: it is computed anew, and replaced; `"warn"`: it is a hit, and said in the log;
            `"ignore"`: it is a hit.

    Raises:
        CacheRequestError: `on_mismatch` is another word.
    """

    on_mismatch: OnMismatch = "miss"

    def __post_init__(self) -> None:
        """Check it."""
        if self.on_mismatch not in get_args(OnMismatch):
            words = ", ".join(f'"{word}"' for word in get_args(OnMismatch))
            raise CacheRequestError(f"on_mismatch is one of {words}, not {self.on_mismatch!r}")


class RecordOptions(TypedDict, total=False):
    """What may be stored with an entry.

    Attributes:
        ttl_s: it misses after so many seconds; None: it lasts.
        labels: beside those of the client and of `MOTOOLS_LABELS`, and over them.
        metadata: what else is to be known of it (cost, metrics): any JSON. A number under `cost` is summed up as saved
            at each hit.
        seconds: how long it took to compute; a claim measures that by itself.
        outcome: what is no `"success"` is kept and explained, but is never a hit and replaces none.
    """

    ttl_s: float | None
    labels: Mapping[str, str] | None
    metadata: Mapping[str, Any] | None
    seconds: float | None
    outcome: OutcomeName


class Record(Struct, frozen=True, kw_only=True):
    """The same, checked; an option of another name is a TypeError."""

    ttl_s: float | None = None
    labels: Mapping[str, str] | None = None
    metadata: Mapping[str, Any] | None = None
    seconds: float | None = None
    outcome: OutcomeName = "success"

    def __post_init__(self) -> None:
        """Check what costs nothing.

        Raises:
            CacheRequestError: an option makes no sense.
        """
        ttl(self.ttl_s)
        if self.seconds is not None:
            check_seconds(self.seconds, "seconds")
        if self.outcome not in get_args(OutcomeName):
            words = ", ".join(f'"{word}"' for word in get_args(OutcomeName))
            raise CacheRequestError(f"outcome is one of {words}, not {self.outcome!r}")
        if self.metadata is not None and not isinstance(self.metadata, Mapping):
            raise CacheRequestError(f"metadata must be a mapping, not {type(self.metadata).__name__}")

    def fields(self, provenance: Provenance) -> dict[str, Any]:
        """The fields of a Put.

        Raises:
            CacheRequestError: a label is no text, or the metadata no JSON.
        """
        labels = provenance.with_labels(self.labels).labels if self.labels else provenance.labels
        fields: dict[str, Any] = {"labels": labels, "version": provenance.version}
        if self.ttl_s is not None:
            fields["ttl_s"] = ttl(self.ttl_s)
        if self.seconds is not None:
            fields["seconds"] = float(self.seconds)
        if self.metadata:
            fields["metadata"] = json_bytes(masked(self.metadata), "metadata")
        if self.outcome != "success":
            fields["outcome"] = Outcome(self.outcome)
        return fields


PLAIN: Final = Record()


def masked(value: Any) -> Any:  # noqa: ANN401 - any JSON
    """A copy of a mapping without credentials."""
    from motools.cache.masking import mask_mapping  # its patterns take milliseconds to compile

    return mask_mapping(value)


def masked_json(value: Any, whole: bytes, what: str) -> bytes | None:  # noqa: ANN401 - any JSON
    """The JSON of a mapping without credentials; None where that is all of it."""
    hidden = json_bytes(masked(value), what)
    return None if hidden == whole else hidden


class Provenance:
    """What a client adds to everything that it stores, and asks by."""

    __slots__ = ("labels", "policy", "version")

    def __init__(
        self, labels: Mapping[str, str] | None, version: str | None, policy: CachePolicy | None = None
    ) -> None:
        """Check all of it.

        Raises:
            CacheRequestError: a label is no text, or the version none, or the policy.
        """
        self.labels: dict[str, str] = {}
        if labels:
            from motools.cache.labels import checked_labels, merged_labels

            self.labels = checked_labels(merged_labels(labels))
        self.version = None if version is None else text(version, "version")
        if policy is not None and not isinstance(policy, CachePolicy):
            raise CacheRequestError(f"policy must be a CachePolicy, not {type(policy).__name__}")
        self.policy = CachePolicy() if policy is None else policy

    def with_labels(self, labels: Mapping[str, str]) -> Provenance:
        """The same with more labels, for one entry.

        Raises:
            CacheRequestError: one is no text.
        """
        if not labels:
            return self
        from motools.cache.labels import merged_labels

        return Provenance(merged_labels(self.labels, labels), self.version, self.policy)

    @property
    def asked_version(self) -> str | None:
        """The version that lookups ask by; None: any will do."""
        return None if self.policy.on_mismatch == "ignore" else self.version

    @property
    def is_strict(self) -> bool:
        """Whether another version misses."""
        return self.policy.on_mismatch == "miss"


class Owned(Struct, frozen=True, kw_only=True):
    """What an entry has beside its key and value.

    Attributes:
        files: of a model, the paths of its files, relative to the cache directory.
        logs: the same of evaluations, by task id.
        staged: of a dataset, its content's name in staging.
        record: the rest.
    """

    files: tuple[bytes, ...] = ()
    logs: Mapping[str, bytes] = {}
    staged: bytes | None = None
    record: Record = PLAIN


NOTHING: Final = Owned()
