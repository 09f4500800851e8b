"""`PROGRESS_AUTH=callback`: the user's own back end authorizes callers (docs/how-to/callback.md)."""
