"""What a process shows of itself in the metrics: its cache, what waits to be written, and who uses how much of it."""

from latchkey_server.domain.outcomes.notes import VerificationNotes
from latchkey_server.domain.turns import Turns
from latchkey_server.domain.usage.recorder import UsageRecorder
from latchkey_server.observability import Metrics
from latchkey_server.storage.verify.availability import Availability
from latchkey_server.storage.verify.cache import KeyCache
from latchkey_server.storage.verify.cached_records import CachedRecords
from latchkey_server.transport.admission import Admission, UnknownCredentials


class CacheHits:
    """Verifications that took no look-up: counted by what is counted anyway, so that a hit costs nothing."""

    def __init__(self, metrics: Metrics, records: CachedRecords) -> None:
        self._metrics = metrics
        self._records = records
        self._most = 0

    def __call__(self) -> int:
        """Return the number, which never falls: a look-up is counted a moment before its verdict is."""
        self._most = max(self._most, self._metrics.verdicts.total - self._records.looked_up)
        return self._most


def show_cache(metrics: Metrics, cache: KeyCache, records: CachedRecords, availability: Availability) -> None:
    """Show the cache and the database's availability in the metrics."""
    metrics.watch("latchkey_cached_keys", "Secrets of keys kept in memory.", lambda: len(cache.records))
    metrics.watch("latchkey_cached_bytes", "Bytes that they take, about.", lambda: cache.records.bytes)
    metrics.total("latchkey_cache_hits", "Verifications decided by what was in memory.", CacheHits(metrics, records))
    metrics.total("latchkey_cache_misses", "Secrets looked up in the database.", lambda: records.looked_up)
    metrics.total(
        "latchkey_cache_expirations",
        "Secrets asked for when the database had confirmed them too long ago.",
        lambda: records.expired,
    )
    metrics.total("latchkey_cache_evictions", "Secrets forgotten to make room.", lambda: cache.records.evicted)
    metrics.total(
        "latchkey_cache_invalidations",
        "Secrets forgotten since a change concerned them.",
        lambda: cache.records.invalidated,
    )
    metrics.watch(
        "latchkey_followed_workspaces", "Workspaces whose changes are followed.", lambda: len(cache.histories)
    )
    metrics.watch("latchkey_database_lost", "1 while the database can't be reached.", lambda: float(availability.lost))


def show_backlog(metrics: Metrics, recorder: UsageRecorder, notes: VerificationNotes) -> None:
    """Show in the metrics what waits to be written, and what was dropped."""
    metrics.watch("latchkey_usage_pending", "Usage events that wait to be written.", lambda: recorder.groups.pending)
    metrics.total(
        "latchkey_verification_counts_dropped",
        "Verifications that there was no room to count by outcome.",
        lambda: notes.counter.dropped,
    )
    metrics.total(
        "latchkey_key_uses_dropped", "Uses of keys that there was no room to remember.", lambda: notes.uses.dropped
    )


def show_shares(metrics: Metrics, admission: Admission, turns: Turns, unknown: UnknownCredentials) -> None:
    """Show in the metrics who uses how much of this process, by rank, and what was refused."""
    metrics.by_rank(
        "latchkey_turn_seconds", "Time on the event loop that workspaces had in turns, by rank.", turns.spent
    )
    metrics.total("latchkey_turns_waited", "Turns that were waited for.", lambda: turns.waited)
    metrics.watch("latchkey_frame_bytes", "Bytes of frames that are not answered.", lambda: admission.frames.bytes)
    metrics.total("latchkey_share_exceeded", "Calls and streams beyond a caller's share.", admission.refused.total)
    metrics.total(
        "latchkey_unknown_credentials_refused",
        "Calls refused without a look-up, since their address sent too many unknown credentials.",
        lambda: unknown.refused,
    )
