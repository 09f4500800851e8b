"""Hash slots: how a Redis Cluster divides keys between its nodes."""

from binascii import crc_hqx

SLOTS = 16384


def hash_slot(tag: bytes) -> int:
    """Return the cluster slot of a hash tag: CRC-16/XMODEM modulo 16384 (Redis Cluster specification)."""
    return crc_hqx(tag, 0) % SLOTS
