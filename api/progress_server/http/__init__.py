"""What all requests have in common: paths, bodies, queries, and how a refusal looks."""
