"""All keys of the broker in Redis.

An operation belongs to the lane `crc32(id) % lanes`. All keys of a lane share a hash tag, so that one script can change
them together, also on a cluster.
"""

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2s
from zlib import crc32

from progress_broker.routing.slots import SLOTS, hash_slot


@lru_cache(maxsize=32)
def lane_tags(prefix: str, lanes: int) -> tuple[str, ...]:
    """Return a hash tag for each lane, chosen so that the lanes' slots are spread evenly over a cluster.

    Lane i gets the first of `prefix:i`, `prefix:i.1`, … whose slot lies in the i-th of `lanes` equal parts.
    """
    tags = []
    for lane in range(lanes):
        low, high = lane * SLOTS // lanes, (lane + 1) * SLOTS // lanes
        tag, attempt = f"{prefix}:{lane}", 0
        while not low <= hash_slot(tag.encode()) < high:
            attempt += 1
            tag = f"{prefix}:{lane}.{attempt}"
        tags.append(tag)
    return tuple(tags)


def meta_key(prefix: str) -> str:
    """Return the key of the values that all processes that share this Redis must agree on."""
    return f"{prefix}:meta"


def secrets_key(prefix: str) -> str:
    """Return the key of the replicas' secrets. Workers need no access to it: they use only lanes and the meta key."""
    return f"{prefix}:secrets"


def denied_key(prefix: str) -> str:
    """Return the key of the deny list."""
    return f"{prefix}:denied"


def replica_key(prefix: str, replica: str) -> str:
    """Return the key of what a replica tells of itself."""
    return f"{prefix}:replica:{replica}"


def replicas_key(prefix: str) -> str:
    """Return the key of the list of replicas."""
    return f"{prefix}:replicas"


def question_key(prefix: str, id: str) -> str:
    """Return the key of a question to all replicas. Workers have no access to it, so they can't ask."""
    return f"{prefix}:ask:{id}"


def answers_key(prefix: str, id: str) -> str:
    """Return the key of the answers to a question."""
    return f"{prefix}:answers:{id}"


def audit_keys(prefix: str) -> tuple[str, str]:
    """Return the keys of the audit: what was changed, and which operations were created."""
    return f"{prefix}:audit", f"{prefix}:audit:creates"


def limits_key(prefix: str) -> str:
    """Return the key of the limits of single principals."""
    return f"{prefix}:limits"


def copying_key(prefix: str) -> str:
    """Return the key of the `copy` that writes to this Redis."""
    return f"{prefix}:copying"


@dataclass(frozen=True, slots=True)
class LaneKeys:
    """The keys that the operations of a lane share."""

    feed: str
    index: str
    expiry: str
    leases: str
    operations: str
    """The prefix of the keys of single operations."""

    @property
    def losses(self) -> str:
        """The key of notes about history that Redis has lost."""
        return f"{self.feed}:losses"

    @property
    def policy(self) -> str:
        """The key of the lane's copy of the retention, which scripts read: a script can't read the meta key."""
        return f"{self.expiry}:policy"

    @property
    def creation_order(self) -> str:
        """The key of all operations, sorted by their creation: an order that never changes, so a walk misses none."""
        return f"{self.index}:order:created"

    def index_of(self, field: str, value: str) -> str:
        """Return the key of the index of operations whose `field` is `value`, sorted by last change."""
        return f"{self.index}:{field}:{value}"


@dataclass(frozen=True, slots=True)
class OperationKeys:
    """The keys of one operation, and those of its lane."""

    snapshot: str
    log: str
    signals: str
    lane: LaneKeys

    @property
    def kept(self) -> str:
        """The key of events that are too old for the log, except `progress`."""
        return f"{self.log}:kept"

    @property
    def curve(self) -> str:
        """The key of `progress` events that are too old for the log, spread evenly over the operation's life."""
        return f"{self.log}:curve"


@dataclass(frozen=True, slots=True)
class StagingKeys:
    """The keys of an operation that is being imported. They lie in its lane, and each has a TTL."""

    name: str
    log: str

    @property
    def all(self) -> tuple[str, ...]:
        """All of them, as scripts take them: the import's name, the log, the older events."""
        return (self.name, self.log, f"{self.log}:kept", f"{self.log}:curve")


@dataclass(frozen=True, slots=True)
class CallerKeys:
    """The keys by which replicas share one caller's limits."""

    streams: str
    requests: str
    sent: str


@dataclass(frozen=True, slots=True)
class Keyspace:
    """All keys under one prefix."""

    prefix: str
    lanes: int

    def lane_of(self, operation: str) -> int:
        """Return the number of an operation's lane."""
        return crc32(operation.encode()) % self.lanes

    def lane(self, lane: int) -> LaneKeys:
        """Return the keys of a lane."""
        tag = "{" + lane_tags(self.prefix, self.lanes)[lane] + "}"
        return LaneKeys(f"{tag}:feed", f"{tag}:index", f"{tag}:expiry", f"{tag}:leases", f"{tag}:op:")

    def operation(self, operation: str) -> OperationKeys:
        """Return the keys of an operation."""
        return self.operation_in(self.lane_of(operation), operation)

    def operation_in(self, number: int, operation: str) -> OperationKeys:
        """Return the keys of an operation in a given lane."""
        lane = self.lane(number)
        snapshot = lane.operations + operation
        return OperationKeys(snapshot, f"{snapshot}:events", f"{snapshot}:signals", lane)

    def staging(self, operation: str) -> StagingKeys:
        """Return the keys under which an operation is stored until it is whole."""
        lane = self.lane(self.lane_of(operation))
        name = f"{lane.operations.removesuffix('op:')}import:{operation}"
        return StagingKeys(name, f"{name}:events")

    def caller(self, who: str) -> CallerKeys:
        """Return the keys of a caller. They contain a hash of its name, which may be any text or personal data."""
        tag = f"{{{self.prefix}:caller:{blake2s(who.encode(), digest_size=12).hexdigest()}}}"
        return CallerKeys(f"{tag}:streams", f"{tag}:requests", f"{tag}:sent")
