"""Internal entries of the feeds: they tell all replicas something, and belong to no operation."""

from progress_broker.errors import StorageUnavailable
from progress_broker.nodes.redis_errors import storage_errors
from progress_broker.storage.connections import Connections
from progress_broker.storage.keys import Keyspace
from progress_broker.storage.lanes import lanes_by_node


async def publish_internal(connections: Connections, keyspace: Keyspace, name: bytes, data: bytes, lane: int) -> None:
    """Publish an entry in a lane's feed, or in that of another server if the lane's can't be reached.

    Every replica reads all lanes. `name` begins with `~`, as the id of no operation does. Raises `StorageUnavailable`
    if no server takes it, and `StorageFull`.
    """
    entry = {"o": name, "t": name[1:], "d": data}
    others = [lanes[0] for lanes in lanes_by_node(connections, keyspace) if lane not in lanes]
    for each in (lane, *others):
        try:
            with storage_errors():
                await connections.commands.xadd(keyspace.lane(each).feed, entry)  # publishing trims it
            return
        except StorageUnavailable:
            if each == (lane, *others)[-1]:
                raise
