"""`PROGRESS_AUTH=callback`: the user's own back end decides who may come in (docs/how-to/callback.md)."""
