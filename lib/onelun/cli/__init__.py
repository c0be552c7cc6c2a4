"""The `onelun` command."""
