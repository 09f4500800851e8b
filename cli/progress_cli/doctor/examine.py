"""All that doctor looks at, at the same time: the settings, Redis, and servers through their URLs."""

import asyncio
from collections.abc import Coroutine, Sequence

from progress_broker.diagnosis.redis import Examined, examine_redis
from progress_broker.settings import Settings, load_settings
from progress_cli import connect
from progress_cli.doctor.local import examine_settings


async def examine(settings: Settings, urls: Sequence[str], patience_s: float) -> Examined:
    """Return what is found in the settings, in Redis, and at the servers. A check may take `patience_s` seconds.

    Without an address of Redis and without URLs, it is the private Redis on this machine.
    """
    works: list[Coroutine[None, None, Examined]] = []
    if settings.redis_url is not None or not urls:
        works.append(examine_redis(connect.locate(settings), patience_s=patience_s))
    if urls:
        from progress_cli.doctor.url import examine_url  # needs more packages

        for url in urls:
            checked = load_settings(url=url).url or url
            works.append(examine_url(settings, checked, patience_s=patience_s, arrival_s=patience_s / 2))
    local, results = await asyncio.gather(examine_settings(settings, patience_s), asyncio.gather(*works))
    findings = [finding for examined in results for finding in examined.findings]
    return Examined([*local, *findings], any(examined.reached for examined in results))
