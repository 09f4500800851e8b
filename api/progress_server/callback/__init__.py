"""`PROGRESS_AUTH=callback`: the user's own back end decides who may come in (docs/callback.md)."""
