"""Bars in a command's output: what a line says, which of several bars decides, and how they move the operation."""
