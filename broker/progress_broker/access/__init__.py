"""Access state that replicas share through Redis: revocations, takeovers of connections, the shared secret."""
