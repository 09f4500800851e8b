"""What decides who may still follow: revocations, takeovers, shared secrets."""
