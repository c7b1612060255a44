"""The `packe` command, one file a group of commands; `app` puts them together."""
