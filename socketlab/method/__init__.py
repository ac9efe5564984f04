"""SOCKET, in the order of README.md."""
