"""Which Redis serves a key: addresses, hash slots, kinds of servers. Rules only, no I/O."""
