"""What `doctor` finds through a server's URL and in the settings of its machine, and how all findings are printed."""
