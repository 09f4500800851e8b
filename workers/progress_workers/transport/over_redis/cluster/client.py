"""A client whose commands go to the nodes that have their keys."""

from typing import Any

import redis

from progress_broker.nodes.node import unparsed
from progress_broker.routing.command_keys import key_of
from progress_broker.routing.health import NodeAway
from progress_broker.routing.known_nodes import of_node
from progress_broker.routing.plan import did_not_run
from progress_broker.routing.server_errors import FAILURES
from progress_workers.transport.over_redis.cluster.nodes import ClusterNodes


class ClusterClient(redis.Redis):
    """The library's methods, for commands that name a key."""

    def __init__(self, nodes: ClusterNodes) -> None:
        super().__init__()  # its pool is never used
        self._nodes = nodes
        unparsed(self)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command."""
        try:
            return self._execute(*args, **options)
        except NodeAway as error:
            if not self._nodes.known.well:
                raise redis.ConnectionError(str(error)) from None
            raise

    def _execute(self, *args: Any, **options: Any) -> Any:
        key = key_of(args)
        if key is not None:
            node = self._nodes.owner(key if isinstance(key, str) else key.decode())
            try:
                return node.client.execute_command(*args, **options)
            except FAILURES as error:
                node.heard(error)
                if not did_not_run(error):
                    raise of_node(node.endpoint, error) from None
        (reply,) = self._nodes.carry([(args, options)], [None])
        if isinstance(reply, Exception):
            raise reply
        return reply
