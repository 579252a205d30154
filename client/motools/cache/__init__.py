"""The cache that many training and evaluation jobs of one machine share.

Layer: motools.cache. Imports motoolsd.wire and nothing of motools outside its own folder, so that the folder can stand
in for the older package's.
Invariant: importing it loads no event loop, no SQLite and no terminal library; each name is loaded when it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from motoolsd.wire.version import __version__

if TYPE_CHECKING:
    from motools.cache.backups import Backup as Backup
    from motools.cache.base import CacheBackend as CacheBackend
    from motools.cache.cache import Cache as Cache
    from motools.cache.cache import SQLiteCache as SQLiteCache
    from motools.cache.cleaning import CleanupPlan as CleanupPlan
    from motools.cache.cleaning import CleanupResult as CleanupResult
    from motools.cache.cleaning import EntrySize as EntrySize
    from motools.cache.cleaning import Finding as Finding
    from motools.cache.cleaning import KeptPath as KeptPath
    from motools.cache.cleaning import OnProgress as OnProgress
    from motools.cache.cleaning import PlanItem as PlanItem
    from motools.cache.cleaning import Progress as Progress
    from motools.cache.cleaning import ProtectedEntry as ProtectedEntry
    from motools.cache.cleaning import SizeReport as SizeReport
    from motools.cache.cleaning import TrashItem as TrashItem
    from motools.cache.cleaning import VerifyReport as VerifyReport
    from motools.cache.entries import CacheStats as CacheStats
    from motools.cache.entries import DatasetEntry as DatasetEntry
    from motools.cache.entries import EvalEntry as EvalEntry
    from motools.cache.entries import EvalHits as EvalHits
    from motools.cache.entries import LeaseEntry as LeaseEntry
    from motools.cache.entries import ModelEntry as ModelEntry
    from motools.cache.errors import AmbiguousName as AmbiguousName
    from motools.cache.errors import CacheDirectoryMissing as CacheDirectoryMissing
    from motools.cache.errors import CacheError as CacheError
    from motools.cache.errors import CacheProtocolError as CacheProtocolError
    from motools.cache.errors import CacheRequestError as CacheRequestError
    from motools.cache.errors import CacheUnavailable as CacheUnavailable
    from motools.cache.errors import ClaimDeadlock as ClaimDeadlock
    from motools.cache.errors import ClaimTimeout as ClaimTimeout
    from motools.cache.errors import ComputationFailed as ComputationFailed
    from motools.cache.errors import ConnectionLost as ConnectionLost
    from motools.cache.errors import CorruptDatabase as CorruptDatabase
    from motools.cache.errors import DaemonBusy as DaemonBusy
    from motools.cache.errors import DaemonNotRunning as DaemonNotRunning
    from motools.cache.errors import EntryNotFound as EntryNotFound
    from motools.cache.errors import EntryProtected as EntryProtected
    from motools.cache.errors import PeerRefused as PeerRefused
    from motools.cache.errors import PlanOutdated as PlanOutdated
    from motools.cache.errors import SchemaTooNew as SchemaTooNew
    from motools.cache.errors import StaleLease as StaleLease
    from motools.cache.errors import StorageFailed as StorageFailed
    from motools.cache.errors import UncacheableConfigError as UncacheableConfigError
    from motools.cache.errors import UnknownOperation as UnknownOperation
    from motools.cache.errors import UnsupportedFilesystem as UnsupportedFilesystem
    from motools.cache.errors import VersionMismatch as VersionMismatch
    from motools.cache.explanations import Difference as Difference
    from motools.cache.explanations import EntryDetails as EntryDetails
    from motools.cache.explanations import EntryName as EntryName
    from motools.cache.explanations import Explanation as Explanation
    from motools.cache.explanations import Lineage as Lineage
    from motools.cache.explanations import LineageNode as LineageNode
    from motools.cache.explanations import Listing as Listing
    from motools.cache.explanations import Miss as Miss
    from motools.cache.explanations import NearEntry as NearEntry
    from motools.cache.explanations import Usage as Usage
    from motools.cache.filtering import AnyFilterOptions as AnyFilterOptions
    from motools.cache.filtering import FilterOptions as FilterOptions
    from motools.cache.keys import hash_content as hash_content
    from motools.cache.keys import hash_dict as hash_dict
    from motools.cache.keys import make_eval_cache_key as make_eval_cache_key
    from motools.cache.keys import make_model_cache_key as make_model_cache_key
    from motools.cache.memory import InMemoryCache as InMemoryCache
    from motools.cache.recording import CachePolicy as CachePolicy
    from motools.cache.recording import RecordOptions as RecordOptions
    from motools.cache.sync import SyncCache as SyncCache
    from motools.cache.utils import CacheUtils as CacheUtils
    from motoolsd.wire.diagnosis import Diagnosis as Diagnosis
    from motoolsd.wire.diagnosis import HealthCheck as HealthCheck
    from motoolsd.wire.diagnosis import LockHolder as LockHolder
    from motoolsd.wire.diagnosis import Mend as Mend
    from motoolsd.wire.diagnosis import Mended as Mended
    from motoolsd.wire.diagnosis import SqliteHealth as SqliteHealth
    from motoolsd.wire.diagnosis import Verdict as Verdict
    from motoolsd.wire.origins import Origin as Origin

_MODULES = {
    "backups": "Backup",
    "base": "CacheBackend",
    "cache": "Cache SQLiteCache",
    "cleaning": "CleanupPlan CleanupResult EntrySize Finding KeptPath OnProgress PlanItem Progress ProtectedEntry"
    " SizeReport TrashItem VerifyReport",
    "doctor": "Diagnosis HealthCheck LockHolder Mend Mended SqliteHealth Verdict",
    "entries": "CacheStats DatasetEntry EvalEntry EvalHits LeaseEntry ModelEntry",
    "errors": "AmbiguousName CacheDirectoryMissing CacheError CacheProtocolError CacheRequestError CacheUnavailable"
    " ClaimDeadlock"
    " ClaimTimeout ComputationFailed ConnectionLost CorruptDatabase DaemonBusy DaemonNotRunning EntryNotFound"
    " EntryProtected PeerRefused PlanOutdated SchemaTooNew StaleLease StorageFailed UncacheableConfigError"
    " UnknownOperation UnsupportedFilesystem VersionMismatch",
    "explanations": "Difference EntryDetails EntryName Explanation Lineage LineageNode Listing Miss NearEntry Usage",
    "filtering": "AnyFilterOptions FilterOptions",
    "keys": "hash_content hash_dict make_eval_cache_key make_model_cache_key",
    "memory": "InMemoryCache",
    "recording": "CachePolicy RecordOptions",
    "origin": "Origin",
    "sync": "SyncCache",
    "utils": "CacheUtils",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}

__all__ = ["__version__", *_MODULE_OF]  # noqa: PLE0604 - the names are texts


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a class or a function
    """Load a name's module when the name is first used."""
    module = _MODULE_OF.get(name)
    if module is None:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What can be used, loaded or not."""
    return sorted({*globals(), *__all__})
