"""What every request passes before its route, in one order."""
