"""The command line, `progress-broker …`: the top layer."""
