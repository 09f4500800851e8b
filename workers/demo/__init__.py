"""The demo's workers: three pieces of real work that report how they are going."""
